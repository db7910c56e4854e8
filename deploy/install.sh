#!/usr/bin/env bash
# Install wattpush from this folder into /opt/wattpush, or upgrade it in place: sudo deploy/install.sh
#
#   deploy/install.sh                       install or upgrade; safe to run again at any time; enables no unit
#   deploy/install.sh --uninstall           remove wattpush; keep the configuration and the energy counters
#   deploy/install.sh --uninstall --purge   remove these too, and the user
#
# PYTHON selects the interpreter. pip reads its usual variables: PIP_NO_INDEX=1 PIP_FIND_LINKS=folder installs offline.
# The packages listed in /etc/wattpush/packages.txt are installed as well.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

readonly HOME_FOLDER=/opt/wattpush
readonly CONFIG=/etc/wattpush/config.toml
# Additional packages for the environment, such as the library of a USB adapter: one pip requirement per line.
readonly PACKAGES=/etc/wattpush/packages.txt
readonly STATE=/var/lib/wattpush
readonly UNITS=(wattpush.service wattpush-once.timer wattpush-once.service)

# Source and target of each file to copy. The manual page and the completions are optional.
readonly FILES=(
    "deploy/systemd/wattpush.service /etc/systemd/system/wattpush.service"
    "deploy/systemd/wattpush-once.service /etc/systemd/system/wattpush-once.service"
    "deploy/systemd/wattpush-once.timer /etc/systemd/system/wattpush-once.timer"
    "deploy/sysusers.d/wattpush.conf /etc/sysusers.d/wattpush.conf"
    "deploy/modules-load.d/wattpush.conf /etc/modules-load.d/wattpush.conf"
    "deploy/udev/60-wattpush.rules /etc/udev/rules.d/60-wattpush.rules"
    "deploy/man/wattpush.1 /usr/local/share/man/man1/wattpush.1"
    "deploy/completions/wattpush.bash /usr/local/share/bash-completion/completions/wattpush"
    "deploy/completions/_wattpush /usr/local/share/zsh/site-functions/_wattpush"
)

say() { echo "wattpush: $*" >&2; }
fail() {
    say "$1"
    exit "${2:-1}"
}
systemd_runs() { [ -d /run/systemd/system ]; }

usable() {
    # Refuse an interpreter below /home or /root: the service's sandbox hides these folders.
    "$1" - 2>/dev/null <<'PYTHON'
import ensurepip, pathlib, sys, venv
homes = [pathlib.Path(home) for home in ("/home", "/root")]
sys.exit(sys.version_info < (3, 10) or any(home in pathlib.Path(sys.executable).resolve().parents for home in homes))
PYTHON
}

find_python() {
    local candidate candidates=(/usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then say "PYTHON=$PYTHON cannot be used"; fi
    fail "needs Python 3.10 or newer with venv, outside /home and /root: sudo apt-get install python3-venv"
}

# Two environments alternate, so the one in use is never touched.
make_environment() {
    local environment=$1 python=$2 work
    work=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    rm -rf "$environment"
    "$python" -m venv "$environment"
    local pip=("$environment/bin/python" -m pip --quiet --disable-pip-version-check --no-input --no-cache-dir)
    awk -f deploy/pure.awk requirements.txt >"$work/requirements.txt"
    "${pip[@]}" install --no-deps --require-hashes -r "$work/requirements.txt"
    # The build tools stay outside the environment.
    "${pip[@]}" install --no-deps --require-hashes --target "$work/build" -r requirements-build.txt
    PYTHONPATH=$work/build "${pip[@]}" install --no-deps --no-build-isolation .
    if [ -e "$PACKAGES" ]; then
        # They replace nothing that is pinned, and no index is asked for a wattpush.
        "$environment/bin/python" -m pip list --format=freeze --exclude pip --exclude setuptools \
            --disable-pip-version-check >"$work/constraints.txt"
        "${pip[@]}" install -r "$PACKAGES" -c "$work/constraints.txt" ||
            fail "the packages in $PACKAGES cannot be installed beside wattpush, see above; the installed version stays in place"
    fi
    # Precompile: without bytecode every start is several times slower.
    "$environment/bin/python" -m compileall -q "$environment/lib" >/dev/null || true
    "$environment/bin/wattpush" --version >/dev/null
}

make_user() {
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers /etc/sysusers.d/wattpush.conf
    else
        getent group i2c >/dev/null || groupadd --system i2c
        id wattpush >/dev/null 2>&1 || useradd --system --user-group --home-dir "$STATE" --shell /usr/sbin/nologin wattpush
        usermod --append --groups i2c wattpush
        if getent group video >/dev/null; then usermod --append --groups video wattpush; fi
    fi
}

install_all() {
    local python used="" next=a version
    if [ -e /usr/lib/wattpush ]; then
        fail "already installed as a Debian package; please remove that first: sudo apt-get remove wattpush"
    fi
    if [ -e "$HOME_FOLDER/bin" ] && [ ! -L "$HOME_FOLDER/bin" ]; then
        fail "this script did not create $HOME_FOLDER; please remove it first: sudo rm -r $HOME_FOLDER"
    fi
    python=$(find_python)
    used=$(readlink "$HOME_FOLDER/bin" || true)
    [ "$used" = a/bin ] && next=b
    say "building $HOME_FOLDER/$next with $("$python" -V)"
    mkdir -p "$HOME_FOLDER"
    make_environment "$HOME_FOLDER/$next" "$python"
    version=$("$HOME_FOLDER/$next/bin/wattpush" --version)
    if [ -n "$used" ] && [ -e "$CONFIG" ]; then
        # The configuration may name a credential of the service.
        CREDENTIALS_DIRECTORY=/run/credentials/wattpush.service \
            "$HOME_FOLDER/$next/bin/wattpush" check --config "$CONFIG" >/dev/null ||
            fail "$version does not accept $CONFIG; the installed version stays in place" 78
    fi

    local pair source target
    for pair in "${FILES[@]}"; do
        read -r source target <<<"$pair"
        if [ -e "$source" ]; then install -D -m 644 "$source" "$target"; fi
    done
    make_user
    install -d -m 750 -o root -g wattpush "${CONFIG%/*}"
    # One set of counters for every user: pushing a second set would count energy that never flowed.
    if [ -e "$CONFIG" ] && ! grep -q '^ *state_dir *=' "$CONFIG"; then
        say "$CONFIG has no state_dir, so each user has separate energy counters; add at its top: state_dir = \"$STATE\""
    fi
    install -d -m 700 -o wattpush -g wattpush "$STATE"

    # Renaming is atomic: the program is there at every moment.
    ln -sfn "$next/bin" "$HOME_FOLDER/bin.new"
    mv -T "$HOME_FOLDER/bin.new" "$HOME_FOLDER/bin"
    ln -sfn "$HOME_FOLDER/bin/wattpush" /usr/local/bin/wattpush

    modprobe i2c-dev 2>/dev/null || say "there is no /dev/i2c-N: the kernel module i2c-dev could not be loaded"
    if [ -S /run/udev/control ]; then
        udevadm control --reload
        udevadm trigger --subsystem-match=i2c-dev
    fi
    say "$version is installed"
    if systemd_runs; then
        systemctl daemon-reload
        if systemctl --quiet is-active wattpush.service; then
            say "restarting wattpush.service"
            systemctl restart wattpush.service
        elif ! systemctl --quiet is-enabled wattpush.service && ! systemctl --quiet is-enabled wattpush-once.timer; then
            say "no unit is enabled. Next: sudo wattpush init, which writes $CONFIG; then one of"
            say "    sudo systemctl enable --now wattpush.service      # reads every second, pushes every 15 s"
            say "    sudo systemctl enable --now wattpush-once.timer   # one reading and one push per minute"
        fi
    else
        say "systemd is not running. Next: sudo wattpush init, which writes $CONFIG; then"
        say "    sudo install -m 644 deploy/cron/wattpush /etc/cron.d/wattpush"
    fi
}

uninstall() {
    local purge=$1 pair target
    if [ -e /usr/lib/wattpush ]; then
        fail "installed as a Debian package; please remove it with: sudo apt-get remove wattpush"
    fi
    if [ -e "$HOME_FOLDER/bin" ] && [ ! -L "$HOME_FOLDER/bin" ]; then
        fail "this script did not create $HOME_FOLDER and leaves it alone; please remove it first: sudo rm -r $HOME_FOLDER"
    fi
    if systemd_runs; then
        systemctl --quiet disable --now "${UNITS[@]}" 2>/dev/null || true
        systemctl --quiet reset-failed "${UNITS[@]}" 2>/dev/null || true
    fi
    for pair in "${FILES[@]}"; do
        read -r _ target <<<"$pair"
        rm -f "$target"
    done
    # Folders that the installation may have created. One that other software uses is not empty, and stays.
    local folder
    for folder in /usr/local/share/man/man1 /usr/local/share/bash-completion/completions /usr/local/share/bash-completion \
        /usr/local/share/zsh/site-functions /usr/local/share/zsh /etc/sysusers.d; do
        rmdir --ignore-fail-on-non-empty "$folder" 2>/dev/null || true
    done
    rm -f /etc/cron.d/wattpush
    if [ "$(readlink /usr/local/bin/wattpush)" = "$HOME_FOLDER/bin/wattpush" ]; then rm -f /usr/local/bin/wattpush; fi
    rm -rf "$HOME_FOLDER"
    if "$purge"; then
        rm -rf "${CONFIG%/*}" "$STATE" /run/wattpush "${UNITS[@]/#//etc/systemd/system/}"
        rm -rf /etc/systemd/system/wattpush.service.d /etc/systemd/system/wattpush-once.{service,timer}.d
        if id wattpush >/dev/null 2>&1; then userdel wattpush; fi
        say "removed, with its configuration and counters"
    else
        say "removed; ${CONFIG%/*} and the energy counters in $STATE stay (--purge removes them and the user too)"
    fi
    if systemd_runs; then systemctl daemon-reload; fi
}

mode=install purge=false
for argument in "$@"; do
    case $argument in
    --uninstall) mode=uninstall ;;
    --purge) purge=true ;;
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' deploy/install.sh
        exit 0
        ;;
    *) fail "unknown argument: $argument; try $0 --help" 64 ;;
    esac
done
if "$purge" && [ "$mode" = install ]; then fail "--purge works only with --uninstall" 64; fi
if [ "$(id -u)" != 0 ]; then fail "please run this as root: sudo $0 $*" 77; fi
if [ "$mode" = uninstall ]; then uninstall "$purge"; else install_all; fi
