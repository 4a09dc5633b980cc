#!/usr/bin/env bash
# Runs the tests in the project's environment, which it makes first if necessary. Arguments go to pytest.
# Without any, all tests run, in a process for each core, four at most: each takes 2 GB.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
tools/setup_env.sh test
[[ $# -gt 0 ]] || set -- --numprocesses logical --maxprocesses 4 --dist worksteal
exec "${DETR_D2_VENV:-.venv}/bin/python" -m pytest "$@"
