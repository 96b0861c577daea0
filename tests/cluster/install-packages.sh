#!/bin/bash
# Installs the Debian packages that the test cluster needs. Asks dpkg first, so that it costs nothing when all is there.
# Go (for build-binaries.sh) and Rust are expected to be there already.
set -euo pipefail

packages=(
  runc iproute2 iptables util-linux mount   # the node: containers, its network, its namespaces
  e2fsprogs xfsprogs                        # volumes for tests
  buildah musl-tools busybox-static         # images
  ca-certificates curl jq openssl procps    # the scripts, and the CA bundle that goes into the job image
)
# The S3 and IAM stand-in lives in a Python venv; any Python with ensurepip will do.
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv)

installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^ii *//p' || true)
missing=$(comm -23 <(printf '%s\n' "${packages[@]}" | sort) <(sort -u <<<"$installed"))
[ -n "$missing" ] || exit 0

# shellcheck disable=SC2086
echo "installing" $missing >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >&2
# shellcheck disable=SC2086
apt-get -q install -y --no-install-recommends $missing >&2
