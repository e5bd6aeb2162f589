#!/usr/bin/env bash
# docker.sh - install what the Docker tests need: an engine, both generations of compose.
#
# Debian, as root; elsewhere it does nothing, and the tests say what is missing. Compose v2 is of
# the next Debian and is unpacked into .tools/, beside the system.
set -euo pipefail
cd "$(dirname "$0")/../.."
((EUID == 0)) && command -v apt-get >/dev/null || exit 0
export DEBIAN_FRONTEND=noninteractive
APT=(apt-get -qq --yes --no-install-recommends)

missing=()
for package in docker.io docker-compose debootstrap; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
done
if ((${#missing[@]})); then
  # Its service is not wanted, and cannot be started in a container.
  { "${APT[@]}" install "${missing[@]}" || { apt-get -qq update && "${APT[@]}" install "${missing[@]}"; }; } >/dev/null
fi

tools=$PWD/.tools
[[ ! -x $tools/docker-compose ]] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/sources" "$work/lists/partial" "$tools"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Codename: bookworm' | head -n 1)
cat > "$work/sources/next.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
NEXT=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/sources"
      -o "Dir::State::lists=$work/lists" -o APT::Get::List-Cleanup=0)
apt-get -qq "${NEXT[@]}" update >/dev/null
(cd "$work" && apt-get -qq "${NEXT[@]}" download docker-compose 2>/dev/null)
dpkg-deb -x "$work"/docker-compose_*.deb "$work/root"
cp "$work/root/usr/libexec/docker/cli-plugins/docker-compose" "$tools/"
