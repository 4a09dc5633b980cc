"""The package without PyTorch and Detectron2."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision", "detectron2", "fvcore", "iopath"]))
import detr_d2.deploy
import detr_d2.deploy.prediction_files
top = {name.split(".")[0] for name, module in sys.modules.items() if module}
known = {"cv2", "matplotlib", "onnx", "onnxruntime", "numpy", "PIL", "panopticapi", "pycocotools"}
print(*sorted(top & known))
"""


def test_prediction_imports_three_packages_alone():
    result = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["PIL", "numpy", "onnxruntime"]
