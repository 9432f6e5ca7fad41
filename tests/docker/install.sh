#!/bin/sh
# Installs what `make test-docker` needs, on Debian as root: a Docker engine (never started here: the
# tests start their own), Compose, and what makes stand-ins for base images without a registry.
set -eu

missing=""
command -v dockerd >/dev/null || missing="docker.io"
command -v iptables >/dev/null || missing="$missing iptables"
command -v debootstrap >/dev/null || missing="$missing debootstrap"
command -v ip >/dev/null || missing="$missing iproute2"
if [ -n "$missing" ]; then
    apt-get update -qq
    # RUNLEVEL=1: a package that is installed must not start a service on this machine.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# Compose 2 is in Debian since trixie, as one file that runs on bookworm, too.
plugin=/usr/libexec/docker/cli-plugins/docker-compose
if ! docker compose version >/dev/null 2>&1 && [ ! -e "$plugin" ]; then
    work=$(mktemp -d)
    mirror=$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1)
    mkdir -p "$work/lists/partial"
    echo "deb $mirror trixie main" >"$work/list"
    only="-o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$work/lists"
    (cd "$work" && apt-get $only update -qq && apt-get $only download -qq docker-compose)
    dpkg -x "$work"/docker-compose_*.deb "$work/files"
    install -D "$work/files$plugin" "$plugin"
    rm -r "$work"
fi
