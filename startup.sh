#!/usr/bin/env bash
# Builds stallproof, starts it in a directory and proves that it works. Needs a Rust toolchain and a C compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'EOF'
usage: ./startup.sh [--dir DIR] [--demo | --stop | --status | --help]

  (nothing)   build, stop the worker and monitor of DIR, start both anew, wait until ready, print the diagnosis
  --demo      the same in a scratch folder with sample ideas, until all are done; shows what came out
  --stop      stop the monitor and the worker of DIR; running jobs get time to end
  --status    show worker and monitor of DIR
  --dir DIR   the working directory (default: STALLPROOF_DIR, else the current directory)

Exits 0 when everything is healthy, 1 otherwise, 2 on wrong usage.
EOF
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

mode=start
dir=${STALLPROOF_DIR:-.}
while [ $# -gt 0 ]; do
    case $1 in
        --demo | --stop | --status) mode=${1#--} ;;
        --dir)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            dir=$2
            shift
            ;;
        --dir=*) dir=${1#--dir=} ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    shift
done

bin=${CARGO_TARGET_DIR:-$here/target}/release
stallproof=$bin/stallproof
health_monitor=$bin/health_monitor

build() {
    command -v cargo >/dev/null 2>&1 || die "cargo is missing; install a Rust toolchain first"
    command -v cc >/dev/null 2>&1 || die "cc is missing; install a C compiler first"
    say "building (the first time takes a few minutes)"
    cargo build --release --locked --manifest-path "$here/Cargo.toml"
}

# A worker that works is not stopped for one that cannot start.
check_config() {
    local said
    [ -e "$dir/stallproof.toml" ] || return 0
    said=$("$stallproof" --dir "$dir" check "$dir/stallproof.toml" 2>&1) && return 0
    printf '%s\n' "$said" >&2
    die "stallproof.toml cannot be used; nothing was stopped or started"
}

# The lock of the directory says who holds it; nothing is ever looked for by name.
stop_all() {
    "$health_monitor" --stop --dir "$dir"
    "$stallproof" --dir "$dir" drain
}

# Its own exit codes tell warning from critical; ours say healthy or not.
diagnose() { "$health_monitor" --diagnose --dir "$dir" || exit 1; }

start_detached() {
    local log=$1
    shift
    setsid nohup "$@" >>"$log" 2>&1 </dev/null &
    started_pid=$!
}

wait_ready() {
    local pid=$1 deadline=$((SECONDS + 120)) log=$dir/logs/worker.out
    until grep -q "\"pid\":$pid,.*\"state\":\"ready\"" "$dir/worker_status.json" 2>/dev/null; do
        kill -0 "$pid" 2>/dev/null || { tail -n 5 "$log" >&2; die "the worker ended before it was ready; see $log"; }
        [ $SECONDS -lt $deadline ] || die "the worker is not ready after 120 s; see $log"
        sleep 0.05
    done
}

start() {
    mkdir -p "$dir/logs"
    dir=$(cd "$dir" && pwd)
    check_config
    stop_all
    start_detached "$dir/logs/worker.out" "$stallproof" --dir "$dir" worker
    wait_ready "$started_pid"
    say "worker $started_pid is ready in $dir"
    start_detached "$dir/logs/health_monitor.out" "$health_monitor" --monitor --dir "$dir"
    say "health_monitor $started_pid watches it"
}

demo() {
    dir=$(mktemp -d "${TMPDIR:-/tmp}/stallproof-demo.XXXXXX")
    "$stallproof" --dir "$dir" demo --prepare-only
    start
    # Whatever happens from here on, the demo leaves no process behind.
    trap 'stop_all >/dev/null' EXIT
    "$stallproof" --dir "$dir" wait
    say
    "$stallproof" --dir "$dir" list --all
    say
    "$stallproof" --dir "$dir" list --all --state failed | awk 'NR > 1 { print $1 }' | while read -r id; do
        say "why $id failed: $("$stallproof" --dir "$dir" log --stderr "$id")"
    done
    say
    find "$dir/implementation_outputs" -type f | sort | sed "s|^$dir/|  |"
    say
    diagnose
    say "all of it is in $dir"
}

case $mode in
    start)
        build
        start
        diagnose
        ;;
    demo)
        build
        demo
        ;;
    stop)
        [ -x "$stallproof" ] || build
        stop_all || exit 1
        ;;
    status)
        [ -x "$stallproof" ] || build
        "$stallproof" --dir "$dir" status
        diagnose
        ;;
esac
