#!/bin/sh
# What the tests on a real Docker Engine need. An Engine that answers is used as it is; else, as root on Debian or
# Ubuntu, one is installed here and started by the tests themselves. Without one they are skipped, with a count.
set -eu
# an Engine that is just stopping may take the connection and never answer
soon=""
command -v timeout >/dev/null 2>&1 && soon="timeout 20"
if $soon docker version >/dev/null 2>&1 && command -v busybox >/dev/null 2>&1 && command -v ip >/dev/null 2>&1 &&
    command -v ssh >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    exit 0
fi
missing=""
command -v dockerd >/dev/null 2>&1 || missing="$missing docker.io"
command -v busybox >/dev/null 2>&1 || missing="$missing busybox-static"
command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v ssh >/dev/null 2>&1 || missing="$missing openssh-client"
if [ -n "$missing" ]; then
    echo "installing$missing for the tests on a real Docker Engine" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    # shellcheck disable=SC2086
    apt-get install -y -qq $missing >/dev/null
fi
