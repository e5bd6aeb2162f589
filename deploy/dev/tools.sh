#!/usr/bin/env bash
# tools.sh - install what some tests need beside Ceph, if that can be done: strace, Prometheus.
#
# Never fails: tests that lack one are skipped, and say so. No service is started.
packages=()
command -v strace >/dev/null || packages+=(strace)
command -v promtool >/dev/null || packages+=(prometheus)
((${#packages[@]} && EUID == 0)) && command -v apt-get >/dev/null || exit 0

POLICY=/usr/sbin/policy-rc.d # what Debian asks before a package starts its service
if [[ ! -e $POLICY ]]; then
  printf '#!/bin/sh\nexit 101\n' >"$POLICY" && chmod +x "$POLICY"
  trap 'rm -f "$POLICY"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install --yes --no-install-recommends)
{
  "${install[@]}" "${packages[@]}" || { apt-get update && "${install[@]}" "${packages[@]}"; }
  # Nor at the next boot: the tests start one of their own.
  [[ ${packages[*]} == *prometheus* ]] && command -v systemctl && systemctl disable prometheus
} >/dev/null 2>&1
exit 0
