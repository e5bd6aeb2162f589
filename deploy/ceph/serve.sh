#!/usr/bin/env bash
# serve.sh - the command of the container: a cluster in /data, until SIGTERM.
set -euo pipefail
script=$(dirname "$0")/ceph-dev.sh
"$script" start /data "$PORT"
sleep infinity &
trap 'kill $!' TERM INT
wait $! || true
"$script" stop /data
