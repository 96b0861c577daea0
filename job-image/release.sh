#!/bin/bash
# make image: the job image of a release, as an OCI archive in dist/. ARCH is the architecture of the image (amd64 by
# default; another one needs that Rust target installed).
set -euo pipefail
cd "$(dirname "$0")/.."; . tests/cluster/cache.sh
tests/cluster/install-packages.sh
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
arch=${ARCH:-$(dpkg --print-architecture)}
case $arch in amd64) TARGET=x86_64-unknown-linux-gnu ;; arm64) TARGET=aarch64-unknown-linux-gnu ;; *) echo "unknown ARCH $arch" >&2; exit 2 ;; esac
cargo build --locked --release --target "$TARGET" --bin kubectl-backup
mkdir -p dist
image=${IMAGE:-ghcr.io/kubectl-backup/kubectl-backup:v$version}
FORMAT=oci-archive VERSION=$version job-image/build.sh "$CARGO_TARGET_DIR/$TARGET/release/kubectl-backup" "$arch" "$image" "dist/image-$arch.tar"
ls -l dist
