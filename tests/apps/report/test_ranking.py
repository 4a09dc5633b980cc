"""The selection of images and segments."""

import itertools

from detr_d2.apps.report.mistakes import Mistake
from detr_d2.apps.report.ranking import (
    NUM_IMAGES,
    NUM_SEGMENTS,
    ImageScore,
    Ranking,
    places_that_differ,
)

IMAGES = [ImageScore(place, (place * 37 % 128) / 128, 3, 1, 2) for place in range(50)]


def mistake(place, segment_id, *, area=10, score=None):
    return Mistake(place, segment_id, 0, area, score, "nothing", None, 0.0)


def test_best_and_worst():
    ranking = Ranking()
    for image in [*IMAGES, ImageScore(50, float("nan"), 0, 0, 0)]:
        ranking.add(image, [], [])
    by_pq = sorted(IMAGES, key=lambda image: image.pq)
    assert ranking.worst.items == by_pq[:NUM_IMAGES]
    assert ranking.best.items == by_pq[: -NUM_IMAGES - 1 : -1]


def test_mistakes_of_the_highest_scores_and_areas():
    ranking = Ranking()
    for place in range(40):
        false_positives = [mistake(place, 1, score=place / 100), mistake(place, 2)]
        false_negatives = [mistake(place, 1, area=place), mistake(place, 2, area=1)]
        ranking.add(ImageScore(place, 0.5, 1, 2, 2), false_positives, false_negatives)
    wanted = list(range(39, 39 - NUM_SEGMENTS, -1))
    for top in (ranking.false_positives, ranking.false_negatives):
        assert [m.place for m in top.items] == wanted
        assert {m.segment_id for m in top.items} == {1}


def test_parts_in_any_order_rank_as_the_whole():
    """Even if images are equally good."""
    images = [ImageScore(place, place % 3 / 3, 1, 1, 1) for place in range(30)]
    ranks = []
    for order in itertools.permutations(range(3)):
        parts = [Ranking() for _ in order]
        for image in images:
            parts[image.place % 3].add(image, [mistake(image.place, 1, score=0.5)], [])
        whole = Ranking()
        for i in order:
            whole.merge(parts[i])
        ranks.append({name: top.items for name, top in vars(whole).items()})
    assert all(rank == ranks[0] for rank in ranks)
    assert [image.place for image in ranks[0]["worst"]] == [0, 3, 6, 9, 12, 15]


def test_images_that_differ_between_runs():
    after = [
        ImageScore(i.place, i.pq + (0.25 if i.place in (4, 7) else 0), 1, 1, 1) for i in IMAGES
    ]
    after[9] = ImageScore(9, IMAGES[9].pq - 0.1, 1, 1, 1)
    assert places_that_differ(IMAGES, after[:40]) == ([4, 7], [9])
    assert places_that_differ(IMAGES, IMAGES) == ([], [])
