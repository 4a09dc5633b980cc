"""Whole runs: each stage trains its part of the model, and interruptions change nothing."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.modeling import build_model

from detr_d2.checkpoint import CheckpointError
from detr_d2.engine import evaluate_only, train
from detr_d2.engine.training_loop import Trainer
from detr_d2.engine.training_stages import final_weights, stage_config

FEW_STEPS = ("SOLVER.MAX_ITER", 2, "SOLVER.MASK_STAGE.MAX_ITER", 2, "DATASETS.TEST", ())


def load_model(path: Path | str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def assert_equal_bitwise(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def assert_same_figures(ours: dict, theirs: dict) -> None:
    expected = pytest.approx(flatten_results_dict(theirs), nan_ok=True)
    assert flatten_results_dict(ours) == expected


def assert_same_predictions(ours: Path, theirs: Path) -> None:
    """Predictions in two folders of evaluations have equal scores and areas to the last digit."""
    (one,), (other,) = (list(folder.rglob("predictions.json")) for folder in (ours, theirs))
    assert one.read_text() == other.read_text()
    assert '"score"' in one.read_text()


class Interruption(Exception):
    pass


@pytest.fixture
def steps(monkeypatch) -> list[tuple[str, int]]:
    """Records (stage, iteration) of every step; ``stop_before`` in it interrupts the run."""

    class Steps(list):
        stop_before = None

    taken, run_step = Steps(), Trainer.run_step

    def recorded(trainer):
        model = trainer.model
        if model.mask_head is None:
            stage = "boxes"
        else:
            stage = "masks" if model.freeze_detector else "joint"
        if (stage, trainer.iter) == taken.stop_before:
            raise Interruption
        taken.append((stage, trainer.iter))
        run_step(trainer)

    monkeypatch.setattr(Trainer, "run_step", recorded)
    return taken


def test_one_call_runs_both_stages(finished_run):
    folders = {path.name for path in finished_run.folder.iterdir()}
    assert folders == {"boxes", "masks"}
    for stage in folders:
        checkpoints = sorted(path.name for path in (finished_run.folder / stage).glob("*.pth"))
        assert checkpoints == ["model_0000001.pth", "model_0000003.pth", "model_final.pth"]
    assert finished_run.results.keys() == {"panoptic_seg", "bbox", "segm"}


def test_the_box_stage_has_no_mask_head_and_trains_all(finished_run):
    folder = finished_run.folder / "boxes"
    first, last = load_model(folder / "model_0000001.pth"), load_model(folder / "model_final.pth")
    assert all(key.startswith("detector.") for key in last)
    assert [key for key in last if torch.equal(first[key], last[key])] == []


def test_the_mask_stage_leaves_the_detector_alone(finished_run):
    """All tensors are equal bit for bit, including the statistics of batch norms."""
    boxes = load_model(finished_run.folder / "boxes" / "model_final.pth")
    masks = load_model(finished_run.folder / "masks" / "model_final.pth")
    assert any("running_var" in key for key in boxes)
    assert_equal_bitwise({key: masks[key] for key in masks if key in boxes}, boxes)
    head = masks.keys() - boxes.keys()
    assert head and all(key.startswith("mask_head.") for key in head)
    earlier = load_model(finished_run.folder / "masks" / "model_0000001.pth")
    assert [key for key in head if torch.equal(masks[key], earlier[key])] == []


def test_interrupted_runs_end_where_unbroken_ones_do(
    finished_run, make_random_cfg, tmp_path, steps
):
    """Weights are equal bit for bit, with dropout and augmentation, for any number of workers."""
    cfg = make_random_cfg(tmp_path)
    for interruption in (("boxes", 3), ("masks", 3)):
        steps.stop_before = interruption
        with pytest.raises(Interruption):
            train(cfg, resume=True)
    cfg.DATALOADER.NUM_WORKERS = 1
    steps.stop_before = None
    results = train(cfg, resume=True)

    boxes, masks = ([(stage, i) for i in range(5)] for stage in ("boxes", "masks"))
    # An interruption repeats the step after the last checkpoint. No finished stage is repeated.
    assert steps == boxes[:3] + boxes[2:] + masks[:3] + masks[2:]
    for stage in ("boxes", "masks"):
        assert_equal_bitwise(
            load_model(final_weights(cfg, stage)),
            load_model(final_weights(finished_run.cfg, stage)),
        )
    assert_same_figures(results, finished_run.results)
    assert_same_predictions(tmp_path / "masks", finished_run.folder / "masks")


def test_a_finished_run_is_not_repeated(finished_run, steps):
    before = {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*.pth")}
    assert train(finished_run.cfg, resume=True) == {}
    assert steps == []
    assert before == {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*.pth")}


def test_the_seed_decides_everything(make_tiny_cfg, tmp_path):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        cfg = make_tiny_cfg(
            tmp_path / str(number), *FEW_STEPS, "SOLVER.STAGES", ["boxes"], "SEED", seed
        )
        train(cfg)
        weights.append(load_model(final_weights(cfg, "boxes")))
    assert_equal_bitwise(weights[0], weights[1])
    assert not torch.equal(
        weights[0]["detector.class_head.weight"], (weights[2]["detector.class_head.weight"])
    )


def test_the_mask_stage_starts_from_any_detector(finished_run, make_tiny_cfg, tmp_path, steps):
    detector = str(tmp_path / "mine.pth")
    shutil.copy(final_weights(finished_run.cfg, "boxes"), detector)
    overrides = ("SOLVER.STAGES", ["masks"], "MODEL.DETR.FROZEN_WEIGHTS", detector)
    cfg = make_tiny_cfg(tmp_path / "output", *FEW_STEPS, *overrides)
    train(cfg)
    assert steps == [("masks", 0), ("masks", 1)]
    masks, boxes = load_model(final_weights(cfg, "masks")), load_model(detector)
    assert_equal_bitwise({key: masks[key] for key in boxes}, boxes)


def test_the_mask_stage_without_a_detector_stops_before_training(make_tiny_cfg, tmp_path, steps):
    cfg = make_tiny_cfg(tmp_path / "output", "SOLVER.STAGES", ["masks"])
    with pytest.raises(FileNotFoundError, match="FROZEN_WEIGHTS"):
        train(cfg)
    assert steps == [] and not (tmp_path / "output").exists()


def test_joint_training_trains_everything(make_tiny_cfg, tmp_path, steps):
    cfg = make_tiny_cfg(tmp_path, *FEW_STEPS, "SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 4)
    torch.manual_seed(cfg.SEED)
    before = copy.deepcopy(build_model(stage_config(cfg, "joint")).state_dict())
    train(cfg)
    assert steps == [("joint", i) for i in range(4)]
    after = load_model(final_weights(cfg, "joint"))
    assert after.keys() == before.keys()
    assert [key for key in after if torch.equal(after[key], before[key])] == []


def test_evaluation_alone_repeats_the_runs_figures(finished_run, make_random_cfg, tmp_path):
    """MODEL.WEIGHTS is empty, so the final weights of the last stage are evaluated."""
    cfg = make_random_cfg(tmp_path)
    Path(final_weights(cfg, "masks")).parent.mkdir()
    shutil.copy(final_weights(finished_run.cfg, "masks"), final_weights(cfg, "masks"))
    assert_same_figures(evaluate_only(cfg), finished_run.results)
    assert_same_predictions(tmp_path / "inference", finished_run.folder / "masks")
    assert len(list((tmp_path / "pictures").iterdir())) == cfg.MODEL.DETR.TEST.NUM_PICTURES == 1


def test_a_detector_alone_is_evaluated_by_its_boxes(finished_run, make_random_cfg, tmp_path):
    cfg = make_random_cfg(tmp_path, "SOLVER.STAGES", ["boxes"], "DATASETS.TRAIN", ())
    Path(final_weights(cfg, "boxes")).parent.mkdir()
    shutil.copy(final_weights(finished_run.cfg, "boxes"), final_weights(cfg, "boxes"))
    assert evaluate_only(cfg).keys() == {"bbox"}


def test_a_named_detector_replaces_the_box_stage(finished_run, make_tiny_cfg, tmp_path, steps):
    detector = final_weights(finished_run.cfg, "boxes")
    cfg = make_tiny_cfg(tmp_path, *FEW_STEPS, "MODEL.DETR.FROZEN_WEIGHTS", detector)
    train(cfg)
    assert steps == [("masks", 0), ("masks", 1)]


def test_a_wrong_name_of_a_detector_is_noticed_at_once(make_tiny_cfg, tmp_path, steps):
    cfg = make_tiny_cfg(tmp_path, *FEW_STEPS, "MODEL.DETR.FROZEN_WEIGHTS", "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth doesn't exist"):
        train(cfg)
    assert steps == []


def test_a_run_begun_anew_is_not_resumed_from_an_older_one(make_tiny_cfg, tmp_path, steps):
    cfg = make_tiny_cfg(tmp_path, *FEW_STEPS, "SOLVER.STAGES", ["boxes"])
    train(cfg)
    older = load_model(final_weights(cfg, "boxes"))
    steps.clear()
    steps.stop_before = ("boxes", 1)
    cfg.SEED = 1
    with pytest.raises(Interruption):
        train(cfg)
    steps.stop_before = None
    train(cfg, resume=True)
    assert steps == [("boxes", 0), ("boxes", 0), ("boxes", 1)]
    assert not torch.equal(
        older["detector.class_head.weight"],
        load_model(final_weights(cfg, "boxes"))["detector.class_head.weight"],
    )
    assert_equal_bitwise(load_model(tmp_path / "previous_1" / "boxes" / "model_final.pth"), older)


def test_a_refused_start_leaves_an_older_run_alone(make_tiny_cfg, tmp_path, steps):
    cfg = make_tiny_cfg(tmp_path, *FEW_STEPS, "SOLVER.STAGES", ["boxes"])
    train(cfg)
    older = load_model(final_weights(cfg, "boxes"))
    other = tmp_path / "other.pth"
    torch.save({name: tensor for name, tensor in older.items() if "class_head" not in name}, other)
    cfg.MODEL.WEIGHTS = str(other)
    with pytest.raises(CheckpointError, match="missing in the file: detector.class_head"):
        train(cfg)
    assert_equal_bitwise(load_model(final_weights(cfg, "boxes")), older)
    assert (tmp_path / "boxes" / "last_checkpoint").read_text() == "model_final.pth"


def test_stages_that_train_masks_need_masks(make_tiny_cfg, tmp_path, steps):
    cfg = make_tiny_cfg(tmp_path, *FEW_STEPS, "MODEL.DETR.MASK_ON", False)
    with pytest.raises(ValueError, match="MASK_ON is False, but SOLVER.STAGES"):
        train(cfg)
    cfg.SOLVER.STAGES = ["boxes"]
    train(cfg)
    assert steps == [("boxes", 0), ("boxes", 1)]
