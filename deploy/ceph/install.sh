#!/usr/bin/env bash
# install.sh - see to it that what ceph-dev.sh needs is installed.
#
# Returns 0 when it is there, or could be installed (Debian and Ubuntu, as root: some 40 s); 3 when
# it is not, with one line on stderr that says what to run.
set -euo pipefail

PACKAGES=(ceph-mon ceph-osd radosgw)
BINARIES=(ceph ceph-mon ceph-osd monmaptool radosgw radosgw-admin)

installed() {
  local binary
  for binary in "${BINARIES[@]}"; do command -v "$binary" >/dev/null || return 1; done
}

installed && exit 0
APT=(apt-get install --yes --no-install-recommends "${PACKAGES[@]}")
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
  echo "Ceph is not installed; as root: ${APT[*]}" >&2
  exit 3
fi
echo "installing Ceph: ${PACKAGES[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
if { apt-get update && "${APT[@]}"; } >"$LOG" 2>&1 && installed; then exit 0; fi
tail -n 15 "$LOG" >&2
echo "Ceph could not be installed; as root: ${APT[*]}" >&2
exit 3
