#!/bin/sh
# Makes stand-ins for the base images of the Dockerfile and compose.yaml, from Debian packages, where
# no registry can be reached. Writes python.tar and haproxy.tar into the directory $1, to be read
# by `docker import`; does nothing if they are there. Needs root and debootstrap.
set -eu
cache=$1
mkdir -p "$cache"

# The machine's own package sources, certificates and pip settings, whatever they are.
carry() {
    rm -f "$1/etc/apt/sources.list"
    cp /etc/apt/sources.list.d/debian.sources "$1/etc/apt/sources.list.d/"
    cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$1" update-ca-certificates >/dev/null 2>&1
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$1/etc/pip.conf"
}

# make NAME PACKAGES: a root file system with these packages, and $cache/NAME.tar of it after `finish`
make_root() {
    root=$cache/$1
    rm -rf "$root"
    mirror=$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1)
    debootstrap --variant=minbase --include="ca-certificates,$2" bookworm "$root" "$mirror" >"$root.log" 2>&1
    carry "$root"
}

finish() {
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc \
        "$root"/usr/share/man "$root"/usr/share/locale
    tar -C "$root" -cf "$root.part" .
    rm -rf "$root"
    mv "$root.part" "$root.tar"
}

if [ ! -e "$cache/python.tar" ]; then
    make_root python python3,python3-pip,python3-venv
    # As in the image of that name: `python`, and a pip that installs for the whole system.
    ln -s /usr/bin/python3 "$root/usr/local/bin/python"
    rm -f "$root"/usr/lib/python3.11/EXTERNALLY-MANAGED
    finish
fi
if [ ! -e "$cache/haproxy.tar" ]; then
    make_root haproxy haproxy
    mkdir -p "$root/usr/local/etc/haproxy"
    finish
fi
