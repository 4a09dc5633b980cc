"""What onnxruntime makes of exported panoptic models, beside PyTorch."""

import numpy as np
import pytest
import torch

from detr_d2.export import ExportOptions

MODELS = ("R50, reference", "DC5, merged")
# Sizes of the network's input and of the output: odd and even, up and down, thin and square.
SIZES = [
    ((97, 130), (97, 130)),
    ((64, 96), (75, 61)),
    ((75, 61), (190, 203)),
    ((128, 128), (128, 128)),
    ((50, 201), (33, 90)),
    ((161, 98), (161, 99)),
]


def expect(model, image: torch.Tensor, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """PyTorch's results in the exported form."""
    x = {"image": image, "height": size[0], "width": size[1]}
    (raw,) = model.raw_predictions([x])
    ids, segments = model([x])[0]["panoptic_seg"]
    scores = raw.logits.softmax(-1).amax(-1)
    best = [max(s["queries"], key=lambda query: scores[query]) for s in segments]
    boxes = raw.boxes_cxcywh[best].reshape(-1, 4)
    centre, extent = boxes[:, :2], boxes[:, 2:]
    scale = torch.tensor([size[1], size[0]])
    corners = [(centre - extent / 2) * scale, (centre + extent / 2) * scale]
    return {
        "ids": ids.numpy(),
        "classes": np.array([s["category_id"] for s in segments]),
        "scores": np.array([s["score"] for s in segments]),
        "areas": np.array([s["area"] for s in segments]),
        "boxes": torch.cat([c.clamp(min=0).minimum(scale) for c in corners], dim=1).numpy(),
    }


@pytest.mark.parametrize("name", MODELS)
def test_equals_pytorch_at_every_size(name, panoptic_models, images, record_agreement):
    exported = panoptic_models(name)
    fought = segments = 0
    for (size, output_size), image in zip(SIZES, images(*(s for s, _ in SIZES)), strict=True):
        expected, got = expect(exported.model, image, output_size), exported.run(image, output_size)
        assert got["ids"].dtype == np.int32 and got["ids"].shape == output_size
        record_agreement(name, float((got["ids"] == expected["ids"]).mean()))
        assert got["classes"].tolist() == expected["classes"].tolist(), size
        np.testing.assert_allclose(got["scores"], expected["scores"], atol=1e-4)
        np.testing.assert_allclose(got["boxes"], expected["boxes"], atol=0.02)
        np.testing.assert_array_equal(got["areas"], np.bincount(got["ids"].ravel())[1:])
        (raw,) = exported.model.raw_predictions([{"image": image}])
        best = raw.logits.softmax(-1).max(-1)
        kept = (best.values > 0.6) & (best.indices != raw.logits.shape[-1] - 1)
        fought += int(kept.sum()) - len(got["classes"])
        segments += len(got["classes"])
    assert segments > 6 and fought > 0  # of which some were merged or dropped


@pytest.mark.parametrize("name", MODELS)
def test_nothing_kept(name, panoptic_models, images):
    (image,) = images((97, 130))
    got = panoptic_models(name).seeing_nothing().run(image, (40, 50))
    assert got["ids"].shape == (40, 50) and not got["ids"].any()
    assert [got[key].shape for key in ("classes", "scores", "areas")] == [(0,)] * 3
    assert got["boxes"].shape == (0, 4)


def test_a_size_known_beforehand_needs_no_other_input(
    tiny_cfg_of, tiny_model, export, images, record_agreement
):
    """With ``top_k``: masks of so many queries are made, of which not all compete here."""
    model = tiny_model(tiny_cfg_of("MODEL.DETR.TEST.SCORE_THRESH", 0.9))
    exported = export(model, ExportOptions(size=(65, 96), top_k=16))
    (image,) = images((65, 96))
    assert [i.name for i in exported.session.get_inputs()] == ["image"]
    assert exported.session.get_inputs()[0].shape == [1, 3, 65, 96]
    assert exported.session.get_outputs()[0].shape == [65, 96]
    expected, got = expect(model, image, (65, 96)), exported.run(image)
    record_agreement("fixed size, top k", float((got["ids"] == expected["ids"]).mean()))
    assert got["classes"].tolist() == expected["classes"].tolist()
    np.testing.assert_allclose(got["boxes"], expected["boxes"], atol=0.02)


def test_files_are_clean(panoptic_models):
    """Named axes, opset 18, and no word of the machine that they were made on."""
    onnx = pytest.importorskip("onnx")
    exported = panoptic_models("DC5, merged")
    onnx.checker.check_model(exported.proto, full_check=True)
    assert {entry.domain: entry.version for entry in exported.proto.opset_import}[""] >= 18
    inputs = {i.name: i.shape for i in exported.session.get_inputs()}
    assert inputs == {"image": [1, 3, "height", "width"], "output_size": [2]}
    outputs = {o.name: o.shape for o in exported.session.get_outputs()}
    assert outputs == {
        "ids": ["output_height", "output_width"],
        "classes": ["segments"],
        "scores": ["segments"],
        "areas": ["segments"],
        "boxes": ["segments", 4],
    }
    assert "CastLike" not in {node.op_type for node in exported.proto.graph.node}
    content = exported.proto.SerializeToString()
    assert b".py" not in content and str(torch.__path__[0]).encode() not in content


def test_the_quickstarts_model(quickstart_weights, export, record_agreement):
    from detectron2.data import DatasetCatalog

    from detr_d2 import config_file, load_config
    from detr_d2.data.image_file import read_image
    from detr_d2.engine.checkpoint import StrictCheckpointer
    from detr_d2.modeling import DETR

    cfg = load_config(config_file("shapes/detr_panoptic.yaml"), ["MODEL.DEVICE", "cpu"])
    model = DETR(cfg).eval()
    StrictCheckpointer(model).load(str(quickstart_weights))
    exported = export(model, ExportOptions())
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])[:8]:
        image = torch.from_numpy(read_image(record["file_name"], "RGB").copy()).permute(2, 0, 1)
        size = tuple(image.shape[1:])
        expected, got = expect(model, image, size), exported.run(image, size)
        record_agreement("quickstart's model", float((got["ids"] == expected["ids"]).mean()))
        assert got["classes"].tolist() == expected["classes"].tolist()
