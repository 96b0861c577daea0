#!/bin/bash
# Builds a kube-apiserver of an older minor version, once per version, for the tests of restores onto one; older/{go.mod,go.sum}
# are the pins. Prints the folder that holds it.
set -euo pipefail
cd "$(dirname "$0")"; . ./cache.sh

version=$(sed -n 's/.*k8s.io\/kubernetes v//p' older/go.mod)
base=k8s.io/component-base/version
ldflags="-s -w -X $base.gitVersion=v$version -X $base.gitMajor=${version%%.*} -X $base.gitMinor=$(cut -d. -f2 <<<"$version")"

bin=$CACHE/cluster/older-$(key older/{go.mod,go.sum,tools.go} build-older.sh)
if [ ! -e "$bin/.complete" ]; then
  mkdir -p "$bin"
  exec 8>"$bin.lock"; flock 8
fi
if [ ! -e "$bin/.complete" ]; then
  echo "building kube-apiserver $version (once; later runs find it in $bin)" >&2
  (cd older && CGO_ENABLED=0 go build -trimpath -tags=providerless -ldflags "$ldflags" -o "$bin/" k8s.io/kubernetes/cmd/kube-apiserver) >&2
  touch "$bin/.complete"
fi
echo "$bin"
