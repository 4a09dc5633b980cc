#!/usr/bin/env bash
# Installs Debian's Chromium and its driver, with which tests open pages. Needs root; without a
# browser those tests are skipped.
set -euo pipefail
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit
command -v apt-get >/dev/null || {
  echo "setup_browser: this is no Debian or Ubuntu: install Chromium and chromedriver yourself" >&2
  exit 1
}
[[ $EUID == 0 ]] || {
  echo "setup_browser: needs root: sudo tools/setup_browser.sh" >&2
  exit 1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends chromium chromium-driver fonts-liberation; }
# Package lists may be missing, as in containers, or out of date.
install >"$log" 2>&1 || { apt-get update && install; } >"$log" 2>&1 || {
  tail -n 5 "$log" >&2
  echo "setup_browser: Chromium can't be installed" >&2
  exit 1
}
echo "setup_browser: $(chromium --version 2>/dev/null)"
