#!/bin/bash
# Builds the test cluster's own images into the cache, once per content: localhost/pause:1 and localhost/bb:1 (busybox).
# Prints the folder that holds pause.tar, bb.tar and the bare pause program, which is also the node's init.
set -euo pipefail
cd "$(dirname "$0")"; . ../cache.sh

images=$CACHE/cluster/images-$(key build.sh pause/* bb/* /bin/busybox)
if [ ! -e "$images" ]; then
  echo "building pause and bb images (once; later runs find them in $images)" >&2
  mkdir -p "$CACHE/cluster"
  work=$(mktemp -d "$images.XXXXXX"); trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{context/pause,context/bb/root/bin,context/bb/root/etc,done}

  musl-gcc -static -Os -s -o "$work/context/pause/pause" pause/pause.c
  cp "$work/context/pause/pause" "$work/done/"

  # the links are made here instead of by a RUN step, which would need a running container
  root=$work/context/bb/root
  cp /bin/busybox "$root/bin/"
  for command in $(/bin/busybox --list); do
    [ -e "$root/bin/$command" ] || ln -s busybox "$root/bin/$command"
  done
  printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
  mkdir -m 1777 "$root/tmp"

  for image in pause bb; do
    "$ROOT/job-image/build-archive.sh" "$image/Containerfile" "$work/context/$image" "$(dpkg --print-architecture)" \
      "localhost/$image:1" "$work/done/$image.tar"
  done
  mv -T "$work/done" "$images" 2>/dev/null || [ -e "$images" ] # another run may have been faster
fi
echo "$images"
