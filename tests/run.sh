#!/bin/bash
# make test: everything, from a bare machine. Installs what it needs, builds what the cache lacks, checks format and
# lints, runs the tests that need no cluster, then starts two real clusters with MinIO and MiniStack and runs the rest
# through Jobs in them. A cluster that doesn't start fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."; . tests/cluster/cache.sh
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
# what failed is said once more at the very end, below the clusters' last words: many readers see a log's tail only
log=$(mktemp)
kept() { "$@" 2>&1 | tee -a "$log"; }
finish() {
  local code=$?
  trap - EXIT
  if [ $code != 0 ]; then
    [ -z "${clusters:-}" ] || tests/cluster/last-words.sh || true
    step "failed (exit code $code)"
    grep -A 5 'panicked at' "$log" | cut -c1-400 | tail -n 60 || true
    tail -n 25 "$log" | cut -c1-400
  fi
  [ -z "${clusters:-}" ] || down
  rm -f "$log"
  exit $code
}
trap finish EXIT

step "packages"
tests/cluster/install-packages.sh

step "cluster binaries and Rust dependencies (minutes when the cache is cold)"
{ tests/cluster/build-binaries.sh && tests/cluster/csi build && tests/cluster/build-older.sh; } >"$CACHE/build-binaries.log" 2>&1 &
binaries=$!
kept cargo fmt --check
kept cargo clippy --locked --quiet --target "$TARGET" --all-targets -- -D warnings
kept cargo build --locked --target "$TARGET" --all-targets
wait $binaries || { tail -n 30 "$CACHE/build-binaries.log"; exit 1; }

step "the stand-in for the CSI driver, as csi-sanity judges it"
kept tests/cluster/csi sanity

step "tests without a cluster"
kept cargo test --locked --target "$TARGET" --lib --bins --test floors --test faults --test ec2

step "one instant, and an older API server, on control planes of their own"
kept cargo test --locked --target "$TARGET" --test consistency

step "image"
. tests/cluster/job-image.sh
kept build_job_image

step "clusters"
down() { tests/cluster/minio down; tests/cluster/ministack down; tests/cluster/down a; tests/cluster/down b; }
clusters=started
kept tests/cluster/up a & a=$!
kept tests/cluster/up b & b=$!
wait $a; wait $b
kept tests/cluster/minio up
kept tests/cluster/ministack up
kept tests/cluster/csi up a
kept tests/cluster/load a "$JOB_IMAGE_TAR"
kept tests/cluster/load b "$JOB_IMAGE_TAR"

step "tests on the clusters"
export KUBECTL_BACKUP_TEST_IMAGE=$JOB_IMAGE
s3_test_environment
kept cargo test --locked --target "$TARGET" --test store_contract
rm -rf "${KUBECTL_BACKUP_CLUSTERS:-/tmp/kubectl-backup-clusters}"/{told,logs}
kept cargo test --locked --target "$TARGET" --test e2e -- --test-threads "${TEST_THREADS:-4}"

step "Secret values in what these tests left behind"
kept cargo test --locked --target "$TARGET" --test leaks
step "passed"
