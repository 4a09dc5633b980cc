#!/usr/bin/env bash
# From a fresh clone to a trained panoptic DETR on the embedded synthetic scenes: no GPU, no data to
# download. Arguments go to tools/train_net.py, e.g. more SOLVER settings.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
output=output/quickstart
config=configs/shapes/detr_panoptic.yaml
tools/setup_env.sh
python="${DETR_D2_VENV:-.venv}/bin/python"
"$python" tools/train_net.py --config-file "$config" OUTPUT_DIR "$output" "$@"
cp "$output/masks/pictures/shapes_panoptic_val.png" "$output/validation.png"
# Two pages show how the model sees an image, and where it fails.
model=(MODEL.WEIGHTS "$output/masks/model_final.pth")
"$python" tools/explain.py --config-file "$config" --output "$output/explained" "${model[@]}"
"$python" tools/train_net.py --config-file "$config" --eval-only --report OUTPUT_DIR "$output" \
  "${model[@]}"
cp "$output/inference/shapes_panoptic_val/report.html" "$output/report.html"
echo "quickstart: done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "quickstart: pictures in $output/validation.png, the model in $output/masks/model_final.pth"
echo "quickstart: open $output/explained/explain.html and $output/report.html in a browser"
