"""A training run: its checks, its stages one after the other, and evaluation without training."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import create_ddp_model, default_writers, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from torch import nn

from detr_d2.checkpoint import resolve_config
from detr_d2.config import set_key
from detr_d2.data.categories import check_num_classes, resolve_classes
from detr_d2.data.loader import build_train_loader
from detr_d2.data.panoptic_dataset import require_datasets
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.engine.model_evaluation import evaluate
from detr_d2.engine.solver import build_optimizer
from detr_d2.engine.training_faults import explained
from detr_d2.engine.training_hooks import EvalHook, MaskMetrics, RepeatableRandomness
from detr_d2.engine.training_loop import Trainer
from detr_d2.engine.training_stages import (
    FINAL_WEIGHTS,
    check_batch_sizes,
    check_starting_point,
    evaluation_config,
    final_weights,
    set_aside,
    stage_config,
)
from detr_d2.file_io import check_writable, remove_unfinished

logger = logging.getLogger(__name__)

# The number of iterations between two lines of the log.
LOG_PERIOD = 20


def prepare(cfg: CfgNode, eval_only: bool = False) -> CfgNode:
    """Checks everything that would stop a run, before anything slow begins.

    Returns:
        The config, resolved.

    Raises:
        KeyError, OSError, ValueError: a dataset, its files or the weights are missing; classes
            disagree; stages train masks, but the model has none; batches can't be divided among
            processes; or nothing can be written to ``OUTPUT_DIR``.
    """
    dataset_names = [*cfg.DATASETS.TEST, *([] if eval_only else cfg.DATASETS.TRAIN)]
    if not eval_only and not cfg.MODEL.DETR.MASK_ON and set(cfg.SOLVER.STAGES) != {"boxes"}:
        raise ValueError(
            "MODEL.DETR.MASK_ON is False, but SOLVER.STAGES "
            f"({', '.join(cfg.SOLVER.STAGES)}) train masks: set SOLVER.STAGES to ['boxes']."
        )
    for name in dataset_names:
        check_num_classes(cfg, name)
    require_datasets(dataset_names)
    # Classes are resolved again: some datasets know theirs only after their files were read.
    resolve_classes(cfg)
    cfg = resolve_config(cfg)
    if eval_only:
        evaluation_config(cfg)
    else:
        check_batch_sizes(cfg)
        if "boxes" not in cfg.SOLVER.STAGES or cfg.MODEL.DETR.FROZEN_WEIGHTS:
            check_starting_point(cfg)
    check_writable(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    return cfg


def train(cfg: CfgNode, resume: bool = False) -> OrderedDict:
    """Runs the stages of ``SOLVER.STAGES`` in order.

    Args:
        cfg: the config of the run.
        resume: whether to continue a run with the same ``OUTPUT_DIR``. Finished stages are skipped,
            and an unfinished stage continues from its last checkpoint.

    Returns:
        The results of the last stage's evaluation; empty if that stage was skipped.
    """
    cfg = prepare(cfg)
    stages = list(cfg.SOLVER.STAGES)
    if "masks" in stages and "boxes" in stages and cfg.MODEL.DETR.FROZEN_WEIGHTS:
        logger.info("Stage 'boxes' is left out: FROZEN_WEIGHTS names a trained detector.")
        stages.remove("boxes")
    results: OrderedDict = OrderedDict()
    for number, stage in enumerate(stages):
        remove_unfinished(os.path.join(cfg.OUTPUT_DIR, stage))
        if resume and PathManager.exists(final_weights(cfg, stage)):
            logger.info("Stage %r has finished: %s", stage, final_weights(cfg, stage))
            continue
        results = train_stage(cfg, stage, resume, later_stages=stages[number + 1 :])
        comm.synchronize()
    return results


def train_stage(
    run_cfg: CfgNode, stage: str, resume: bool, later_stages: Sequence[str] = ()
) -> OrderedDict:
    """Trains one stage to its end and evaluates it.

    Args:
        run_cfg: the config of the run.
        stage: the stage's name.
        resume: whether to continue from the last checkpoint of the stage, if there is one.
        later_stages: the stages after it. Their folders from an older run are set aside.

    Raises:
        TrainingError: a loss isn't finite, the disk is full, a data file is missing, or similar.
    """
    cfg = stage_config(run_cfg, stage)
    leave_cores_to_loader(cfg)
    # A stage starts in the same way, whether or not another stage ran before it in this process.
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    model = build_model(cfg)
    log_parameters(stage, model)
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    model = wrap_for_processes(model)

    trainer = make_trainer(cfg, model, optimizer)
    trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler)])  # its state is resumed, too
    checkpointer = StrictCheckpointer(model, cfg.OUTPUT_DIR, to_train=True, trainer=trainer)
    resumed = checkpointer.find_to_resume() if resume else ""
    checkpointer.load(resumed or cfg.MODEL.WEIGHTS, None if resumed else [])
    start_iter = trainer.iter + 1 if resumed else 0

    data_loader = build_train_loader(cfg, start_iter)

    # Older folders are set aside only after weights and data are known to fit. The folder of this
    # stage comes first: with it the run has begun, and a resumed run comes here again before any
    # later stage starts.
    for older in [*([] if resume else [stage]), *later_stages]:
        set_aside(run_cfg, older)
    comm.synchronize()
    PathManager.mkdirs(cfg.OUTPUT_DIR)
    results: OrderedDict = OrderedDict()

    def evaluate_model() -> OrderedDict:
        goes_on = trainer.iter + 1 < trainer.max_iter
        results.update(evaluate(cfg, model, while_training=goes_on))
        return results

    trainer.register_hooks(
        [
            RepeatableRandomness(cfg.SEED) if cfg.SEED >= 0 else None,
            hooks.IterationTimer(),
            MaskMetrics(LOG_PERIOD) if comm.is_main_process() else None,
            hooks.PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            if comm.is_main_process()
            else None,
            # Evaluation comes after the checkpointer: if it fails, the weights are saved.
            EvalHook(cfg.TEST.EVAL_PERIOD, evaluate_model),
            hooks.PeriodicWriter(
                default_writers(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER), period=LOG_PERIOD
            )
            if comm.is_main_process()
            else None,
        ]
    )
    trainer.reset_data_loader(lambda: data_loader)
    logger.info("Stage %r: iterations %d to %d", stage, start_iter, cfg.SOLVER.MAX_ITER)
    with explained(stage, lambda: trainer.iter, checkpointer.get_checkpoint_file):
        # A run may have been killed between its last checkpoint and its final weights.
        if start_iter >= cfg.SOLVER.MAX_ITER:
            checkpointer.save(Path(FINAL_WEIGHTS).stem, iteration=trainer.iter)
        trainer.train(start_iter, cfg.SOLVER.MAX_ITER)
    return results


def evaluate_only(
    cfg: CfgNode, *, reporter: Callable[..., DatasetEvaluator] | None = None
) -> OrderedDict:
    """Evaluates ``MODEL.WEIGHTS`` or, if that is empty, the final weights of the last stage.

    Args:
        cfg: the config of the run.
        reporter: writes a report for each dataset, see ``evaluate``.
    """
    cfg = evaluation_config(prepare(cfg, eval_only=True))
    if reporter is not None:
        set_key(cfg, "MODEL.DETR.TEST.RAW_ON", True)
    model = build_model(cfg)
    StrictCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return evaluate(cfg, wrap_for_processes(model), reporter=reporter)


def make_trainer(cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer) -> Trainer:
    """Builds the trainer of a stage. It has no data yet; see ``reset_data_loader``."""
    mixed_precision = cfg.SOLVER.AMP.ENABLED and torch.cuda.is_available()
    if cfg.SOLVER.AMP.ENABLED and not mixed_precision:
        logger.warning("SOLVER.AMP.ENABLED needs a GPU: training in float32.")
    return Trainer(
        model,
        optimizer,
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        mixed_precision=mixed_precision,
        seed=cfg.SEED,
        output_dir=cfg.OUTPUT_DIR,
    )


def wrap_for_processes(model: nn.Module) -> nn.Module:
    """Wraps the model for distributed training if there are several processes."""
    device = next(model.parameters()).device
    # The index comes from the model's device, because a process may see only its own GPU.
    device_ids = [device.index] if device.type == "cuda" else None
    return create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)


def leave_cores_to_loader(cfg: CfgNode) -> None:
    """Leaves CPU cores to the processes that load data, if the model runs on the CPU, too.

    With more busy threads than cores, threads that wait actively for each other make training many
    times slower: a step of 0.3 s took 2 to 9 s. ``OMP_NUM_THREADS`` has precedence.
    """
    if cfg.MODEL.DEVICE != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = comm.get_local_size()
    threads = max(1, cores // processes - cfg.DATALOADER.NUM_WORKERS)
    torch.set_num_threads(threads)
    logger.info("Threads of the model: %d (%d cores, %d processes)", threads, cores, processes)


def log_parameters(stage: str, model: nn.Module) -> None:
    """Logs the numbers of trainable and of frozen parameters."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    logger.info(
        "Stage %r: %s parameters trainable, %s frozen", stage, f"{trainable:,}", f"{frozen:,}"
    )
