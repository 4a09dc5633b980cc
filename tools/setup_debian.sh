#!/usr/bin/env bash
# Installs packages of Debian or Ubuntu that pip doesn't have. Needs root.
#
#   tools/setup_debian.sh libraries    system libraries that OpenCV loads
#   tools/setup_debian.sh browser      Chromium and its driver, with which tests open pages; without
#                                      them those tests are skipped
#
# A call that finds everything in place returns at once.
set -euo pipefail

fail() {
  printf 'setup_debian: %s\n' "$1" >&2
  exit 1
}

case ${1-} in
  libraries)
    packages=(libgl1 libglib2.0-0 libsm6 libxext6)
    is_there() {
      local known library
      known=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p)
      for library in libGL.so.1 libglib-2.0.so.0 libgthread-2.0.so.0 libSM.so.6 libXext.so.6; do
        [[ $known == *"$library "* ]] || return 1
      done
    }
    ;;
  browser)
    packages=(chromium chromium-driver fonts-liberation)
    is_there() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; }
    ;;
  *) fail "unknown argument '${1-}'; call tools/setup_debian.sh libraries or tools/setup_debian.sh browser" ;;
esac
is_there && exit
command -v apt-get >/dev/null ||
  fail "this is neither Debian nor Ubuntu: install yourself what they call ${packages[*]}"
[[ $EUID == 0 ]] || fail "needs root: sudo tools/setup_debian.sh $1"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends "${packages[@]}"; }
# Package lists may be missing, as in containers, or out of date.
install >"$log" 2>&1 || { apt-get update && install; } >"$log" 2>&1 || {
  tail -n 5 "$log" >&2
  fail "${packages[*]} can't be installed"
}
printf 'setup_debian: installed %s\n' "${packages[*]}"
