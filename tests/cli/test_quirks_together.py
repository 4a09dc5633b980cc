"""From annotations as tools write them to an exported model, with all oddities that go together."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image
from torch.fx.experimental import _config as symbolic_config

TURNED = Image.Exif()
TURNED[0x112] = 6
# By what is odd about each: the name in the JSON and on the disk. Spaces are a narrow one that
# doesn't break, as macOS has in the names of screenshots, and accents are letters of their own.
NAMES = {
    "backslash": ("sub\\a.jpg", "sub/a.jpg"),
    "space": ("Bild 9.41\u202fAM.png", "Bild 9.41\u202fAM.png"),
    "accents": ("Köln.png", unicodedata.normalize("NFD", "Köln.png")),
    "ending": ("b.jfif", "b.jfif"),
    "turned": ("turned.jpg", "turned.jpg"),
    "12 bits": ("deep.png", "deep.png"),
}
SIZE = (48, 64)  # height and width, as stored


def square(x: int, y: int, side: int) -> list[int]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


@pytest.fixture
def coco(tmp_path):
    """An instance JSON with a byte-order mark, and its images."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (what, (named, on_disk)) in enumerate(NAMES.items()):
        path = tmp_path / "images" / on_disk
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == "12 bits":
            Image.fromarray(rng.integers(0, 4096, SIZE).astype(np.uint16)).save(path)
        else:
            pixels = rng.integers(0, 255, (*SIZE, 3), np.uint8)
            kind = "JPEG" if path.suffix == ".jfif" else None
            options = {"exif": TURNED} if what == "turned" else {}
            Image.fromarray(pixels).save(path, kind, **options)
        images.append({"id": str(number), "file_name": named, "width": -1, "height": None})
        objects = [
            {"segmentation": square(4, 4, 16)},  # one polygon that is no list of polygons
            {"segmentation": [square(30, 20, 12), [1, 1, 2, 2]], "iscrowd": "1"},  # with a crumb
        ]
        for entry in objects:
            place = {"id": len(annotations) + 1.0, "image_id": number, "category_id": "1"}
            annotations.append({**place, **entry})
    (tmp_path / "images" / "._a.jpg").write_bytes(b"of another system")
    categories = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1.0, "name": "cat", "supercategory": "cat", "color": "#2080c0"},
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return path


def test_all_oddities_at_once(coco, run_cli, tmp_path, capsys):
    images, prepared, output = tmp_path / "images", tmp_path / "prepared", tmp_path / "output"
    options = ["--images", images, "--crowds-as-things", "--background", "floor", "--ignore-exif"]
    assert run_cli("prepare", "instances", coco, prepared, *options) == 0
    said = capsys.readouterr().out
    assert "category 0 is left out" in said and "'cat' (thing): 12 segments in 6 images" in said

    def overrides(**more: object) -> list[object]:
        dataset = ["odd/pets", str(images), str(prepared / "panoptic")]
        keys = {
            "DATASETS.PANOPTIC": [[*dataset, str(prepared / "panoptic.json")]],
            "DATASETS.TRAIN": ("odd/pets",),
            "DATASETS.TEST": ("odd/pets",),
            "INPUT.DEEP_RANGE": 4095,
            "INPUT.IGNORE_EXIF": True,
            "MODEL.DEVICE": "cpu",
            "MODEL.DETR.NUM_CLASSES": 0,
            "MODEL.DETR.HIDDEN_DIM": 32,
            "MODEL.DETR.TEST.SCORE_THRESH": 0.0,
            "DATALOADER.NUM_WORKERS": 0,
            "SOLVER.IMS_PER_BATCH": 2,
            "SOLVER.MAX_ITER": 2,
            "OUTPUT_DIR": output,
            **more,
        }
        return [part for override in keys.items() for part in override]

    config = ["--config-file", "shapes/detr_panoptic.yaml"]
    assert run_cli("check", *config, "--workers", 0, *overrides()) == 0
    checked = capsys.readouterr().out
    assert "6 images" in checked and "dark" not in checked
    assert run_cli("train", *config, "--stage", "joint", *overrides()) == 0
    weights = output / "joint" / "model_final.pth"
    results = [
        json.loads(line) for line in (output / "joint/metrics.json").read_text().split("\n")[:-1]
    ]
    assert any("panoptic_seg/PQ" in result for result in results)
    assert list((output / "joint/pictures").glob("odd_pets-*.png"))
    evaluation = overrides(**{"MODEL.WEIGHTS": weights})
    assert run_cli("train", *config, "--eval-only", "--report", *evaluation) == 0
    (report,) = output.rglob("report.json")
    assert json.loads(report.read_text())["dataset"] == "odd/pets"

    # The model without its data: classes and ranges travel along.
    (prepared / "panoptic.json").unlink()
    pictures = tmp_path / "pictures"
    demo = ["--input", images, "--output", pictures, "--save-panoptic"]
    assert run_cli("demo", *config, *demo, *evaluation) == 0
    assert len(list(pictures.rglob("*.png"))) == 2 * len(NAMES)
    predicted = json.loads((pictures / "predictions.json").read_text())
    assert [c["name"] for c in predicted["categories"]] == ["cat", "floor"]
    if not hasattr(symbolic_config, "backed_size_oblivious"):
        return  # exporting needs a newer PyTorch
    exported = ["--output", tmp_path / "pets.pt2", "--format", "torch", "--size", 64, 64]
    assert run_cli("export", *config, *exported, *evaluation) == 0
    assert (tmp_path / "pets.pt2").is_file()
