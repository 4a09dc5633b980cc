#!/usr/bin/env bash
# Checks everything that needs a GPU, in at most 4 minutes and without a network. It writes
# gpu_check.json and gpu_check.md to output/gpu_check, or to the folder after --output. Arguments go
# to benchmarks/gpu_check.py.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python="${DETR_D2_VENV:-.venv}/bin/python"
[[ -x $python ]] || python=${PYTHON:-python3}
missing=$("$python" -c '
from importlib.util import find_spec
names = ("torch", "torchvision", "detectron2", "scipy", "cv2", "fvcore", "pycocotools", "tabulate")
print(", ".join(name for name in names if find_spec(name) is None))') || {
  echo "gpu_check: $python does not run: name a Python in PYTHON" >&2
  exit 2
}
[[ -z $missing ]] || {
  echo "gpu_check: $python lacks $missing: run tools/setup_env.sh, or install PyTorch and" \
    "Detectron2, then pip install -e '.[train]'" >&2
  exit 2
}
PYTHONPATH="tools${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m benchmarks.gpu_check "$@"
