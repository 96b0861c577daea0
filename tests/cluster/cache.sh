# Where compiled things are kept between runs and between clones: everything below one folder, every entry keyed by
# what it was made from, so that a changed version builds anew and an unchanged one is found.
# Sourced by every script that builds something; sets paths, does nothing.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${KUBECTL_BACKUP_CACHE:-$HOME/.cache/kubectl-backup}
export GOCACHE=$CACHE/go-build
export GOFLAGS=${GOFLAGS:--buildvcs=false}
TARGET=x86_64-unknown-linux-gnu
[ "$(uname -m)" = aarch64 ] && TARGET=aarch64-unknown-linux-gnu
# one cargo target folder for every clone on this machine, per compiler version
export CARGO_TARGET_DIR=$CACHE/target-$(rustc --version | cut -d' ' -f2)
# static everywhere: the binary that the tests run is the very file that goes into the job image
export RUSTFLAGS="-C target-feature=+crt-static"

# key FILE... : a short hash of the files' contents
key() { cat "$@" | sha256sum | cut -c1-12; }
