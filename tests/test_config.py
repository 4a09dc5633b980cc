"""Config keys, the configs that come with the package, and the checks on values."""

import ast
import inspect
import textwrap
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg

from detr_d2 import add_detr_config, config_file, load_config
from detr_d2.config import RENAMED_KEYS, check_config, set_key

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def default_cfg() -> CfgNode:
    cfg = get_cfg()
    add_detr_config(cfg)
    return cfg


def keys_and_values(cfg: CfgNode, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in cfg.items():
        inner = keys_and_values(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else None
        found |= {f"{prefix}{key}": value} if inner is None else inner
    return found


def test_every_key_is_explained():
    """By a comment right above it, or above the run of keys that it belongs to."""
    lines = textwrap.dedent(inspect.getsource(add_detr_config)).splitlines()
    assignments = [n for n in ast.walk(ast.parse("\n".join(lines))) if isinstance(n, ast.Assign)]
    keys = [node for node in assignments if ast.unparse(node.value) != "CfgNode()"]
    assert len(keys) > 40
    for key in keys:
        above = [line.strip() for line in lines[: key.lineno - 1]]
        while above[-1] and not above[-1].startswith("#"):
            above.pop()
        assert above[-1], f"no comment: {ast.unparse(key)}"


def test_no_key_of_detectron2_is_changed():
    plain, ours = keys_and_values(get_cfg()), keys_and_values(default_cfg())
    assert {key: ours[key] for key in plain} == plain
    assert all(
        key.startswith(
            ("MODEL.DETR.", "MODEL.TIMM.", "SOLVER.", "INPUT.", "DATALOADER.", "DATASETS.")
        )
        for key in ours.keys() - plain.keys()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_config_loads_and_passes_the_checks(name):
    cfg = load_config(config_file(name))
    assert cfg.MODEL.META_ARCHITECTURE == "DETR"
    assert cfg.VERSION == 2
    check_config(cfg)


def test_there_are_configs():
    assert {"Base-DETR.yaml", "detr_panoptic.yaml", "shapes/detr_panoptic.yaml"} <= set(NAMES)


def test_the_coco_config_is_the_references():
    """Its input, backbone, transformer, losses and schedule; see the paper, appendix A.4."""
    cfg = load_config(config_file("detr_panoptic.yaml"))
    expected = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
        "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
        "INPUT.MIN_SIZE_TRAIN": list(range(480, 801, 32)),
        "INPUT.MAX_SIZE_TRAIN": 1333,
        "INPUT.MIN_SIZE_TEST": 800,
        "INPUT.MAX_SIZE_TEST": 1333,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.DETR.NUM_CLASSES": 133,
        "MODEL.DETR.NUM_QUERIES": 100,
        "MODEL.DETR.HIDDEN_DIM": 256,
        "MODEL.DETR.NUM_HEADS": 8,
        "MODEL.DETR.ENC_LAYERS": 6,
        "MODEL.DETR.DEC_LAYERS": 6,
        "MODEL.DETR.DIM_FEEDFORWARD": 2048,
        "MODEL.DETR.DROPOUT": 0.1,
        "MODEL.DETR.PRE_NORM": False,
        "MODEL.DETR.POSITION_EMBEDDING": "sine",
        "MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX": "joint",
        "MODEL.DETR.TEST.SCORE_THRESH": 0.85,
        "MODEL.DETR.TEST.STUFF_MERGING": "reference",
        "MODEL.DETR.TEST.MIN_AREA": 4,
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.BASE_LR": 1e-4,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "SOLVER.WEIGHT_DECAY_NORM": 1e-4,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.1,
        "SOLVER.STAGES": ["boxes", "masks"],
    }
    values = keys_and_values(cfg)
    assert {key: list(v) if isinstance(v := values[key], tuple) else v for key in expected} == (
        expected
    )
    assert cfg.SOLVER.BASE_LR * cfg.SOLVER.BACKBONE_MULTIPLIER == pytest.approx(1e-5)
    weights = {key: value for key, value in cfg.MODEL.DETR.LOSS.items() if key.endswith("WEIGHT")}
    assert weights == {
        "CLASS_WEIGHT": 1.0,
        "L1_WEIGHT": 5.0,
        "GIOU_WEIGHT": 2.0,
        "MASK_WEIGHT": 1.0,
        "DICE_WEIGHT": 1.0,
        "NO_OBJECT_WEIGHT": 0.1,
    }
    # Epochs of COCO's 118,287 images: 300 with a drop after 200, 25 with a drop after 15.
    for solver, epochs in ((cfg.SOLVER, (300, 200)), (cfg.SOLVER.MASK_STAGE, (25, 15))):
        iterations = (solver.MAX_ITER, *solver.STEPS)
        for count, wanted in zip(iterations, epochs, strict=True):
            assert count * solver.IMS_PER_BATCH / 118_287 == pytest.approx(wanted, rel=0.01)


def test_overrides_come_last():
    path = config_file("shapes/detr_panoptic.yaml")
    cfg = load_config(path, ["MODEL.DETR.NUM_QUERIES", "7", "SOLVER.STAGES", "['joint']"])
    assert cfg.MODEL.DETR.NUM_QUERIES == 7 and cfg.SOLVER.STAGES == ["joint"]
    assert cfg.MODEL.DETR.NUM_CLASSES == 12  # of the file
    assert cfg.MODEL.DETR.NUM_HEADS == 8  # the default


def test_an_unknown_config_lists_those_there_are():
    with pytest.raises(FileNotFoundError) as caught:
        config_file("detr.yaml")
    assert "'detr.yaml'" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.DETR.NO_SUCH_KEY", 1], "NO_SUCH_KEY"),
        (["MODEL.DETR.NUM_QUERIES"], "NUM_QUERIES"),
    ],
)
def test_overrides_that_make_no_sense_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config(config_file("shapes/detr_panoptic.yaml"), overrides)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        load_config(str(tmp_path / "missing.yaml"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.DETR.NUM_CLASSES", -1),
        ("MODEL.DETR.NUM_QUERIES", 0),
        ("MODEL.DETR.NUM_HEADS", 0),
        ("MODEL.DETR.DEC_LAYERS", 0),
        ("MODEL.DETR.ENC_LAYERS", -1),
        ("MODEL.DETR.HIDDEN_DIM", 132),
        ("MODEL.DETR.HIDDEN_DIM", 24),
        ("MODEL.DETR.DROPOUT", 1.0),
        ("MODEL.DETR.IN_FEATURES", ["res4", "res5"]),
        ("MODEL.DETR.POSITION_EMBEDDING", "cosine"),
        ("MODEL.DETR.POSITION_TEMPERATURE", 0.0),
        ("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "all"),
        ("MODEL.DETR.MASK_HEAD.CHUNK_SIZE", -1),
        ("MODEL.DETR.TEST.STUFF_MERGING", "none"),
        ("MODEL.DETR.TEST.SCORE_THRESH", 1.5),
        ("MODEL.DETR.TEST.INSTANCE_SCORE_THRESH", -0.1),
        ("MODEL.DETR.TEST.MIN_AREA", -1),
        ("MODEL.DETR.TEST.NUM_PICTURES", -1),
        ("MODEL.DETR.TEST.PRECISION", "float16"),
        ("SOLVER.STAGES", []),
        ("SOLVER.STAGES", ["boxes", "segments"]),
        ("SOLVER.OPTIMIZER", "ADAM"),
        ("INPUT.FORMAT", "L"),
        ("DATASETS.PANOPTIC", [["pets", "images", "pngs"]]),
        ("DATASETS.PANOPTIC", [["pets", "images", "pngs", ""]]),
        ("DATASETS.PANOPTIC", [["pets", "images", "pngs", "a.json", "b.json"]]),
        ("DATASETS.PANOPTIC", ["pets", "imgs", "pngs", "json"]),
        ("DATASETS.PANOPTIC", [5]),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(key, value):
    cfg = default_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.INPUT.FORMAT = "DETR", "RGB"
    check_config(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError) as caught:
        check_config(cfg)
    assert str(caught.value).startswith(f"{key} is ")
    assert "but must be" in str(caught.value)


def test_ones_own_datasets_come_from_a_file_and_from_a_command_line(tmp_path):
    entry = ["pets", "pets/images", "pets/pngs", "pets/panoptic.json"]
    path = tmp_path / "pets.yaml"
    path.write_text(
        f"_BASE_: {config_file('detr_panoptic.yaml')}\n"
        "DATASETS:\n  PANOPTIC:\n    - [pets, pets/images, pets/pngs, pets/panoptic.json]\n"
    )
    cfg = load_config(str(path))
    assert cfg.DATASETS.PANOPTIC == [entry]
    path.write_text(cfg.dump())  # as Detectron2 keeps the config of a run
    assert load_config(str(path)).DATASETS.PANOPTIC == [entry]
    overrides = ["DATASETS.PANOPTIC", f"[{entry}, {['x', *entry[1:]]}]"]
    assert len(load_config(str(path), overrides).DATASETS.PANOPTIC) == 2


@pytest.mark.parametrize("frozen", [True, False])
def test_a_key_is_set_and_a_frozen_config_stays_frozen(frozen):
    cfg = default_cfg()
    if frozen:
        cfg.freeze()
    set_key(cfg, "MODEL.DETR.NUM_CLASSES", 7)
    assert cfg.MODEL.DETR.NUM_CLASSES == 7 and cfg.is_frozen() is frozen


@pytest.mark.parametrize(
    ("old", "value"),
    [
        ("MODEL.DETR.MASK_CHUNK_SIZE", 5),
        ("MODEL.DETR.MASK_CHECKPOINTING", True),
        ("MODEL.DETR.TEST.BATCH_INVARIANT", True),
    ],
)
@pytest.mark.parametrize("where", ["file", "base", "command line"])
def test_keys_are_read_by_their_old_names(tmp_path, old, value, where):
    files: dict = {
        "base": {"_BASE_": config_file("detr_panoptic.yaml"), "MODEL": {"WEIGHTS": "a.pth"}},
        "file": {"_BASE_": "base.yaml", "MODEL": {"DETR": {"MASK_HEAD": {"NAME": "Other"}}}},
        "command line": {},
    }
    node, (*above, key) = files[where], old.split(".")
    for name in above:
        node = node.setdefault(name, {})
    node[key] = value
    for name in ("base", "file"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(files[name]))
    overrides = [old, str(value)] if where == "command line" else []
    cfg = load_config(str(tmp_path / "file.yaml"), ["MODEL.DETR.NUM_HEADS", "4", *overrides])
    values = keys_and_values(cfg)
    assert values[RENAMED_KEYS[old]] == value and old not in values
    assert (cfg.MODEL.WEIGHTS, cfg.MODEL.DETR.NUM_HEADS) == ("a.pth", 4)
    assert cfg.MODEL.DETR.MASK_HEAD.NAME == "Other"


def test_files_of_detectron2s_version_1_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("VERSION: 1\nMODEL: {WEIGHT: a.pth, DETR: {NUM_QUERIES: 7}}\n")
    cfg = load_config(str(path))
    assert (cfg.MODEL.WEIGHTS, cfg.MODEL.DETR.NUM_QUERIES) == ("a.pth", 7)


def test_a_new_name_comes_before_an_old_one(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("MODEL: {DETR: {MASK_CHUNK_SIZE: 5, MASK_HEAD: {CHUNK_SIZE: 6}}}\n")
    assert load_config(str(path)).MODEL.DETR.MASK_HEAD.CHUNK_SIZE == 6


def test_detectron2s_own_merging_says_the_new_name():
    for old, new in RENAMED_KEYS.items():
        with pytest.raises(KeyError, match=f"{old} was renamed to {new}"):
            default_cfg().merge_from_list([old, 1])


HEADLESS = {"MODEL.DETR.MASK_ON": False}
OTHER_HEAD = {"MODEL.DETR.MASK_HEAD.NAME": "SomeOtherHead"}


@pytest.mark.parametrize("others", [HEADLESS, OTHER_HEAD], ids=["no head", "another"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.DETR.HIDDEN_DIM", 24),
        ("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "all"),
        ("MODEL.DETR.MASK_HEAD.CHUNK_SIZE", -1),
    ],
)
def test_the_attention_heads_keys_matter_to_it_alone(others, key, value):
    with pytest.raises(ValueError, match=f"^{key} is {value!r}, but must be"):
        load_config(None, [key, value])
    overrides = [part for pair in others.items() for part in pair]
    assert keys_and_values(load_config(None, [*overrides, key, value]))[key] == value


def test_a_config_cannot_run_programs(tmp_path):
    """Detectron2 builds Python objects that a file names, and warns."""
    harm, path = tmp_path / "harm", tmp_path / "config.yaml"
    path.write_text(f'OUTPUT_DIR: !!python/object/apply:os.system ["touch {harm}"]\n')
    based = tmp_path / "based.yaml"
    based.write_text("_BASE_: config.yaml\n")
    for name in (path, based):
        with pytest.raises(
            ValueError, match=rf"{name.name}: cannot be read as a config.*python/obj"
        ):
            load_config(str(name))
    assert not harm.exists()


@pytest.mark.parametrize("text", ["", "[1", "just words", "7", "- 1", "a: b: c"])
def test_a_file_that_is_no_config_is_named(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        load_config(str(path))
