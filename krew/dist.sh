#!/bin/bash
# make dist: the release archive for this machine's platform and the krew manifest that installs it, in dist/.
# Reproducible: sorted entries, no times, no owners. Try it with
#   kubectl krew install --manifest=dist/backup.yaml --archive=dist/<archive>
set -euo pipefail
cd "$(dirname "$0")/.."; . tests/cluster/cache.sh
unset RUSTFLAGS # on a laptop the C library is the system's own: it may need its name service modules
version=v$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
os=linux arch=$(dpkg --print-architecture)
cargo build --locked --release --target "$TARGET" --bin kubectl-backup

rm -rf dist; mkdir -p dist/files
cp "$CARGO_TARGET_DIR/$TARGET/release/kubectl-backup" LICENSE README.md dist/files/
name=kubectl-backup-$version-$os-$arch.tar.gz
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C dist/files -cf - . | gzip -n >"dist/$name"
rm -rf dist/files
sha256=$(sha256sum "dist/$name" | cut -d' ' -f1)
base=${DIST_URL:-https://github.com/kubectl-backup/kubectl-backup/releases/download/$version}
sed "1,2d; s#@VERSION@#$version#; s#@OS@#$os#; s#@ARCH@#$arch#; s#@URI@#$base/$name#; s#@SHA256@#$sha256#" krew/backup.yaml.in >dist/backup.yaml
(cd dist && sha256sum "$name" >SHA256SUMS)
ls -l dist
