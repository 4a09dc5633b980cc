"""Which rows of a file's class head the dataset's classes get.

Axes: K classes of the model, R rows of the file's head; the last row of both is "no object".
"""

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from hypothesis import assume, given
from hypothesis import strategies as st

from detr_d2.checkpoint import CheckpointError
from detr_d2.checkpoint.class_rows import ClassHead, RowPlan, named, plan_rows
from detr_d2.data.categories import PanopticClasses, classes_of

PANOPTIC, DETECTION = "coco_2017_val_panoptic", "coco_2017_val"
COCO_NAMES = {c["id"]: c["name"] for c in COCO_CATEGORIES}


def dataset(*pairs: tuple[int, str]) -> PanopticClasses:
    """Classes of the given ids and names, all of them things."""
    ids, names = zip(*pairs, strict=True)
    return PanopticClasses(names, ids, (True,) * len(ids))


def of_names(*names: str) -> PanopticClasses:
    return dataset(*enumerate(names, start=1000))


def plan(
    head: ClassHead | int,
    classes: PanopticClasses | None,
    num_classes: int | None = None,
    resize: bool = False,
    frozen: bool = False,
) -> RowPlan:
    """The plan for a head, or for one of which only R is known."""
    if isinstance(head, int):
        head = ClassHead(head)
    num_classes = len(classes.names) if num_classes is None else num_classes
    return plan_rows(head, num_classes, classes, resize=resize, frozen=frozen)


def coco_labels(num_rows: int) -> tuple[str | None, ...]:
    """Names as Hugging Face's config of a released head has them."""
    return named([COCO_NAMES.get(i, "N/A") for i in range(num_rows - 1)])


# --- heads by COCO's category ids ---


@pytest.mark.parametrize("with_names", [False, True])
@pytest.mark.parametrize(
    ("num_rows", "name", "num_classes"), [(251, PANOPTIC, 133), (92, DETECTION, 80)]
)
@pytest.mark.parametrize("frozen", [False, True])
def test_released_heads_are_cut_to_coco(num_rows, name, num_classes, with_names, frozen):
    metadata = MetadataCatalog.get(name)
    ids = {}
    for kind in ("thing", "stuff"):
        ids.update(metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {})
    id_of_class = {class_id: dataset_id for dataset_id, class_id in ids.items()}
    head = ClassHead(num_rows, coco_labels(num_rows) if with_names else None)
    planned = plan(head, classes_of(name), frozen=frozen)
    assert planned.rows == [*(id_of_class[k] for k in range(num_classes)), num_rows - 1]
    assert planned.rows[:3] == [1, 2, 3] and planned.rows[11:13] == [13, 14]  # 12 is no category
    assert planned.rows[79] == 90 and len(planned.rows) == num_classes + 1
    assert planned.reason == f"by the dataset's ids, of {num_rows}" and not planned.warning


def test_the_panoptic_head_serves_detection_as_well():
    planned = plan(251, classes_of(DETECTION))
    assert planned.rows == [*(c["id"] for c in COCO_CATEGORIES if c["isthing"]), 250]
    assert len(planned.rows) == 81


@pytest.mark.parametrize(
    "classes",
    [
        dataset((17, "cat"), (3, "car"), (200, "rug-merged")),
        dataset((17, "Cat"), (13, "Stop_Sign"), (200, "rug merged")),
        dataset((10, "traffic-light"), (88, "TEDDY BEAR"), (118, "floor_wood")),
    ],
)
def test_any_dataset_of_cocos_ids_and_names_takes_their_rows(classes):
    assert plan(251, classes).rows == [*classes.dataset_ids, 250]


def test_a_dataset_of_one_class():
    assert plan(92, dataset((1, "person"))).rows == [1, 91]


@pytest.mark.parametrize(
    ("num_rows", "classes", "message"),
    [
        (
            251,
            dataset((17, "cat"), (18, "wolf")),
            r"mean something else: 18 \('wolf', in COCO 'dog'\)\.",
        ),
        (251, dataset((17, "cat"), (12, "sign")), r"1 of the dataset's ids are not: 12 \('sign'\)"),
        (92, of_names("a", "b"), r"2 of the dataset's ids are not: 1000 \('a'\), 1001 \('b'\)\."),
        (92, dataset((1, "person"), (92, "banner")), r"up to 90: it has none for 92 \('banner'\)"),
        (92, classes_of(PANOPTIC), r"none for 92 \('banner'\), .* and 47 more"),
    ],
    ids=["renamed", "gap", "foreign", "beyond", "panoptic"],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_datasets_that_a_head_by_cocos_ids_cannot_serve(num_rows, classes, message, frozen):
    advice = r"train the stage 'boxes' first" if frozen else "MODEL.DETR.RESIZE_ON_LOAD True"
    what = f"its classes don't fit the dataset: the file's {num_rows} rows are COCO's category ids"
    with pytest.raises(CheckpointError, match=f"^{what}.*{message}.*{advice}"):
        plan(num_rows, classes, frozen=frozen)


def test_a_head_by_cocos_ids_needs_a_dataset_or_as_many_classes():
    with pytest.raises(CheckpointError, match=r"251 rows .* no dataset in DATASETS says which"):
        plan(251, None, num_classes=133)
    assert plan(251, None, num_classes=250) == RowPlan(list(range(251)))


def test_as_many_rows_do_not_make_a_head_cocos():
    """A dataset of its own 91 classes. Its names tell; the minority may be COCO's by chance."""
    names = [f"part {i}" for i in range(91)]
    assert ClassHead(92).has_coco_ids and ClassHead(92, coco_labels(92)).has_coco_ids
    for head in (ClassHead(92, tuple(names)), ClassHead(92, ("x", "person", *names[2:]))):
        assert not head.has_coco_ids and head.row_names == head.names
        with pytest.raises(CheckpointError, match="the file has 91 classes, .*NUM_CLASSES is 80"):
            plan(head, classes_of(DETECTION))
    assert not ClassHead(93).has_coco_ids and ClassHead(93).row_names is None
    mostly = [COCO_NAMES.get(i) for i in range(91)]
    mostly[1:4] = ["someone", "bike", "auto"]
    assert ClassHead(92, tuple(mostly)).has_coco_ids


# --- heads of K + 1 rows ---


@pytest.mark.parametrize("classes", [None, of_names("a", "b", "c")])
@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_as_many_classes_without_names_stay_as_they_are(classes, resize, frozen):
    expected = RowPlan([0, 1, 2, 3])
    assert plan(4, classes, num_classes=3, resize=resize, frozen=frozen) == expected
    head = ClassHead(4, ("a", "b", "c"))
    assert plan(head, classes, num_classes=3, resize=resize, frozen=frozen) == expected


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_same_names_in_another_order_are_put_in_the_datasets(resize, frozen):
    head = ClassHead(4, ("Sky_Blue", "cat", "dog"))
    planned = plan(head, of_names("dog", "sky-blue", "Cat"), resize=resize, frozen=frozen)
    assert planned == RowPlan([2, 0, 1, 3], "put in the dataset's order")


@pytest.mark.parametrize("names", [("A", "a", "b"), ("c", "c++", "c#"), ("+", "-", "*")])
def test_names_that_differ_by_case_or_signs_alone_are_told_apart(names):
    planned = plan(ClassHead(4, names), of_names(*reversed(names)))
    assert planned.rows == [2, 1, 0, 3]
    assert plan(ClassHead(4, names), of_names(*names)) == RowPlan([0, 1, 2, 3])


def test_names_that_cannot_be_told_apart_keep_their_order():
    planned = plan(ClassHead(4, ("part", "Part", "other")), of_names("PART", "pART", "other"))
    assert planned == RowPlan([0, 1, 2, 3])


def test_other_names_of_the_same_number_are_warned_of():
    head, classes = ClassHead(4, ("cat", "dog", "fish")), of_names("cat", "bird", "frog")
    planned = plan(head, classes)
    assert planned.rows == [0, 1, 2, 3] and not planned.reason
    assert planned.warning == (
        "The classes of the file and of the dataset differ: only the file has dog, fish; only the "
        "dataset has bird, frog."
    )
    with pytest.raises(CheckpointError, match="only the file has dog, fish; .* frozen .* 'boxes'"):
        plan(head, classes, frozen=True)
    assert plan(head, classes, resize=True).rows == [0, None, None, 3]


# --- another number of classes ---


def test_another_number_of_classes_is_refused():
    message = "the file has 3 classes, MODEL.DETR.NUM_CLASSES is 2. .*RESIZE_ON_LOAD True"
    for classes in (None, of_names("a", "b")):
        for head in (ClassHead(4), ClassHead(4, ("a", "b", "c"))):
            with pytest.raises(CheckpointError, match=message):
                plan(head, classes, num_classes=2)


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("head", [ClassHead(4), ClassHead(4, ("a", "b", "c")), ClassHead(251)])
def test_a_frozen_detector_is_never_resized(head, resize):
    with pytest.raises(CheckpointError, match=r"is frozen \(MODEL.DETR.FREEZE_DETECTOR, .*'boxes'"):
        plan(head, of_names("a", "b"), resize=resize, frozen=True)


def test_resizing_keeps_the_rows_of_names():
    planned = plan(ClassHead(4, ("a", "big b", "c")), of_names("x", "Big_B", "a", "y"), resize=True)
    assert planned.rows == [None, 1, 0, None, 3]
    assert planned.reason == "by name: 2 classes kept (Big_B, a), 2 fresh (x, y)"


def test_resizing_takes_cocos_names_where_a_head_has_its_ids():
    classes = dataset((1, "dog"), (2, "wolf"), (3, "Person"), (4, "banner"))
    assert plan(92, classes, resize=True).rows == [18, None, 1, None, 91]
    assert plan(251, classes, resize=True).rows == [18, None, 1, 92, 250]


@pytest.mark.parametrize("classes", [None, of_names("a", "b")])
def test_resizing_without_names_keeps_no_object_alone(classes):
    planned = plan(4, classes, num_classes=2, resize=True)
    assert planned.rows == [None, None, 3]
    assert planned.reason.startswith("by name: 0 classes kept, 2 fresh")
    assert "None" not in planned.reason


# --- names as files have them ---


def test_placeholders_are_no_names():
    labels = ["cat", "LABEL_1", "label_22", "N/A", "n/a", "NA", "7", "", None, 3, "LABEL_x", "3d"]
    assert named(labels) == ("cat", *[None] * 9, "LABEL_x", "3d")
    assert named(["LABEL_0", "N/A", None]) is None and named([]) is None


# --- whatever the names ---

NAMES = st.lists(st.sampled_from("A a b c-d C_D e f g h ++ c".split()), max_size=8)
KINDS = st.sampled_from([{}, {"resize": True}, {"frozen": True}])


def letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


@given(st.lists(st.sampled_from("abcdefgh") | st.none(), max_size=8), NAMES, KINDS)
def test_rows_are_of_the_same_name_or_fresh(in_file, in_dataset, kind):
    assume(in_dataset)
    head, classes = ClassHead(len(in_file) + 1, tuple(in_file)), of_names(*in_dataset)
    try:
        planned = plan(head, classes, **kind)
    except CheckpointError:
        assert not kind.get("resize")
        return
    assert len(planned.rows) == len(in_dataset) + 1 and planned.rows[-1] == len(in_file)
    assert None not in planned.rows or kind.get("resize")
    if planned.reason:
        for name, row in zip(in_dataset, planned.rows, strict=False):
            known = {letters(other) for other in in_file if other is not None}
            if row is None:
                assert letters(name) not in known
            else:
                assert letters(name) == letters(in_file[row])
    else:
        assert planned.rows == list(range(len(in_file) + 1))


@given(st.permutations(["A", "a", "b", "c-d", "c", "c++", "e", "f"]))
def test_a_permutation_there_and_back_is_none(names):
    original = ["A", "a", "b", "c-d", "c", "c++", "e", "f"]
    there = plan(ClassHead(9, tuple(original)), of_names(*names)).rows
    assert [original[row] for row in there[:-1]] == names
    back = plan(ClassHead(9, tuple(names)), of_names(*original)).rows
    assert [there[row] for row in back] == list(range(9))


@given(st.lists(st.sampled_from(sorted(COCO_NAMES)), min_size=1, unique=True))
def test_any_choice_of_cocos_classes_gets_the_rows_of_its_ids(ids):
    classes = dataset(*((i, COCO_NAMES[i].upper().replace("-", "_")) for i in ids))
    planned = plan(251, classes)
    assert planned.rows == [*ids, 250]
    assert plan(251, classes, resize=True) == planned
    if max(ids) <= 90:
        assert plan(92, classes).rows == [*ids, 91]
