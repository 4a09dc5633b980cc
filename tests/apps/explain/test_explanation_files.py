"""Files of an explanation, from Python and from the command line."""

import re

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from detr_d2.apps.explain import explain_file, explain_image, write_explanation
from detr_d2.apps.explain.page_content import page_context
from detr_d2.apps.explain.picture_folder import pictures
from detr_d2.predictor import Predictor


@pytest.fixture(scope="module")
def trained_cfg(make_tiny_cfg, make_model, tmp_path_factory):
    """The config of the tiny model, with its weights on disk and five of eight queries kept."""
    folder = tmp_path_factory.mktemp("trained")
    model = make_model()
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    threshold = model.options.panoptic.score_thresh
    overrides = ["MODEL.WEIGHTS", str(folder / "model.pth"), "MODEL.DETR.TEST.SCORE_THRESH"]
    return make_tiny_cfg(folder, *overrides, threshold)


@pytest.fixture(scope="module")
def pixels(image):
    """H×W×3, BGR."""
    return np.ascontiguousarray(image["image"].byte().numpy().transpose(1, 2, 0)[:, :, ::-1])


@pytest.mark.parametrize("size", [0, 48])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_image_goes_the_predictors_way(trained_cfg, pixels, size, order):
    cfg = trained_cfg.clone()
    cfg.MODEL.DETR.TEST.INSTANCES_ON = False  # an explanation makes no masks of theirs
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FORMAT = size, order
    predictor = Predictor(cfg)
    explanation = explain_image(predictor, pixels)
    ids, segments_info = predictor(pixels)["panoptic_seg"]
    assert torch.equal(explanation.masks.ids, ids)
    assert explanation.masks.segments_info == segments_info
    assert explanation.raw.sizes.network == ((48, 60) if size else (64, 80))
    if not size:
        assert (explanation.picture == pixels[:, :, ::-1]).all()


def test_pictures_lie_beside_the_page(explanation, tmp_path):
    (tmp_path / "move4_query999_maps.png").write_bytes(b"of an earlier explanation")
    (tmp_path / "holiday.png").write_bytes(b"the user's")
    page = write_explanation(explanation, tmp_path)
    assert page == tmp_path / "explain.html"
    names = {path.stem for path in tmp_path.glob("move*.png")}
    kept = explanation.masks.kept.tolist()
    of_queries = {
        f"move{move}_query{query:03d}_{what}"
        for query in kept
        for move, what in ((3, "attention"), (4, "maps"), (5, "stages"), (5, "mask_logits"))
    }
    rounds = {f"move7_round{i + 1}" for i in range(len(explanation.masks.rounds))}
    features = {f"move1_{name}" for name in ("image", "res2", "res3", "res4", "res5", "positions")}
    others = {"move2_projected", "move2_memory", "move2_attention_of_the_middle", "move3_boxes"}
    assert names == of_queries | rounds | features | others | {"move7_final"}
    assert (tmp_path / "holiday.png").read_bytes() == b"the user's"
    for name in names:
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture.min() < picture.max(), f"{name} shows nothing"
    # The first pixel's winner has its query's colour.
    from detr_d2.apps.explain.grid_pictures import query_color

    first = cv2.imread(str(tmp_path / "move7_round1.png"))[0, 0, ::-1]
    assert tuple(first) == query_color(int(explanation.masks.rounds[0].winner[0, 0]))


def test_pictures_are_those_of_the_pages_queries(explanation, monkeypatch):
    for module in ("picture_folder", "page_content"):
        monkeypatch.setattr(f"detr_d2.apps.explain.{module}.MAX_STAGE_QUERIES", 2)
    shown = page_context(explanation)["data"]["stages"]
    names = [name for name, _ in pictures(explanation) if name.endswith("_stages")]
    assert names == [f"move5_query{query:03d}_stages" for query in shown]
    assert len(names) == 2


@pytest.mark.parametrize("overrides", [["MODEL.DETR.MASK_ON", False], ["MODEL.DETR.ENC_LAYERS", 0]])
def test_models_without_masks_or_encoder_have_pictures_too(make_model, image, tmp_path, overrides):
    from detr_d2.apps.explain import explain

    write_explanation(explain(make_model(*overrides), image), tmp_path)
    names = " ".join(sorted(path.stem for path in tmp_path.glob("*.png")))
    assert "move3_boxes" in names
    assert ("move7_final" in names) == ("MODEL.DETR.MASK_ON" not in overrides)
    assert ("move2_attention" in names) == ("MODEL.DETR.ENC_LAYERS" not in overrides)


def test_image_of_one_pixel(make_model, tmp_path):
    from detr_d2.apps.explain import explain

    explanation = explain(make_model(), {"image": torch.full((3, 1, 1), 9.0)})
    page = write_explanation(explanation, tmp_path).read_text(encoding="utf-8")
    assert "Image 1×1 pixels; the network saw 1×1." in page


@pytest.fixture
def run(run_cli, trained_cfg, tmp_path):
    """Runs the command on an image file; gives its exit status or message, and the folder."""
    config = tmp_path / "config.yaml"
    config.write_text(trained_cfg.dump())

    def run(image_file, *opts):
        arguments = ["--config-file", config, "--input", image_file, "--output", tmp_path / "out"]
        try:
            status = run_cli("explain", *arguments, *opts)
        except SystemExit as stop:
            status = stop.code
        return status, tmp_path / "out"

    return run


def test_command_writes_the_page(run, pixels, tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    status, folder = run(tmp_path / "image.png")
    assert status == 0
    page = (folder / "explain.html").read_text(encoding="utf-8")
    assert "Filtering: 5 of 8 queries are kept" in page
    assert list(folder.glob("move7_final.png"))


def test_command_names_what_is_wrong(run, pixels, tmp_path):
    broken, tiny = tmp_path / "broken.png", tmp_path / "image.png"
    broken.write_bytes(b"no image")
    cv2.imwrite(str(tiny), pixels)
    for arguments, message in [
        ((broken,), r"broken\.png"),
        ((tmp_path / "missing.png",), r"missing\.png"),
        ((tiny, "MODEL.WEIGHTS", "missing.pth"), r"missing\.pth"),
        ((tiny, "MODEL.DETR.TEST.STUFF_MERGING", "maybe"), "STUFF_MERGING"),
    ]:
        status, folder = run(*arguments)
        assert re.search(f"error: .*{message}", status), status
        assert not folder.exists() or not list(folder.iterdir())


def test_without_an_image_the_datasets_first_is_explained(trained_cfg, small_shapes, tmp_path):
    page = explain_file(trained_cfg, None, str(tmp_path))
    assert page.is_file()
    first = DatasetCatalog.get(trained_cfg.DATASETS.TEST[0])[0]
    shown = cv2.imread(str(tmp_path / "move1_image.png"))
    image = cv2.imread(first["file_name"])
    assert shown.shape[0] * image.shape[1] == shown.shape[1] * image.shape[0]
    resized = cv2.resize(shown, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(resized.astype(int) - image).mean() < 5
