"""Registering one's own data: by a call and by a config, and from there to training."""

import json
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from page_blocks import blocks

from detr_d2 import config_file, load_config, register_panoptic
from detr_d2.checkpoint import read_checkpoint
from detr_d2.data import panoptic_json
from detr_d2.data.categories import classes_of
from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.panoptic_dataset import get_dataset_dicts, require_datasets
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.data.register import register_from_config
from detr_d2.engine import evaluate_only, train
from detr_d2.engine.training_stages import final_weights

pytestmark = pytest.mark.usefixtures("registry")

NAME = "pets"
# The category ids, names and isthing of datasets with both, and with one alone.
KINDS = {
    "both": [(7, "cat", True), (3, "grass", False), (9, "dog", 1)],
    "things": [(7, "cat", 1), (9, "dog", 1)],
    "stuff": [(3, "grass", 0), (4, "sky", False)],
}


def write_dataset(root: Path, kind: str = "both", num_images: int = 4) -> tuple[str, str, str]:
    """Images of several suffixes in sub-folders, each with a segment of every category in stripes.

    Returns image_root, panoptic_root, panoptic_json. The JSON gives no colours.
    """
    categories = KINDS[kind]
    images, annotations = [], []
    rng = np.random.default_rng(0)
    for i in range(num_images):
        image_name = f"{'ab'[i % 2]}/{i}.{['jpg', 'png', 'jpeg', 'bmp'][i % 4]}"
        png_name = f"maps/{i}_pan.png"
        for path in (root / "images" / image_name, root / "pngs" / png_name):
            path.parent.mkdir(parents=True, exist_ok=True)
        ids = np.repeat(np.arange(1, 1 + len(categories)), 20)[None].repeat(40, 0)
        write_panoptic_png(ids, root / "pngs" / png_name)
        pixels = rng.integers(0, 255, (*ids.shape, 3), np.uint8)
        cv2.imwrite(str(root / "images" / image_name), pixels)
        height, width = ids.shape
        images.append({"id": i, "file_name": image_name, "height": height, "width": width})
        segments = [
            {"id": k + 1, "category_id": c[0], "area": 800, "bbox": [20 * k, 0, 20, 40]}
            | {"iscrowd": 0}
            for k, c in enumerate(categories)
        ]
        annotations.append({"image_id": i, "file_name": png_name, "segments_info": segments})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "isthing": t} for i, name, t in categories],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    return str(root / "images"), str(root / "pngs"), str(root / "panoptic.json")


@pytest.fixture
def own(make_tiny_cfg, tmp_path, monkeypatch):
    """Makes configs that know their datasets from ``DATASETS.PANOPTIC`` alone."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))

    def make(*overrides, kind="both", train_kind=None):
        write_dataset(tmp_path / "datasets" / "val", kind)
        write_dataset(tmp_path / "datasets" / "train", train_kind or kind)
        entries = [
            [f"{NAME}_{split}", f"{split}/images", f"{split}/pngs", f"{split}/panoptic.json"]
            for split in ("train", "val")
        ]
        return make_tiny_cfg(
            tmp_path / "output",
            *("DATASETS.PANOPTIC", entries, "MODEL.DETR.NUM_CLASSES", 0),
            *("DATASETS.TRAIN", (entries[0][0],), "DATASETS.TEST", (entries[1][0],)),
            *overrides,
        )

    return make


def test_one_call_derives_everything(tmp_path, caplog):
    paths = write_dataset(tmp_path)
    with caplog.at_level(logging.INFO, logger="detr_d2"):
        metadata = register_panoptic(NAME, *paths)
    assert f"Dataset 'pets': 3 classes, 2 of them things ({paths[2]})" in caplog.text
    assert metadata is MetadataCatalog.get(NAME)
    assert metadata.thing_classes == metadata.stuff_classes == ["cat", "dog", "grass"]
    assert metadata.thing_dataset_id_to_contiguous_id == {7: 0, 9: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {3: 2}
    assert len({tuple(color) for color in metadata.thing_colors}) == 3
    assert metadata.evaluator_type == "coco_panoptic_seg"
    dicts = DatasetCatalog.get(NAME)
    assert [Path(d["file_name"]).name for d in dicts] == ["0.jpg", "1.png", "2.jpeg", "3.bmp"]
    assert all(Path(d["file_name"]).is_file() for d in dicts)
    assert all(Path(d["pan_seg_file_name"]).is_file() for d in dicts)
    assert [s["category_id"] for s in dicts[0]["segments_info"]] == [0, 2, 1]
    assert [s["isthing"] for s in dicts[0]["segments_info"]] == [True, False, True]


def test_paths_may_be_path_objects(tmp_path):
    register_panoptic(NAME, *map(Path, write_dataset(tmp_path)))
    assert len(get_dataset_dicts([NAME])) == 4


def test_images_are_parsed_when_they_are_read_and_then_once(tmp_path, monkeypatch):
    parsed, parse = [], panoptic_json.read_regular
    monkeypatch.setattr(
        panoptic_json, "read_regular", lambda path, *args: parsed.append(path) or parse(path, *args)
    )
    paths = write_dataset(tmp_path)
    register_panoptic(NAME, *paths)
    assert parsed == []
    assert len(DatasetCatalog.get(NAME)) == 4 and parsed == [paths[2]]


def test_what_is_read_is_what_the_file_has_then(tmp_path):
    paths = write_dataset(tmp_path)
    register_panoptic(NAME, *paths)
    write_dataset(tmp_path, num_images=7)
    assert len(DatasetCatalog.get(NAME)) == 7
    write_dataset(tmp_path, "things")
    with pytest.raises(ValueError, match=r"categories of .*panoptic\.json are no longer .*'pets'"):
        DatasetCatalog.get(NAME)


def test_the_same_twice_is_fine_and_something_else_is_not(tmp_path):
    paths = write_dataset(tmp_path)
    assert register_panoptic(NAME, *paths) is register_panoptic(NAME, *paths)
    with pytest.raises(ValueError, match="'pets' is registered already, with another image_root"):
        register_panoptic(NAME, str(tmp_path), *paths[1:])
    with pytest.raises(ValueError, match="'coco_2017_val_panoptic' is registered already"):
        register_panoptic("coco_2017_val_panoptic", *paths)


def test_a_missing_json_is_named_and_leaves_nothing_behind(tmp_path):
    paths = write_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'pets' .* no file .*nowhere\.json"):
        register_panoptic(NAME, *paths[:2], tmp_path / "nowhere.json")
    assert NAME not in DatasetCatalog.list()
    register_panoptic(NAME, *paths)


@pytest.mark.parametrize("folder", ["images", "pngs"])
@pytest.mark.parametrize("use", [require_datasets, get_dataset_dicts])
def test_a_missing_folder_is_named(tmp_path, folder, use):
    register_panoptic(NAME, *write_dataset(tmp_path))
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"'pets' is not there: .*{folder} does not exist"):
        use([NAME])


def test_a_config_registers_once_below_the_folder_of_datasets(own, tmp_path):
    cfg = own()
    for _ in range(2):
        register_from_config(cfg)
    assert MetadataCatalog.get("pets_val").image_root == str(tmp_path / "datasets/val/images")
    assert len(get_dataset_dicts(["pets_train", "pets_val"])) == 8


def test_without_a_folder_of_datasets_paths_start_as_detectron2s(own, tmp_path, monkeypatch):
    """Absolute ones stay as they are."""
    cfg = own()
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    cfg.DATASETS.PANOPTIC[1][1] = str(tmp_path / "datasets/val/images")
    register_from_config(cfg)
    assert MetadataCatalog.get("pets_train").image_root == os.path.join("datasets", "train/images")
    assert len(get_dataset_dicts(["pets_train", "pets_val"])) == 8


def test_two_entries_of_one_name_are_refused(own):
    cfg = own()
    cfg.DATASETS.PANOPTIC[1][0] = "pets_train"
    with pytest.raises(ValueError, match="'pets_train' is registered already"):
        register_from_config(cfg)


@pytest.mark.parametrize("build", [build_model, DefaultPredictor, DetrDatasetMapper])
def test_whatever_is_built_from_a_config_knows_its_data(own, build):
    cfg = own("MODEL.WEIGHTS", "")
    built = build(cfg, is_train=True) if build is DetrDatasetMapper else build(cfg)
    assert classes_of("pets_train").names == ("cat", "dog", "grass")
    if build is DetrDatasetMapper:
        assert built.num_classes == 3
    else:
        model = getattr(built, "model", built)
        assert model.detector.class_head.out_features == 4
        assert model.is_thing.tolist() == [True, True, False]
    if build is DefaultPredictor:
        assert built.metadata.thing_classes == ["cat", "dog", "grass"]


def test_a_model_is_built_where_its_training_data_is_not(own, tmp_path):
    """But it is not trained there."""
    cfg = own()
    (tmp_path / "datasets/train").rename(tmp_path / "elsewhere")
    (tmp_path / "datasets/val/images").rename(tmp_path / "photos")
    assert build_model(cfg).detector.class_head.out_features == 4
    with pytest.raises(FileNotFoundError, match=r"'pets_val' .*val/images does not exist"):
        train(cfg)
    (tmp_path / "photos").rename(tmp_path / "datasets/val/images")
    with pytest.raises(FileNotFoundError, match=r"'pets_train' .*train/panoptic\.json does not"):
        train(cfg)


def test_no_classes_and_no_data_that_tells_them(own, tmp_path):
    cfg = own()
    (tmp_path / "datasets").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 0, .* pets_train, pets_val .*\.json"):
        build_model(cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_own_data_is_trained_and_evaluated(own, kind):
    """Things alone and stuff alone as well. What there is none of has no PQ."""
    cfg = own("SOLVER.MAX_ITER", 2, "SOLVER.MASK_STAGE.MAX_ITER", 2, kind=kind)
    cfg.freeze()
    results = train(cfg)
    assert cfg.MODEL.DETR.NUM_CLASSES == 0  # of the caller's; the model has as many as the data
    assert len(read_checkpoint(final_weights(cfg, "masks")).classes.names) == len(KINDS[kind])
    quality = results["panoptic_seg"]
    assert np.isnan(quality["PQ_th"]) == (kind == "stuff")
    assert np.isnan(quality["PQ_st"]) == (kind == "things")
    assert 0 <= quality["PQ"] <= 100
    assert ("segm" in results) == (kind != "stuff")
    assert evaluate_only(cfg)["panoptic_seg"] == pytest.approx(quality, nan_ok=True)


def test_train_and_val_of_other_classes_are_refused(own):
    with pytest.raises(ValueError, match="'pets_val'.* other classes .*: cat, dog; .*: grass, sky"):
        build_model(own(kind="things", train_kind="stuff"))


def test_the_recipe_needs_nothing_but_data(own):
    """Its keys, on a tiny model without released weights."""
    cfg = own()
    recipe = cfg.clone()
    recipe.merge_from_file(config_file("finetune_panoptic.yaml"))
    assert recipe.MODEL.DETR.NUM_CLASSES == 0 and recipe.MODEL.DETR.RESIZE_ON_LOAD
    assert recipe.MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX == "joint"  # as the weights need
    assert "detr-r50-panoptic" in recipe.MODEL.WEIGHTS and recipe.SOLVER.STAGES == ["joint"]
    named = {entry[0] for entry in recipe.DATASETS.PANOPTIC}
    assert named == {*recipe.DATASETS.TRAIN, *recipe.DATASETS.TEST}
    cfg.MODEL.BACKBONE.FREEZE_AT = recipe.MODEL.BACKBONE.FREEZE_AT
    cfg.SOLVER.STAGES, cfg.SOLVER.MAX_ITER = recipe.SOLVER.STAGES, 2
    assert not any(p.requires_grad for p in build_model(cfg).detector.backbone.parameters())
    assert "panoptic_seg" in train(cfg)


def test_the_snippet_of_the_page_runs(tmp_path, monkeypatch, capsys):
    (snippet,) = blocks("docs/your-data.md", "python")
    _, pngs, annotation = map(Path, write_dataset(tmp_path / "pets"))
    for folder in ("prepared", "split"):
        (tmp_path / "pets" / folder).mkdir()
    pngs.rename(tmp_path / "pets/prepared/panoptic")
    for split in ("train", "val"):
        (tmp_path / "pets/split" / f"panoptic_{split}.json").write_bytes(annotation.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "your-data.md", "exec"), {})
    assert capsys.readouterr().out.strip() == "['cat', 'dog', 'grass']"
    assert len(get_dataset_dicts(["pets_train", "pets_val"])) == 8
    entries = yaml.safe_load(blocks("docs/your-data.md", "yaml")[0])["DATASETS"]
    recipe = load_config(config_file("finetune_panoptic.yaml")).DATASETS
    assert entries["PANOPTIC"] == recipe.PANOPTIC
