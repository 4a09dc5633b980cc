"""Training and evaluation of whole runs."""

from detr_d2.engine.model_evaluation import evaluate
from detr_d2.engine.trainer import evaluate_only, prepare, train

__all__ = ["evaluate", "evaluate_only", "prepare", "train"]
