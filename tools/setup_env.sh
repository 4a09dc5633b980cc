#!/usr/bin/env bash
# Makes the environment that this project is developed and tested in, Detectron2 included.
#
#   tools/setup_env.sh                 what detr_d2 needs to run
#   tools/setup_env.sh test            also what its tests need
#   tools/setup_env.sh lower-bounds    the same in the oldest versions that setup.py admits
#
# The environment is the folder .venv of the checkout, or the one that DETR_D2_VENV names (a relative
# path starts at the checkout). PYTHON names the Python to make it with; without it, the newest one
# that works is taken. A call that finds everything in place returns at once; after an interruption
# the next call starts again from the beginning.
set -euo pipefail

# Tool versions: uv unpacks several packages at a time and shares them between environments through
# its cache, so that an installation takes a third of pip's time, and seconds the second time.
installers=(uv==0.13.9 setuptools==80.10.2)
# Detectron2 has no release of its own on PyPI. This wheel is upstream's commit a59f0563 (2024-04-17).
detectron2=0.7.2
detectron2_sha256=491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561
# The oracle of panoptic quality, for the tests and for `python -m panopticapi.evaluation`.
panopticapi=0.2.0

say() { printf 'setup_env: %s\n' "$1"; }
fail() {
  printf 'setup_env: %s\n' "$1" >&2
  exit 1
}

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
case ${1-} in
  '') level="runtime" ;;
  test | lower-bounds) level=$1 ;;
  *) fail "unknown argument '$1'; call tools/setup_env.sh, tools/setup_env.sh test or tools/setup_env.sh lower-bounds" ;;
esac
venv=${DETR_D2_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv
venv_python=$venv/bin/python
state=$venv/.setup_env # its presence tells that this script made the folder
log=$state/log.txt

# --- What is there already ---

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Prints the hash of everything on which the environment at a level ($1) depends. The checkout's path
# is a part of it, since detr_d2 is installed as a link to the checkout.
fingerprint() {
  local files=("requirements/$1.txt" setup.py tools/setup_env.sh)
  [[ $1 != test ]] || files+=(requirements/runtime.txt)
  (cd -- "$root" && printf '%s\n' "$root" && cat "${files[@]}") | "$venv_python" -c '
import hashlib, sys
print(hashlib.sha256(repr(sys.version_info[:2]).encode() + sys.stdin.buffer.read()).hexdigest())'
}

# Whether the environment is complete, even if outdated, and has a suitable Python, the one asked for.
is_sound() {
  local version
  [[ ! -e $state/unfinished ]] && version=$(version_of "$venv_python") &&
    [[ -z ${PYTHON:-} || $(version_of "$PYTHON") == "$version" ]] &&
    [[ -z $(objection_to "$venv_python") ]]
}

is_current() {
  [[ -f $state/$1 ]] && is_sound && [[ $(fingerprint "$1") == "$(<"$state/$1")" ]]
}

# --- Choosing a Python ---

oldest="(3, 11)" newest="(3, 14)" pythons="3.11, 3.12, 3.13 or 3.14"
[[ $level != lower-bounds ]] || newest=$oldest pythons=3.11 # newer ones have no wheels that old

# Prints why a Python can't be used, and nothing if it can. Only running it proves that: version
# managers put commands on the path for Pythons that are not there.
objection_to() {
  "$1" -c '
import platform, sys, sysconfig
if not '"$oldest <= sys.version_info[:2] <= $newest"':
    print("is " + platform.python_version())
elif sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("is free-threaded, for which packages are missing")
else:
    try:
        import ensurepip, venv
    except ImportError:
        print("lacks the module venv (Debian, Ubuntu: apt install python%d.%d-venv)"
              % sys.version_info[:2])' 2>/dev/null || echo "does not run"
}

choose_python() {
  local candidates=(python3.14 python3.13 python3.12 python3.11 python3 python) candidate objection seen=''
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    [[ -n ${PYTHON:-} ]] || command -v "$candidate" >/dev/null || continue
    objection=$(objection_to "$candidate")
    if [[ -z $objection ]]; then
      printf '%s\n' "$candidate"
      return
    fi
    seen+="${seen:+, }$candidate $objection"
  done
  fail "no usable Python $pythons (${seen:-none on the path}); install one, or name it: PYTHON=/path/to/python3.11 tools/setup_env.sh"
}

# --- Running the installers ---

run() {
  printf '\n$ %s\n' "$*" >>"$log"
  "$@" >>"$log" 2>&1
}

install() {
  # The pinned setuptools builds what comes as source, so that a build downloads nothing. When uv
  # fails, pip tries: it alone reads pip's own settings (mirrors, certificates, proxies).
  run "$venv_python" -m uv pip install --python "$venv_python" --no-build-isolation "$@" ||
    run "$venv_python" -m pip install --no-build-isolation --use-pep517 --no-compile --progress-bar off "$@"
}

# Shows the end of the log and ends the script with one line on what went wrong in a step ($1).
give_up() {
  local end
  end=$(tail -n 20 "$log")
  printf '%s\n' "$end" >&2
  if grep -qiE 'no space left on device|disk quota exceeded' <<<"$end"; then
    fail "the disk is full: make room for 7 GB, or set DETR_D2_VENV to a folder on another disk, and call again"
  elif grep -qiE 'connection broken|from versions: none|timed out|client error \(connect\)' <<<"$end"; then
    # Installers download before they change anything, so what was whole still is.
    rm -f "$state/unfinished"
    fail "$1 failed: the package index can't be reached or lacks a package; check the network and pip's settings (index-url, proxy), and call again"
  fi
  if [[ $end =~ (lib[^ ]+\.so[.0-9]*):\ cannot\ open\ shared\ object ]]; then
    fail "$1 failed: this system lacks ${BASH_REMATCH[1]}; on Debian and Ubuntu 'sudo tools/setup_debian.sh libraries' installs what OpenCV loads; then call again"
  fi
  fail "$1 failed: $(tail -n 1 <<<"$end"); the whole log is $log"
}

# --- The steps ---

make_venv() {
  local python
  python=$(choose_python)
  say "making $venv with Python $(version_of "$python")"
  find "$venv" -mindepth 1 -maxdepth 1 ! -name .setup_env -exec rm -rf {} +
  rm -f "$state"/{runtime,test,lower-bounds}
  touch "$state/unfinished"
  run "$python" -m venv "$venv" || give_up "making a virtual environment"
}

install_detectron2() {
  compgen -G "$venv/lib/python3.*/site-packages/sal_detectron2-$detectron2.dist-info" >/dev/null && return
  local folder=$state/download wheel sha256
  rm -rf "$folder"
  say "installing Detectron2"
  # The wheel has a tag for Python 3.10, because of compiled operators that DETR does not use and
  # Detectron2 can do without. The rest of it is pure Python, hence the new name.
  run "$venv_python" -m pip download --no-deps --only-binary=:all: --python-version 3.10 \
    --progress-bar off --dest "$folder" "sal-detectron2==$detectron2" || give_up "downloading Detectron2"
  wheel=$folder/sal_detectron2-$detectron2-py3-none-any.whl
  mv "$folder"/*.whl "$wheel"
  sha256=$("$venv_python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$wheel")
  [[ $sha256 == "$detectron2_sha256" ]] ||
    fail "the wheel sal-detectron2 $detectron2 that the package index gave is not the one tested: its sha256 should be $detectron2_sha256 and is $sha256; check which index pip uses"
  # Without its declared dependencies, such as numpy < 2: requirements/ has all that it imports.
  install --no-deps "$wheel" || give_up "installing Detectron2"
  rm -r "$folder"
}

# Python compiles a file when it is first imported. An installer would compile all 14,000 files, and
# most of them are never imported. With PYTHONDONTWRITEBYTECODE, every process would compile again.
check_imports() {
  local modules="torch._dynamo, torchvision, torch.utils.tensorboard, scipy.optimize, cv2, panopticapi.evaluation, fvcore.nn, detectron2.engine, detectron2.evaluation, detectron2.utils.visualizer"
  [[ $level == runtime ]] || modules+=", pytest, hypothesis, timm, transformers.models.detr.modeling_detr"
  run env -u PYTHONDONTWRITEBYTECODE "$venv_python" -W ignore -c "import $modules" ||
    give_up "importing what was installed"
}

stop_if_current() {
  is_current "$level" || return 0
  say "$venv is up to date"
  exit
}
stop_if_current

[[ -d $state || ! -e $venv || (-d $venv && -z $(ls -A "$venv")) ]] ||
  fail "$venv exists and was not made by this script; remove it, or set DETR_D2_VENV to another folder"
{ mkdir -p "$state" && touch "$log"; } 2>/dev/null ||
  fail "cannot write to $venv; set DETR_D2_VENV to a folder where you can"

if command -v flock >/dev/null; then
  exec 9>"$state/lock"
  if ! flock -n 9; then
    say "waiting for another call that is at work on $venv"
    flock 9
  fi
  stop_if_current
fi

trap 'fail "interrupted; call again to start afresh"' INT TERM
: >"$log"
is_sound || make_venv
cd -- "$root"
touch "$state/unfinished"
run "$venv_python" -m pip install --no-compile --progress-bar off "${installers[@]}" ||
  give_up "installing uv"
install_detectron2
install --no-deps "panopticapi-lite==$panopticapi" || give_up "installing panopticapi" # as Detectron2
if [[ -f $state/runtime ]]; then
  say "bringing the packages in line with requirements/$level.txt"
else
  say "installing PyTorch and the other packages (about 1 minute, and the time to download up to 3 GB)"
fi
install -r "requirements/$level.txt" || give_up "installing requirements/$level.txt"
install --no-deps -e . || give_up "installing detr_d2"
say "importing them for the first time"
check_imports
case $level in # an environment has either the oldest versions or the pinned ones
  lower-bounds) rm -f "$state"/{runtime,test} ;;
  *) rm -f "$state/lower-bounds" && fingerprint runtime >"$state/runtime" ;;
esac
fingerprint "$level" >"$state/$level"
rm -f "$state/unfinished"
say "done in $SECONDS s; to use it: source '$venv/bin/activate'"
