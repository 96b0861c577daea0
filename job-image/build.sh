#!/bin/bash
# build.sh BINARY ARCH IMAGE_REF OUTPUT.tar
# Builds the image of the Jobs around a static BINARY for ARCH (amd64, arm64) and writes it as an archive.
# VERSION goes into the image's labels; FORMAT is docker-archive (plain layers, for tests) or oci-archive (compressed).
set -euo pipefail
if [ $# != 4 ]; then sed -n '2,4s/^# //p' "$0" >&2; exit 2; fi
binary=$1 arch=$2 ref=$3 output=$4
here=$(cd "$(dirname "$0")" && pwd)

if readelf -l "$binary" 2>/dev/null | grep -q INTERP; then
  echo "$binary is not static: it would not start in an image without libraries" >&2; exit 1
fi
context=$(mktemp -d); trap 'rm -rf "$context"' EXIT
install -m 755 "$binary" "$context/kubectl-backup"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$context/"
echo 'kubectl-backup:x:65532:65532:kubectl-backup:/:/kubectl-backup' >"$context/passwd"
"$here/build-archive.sh" "$here/Containerfile" "$context" "$arch" "$ref" "$output" --build-arg "VERSION=${VERSION:-0.0.0-dev}"
