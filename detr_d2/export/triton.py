"""A folder that Triton's inference server takes as a model repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from detr_d2.file_io import written_whole

if TYPE_CHECKING:
    import onnx

# Triton's names of types, if they differ from ONNX's.
_TYPES = {"FLOAT": "FP32", "DOUBLE": "FP64", "FLOAT16": "FP16"}


def write_repository(model: onnx.ModelProto, repository: Path, name: str) -> Path:
    """Writes ``NAME/1/model.onnx`` and ``NAME/config.pbtxt`` into a model repository.

    Args:
        model: the exported model.
        repository: the folder, which is created if necessary.
        name: name of the model in the repository.

    Returns:
        The model's folder.

    Raises:
        OSError: a file can't be written.
    """
    folder = repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "1" / "model.onnx") as file:
        file.write(model.SerializeToString())
    with written_whole(folder / "config.pbtxt", "w") as file:
        file.write(_config(model, name))
    return folder


def _config(model: onnx.ModelProto, name: str) -> str:
    """Triton's configuration. A ``max_batch_size`` of 0 keeps Triton from making batches."""
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 0\n"
        f"input [\n{_tensors(model.graph.input)}\n]\n"
        f"output [\n{_tensors(model.graph.output)}\n]\n"
    )


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> str:
    return ",\n".join(map(_tensor, values))


def _tensor(value: onnx.ValueInfoProto) -> str:
    import onnx

    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    dims = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim]
    return (
        f'  {{ name: "{value.name}", data_type: TYPE_{_TYPES.get(kind, kind)}, '
        f"dims: [ {', '.join(map(str, dims))} ] }}"
    )
