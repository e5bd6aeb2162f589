#!/usr/bin/env bash
# tools.sh - install what some tests need beside Ceph, if that can be done: strace.
#
# Never fails: tests that lack it are skipped, and say so.
command -v strace >/dev/null && exit 0
((EUID == 0)) && command -v apt-get >/dev/null || exit 0
export DEBIAN_FRONTEND=noninteractive
{ apt-get install --yes --no-install-recommends strace ||
  { apt-get update && apt-get install --yes --no-install-recommends strace; }; } >/dev/null 2>&1
exit 0
