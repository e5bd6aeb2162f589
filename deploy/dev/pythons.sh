#!/usr/bin/env bash
# pythons.sh VERSION... - the interpreters of these versions that are found, "VERSION PATH" each.
#
# Looks at the command path, then at pyenv's. A name that does not run (a pyenv shim of a version
# that is not switched on) does not count.
set -euo pipefail

for version in "$@"; do
  for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    if path=$("$python" -c 'import sys; print(sys.executable)' 2>/dev/null); then
      echo "$version $path"
      break
    fi
  done
done
