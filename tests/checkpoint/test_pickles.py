"""Pickles of arrays, as Detectron2's model zoo has them: what passes, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from detr_d2.checkpoint import CheckpointError, check_pickle


class State:
    """Pickled, a call of a function, followed by setting a state."""

    def __init__(self, function, *arguments: object, state: object) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.reduced


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_pickle(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and len(message) < 600 + len(str(path))
    return message.removeprefix(f"{path} ")


def plain_backbone() -> dict:
    kinds = (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_, ">f4")
    weights = {str(kind): np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    weights["fortran"] = np.asfortranarray(weights[str(np.float32)])
    weights["scalar"] = np.array(3.0)
    return {
        "model": weights,
        "__author__": "test",
        "epochs": np.float64(3),
        "more": [None, b"\xff"],
    }


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_accepted(protocol, tmp_path):
    path = tmp_path / "R-50.pkl"
    for content in (plain_backbone(), plain_backbone()["model"]):
        path.write_bytes(pickle.dumps(content, protocol))
        check_pickle(path)
    path.write_bytes(pickle.dumps({"blobs": content, "cfg": "text"}, protocol))
    check_pickle(path)


def test_arrays_that_python_2_pickled_are_accepted(tmp_path):
    """As in Detectron2's model zoo: bytes are texts."""
    dtype = (
        b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85" + dtype + b"\x89U\x08\x00\x00\x80\x3f\x00\x00\x80\xbftb"
    )
    path = tmp_path / "R-50.pkl"
    path.write_bytes(b"\x80\x02}U\x01w" + array + b"s.")
    check_pickle(path)
    assert pickle.loads(path.read_bytes(), encoding="latin1")["w"].tolist() == [1, -1]


# States and dtypes by which NumPy takes the bytes of an array for pointers, or that no file needs.
OF_OBJECTS = (3, "<", None, None, None, -1, -1, 63)
HOSTILE = {
    "state": State(np.dtype, "f8", False, True, state=OF_OBJECTS),
    "object": np.array([None]),
    "record": np.zeros(2, [("a", "f4")]),
    "text": np.array("text"),
    "dtype_without_array": np.dtype("O"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_arrays_of_anything_but_numbers_are_refused(kind, tmp_path):
    content = HOSTILE[kind]
    if kind == "state":
        reconstruct, arguments, _ = np.zeros(2).__reduce__()
        content = State(reconstruct, *arguments, state=(1, (2,), content, False, b"A" * 16))
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"w": content}, 2))
    assert "something else than" in refusal(path)


def test_an_object_dtype_by_another_opcode_is_refused(tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(b"\x80\x02cnumpy\ndtype\nU\x01O\x85\x81.")
    assert "something else than numbers" in refusal(path)


def test_no_memory_is_taken_for_what_a_pickle_merely_says(tmp_path):
    """The unpickler would make room for as much."""
    path = tmp_path / "R-50.pkl"
    for said in (
        b"r\x00\x00\x00\x01",
        b"\x96" + b"\xff" * 5 + b"\x00\x00\x00",
        b"B\xff\xff\xff\x7f",
    ):
        path.write_bytes(b"\x80\x05}" + said + b".")
        assert "cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (3, "int"),
        ([np.zeros(1)], "list"),
        ({1: np.zeros(1)}, "1: Array"),
        ({"w" * 999: 3}, "'www"),
        ({"model": np.zeros(1), "__author__": "test"}, "Array"),
        ({"model": {"w": [1.0]}, "__author__": "test"}, "'w': list"),
        ({"model": {"w": np.zeros(1)}}, "'model': dict"),
        ({"blobs": None}, "NoneType"),
    ],
)
def test_what_holds_no_weights_is_refused(content, what, tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content))
    assert refusal(path).startswith(f"holds no weights (names and their arrays), but {what}")


def test_damaged_pickles_are_refused(tmp_path):
    path = tmp_path / "R-50.pkl"
    whole = pickle.dumps(plain_backbone())
    for length in [*range(0, len(whole), 29), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refusal(path).startswith("cannot be read as a pickle: " if length else "is empty.")
    path.write_bytes(b"<!DOCTYPE html><html></html>")
    assert refusal(path).startswith("is a web page")
    path.unlink()
    assert refusal(path) == "cannot be read: No such file or directory."
