"""The raw form: what the network says of a batch, masks of the best queries included."""

import numpy as np
import pytest
import torch


@pytest.mark.parametrize(("batch", "size"), [(2, (97, 130)), (3, (64, 75)), (1, (80, 128))])
def test_equals_pytorch(raw_model, images, batch, size):
    pictures = images(*[size] * batch)
    got = raw_model.run(torch.stack(pictures))
    assert got["query_index"].shape == (batch, 3)
    for i, image in enumerate(pictures):
        (raw,) = raw_model.model.raw_predictions([{"image": image}])
        np.testing.assert_allclose(got["logits"][i], raw.logits, atol=1e-3)
        np.testing.assert_allclose(got["boxes_cxcywh"][i], raw.boxes_cxcywh, atol=1e-5)
        scores = raw.logits.softmax(-1)[:, :-1].amax(-1)
        best = torch.from_numpy(got["query_index"][i])
        assert best.tolist() == best.unique().tolist()  # rising; of equal scores either may be best
        np.testing.assert_allclose(scores[best].min(), scores.topk(3).values.min(), atol=1e-6)
        expected = raw.masks(best).numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got["mask_logits"][i] / scale, expected / scale, atol=1e-4)
