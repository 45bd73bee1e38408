#!/bin/sh
# Chromium for the browser tests: installs Debian's where there is none.
set -eu
if command -v chromium || command -v chromium-browser || command -v google-chrome; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The browser tests need Chromium; install it, as in: sudo apt-get install chromium" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
command -v chromium
