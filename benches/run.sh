#!/bin/bash
# make bench: the figures of benches/README.md, on a real API server and a real S3 server of this machine, with optimised
# code. Prints them as a table and fails when one is missed.
# BENCH_CLUSTER=a|b is the cluster that is started and taken down again; BENCH_SCALE=10 divides all loads by ten, to try
# the bench itself out.
set -euo pipefail
cd "$(dirname "$0")/.."; . tests/cluster/cache.sh
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
cluster=${BENCH_CLUSTER:-b} scale=${BENCH_SCALE:-1}
state=${KUBECTL_BACKUP_CLUSTERS:-/tmp/kubectl-backup-clusters}
if [ -e "$state/$cluster" ]; then
  echo "cluster $cluster is up, and what is in it would be lost: tests/cluster/down $cluster, or BENCH_CLUSTER=a|b" >&2
  exit 2
fi

step "packages"
tests/cluster/install-packages.sh

step "cluster binaries, and a release build"
tests/cluster/build-binaries.sh >"$CACHE/build-binaries.log" 2>&1 &
binaries=$!
# what the bench is made with decides what it measures: the release profile, static as in the image
cargo build --locked --release --target "$TARGET" --example figures
figures=$CARGO_TARGET_DIR/$TARGET/release/examples/figures
wait $binaries || { tail -n 30 "$CACHE/build-binaries.log"; exit 1; }

step "cluster and S3"
scratch=$(mktemp -d)
# a MinIO that runs already is somebody else's and stays as it is: the bench comes with MinIO's own keys
minio_is_up() { (. "$state/minio/env" && curl -sf -o /dev/null "$S3_ENDPOINT/minio/health/live") 2>/dev/null; }
minio_was_up=""; ! minio_is_up || minio_was_up=1
down() { tests/cluster/down "$cluster"; [ -n "$minio_was_up" ] || tests/cluster/minio down; rm -rf "$scratch"; }
trap down EXIT
# 2,000 Secrets of 1 MiB don't fit into the 2 GiB that etcd takes by default
export ETCD_QUOTA_BACKEND_BYTES=$((8 << 30))
tests/cluster/up "$cluster"
[ -n "$minio_was_up" ] || tests/cluster/minio up
. "$state/$cluster/env"; . "$state/minio/env"
export KUBECONFIG AWS_ACCESS_KEY_ID=$S3_ROOT_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$S3_ROOT_SECRET_ACCESS_KEY
export BENCH_LOCATION="s3://$S3_BUCKET/bench-$$?region=$S3_REGION&endpoint=$S3_ENDPOINT"
export BENCH_FIGURES=$scratch/figures

load() { step "a cluster of $1 objects"; "$figures" load "$1"; }
memory() { step "memory of a worker at $1"; "$figures" memory "$1"; }
load $((10000 / scale))
memory "$((10000 / scale)) objects"
load $((50000 / scale))
step "backup against plain lists"
"$figures" backup
step "CPU time of a backup's stages"
"$figures" stages
step "planning a restore against metadata lists"
"$figures" plan $((50 / scale > 0 ? 50 / scale : 1))
load $((100000 / scale))
memory "$((100000 / scale)) objects"
step "what other clients wait"
"$figures" neighbour
step "restore against plain POSTs"
"$figures" restore $((10 / scale > 0 ? 10 / scale : 1))

for namespaces in $((10 / scale > 0 ? 10 / scale : 1)) $((100 / scale > 1 ? 100 / scale : 2)); do
  step "memory of a restore of $namespaces,000 objects"
  "$figures" restore-memory "$namespaces"
done

step "an empty cluster again, and $((2000 / scale)) Secrets of 1 MiB"
tests/cluster/up "$cluster"
"$figures" load-secrets $((2000 / scale))
memory "$((2000 / scale)) Secrets of 1 MiB"

step "an empty cluster again, and $((20000 / scale)) Secrets of 4 KiB"
tests/cluster/up "$cluster"
"$figures" load-kind $((20000 / scale))
memory "$((20000 / scale)) Secrets of 4 KiB"

step "an empty cluster again, and $((2500 / scale)) namespaces"
tests/cluster/up "$cluster"
"$figures" load-namespaces $((2500 / scale))
memory "$((2500 / scale)) namespaces"

step "volumes, by the clock of a stand-in for EC2"
"$figures" volumes

step "figures"
"$figures" report
