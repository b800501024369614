#!/usr/bin/env bash
# Installs worker and monitor of one directory as systemd services, of this user or of the system.
# Shows what it would do until --yes is given.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'EOF'
usage: ops/install-service.sh --dir DIR [--bin DIR] [--system [--user NAME]] [--yes] [--uninstall]

  --dir DIR     the working directory to serve
  --bin DIR     where stallproof, job_holder and health_monitor are (default: ../target/release)
  --system      for the whole machine (needs root); without it for the user who calls, under `systemctl --user`
  --user NAME   with --system: the account the services run as (default: the owner of DIR)
  --yes         do it; without it every file and command is only shown
  --uninstall   disable and remove the services; the directory and its jobs stay as they are

One directory per manager: a second one needs a manager of its own (another user), or the crontab line below.
Without systemd, keep both alive from cron (a monitor that is there already makes the line do nothing):
  * * * * * BIN/health_monitor --monitor --dir DIR >/dev/null 2>&1
EOF
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

dir='' bin=$here/../target/release scope=user account='' act=0 task=install
while [ $# -gt 0 ]; do
    case $1 in
        --dir | --bin | --user)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            case $1 in --dir) dir=$2 ;; --bin) bin=$2 ;; --user) account=$2 ;; esac
            shift
            ;;
        --system) scope=system ;;
        --yes) act=1 ;;
        --uninstall) task=uninstall ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

units=(stallproof-worker.service health-monitor.service)
if [ "$scope" = system ]; then
    target=/etc/systemd/system
    ctl=(systemctl)
else
    target=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    ctl=(systemctl --user)
fi
rule=/etc/polkit-1/rules.d/49-stallproof.rules

run() {
    printf '+ %s\n' "$*"
    if [ $act = 1 ]; then "$@"; fi
}

# Shows a file, and with --yes puts it in place by rename.
put() {
    local path=$1 text
    text=$(cat)
    printf '+ write %s\n' "$path"
    printf '%s\n' "$text" | sed 's/^/    /'
    if [ $act = 1 ]; then
        mkdir -p "$(dirname "$path")"
        printf '%s\n' "$text" > "$path.new"
        mv "$path.new" "$path"
    fi
}

# Systemd reads `%` and `"` in a value; a path may hold them.
quoted() {
    local text=$1
    text=${text//\\/\\\\}
    text=${text//%/%%}
    printf '"%s"' "${text//\"/\\\"}"
}

if [ $task = uninstall ]; then
    run "${ctl[@]}" disable --now "${units[@]}" || true
    for unit in "${units[@]}"; do run rm -rf "$target/$unit" "$target/$unit.d"; done
    if [ "$scope" = system ]; then run rm -f "$rule"; fi
    run "${ctl[@]}" daemon-reload
    exit 0
fi

[ -n "$dir" ] || { usage >&2; exit 2; }
[ -d "$dir" ] || die "there is no directory $dir; create it, or run \`stallproof init\` in it"
dir=$(cd "$dir" && pwd)
for program in stallproof job_holder health_monitor; do
    [ -x "$bin/$program" ] || die "$bin has no $program; build with \`cargo build --release\` or name the folder with --bin"
done
bin=$(cd "$bin" && pwd)
account=${account:-$(stat -c %U "$dir")}

local_part() {
    printf '[Service]\nEnvironment=%s\nEnvironment=%s\n' \
        "$(quoted "STALLPROOF_DIR=$dir")" "$(quoted "PATH=$bin:/usr/local/bin:/usr/bin:/bin")"
    if [ "$scope" = system ]; then
        printf 'User=%s\n' "$account"
        return
    fi
    # A user's own manager may not drop capabilities, nor make read-only mounts without user namespaces.
    printf '%s\n' ProtectSystem=no ProtectKernelTunables=no ProtectKernelModules=no ProtectKernelLogs=no \
        ProtectClock=no ProtectHostname=no
}

for unit in "${units[@]}"; do
    wanted=multi-user.target
    if [ "$scope" = user ]; then wanted=default.target; fi
    lines=$(sed "s/^WantedBy=.*/WantedBy=$wanted/" "$here/systemd/$unit")
    if [ "$scope" = user ]; then
        # These two cannot be undone by a drop-in.
        lines=$(printf '%s\n' "$lines" | grep -vE '^(CapabilityBoundingSet|AmbientCapabilities)=')
    fi
    printf '%s\n' "$lines" | put "$target/$unit"
done
local_part | put "$target/stallproof-worker.service.d/local.conf"
{
    local_part
    if [ "$scope" = user ]; then
        printf 'ProtectControlGroups=no\nExecStart=\nExecStart=%s\n' \
            '/usr/bin/env health_monitor --monitor --restart-with "systemctl --user restart stallproof-worker.service"'
    fi
} | put "$target/health-monitor.service.d/local.conf"

if [ "$scope" = system ] && [ "$account" != root ]; then
    put "$rule" <<EOF
// The health monitor, which runs as $account, may restart the worker's service and no other.
polkit.addRule(function (action, subject) {
    if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "$account" &&
        action.lookup("unit") == "stallproof-worker.service") {
        return polkit.Result.YES;
    }
});
EOF
fi

# Before anything is loaded: drop-ins included, as they stand there.
if command -v systemd-analyze >/dev/null 2>&1; then run systemd-analyze verify "${units[@]/#/$target/}"; fi
run "${ctl[@]}" daemon-reload
run "${ctl[@]}" enable --now "${units[@]}"
if [ "$scope" = user ]; then run loginctl enable-linger "$(id -un)"; fi
if [ $act = 0 ]; then printf '\nnothing was done; add --yes to do it\n'; fi
