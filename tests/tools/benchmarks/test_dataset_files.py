"""What is read and written in the benchmark is what it says."""

from benchmarks.dataset_files import READERS, made_up_json

from detr_d2.data.regular_json import read_outline


def test_the_json_is_regular_as_cocos_own_is(tmp_path):
    path = tmp_path / "panoptic.json"
    made_up_json(path, 30, seed=0)
    assert read_outline(path) is not None
    dicts = READERS["ours, checked"](str(path))
    parsed = READERS["json.load"](str(path))
    assert parsed == READERS["orjson.loads"](str(path))
    assert len(dicts) == len(parsed["images"]) == 30
    for record, annotation in zip(dicts, parsed["annotations"], strict=True):
        assert [s["id"] for s in record["segments_info"]] == [
            s["id"] for s in annotation["segments_info"]
        ]
