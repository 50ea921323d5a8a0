#!/bin/sh
# A virtual environment with pip in it. Debian and Ubuntu split what that takes into a package of its own.
set -eu
if "$PYTHON" -m venv "$VENV" 2>/dev/null && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
rm -rf "$VENV"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing python$version-venv" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    apt-get install -y -qq "python$version-venv" >/dev/null || apt-get install -y -qq python3-venv >/dev/null
    exec "$PYTHON" -m venv "$VENV"
fi
echo "Python cannot make virtual environments here. Install its venv package first:" >&2
echo "    sudo apt-get install python$version-venv" >&2
exit 1
