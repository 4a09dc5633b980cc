#!/usr/bin/env bash
# From a fresh clone to a trained panoptic DETR on the embedded synthetic scenes: no GPU, no data to
# download. Arguments go to tools/train_net.py, e.g. more SOLVER settings.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
output=output/quickstart
tools/setup_env.sh
"${DETR_D2_VENV:-.venv}/bin/python" tools/train_net.py \
  --config-file configs/shapes/detr_panoptic.yaml OUTPUT_DIR "$output" "$@"
cp "$output/masks/pictures/shapes_panoptic_val.png" "$output/validation.png"
echo "quickstart: done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "quickstart: pictures in $output/validation.png, the model in $output/masks/model_final.pth"
