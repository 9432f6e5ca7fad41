#!/bin/sh
# Installs what the tests need besides Python packages: Chromium for the page, node (18 or
# later) for the page's pure modules, npm for a linter, HAProxy and nginx in front of several
# servers. Works on Debian and its derivatives, as root or through sudo; elsewhere it prints what
# is missing.
set -eu

missing=""
command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
    command -v google-chrome >/dev/null || missing="chromium"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
command -v haproxy >/dev/null || command -v /usr/sbin/haproxy >/dev/null || missing="$missing haproxy"
command -v nginx >/dev/null || command -v /usr/sbin/nginx >/dev/null || missing="$missing nginx-light"
command -v curl >/dev/null || missing="$missing curl"
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo"
fi
if ! command -v apt-get >/dev/null || { [ -n "$as_root" ] && ! command -v sudo >/dev/null; }; then
    echo "error: please install: $missing" >&2
    exit 1
fi
echo "Installing $missing ..." >&2
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
