"""Made-up scenes are what a model could see, and predict."""

import numpy as np
from benchmarks.scenes import blob_labels


def test_cuts_of_a_scene_are_alike_but_not_the_same():
    rng = np.random.default_rng(0)
    truth, again, predicted = blob_labels((96, 128), 12, rng, jitters=(0.0, 0.0, 2.0))
    assert truth.shape == (96, 128)
    assert np.array_equal(truth, again)
    assert set(np.unique(truth)) <= set(range(12)) and len(np.unique(truth)) > 8
    assert 0.6 < (truth == predicted).mean() < 1
