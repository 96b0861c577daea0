#!/bin/bash
# Builds what the test cluster runs (etcd, Kubernetes, containerd, CNI plugins, MinIO) from pinned Go modules into the
# cache, once per version: tools/NAME/{go.mod,go.sum} are the pins. Prints the folder that holds the binaries.
set -euo pipefail
cd "$(dirname "$0")"; . ./cache.sh

flags_etcd=""
flags_containerd="-tags=no_btrfs,no_devmapper,no_zfs"
flags_cni=""
flags_minio=""
flags_kubernetes="-tags=providerless"
version=$(sed -n 's/.*k8s.io\/kubernetes v//p' tools/kubernetes/go.mod)
base=k8s.io/component-base/version
ldflags_kubernetes="-X $base.gitVersion=v$version -X $base.gitMajor=${version%%.*} -X $base.gitMinor=$(cut -d. -f2 <<<"$version")"

bin=$CACHE/cluster/bin-$(key tools/*/go.mod tools/*/go.sum tools/*/tools.go build-binaries.sh)
if [ ! -e "$bin/.complete" ]; then
  mkdir -p "$bin"
  exec 8>"$bin.lock"; flock 8 # two builds at once would take twice as long
fi
if [ ! -e "$bin/.complete" ]; then
  for tool in etcd containerd cni minio kubernetes; do
    flags=flags_$tool ldflags=ldflags_$tool
    packages=$(sed -n 's/^\t_ "\(.*\)"$/\1/p' "tools/$tool/tools.go")
    echo "building $tool (once; later runs find it in $bin)" >&2
    # shellcheck disable=SC2086
    (cd "tools/$tool" && CGO_ENABLED=0 go build -trimpath ${!flags} -ldflags "-s -w ${!ldflags:-}" -o "$bin/" $packages) >&2
  done
  mv "$bin/server" "$bin/etcd" # go names a program by the last part of its import path
  touch "$bin/.complete"
fi
echo "$bin"
