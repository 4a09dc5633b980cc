"""Reads checkpoints of all kinds safely, recognises their names, and fits them to models."""

from detr_d2.checkpoint.checkpoint import (
    DESCRIPTION,
    Checkpoint,
    describe,
    from_content,
    read_checkpoint,
)
from detr_d2.checkpoint.checkpoint_errors import CheckpointError, CheckpointNotFoundError
from detr_d2.checkpoint.class_source import run_classes
from detr_d2.checkpoint.config_resolution import resolve_config
from detr_d2.checkpoint.convert import convert_file
from detr_d2.checkpoint.fitting import Fitted, LoadingRules, fit
from detr_d2.checkpoint.formats import OWN, recognise
from detr_d2.checkpoint.load_hook import load_checkpoint, take_any_detr
from detr_d2.checkpoint.loading_report import loading_table, log_loaded, tensor_table
from detr_d2.checkpoint.model_settings import ModelSettings
from detr_d2.checkpoint.sources import TorchvisionHandler, fetch
from detr_d2.checkpoint.weight_files import check_pickle

__all__ = [
    "DESCRIPTION",
    "OWN",
    "Checkpoint",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Fitted",
    "LoadingRules",
    "ModelSettings",
    "TorchvisionHandler",
    "check_pickle",
    "convert_file",
    "describe",
    "fetch",
    "fit",
    "from_content",
    "load_checkpoint",
    "loading_table",
    "log_loaded",
    "read_checkpoint",
    "recognise",
    "resolve_config",
    "run_classes",
    "take_any_detr",
    "tensor_table",
]
