#!/bin/sh
# Install Chromium and its driver for the page test, where that needs no question: as root, with apt.
# Tries once; the argument is the file that remembers it. Never fails: without a browser that test is skipped.
set -u
stamp=$1

have() { command -v "$1" >/dev/null 2>&1; }
skipped() { echo "note: the page test will be skipped: $1"; }

have chromium && have chromedriver && exit 0
if [ -e "$stamp" ]; then
    skipped "no Chromium (an earlier attempt to install it failed; remove $stamp to try again)"
elif ! have apt-get || [ "$(id -u)" != 0 ]; then
    skipped "no Chromium, and only root with apt-get could install it here"
else
    echo "installing chromium and chromium-driver for the page test (once)"
    touch "$stamp"
    { apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        chromium chromium-driver; } >"$stamp" 2>&1 || skipped "apt-get could not install chromium; see $stamp"
fi
exit 0
