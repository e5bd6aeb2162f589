#!/usr/bin/env bash
# venv.sh PYTHON DIR REQUIREMENT... - a virtual environment with what is required installed.
#
# Makes DIR with PYTHON unless it has one of that version, and installs with pip. When Python's own
# ensurepip is missing (Debian ships it apart), it is installed as root, and named otherwise.
set -euo pipefail

PYTHON=$1 DIR=$2
shift 2

die() { echo "venv.sh: $*" >&2; exit 1; }

command -v "$PYTHON" >/dev/null ||
  die "there is no $PYTHON: install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3"
VERSION=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || die "$PYTHON does not run"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$PYTHON is Python $VERSION; Forebay needs 3.10 or newer: make PYTHON=/path/to/python3"

if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
  PACKAGE=python$VERSION-venv
  if ((EUID == 0)) && command -v apt-get >/dev/null; then
    echo "installing $PACKAGE" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes "$PACKAGE"; } \
      >/dev/null 2>&1 || true
  fi
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$PYTHON cannot make virtual environments; as root: apt-get install $PACKAGE"
fi

if ! "$DIR/bin/python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$VERSION')" 2>/dev/null; then
  "$PYTHON" -m venv --clear "$DIR"
fi
echo "installing into $DIR (Python $VERSION)" >&2
# Older ones try hundreds of versions before they find botocore's.
"$DIR/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25"
exec "$DIR/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
