"""Pictures of evaluated images: their choice, sizes, files and cost."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import launch
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from PIL import Image

from detr_d2.apps.report import ReportCollector
from detr_d2.apps.report.saved_runs import find_predictions
from detr_d2.data.file_names import file_name_of
from detr_d2.data.panoptic_dataset import get_dataset_dicts, set_panoptic_metadata
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.data.shapes.shape_categories import CATEGORIES
from detr_d2.engine.evaluation_pictures import PictureCollector
from detr_d2.engine.model_evaluation import evaluate
from detr_d2.visualization import MAX_PICTURE_SIZE

NAME = "small_shapes_val"
NOTHING = {"panoptic_seg": (torch.zeros(96, 96, dtype=torch.int32), [])}


@pytest.fixture
def register(registry):
    """Registers images with the classes of the shapes: ``(name, dicts)``."""

    def register(name: str, dicts: list[dict]) -> None:
        DatasetCatalog.register(name, lambda: dicts)
        set_panoptic_metadata(name, map(vars, CATEGORIES))

    return register


def collect(dicts: list[dict], evaluated: list[dict]) -> PictureCollector:
    """Collects the pictures of dicts; some of them are evaluated, with empty predictions."""
    collector = PictureCollector(NAME, dicts)
    for dataset_dict in evaluated:
        collector.process([{"image_id": dataset_dict["image_id"]}], [NOTHING])
    collector.evaluate()
    return collector


def large_dict(folder: Path, image_id: int, size: tuple[int, int]) -> dict:
    """Writes an image with a single segment."""
    image, ids = (str(folder / f"{image_id}_{kind}.png") for kind in ("image", "ids"))
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(image)
    write_panoptic_png(np.ones(size, np.int32), ids)
    segment = {"id": 1, "category_id": 7, "isthing": False, "iscrowd": 0}
    return {
        **{"file_name": image, "image_id": image_id, "height": size[0], "width": size[1]},
        **{"pan_seg_file_name": ids, "segments_info": [segment]},
    }


def test_the_model_runs_once_for_each_image(make_tiny_cfg, tmp_path, small_shapes):
    cfg = make_tiny_cfg(tmp_path, "MODEL.DETR.TEST.NUM_PICTURES", 4)
    model, seen = build_model(cfg), []
    model.register_forward_pre_hook(lambda _, args: seen.extend(i["image_id"] for i in args[0]))
    evaluate(cfg, model)
    assert seen == [image["image_id"] for image in get_dataset_dicts([NAME])]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [f"{NAME}.png"]


@pytest.mark.parametrize(("wanted", "drawn"), [(0, 0), (2, 2), (7, 6)])
def test_the_first_images_are_drawn_one_below_the_other(make_tiny_cfg, tmp_path, wanted, drawn):
    """If there are fewer images than wanted, all are drawn."""
    cfg = make_tiny_cfg(tmp_path, "MODEL.DETR.TEST.NUM_PICTURES", wanted)
    with EventStorage() as storage:
        evaluate(cfg, build_model(cfg))
    dicts = get_dataset_dicts([NAME])[:drawn]
    shown = {name: picture.transpose(1, 2, 0) for name, picture, _ in storage._vis_data}
    assert list(shown) == [f"{NAME}/{image['image_id']}" for image in dicts]
    if not drawn:
        assert not (tmp_path / "pictures").exists()
        return
    column = cv2.imread(str(tmp_path / "pictures" / f"{NAME}.png"))[:, :, ::-1]
    top = 0
    for picture in shown.values():
        height, width, _ = picture.shape
        np.testing.assert_array_equal(column[top : top + height, :width], picture)
        assert (column[top : top + height, width:] == 255).all()
        top += height + 8
    assert top == len(column) + 8


def test_an_image_is_beside_its_truth_and_its_prediction(small_shapes):
    """Without any predicted segment, the prediction's picture is the image's."""
    dicts = get_dataset_dicts([NAME])[:1]
    ((image_id, picture),) = collect(dicts, dicts).pictures
    size = 5 * np.array([dicts[0]["height"], dicts[0]["width"]])  # 96 pixels are enlarged to 480
    assert image_id == dicts[0]["image_id"]
    assert picture.shape == (size[0], 3 * size[1] + 16, 3)
    image, truth, prediction = (picture[:, i * (size[1] + 8) :][:, : size[1]] for i in range(3))
    assert (image == prediction).all() and (image != truth).any(-1).mean() > 0.5


def test_pictures_are_in_the_datasets_order(small_shapes):
    dicts = get_dataset_dicts([NAME])
    collector = collect(dicts[:3], [dicts[2], dicts[4], dicts[0]])
    wanted = [dicts[0]["image_id"], dicts[2]["image_id"]]
    assert [image_id for image_id, _ in collector.pictures] == wanted


def test_without_evaluated_images_nothing_is_written(small_shapes, tmp_path):
    collect(get_dataset_dicts([NAME]), []).write(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_one_image_at_a_time_is_in_memory(tmp_path, small_shapes):
    """Only one image has its full size at a time, so more images need no more memory."""
    dicts = [large_dict(tmp_path, image_id, (900, 1200)) for image_id in range(4)]
    peaks = []
    for some in (dicts[:1], dicts):  # the first time, for what is loaded once
        gc.collect()
        tracemalloc.start()
        collector = collect(some, some)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        size_of_pictures = sum(picture.nbytes for _, picture in collector.pictures)
        assert kept < size_of_pictures + 1e6
        peaks.append(peak - size_of_pictures)
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("size", [(1000, 1500), (40, 3000)])
def test_large_images_shrink(register, make_tiny_cfg, tmp_path, size):
    """Both on the disk and in TensorBoard."""
    register("large", [large_dict(tmp_path, 1, size)])
    cfg = make_tiny_cfg(
        tmp_path,
        *("DATASETS.TEST", ("large",), "INPUT.MIN_SIZE_TEST", 32, "INPUT.MAX_SIZE_TEST", 128),
    )
    with EventStorage() as storage:
        evaluate(cfg, build_model(cfg))
    height = round(size[0] * MAX_PICTURE_SIZE / size[1])
    shape = (height, 3 * MAX_PICTURE_SIZE + 16, 3)
    assert cv2.imread(str(tmp_path / "pictures" / "large.png")).shape == shape
    ((_, picture, _),) = storage._vis_data
    assert picture.transpose(1, 2, 0).shape == shape


@pytest.mark.parametrize("name", ["pets/val", "../../outside", "my data (v2)", "/pets"])
def test_nothing_leaves_the_output_folder(register, make_tiny_cfg, tmp_path, name):
    """For any name of a dataset: pictures, predictions, instances and report."""
    register(name, get_dataset_dicts([NAME])[:1])
    output = tmp_path / "a" / "b" / "output"
    cfg = make_tiny_cfg(
        output,
        *("DATASETS.TEST", (name,), "MODEL.DETR.TEST.SAVE_PREDICTIONS", True),
        *("MODEL.DETR.TEST.RAW_ON", True),
    )
    evaluate(cfg, build_model(cfg), reporter=ReportCollector)
    assert all(output in path.parents for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in (output / "pictures").iterdir()] == [f"{file_name_of(name)}.png"]
    (folder,) = (output / "inference").iterdir()
    assert folder.name == file_name_of(name)
    names = {"predictions.json", "report.html", "report.json", "predictions"}
    names |= {f"{file_name_of(name)}_thing_instances.json"}
    assert names <= {path.name for path in folder.iterdir()}
    assert find_predictions(output, name) == folder / "predictions.json"


def test_instances_without_a_json_stay_in_the_output_folder(registry, make_tiny_cfg, tmp_path):
    """Detectron2 would write the JSON of a dataset of instances under the dataset's name."""
    name = "../../../../outside"
    image = get_dataset_dicts([NAME])[0]
    thing = {"bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    kept = {key: image[key] for key in ("file_name", "image_id", "height", "width")}
    DatasetCatalog.register(name, lambda: [{**kept, "annotations": [{**thing, "iscrowd": 0}]}])
    MetadataCatalog.get(name).set(thing_classes=["ball"])
    output = tmp_path / "a" / "b" / "output"
    cfg = make_tiny_cfg(
        output,
        *("DATASETS.TRAIN", (), "DATASETS.TEST", (name,)),
        *("MODEL.DETR.MASK_ON", False, "MODEL.DETR.NUM_CLASSES", 1),
    )
    assert evaluate(cfg, build_model(cfg)).keys() == {"bbox"}
    assert all(output in path.parents for path in tmp_path.rglob("*") if path.is_file())
    (path,) = output.rglob("*_coco_format.json")
    assert path.name == f"{file_name_of(name)}_coco_format.json"


def test_names_that_are_alike_have_pictures_of_their_own(register, make_tiny_cfg, tmp_path):
    dicts = get_dataset_dicts([NAME])
    names = ("pets/val", "pets val", "pets_val")
    for place, name in enumerate(names):
        register(name, dicts[place : place + 1])
    cfg = make_tiny_cfg(tmp_path, "DATASETS.TEST", names)
    assert evaluate(cfg, build_model(cfg)).keys() == set(names)
    pictures = [cv2.imread(str(path)).tobytes() for path in (tmp_path / "pictures").iterdir()]
    assert len(set(pictures)) == 3 and len(list((tmp_path / "inference").iterdir())) == 3


def test_a_folder_in_the_way_of_pictures_is_named(small_shapes, tmp_path):
    collector = collect(get_dataset_dicts([NAME])[:1], get_dataset_dicts([NAME])[:1])
    (tmp_path / "pictures" / f"{NAME}.png").mkdir(parents=True)
    with pytest.raises(OSError, match=rf"can't be written: Is a directory: .*/{NAME}\.png"):
        collector.write(str(tmp_path))


def test_a_file_in_the_way_of_their_folder_is_named(small_shapes, tmp_path):
    collector = collect(get_dataset_dicts([NAME])[:1], get_dataset_dicts([NAME])[:1])
    (tmp_path / "pictures").touch()
    with pytest.raises(OSError, match="OUTPUT_DIR: nothing can be written to .*/pictures"):
        collector.write(str(tmp_path))


class SayingNothing(torch.nn.Module):
    """Predicts no segment, and records which process evaluates which image."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        (asked,) = batched_inputs
        with open(self.folder / f"asked_{comm.get_rank()}", "a") as file:
            file.write(f"{asked['image_id']}\n")
        ids = torch.zeros(asked["height"], asked["width"], dtype=torch.int32)
        return [{"panoptic_seg": (ids, [])}]


def _evaluate(cfg) -> None:
    with EventStorage() as storage:
        evaluate(cfg, SayingNothing(Path(cfg.OUTPUT_DIR)))
    Path(cfg.OUTPUT_DIR, f"shown_{comm.get_rank()}").write_text(
        "".join(f"{name}\n" for name, _, _ in storage._vis_data)
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
def test_pictures_of_several_processes_come_together(make_tiny_cfg, tmp_path, small_shapes, forked):
    """Five of 6 images are drawn; two of 2 processes and three of 4 have some of them."""
    found = {}
    for processes in (1, 2, 4):
        folder = tmp_path / str(processes)
        folder.mkdir()
        cfg = make_tiny_cfg(
            folder,
            *("MODEL.DETR.TEST.NUM_PICTURES", 5, "MODEL.DETR.TEST.INSTANCES_ON", False),
        )
        launch(_evaluate, processes, dist_url=f"file://{folder}_store", args=(cfg,))
        asked = "".join(path.read_text() for path in folder.glob("asked_*")).split()
        assert sorted(map(int, asked)) == [image["image_id"] for image in get_dataset_dicts([NAME])]
        shown = [(folder / f"shown_{rank}").read_text() for rank in range(processes)]
        assert shown[1:] == [""] * (processes - 1)
        (path,) = (folder / "pictures").iterdir()
        found[processes] = (shown[0], cv2.imread(str(path)).tobytes())
    assert len(found[1][0].split()) == 5
    assert found[2] == found[1] and found[4] == found[1]
