#!/usr/bin/env bash
# Lists stale workers, orphaned processes and abandoned locks of a directory; with --force does away with them.
# Everything is verified by lock, pid and start time by `stallproof cleanup`, which this calls; nothing is ended by name.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'EOF'
usage: ops/cleanup_stale_workers.sh [--dir DIR]... [--force] [--json]

  --dir DIR   a working directory; may be given several times (default: STALLPROOF_DIR, else the current one)
  --force     end the processes and empty the lock files; without it nothing is changed
  --json      one JSON array per directory

Exits 0 when done, 1 when something could not be cleared or found out, 2 on wrong usage.
EOF
}

dirs=() options=()
while [ $# -gt 0 ]; do
    case $1 in
        --dir)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            dirs+=("$2")
            shift
            ;;
        --dir=*) dirs+=("${1#--dir=}") ;;
        --force | --json) options+=("$1") ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
if [ ${#dirs[@]} -eq 0 ]; then dirs=("${STALLPROOF_DIR:-.}"); fi

stallproof=${STALLPROOF_BIN:-}
for candidate in "${CARGO_TARGET_DIR:-$here/../target}/release/stallproof" "$(command -v stallproof || true)"; do
    if [ -z "$stallproof" ] && [ -n "$candidate" ] && [ -x "$candidate" ]; then stallproof=$candidate; fi
done
if [ -z "$stallproof" ]; then
    printf 'error: no stallproof found; build it with "cargo build --release", or set STALLPROOF_BIN\n' >&2
    exit 1
fi

failed=0
for dir in "${dirs[@]}"; do
    if [ ${#dirs[@]} -gt 1 ] && [[ " ${options[*]-} " != *" --json "* ]]; then printf '%s:\n' "$dir"; fi
    "$stallproof" --dir "$dir" cleanup ${options[@]+"${options[@]}"} || failed=1
done
exit $failed
