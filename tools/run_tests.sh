#!/usr/bin/env bash
# Runs the tests in the project's environment, which it makes first if necessary. Arguments go to pytest.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
tools/setup_env.sh test
exec "${DETR_D2_VENV:-.venv}/bin/python" -m pytest "$@"
