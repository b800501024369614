#!/usr/bin/env bash
# The one gate: what a change must pass. Run by hand and by CI; needs a Rust toolchain and a C compiler, no more.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all -- --check

step "lints"
cargo clippy --locked --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --quiet

if command -v shellcheck >/dev/null 2>&1; then
    step "shell scripts"
    shellcheck startup.sh ops/*.sh .ci/run
fi

if command -v cargo-deny >/dev/null 2>&1; then
    step "dependencies"
    cargo deny --offline check bans licenses sources
else
    step "dependencies: skipped, cargo-deny is not installed (cargo install cargo-deny --locked)"
fi

step "tests"
cargo test --locked

step "demo"
./startup.sh --demo
