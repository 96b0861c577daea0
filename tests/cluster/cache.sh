# Where compiled things are kept between runs and between clones: everything below one folder, every entry keyed by
# what it was made from, so that a changed version builds anew and an unchanged one is found.
# Sourced by every script that builds something.
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

# Cargo tells by file times whether to build again, and by paths within the checkout: what another checkout built last
# looks fresh to an older one. So the checkout that builds is noted, and another one's sources count as new.
if [ "$(cat "$CARGO_TARGET_DIR/checkout" 2>/dev/null)" != "$ROOT" ]; then
  mkdir -p "$CARGO_TARGET_DIR"
  find "$ROOT/src" "$ROOT/plugin" "$ROOT/tests" "$ROOT/benches" -name '*.rs' -exec touch {} + 2>/dev/null || true
  echo "$ROOT" >"$CARGO_TARGET_DIR/checkout"
fi

# key FILE... : a short hash of the files' contents
key() { cat "$@" | sha256sum | cut -c1-12; }
