"""What prediction with exported models imports, where everything is installed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import sys
from detr_d2.cli import main
status = main(["deploy", *sys.argv[1:]])
top = {name.split(".")[0] for name in sys.modules}
known = {
    *("torch", "torchvision", "detectron2", "fvcore", "iopath", "cv2", "matplotlib", "onnx"),
    *("onnxruntime", "numpy", "PIL", "panopticapi", "pycocotools", "scipy"),
}
print(*sorted(top & known))
sys.exit(status)
"""


def test_prediction_imports_three_packages_alone(make_model, photos, tmp_path):
    arguments = [make_model(), photos, "--output", tmp_path / "out", "--save-panoptic"]
    result = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].split() == ["PIL", "numpy", "onnxruntime"]
    assert any((tmp_path / "out").rglob("*.png"))
