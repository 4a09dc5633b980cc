"""Smaller variants of an exported model: weights in 8-bit integers, or in float16.

python -m detr_d2.deploy.quantize MODEL OUTPUT --to int8|fp16

python -m detr_d2.deploy.graph_evaluation measures their quality and speed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from detr_d2.deploy.model_info import KEY, ModelError
from detr_d2.extras import require_extra
from detr_d2.file_io import written_whole

require_extra("quantize", "Quantising needs", ("onnx", "onnxruntime"))

# Imported after the check above, which says how to install missing packages.
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from detr_d2.deploy.eight_bits import to_int8  # noqa: E402
from detr_d2.deploy.graph_nodes import inputs_of  # noqa: E402
from detr_d2.deploy.half_precision import to_half  # noqa: E402
from detr_d2.deploy.onnx_predictor import load_session  # noqa: E402

KINDS = {"int8": to_int8, "fp16": to_half}
# Parts that stay in float32, by the names of their weights. They have little arithmetic, and their
# rounding would move boxes, and move scores across the threshold.
KEPT = ("class_head", "box_head")


def quantize(model_path: str | Path, output: str | Path, to: str) -> None:
    """Writes a variant of a model, with the same inputs, outputs and metadata.

    Args:
        model_path: an ONNX file of ``detr-d2 export``, of any form.
        output: the file to write.
        to: "int8": weights in 8 bits, and matrix products, too. "fp16": weights and arithmetic in
            float16; for GPUs, since most CPUs calculate in float32 all the same.

    Raises:
        FileNotFoundError: there is no such model.
        ModelError: the file is not from detr-d2 export, or is quantised already.
        OSError: the output can't be written.
        ValueError: the output would replace the model.
    """
    if Path(output).resolve() == Path(model_path).resolve():
        raise ValueError(f"{output} would replace the model that it is made of. Name another file.")
    model = _load(Path(model_path))
    converted = KINDS[to](model, kept_nodes(model))
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    with written_whole(output) as file:
        file.write(converted.SerializeToString())


def kept_nodes(model: onnx.ModelProto) -> set[str]:
    """Returns the names of the nodes that stay in float32.

    A matrix product's own weights may have lost their names to the exporter; the bias that is added
    to it has not.
    """
    named = [
        node
        for node in model.graph.node
        if any(part in name for part in KEPT for name in inputs_of(node))
    ]
    feeding = {name for node in named for name in node.input}
    makers = [node for node in model.graph.node if feeding.intersection(node.output)]
    return {node.name for node in (*named, *makers)}


def _load(path: Path) -> onnx.ModelProto:
    """Reads a model and folds its constants."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        folded = options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        # This optimizer makes nodes of a kind that quantize_dynamic doesn't know.
        unwanted = ["MatMulAddFusion"]
        session = load_session(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=unwanted
        )
        model = onnx.load(folded)
    if KEY not in session.get_modelmeta().custom_metadata_map:
        raise ModelError(f"{path}: not a model of detr-d2 export: its metadata have no {KEY!r}.")
    types = {weight.data_type for weight in model.graph.initializer}
    if types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16}:
        raise ModelError(f"{path}: it is quantised already. Take the exporter's own file.")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"  # ``keep`` has these names
    # onnxruntime lists all its operator sets, which other runtimes may not know.
    standard = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    return model


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m detr_d2.deploy.quantize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file of detr-d2 export")
    parser.add_argument("output", metavar="OUTPUT", help="the ONNX file to write")
    parser.add_argument("--to", required=True, choices=KINDS)
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    args = _parse_args()
    try:
        quantize(args.model, args.output, args.to)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    before, after = (Path(path).stat().st_size / 1e6 for path in (args.model, args.output))
    print(f"{args.output}: {after:.1f} MB, of {before:.1f} MB")


if __name__ == "__main__":
    main()
