"""Exports the model of a config and its weights to a file."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from detr_d2 import resolve_config
from detr_d2.config import set_key
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.engine.training_stages import evaluation_config
from detr_d2.export.export_options import SUFFIXES, ExportOptions
from detr_d2.export.graph_metadata import METADATA_KEY, describe
from detr_d2.export.onnx_file import to_onnx
from detr_d2.export.traced_program import Interface, trace
from detr_d2.export.triton import write_repository
from detr_d2.file_io import check_writable, written_whole

logger = logging.getLogger(__name__)


def export_model(
    cfg: CfgNode,
    output: str | Path,
    options: ExportOptions | None = None,
    triton_repository: str | Path | None = None,
) -> None:
    """Exports a model, in float32.

    Args:
        cfg: the whole config; ``MODEL.WEIGHTS`` is used as for evaluation. Thresholds and
            ``MODEL.DETR.TEST.STUFF_MERGING`` become constants of the graph.
        output: the file, ``.onnx`` or ``.pt2``; appears once it is complete.
        options: options of the export.
        triton_repository: a model repository of Triton, which gets the model under the file's name.

    Raises:
        ValueError: the options don't fit each other or the model, or neither a dataset of
            the config nor its weights tell the classes.
        ImportError: the packages that write ONNX are missing.
        FileNotFoundError, CheckpointError: there are no weights, or they don't fit.
        OSError: the file can't be written.
    """
    options, output = options or ExportOptions(), Path(output)
    _check_output(output, options, triton_repository)
    cfg = resolve_config(evaluation_config(cfg))
    set_key(cfg, "MODEL.DEVICE", "cpu")
    options.check(cfg)
    model = build_model(cfg).eval()
    metadata = describe(cfg, options, model.classes)
    StrictCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    metadata["max_side"] = model.detector.max_side

    logger.info("Tracing the model; this takes a minute.")
    program = trace(model, options)
    if options.format == "torch":
        with written_whole(output) as file, warnings.catch_warnings():
            # torch warns of weights whose axes have another order in memory, but saves them.
            warnings.filterwarnings("ignore", message="No complete tensor found")
            extra = {f"{METADATA_KEY}.json": json.dumps(metadata)}
            torch.export.save(program, file, extra_files=extra)
    else:
        logger.info("Translating it to ONNX; this takes a minute or two.")
        onnx_model = to_onnx(program, Interface.of(options), metadata)
        with written_whole(output) as file:
            file.write(onnx_model.SerializeToString())
        if triton_repository is not None:
            folder = write_repository(onnx_model, Path(triton_repository), output.stem)
            logger.info("Wrote %s for Triton", folder)
    logger.info("Wrote %s, %.1f MB", output, output.stat().st_size / 1e6)


def _check_output(
    output: Path, options: ExportOptions, triton_repository: str | Path | None
) -> None:
    """Checks, before minutes of work, that the result can be written."""
    suffix = SUFFIXES.get(options.format, output.suffix)
    if output.suffix != suffix:
        raise ValueError(f"--output {output}: files of format {options.format} end in {suffix}.")
    check_writable(output.parent, "--output")
    if triton_repository is not None:
        if options.format != "onnx":
            raise ValueError("--triton: Triton's repository is written with --format onnx only.")
        check_writable(triton_repository, "--triton")
