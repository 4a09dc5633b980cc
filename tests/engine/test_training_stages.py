"""What each stage changes in a config, and where stages find each other's weights."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from detr_d2.checkpoint import CheckpointError
from detr_d2.engine.training_stages import (
    check_starting_point,
    evaluation_config,
    final_weights,
    stage_config,
)


def touch(path: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    return path


@pytest.mark.parametrize(
    ("stage", "mask_on", "frozen"),
    [("boxes", False, False), ("masks", True, True), ("joint", True, False)],
)
def test_what_a_stage_trains(tiny_cfg, stage, mask_on, frozen):
    staged = stage_config(tiny_cfg, stage)
    assert staged.MODEL.DETR.MASK_ON is mask_on
    assert staged.MODEL.DETR.FREEZE_DETECTOR is frozen
    assert Path(staged.OUTPUT_DIR) == Path(tiny_cfg.OUTPUT_DIR) / stage
    assert staged.is_frozen()


@pytest.mark.parametrize("stage", ["boxes", "masks", "joint"])
def test_the_runs_config_is_left_alone(tiny_cfg, stage):
    tiny_cfg.freeze()
    before = tiny_cfg.dump()
    stage_config(tiny_cfg, stage)
    assert tiny_cfg.dump() == before and tiny_cfg.is_frozen()


def test_the_mask_stage_has_a_schedule_of_its_own(tiny_cfg):
    own = {"IMS_PER_BATCH": 3, "BASE_LR": 0.5, "MAX_ITER": 77, "STEPS": [11, 22]}
    assert tiny_cfg.SOLVER.MASK_STAGE.keys() == own.keys()
    tiny_cfg.SOLVER.MASK_STAGE.update(own)
    masks = stage_config(tiny_cfg, "masks")
    assert {key: masks.SOLVER[key] for key in own} == own
    assert masks.SOLVER.WEIGHT_DECAY == tiny_cfg.SOLVER.WEIGHT_DECAY
    for stage in ("boxes", "joint"):
        solver = stage_config(tiny_cfg, stage).SOLVER
        assert {key: solver[key] for key in own} == {key: tiny_cfg.SOLVER[key] for key in own}


def test_where_each_stage_starts(tiny_cfg):
    tiny_cfg.MODEL.WEIGHTS = "backbone.pkl"
    assert stage_config(tiny_cfg, "boxes").MODEL.WEIGHTS == "backbone.pkl"
    assert stage_config(tiny_cfg, "joint").MODEL.WEIGHTS == "backbone.pkl"
    masks = stage_config(tiny_cfg, "masks")
    assert masks.MODEL.WEIGHTS == str(Path(tiny_cfg.OUTPUT_DIR) / "boxes" / "model_final.pth")
    assert masks.MODEL.WEIGHTS == final_weights(tiny_cfg, "boxes")
    tiny_cfg.MODEL.DETR.FROZEN_WEIGHTS = "detector.pth"
    assert stage_config(tiny_cfg, "masks").MODEL.WEIGHTS == "detector.pth"
    assert stage_config(tiny_cfg, "boxes").MODEL.WEIGHTS == "backbone.pkl"


def test_the_mask_stage_needs_a_detector(tiny_cfg, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        check_starting_point(tiny_cfg)
    assert final_weights(tiny_cfg, "boxes") in str(caught.value)
    assert "MODEL.DETR.FROZEN_WEIGHTS" in str(caught.value)
    touch(final_weights(tiny_cfg, "boxes"))
    check_starting_point(tiny_cfg)

    tiny_cfg.MODEL.DETR.FROZEN_WEIGHTS = str(tmp_path / "detector.pth")
    with pytest.raises(FileNotFoundError, match=r"detector\.pth"):
        check_starting_point(tiny_cfg)
    touch(tiny_cfg.MODEL.DETR.FROZEN_WEIGHTS)
    check_starting_point(tiny_cfg)


def test_what_is_evaluated(tiny_cfg):
    with pytest.raises(FileNotFoundError, match=r"WEIGHTS.* \(boxes, masks\) .*model_final\.pth"):
        evaluation_config(tiny_cfg)
    touch(final_weights(tiny_cfg, "boxes"))
    assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == final_weights(tiny_cfg, "boxes")
    touch(final_weights(tiny_cfg, "masks"))
    assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == final_weights(tiny_cfg, "masks")
    tiny_cfg.SOLVER.STAGES = ["boxes"]
    assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == final_weights(tiny_cfg, "boxes")
    mine = tiny_cfg.MODEL.WEIGHTS = touch(f"{tiny_cfg.OUTPUT_DIR}/mine.pth")
    evaluated = evaluation_config(tiny_cfg)
    assert evaluated.MODEL.WEIGHTS == mine and evaluated.is_frozen()
    assert tiny_cfg.MODEL.WEIGHTS == mine and not tiny_cfg.is_frozen()
    Path(mine).unlink()
    with pytest.raises(FileNotFoundError, match="MODEL.WEIGHTS: .*mine.pth doesn't exist"):
        evaluation_config(tiny_cfg)


@pytest.mark.parametrize(
    "weights",
    [
        "",
        "torchvision://resnet50",
        "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
        "https://dl.fbaipublicfiles.com/pycls/RegNetX-4.0GF.pyth",
        "backbone.pth?matching_heuristics=True",
    ],
)
def test_a_backbone_is_nothing_to_evaluate(tiny_cfg, weights):
    """COCO's config names one, from which training starts."""
    tiny_cfg.MODEL.WEIGHTS = weights
    with pytest.raises(FileNotFoundError, match="No trained model"):
        evaluation_config(tiny_cfg)
    touch(final_weights(tiny_cfg, "masks"))
    assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == final_weights(tiny_cfg, "masks")


def test_a_detector_alone_is_evaluated_without_masks(tiny_cfg):
    """After the stage "boxes", or after a run that was interrupted in the stage "masks"."""
    touch(final_weights(tiny_cfg, "boxes"))
    assert evaluation_config(tiny_cfg).MODEL.DETR.MASK_ON is False
    touch(final_weights(tiny_cfg, "masks"))
    assert evaluation_config(tiny_cfg).MODEL.DETR.MASK_ON is True


ARRAY = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (
            ["backbone.res2.0.conv1.weight", "proposal_generator.a", "roi_heads.b"],
            "a whole model of Detectron2 with backbone, proposal_generator, roi_heads, but not a",
        ),
        (
            ["detector.input_proj.bias"],
            "one of this project, as a pickle of arrays. Save its state",
        ),
        (["transformer.encoder.layers.0.linear1.weight"], "the reference DETR, as a pickle"),
    ],
)
def test_a_whole_model_in_a_pickle_is_not_taken_for_a_backbone(tiny_cfg, tmp_path, names, what):
    """Nor does what the last stage left take its place."""
    touch(final_weights(tiny_cfg, "masks"))
    path = tmp_path / "model.pkl"
    weights = dict.fromkeys(names, ARRAY)
    for content in ({"model": weights, "__author__": "Zoo"}, weights):
        path.write_bytes(pickle.dumps(content))
        tiny_cfg.MODEL.WEIGHTS = str(path)
        with pytest.raises(CheckpointError, match=f"^MODEL.WEIGHTS: .*model.pkl is {what}"):
            evaluation_config(tiny_cfg)


@pytest.mark.parametrize(
    "url",
    [
        "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final.pkl",
        "https://dl.fbaipublicfiles.com/detectron2/COCO-PanopticSegmentation/panoptic/model.pkl",
    ],
)
def test_a_whole_model_of_the_zoo_is_known_by_its_address(tiny_cfg, url):
    tiny_cfg.MODEL.WEIGHTS = url
    with pytest.raises(
        CheckpointError, match="is a whole model of Detectron2's model zoo, but not a D"
    ):
        evaluation_config(tiny_cfg)


def test_a_backbone_is_not_what_is_evaluated(tiny_cfg, tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": ARRAY}, "__author__": "Zoo"}))
    for weights in (str(path), "detectron2://ImageNetPretrained/MSRA/R-50.pkl"):
        tiny_cfg.MODEL.WEIGHTS = weights
        with pytest.raises(
            FileNotFoundError, match=f"{weights}', a backbone to train from, and no"
        ):
            evaluation_config(tiny_cfg)
    touch(final_weights(tiny_cfg, "masks"))
    assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == final_weights(tiny_cfg, "masks")
