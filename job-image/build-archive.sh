#!/bin/bash
# build-archive.sh CONTAINERFILE CONTEXT ARCH IMAGE_REF OUTPUT.tar [BUILD_OPTION...]
# Builds an image that has no RUN steps (so for any architecture) and writes it as an archive that containerd imports:
# by default docker-archive with plain layers, the quickest to make and to load; FORMAT=oci-archive compresses them.
# The same input gives the same image: all times are set to 0.
set -euo pipefail
containerfile=$1 context=$2 arch=$3 ref=$4 output=$5; shift 5
format=${FORMAT:-docker-archive}

storage=${KUBECTL_BACKUP_CACHE:-$HOME/.cache/kubectl-backup}/image-storage
mkdir -p "$storage"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# vfs needs nothing of the kernel, and with one small layer an image it costs nothing
buildah() { command buildah --root "$storage/root" --runroot "$work/run" --storage-driver vfs "$@"; }

id=$(buildah build --quiet --isolation chroot --layers=false --timestamp 0 --os linux --arch "$arch" "$@" \
  --iidfile "$work/id" -f "$containerfile" "$context" && cat "$work/id")
id=${id##*sha256:}
# written beside and moved, so that nobody ever reads half an archive
rm -f "$output.part"
buildah push --quiet "$id" "$format:$output.part:$ref" >/dev/null
buildah rmi "$id" >/dev/null
mv "$output.part" "$output"
