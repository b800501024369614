#!/usr/bin/env bash
# Installs the programs that `cargo bench --bench peers` measures beside stallproof: GNU parallel, task-spooler and nq
# from Debian's packages, pueue from crates.io. `xargs` is there already. What is installed is left alone, and a peer
# that cannot be had is reported and skipped, as the bench itself skips it by name.
set -uo pipefail

usage() {
    cat <<'TEXT'
Usage: ops/install-peers.sh [--without-pueue]

Installs GNU parallel, task-spooler and nq with apt-get, and pueue with cargo (a build of some minutes).
  --without-pueue   do not build pueue
  --help            show this text
TEXT
}

WANT_PUEUE=yes
for argument in "$@"; do
    case "$argument" in
        --without-pueue) WANT_PUEUE=no ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

have() { command -v "$1" >/dev/null 2>&1; }

ROOT=()
[ "$(id -u)" -eq 0 ] || ROOT=(sudo)

# name of the program, name of Debian's package
install_package() {
    have "$1" && return 0
    have apt-get || { echo "$1: not installed, and there is no apt-get here" >&2; return 1; }
    "${ROOT[@]}" apt-get install -y --no-install-recommends "$2" && return 0
    # The lists of a fresh machine are empty or old.
    "${ROOT[@]}" apt-get update -q && "${ROOT[@]}" apt-get install -y --no-install-recommends "$2"
}

FAILED=()
install_package parallel parallel || FAILED+=(parallel)
install_package tsp task-spooler || FAILED+=(task-spooler)
install_package nq nq || FAILED+=(nq)
if [ "$WANT_PUEUE" = yes ] && ! { have pueue && have pueued; }; then
    cargo install --locked pueue || FAILED+=(pueue)
fi

for program in xargs parallel tsp nq pueue; do
    printf '%-10s %s\n' "$program" "$(command -v "$program" || echo 'not installed')"
done
[ "${#FAILED[@]}" -eq 0 ] || { echo "could not install: ${FAILED[*]}" >&2; exit 1; }
