"""The raw form: what the network says of a batch, masks of the best queries included."""

import json

import numpy as np
import pytest
import torch

from detr_d2.export.model_graph import RawGraph

TOP_K = 3


@pytest.fixture(scope="module")
def program(run_tool, tmp_path_factory) -> tuple[torch.nn.Module, dict]:
    """A program of torch.export by the tool, and its metadata."""
    output = tmp_path_factory.mktemp("raw") / "tiny.pt2"
    run_tool(output, "--format", "torch", "--form", "raw", "--top-k", str(TOP_K))
    files = {"detr_d2.json": ""}
    module = torch.export.load(output, extra_files=files).module()
    assert __file__.rsplit("/tests/", 1)[0].encode() not in output.read_bytes()
    return module, json.loads(files["detr_d2.json"])


def check(model, graph: torch.nn.Module, pictures: list[torch.Tensor], top_k: int) -> None:
    """Compares what a graph says of a batch with what the model says of each image alone."""
    with torch.no_grad():
        logits, boxes, masks, query_index = graph(torch.stack(pictures))
    assert query_index.shape == (len(pictures), top_k)
    for i, image in enumerate(pictures):
        (raw,) = model.raw_predictions([{"image": image}])
        np.testing.assert_allclose(logits[i], raw.logits, atol=1e-3)
        np.testing.assert_allclose(boxes[i], raw.boxes_cxcywh, atol=1e-5)
        scores, best = raw.logits.softmax(-1)[:, :-1].amax(-1), query_index[i]
        assert best.tolist() == best.unique().tolist()  # rising; of equal scores either may be best
        np.testing.assert_allclose(scores[best].min(), scores.topk(top_k).values.min(), atol=1e-6)
        expected = raw.masks(best).numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(masks[i] / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize(("batch", "size"), [(2, (97, 130)), (3, (64, 75))])
def test_a_program_of_torch_takes_any_batch_and_size(program, tiny_model, images, batch, size):
    module, metadata = program
    assert (metadata["form"], metadata["fixed_size"], metadata["top_k"]) == ("raw", None, TOP_K)
    check(tiny_model("R50, reference"), module, images(*[size] * batch), TOP_K)


@pytest.mark.parametrize("name", ["DC5, merged", "learned positions", "pixel embedding"])
def test_all_queries_have_masks_unless_the_best_are_wanted(name, tiny_model, images):
    model = tiny_model(name)
    check(model, RawGraph(model), images((97, 130), (97, 130)), 16)
    check(model, RawGraph(model, 5), images((80, 128)), 5)
