# Installs the Debian packages named by the arguments, with no service started: invoke-rc.d and deb-systemd-invoke ask
# policy-rc.d first, and its status 101 means no (README.policy-rc.d.gz of the package init-system-helpers).
#
# A policy that is there already belongs to somebody: it is asked, obeyed, and never replaced. Ours is made only where
# there is none, and goes away with this shell however apt ends.
set -eu
policy=/usr/sbin/policy-rc.d
mine="# Made by burst's setup while it installs packages; safe to remove."
if [ -e "$policy" ] && grep -qF "$mine" "$policy"; then rm -f "$policy"; fi
if [ -e "$policy" ]; then
    status=0
    "$policy" nginx start >/dev/null 2>&1 || status=$?
    if [ "$status" -ne 101 ]; then
        echo "$policy lets packages start their services, and setup does not replace it. Install these yourself:" >&2
        echo "  apt-get install --no-install-recommends $*" >&2
        exit 3
    fi
else
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    (set -C; printf '#!/bin/sh\n%s\nexit 101\n' "$mine" >"$policy")
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update
# Nothing is removed to make room (rustc-web conflicts with rustc, for one), and a configuration file that is there
# already is kept without asking.
apt-get -qq -o DPkg::Lock::Timeout=300 -o DPkg::Options::=--force-confdef -o DPkg::Options::=--force-confold \
    install --yes --no-remove --no-install-recommends "$@" >/dev/null
