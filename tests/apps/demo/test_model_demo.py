"""What is written of videos and cameras, also where something ends early."""

import json
import logging
import sys

import cv2
import numpy as np
import pytest

from detr_d2.apps.demo import Demo, DemoOptions, predict_files, predict_webcam
from detr_d2.apps.demo import model_demo as demo_module
from detr_d2.apps.demo.frame_window import Window
from detr_d2.apps.demo.video import VideoReader
from detr_d2.data.panoptic_png import read_panoptic_png


def saved(out):
    return json.loads((out / "predictions.json").read_text())["annotations"]


def test_a_video_becomes_a_video_of_as_many_frames(make_demo, make_video, tmp_path, read_video):
    with make_demo(batch_size=4, save_panoptic=True) as demo:
        demo.show_video(make_video(num_frames=30), "clip")
    assert demo.failed == 0
    out = tmp_path / "out"
    [path] = out.glob("clip.*")
    with VideoReader(path) as written:
        assert (written.fps, written.num_frames) == (10.0, 30)
    frames = read_video(path)
    # The square has one colour throughout, although its id changes from frame to frame.
    colors = [
        frame[11:17, place + 4 : place + 36].mean((0, 1)) for place, frame in enumerate(frames)
    ]
    assert np.ptp(colors, axis=0).max() < 25
    annotations = saved(out)
    assert [entry["image_id"] for entry in annotations] == [f"clip/{k:07d}" for k in range(30)]
    for entry in annotations[::7]:
        ids = read_panoptic_png(out / "predictions" / entry["file_name"])
        assert {info["id"]: info["area"] for info in entry["segments_info"]} == {
            id: (ids == id).sum() for id in (1, 2)
        }
    squares = [info for entry in annotations for info in entry["segments_info"]]
    assert {(info["id"], info["category_id"]) for info in squares} == {(1, 9), (2, 5)}


def test_pictures_of_images_need_a_folder(metadata, tmp_path):
    with Demo(None, metadata, None, DemoOptions()) as demo:
        with pytest.raises(ValueError, match="Pictures need a folder"):
            demo.show_images([tmp_path / "a.png"])


def test_an_interrupted_video_can_be_played(make_demo, make_video, tmp_path, read_video, caplog):
    def press_ctrl_c(place):
        if place == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.INFO, "detr_d2"):
        with make_demo(press_ctrl_c, save_panoptic=True) as demo:
            demo.show_video(make_video(num_frames=30), "clip")
    [path] = (tmp_path / "out").glob("clip.*")
    assert len(read_video(path)) == len(saved(tmp_path / "out")) == 20
    assert "20 frames at" in caplog.text and path.name in caplog.text


def test_damaged_videos_are_named_and_the_others_go_on(make_demo, make_video, tmp_path, caplog):
    cut, whole, gone = make_video("cut.avi"), make_video("whole.avi"), tmp_path / "gone.avi"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with make_demo() as demo, caplog.at_level(logging.ERROR, "detr_d2"):
        for path in (cut, gone, whole):
            demo.show_video(path, path.stem)
    assert demo.failed == 2
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"cut", "whole"}
    messages = [record.getMessage() for record in caplog.records]
    assert [str(path) in text for path, text in zip((cut, gone), messages, strict=True)] == [1, 1]


def test_a_video_that_the_model_cannot_take_fails_once(make_demo, make_video, caplog):
    def refuse(place):
        if place == 3:
            raise ValueError("too long for learned positions")

    with make_demo(refuse) as demo, caplog.at_level(logging.ERROR, "detr_d2"):
        demo.show_video(make_video(), "clip")
    assert demo.failed == len(caplog.records) == 1
    assert "clip.avi, frame 3: too long for learned positions" in caplog.text


class Camera:
    """Gives frames, and lets two seconds pass on a clock for each."""

    fps = 5.0

    def __init__(self, num_frames, clock):
        self.num_frames = num_frames
        self.clock = clock

    def __iter__(self):
        for place in range(self.num_frames):
            yield place, np.full((32, 480, 3), 40 * place, np.uint8)
            self.clock[0] += 2.0


def test_a_recording_is_as_slow_as_reality(make_demo, tmp_path, read_video, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(demo_module.time, "monotonic", lambda: clock[0])
    with make_demo() as demo:
        demo.show_webcam(Camera(4, clock), "webcam_0")
    [path] = (tmp_path / "out").iterdir()
    # A frame, and then one after 2, 4 and 6 seconds, at 5 frames/s.
    assert len(read_video(path)) == 31


@pytest.fixture
def screen(monkeypatch):
    """OpenCV's windows: what was shown, and a list of the keys to be pressed."""
    shown, keys = [], []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: keys.pop(0) if keys else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: 1.0)
    monkeypatch.setattr(cv2, "destroyWindow", lambda title: shown.append(None))
    return shown, keys


def test_a_window_shows_frames_until_q(make_demo, make_video, tmp_path, screen, read_video):
    shown, keys = screen
    keys += [-1, -1, -1, ord("q")]
    with make_demo(window=True) as demo:
        demo.show_video(make_video(), "clip")
    assert len(shown) == 5 and shown[-1] is None
    [path] = (tmp_path / "out").iterdir()
    assert len(read_video(path)) == 4
    # The speed stands in the lower left corner of the window.
    assert np.abs(shown[3][-14:, :60].astype(int) - shown[0][-14:, :60]).max() > 100


def test_a_window_that_was_closed_is_no_error(screen, monkeypatch):
    def closed(*args):
        raise cv2.error("NULL window: 'clip'")

    monkeypatch.setattr(cv2, "destroyWindow", closed)
    with Window("clip") as window:
        assert window.show(np.zeros((2, 2, 3), np.uint8))
        monkeypatch.setattr(cv2, "getWindowProperty", closed)
        assert not window.show(np.zeros((2, 2, 3), np.uint8))


def test_no_window_without_a_screen(monkeypatch, screen):
    def not_built(*args):
        raise cv2.error("The function is not implemented. Rebuild the library")

    monkeypatch.setattr(cv2, "namedWindow", not_built)
    with pytest.raises(OSError, match=r"(?s)headless.*opencv-python.*--output FOLDER"):
        Window("clip")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(OSError, match=r"DISPLAY is not set.*--output FOLDER"):
        Window("clip")


def test_inputs_are_never_overwritten(tiny_cfg, images, make_video, tmp_path):
    clip = make_video("clip.avi", 1)
    before = clip.read_bytes(), (images / "sub" / "a.png").read_bytes()
    for path, folder, options in [
        (clip, tmp_path, DemoOptions()),
        (images / "sub" / "a.png", images / "sub", DemoOptions()),
        (images / "sub" / "a.png", images / "b" / ".." / "sub", DemoOptions()),
    ]:
        with pytest.raises(ValueError, match="is an input and would be overwritten"):
            predict_files(tiny_cfg, [str(path)], str(folder), options)
    (images / "sub").rename(images / "predictions")
    with pytest.raises(ValueError, match="is an input and would be overwritten"):
        inputs = [str(images / "predictions")]
        predict_files(tiny_cfg, inputs, str(images), DemoOptions(save_panoptic=True))
    assert before == (clip.read_bytes(), (images / "predictions" / "a.png").read_bytes())
    # The frames of an earlier run.
    frames = tmp_path / "out" / "predictions" / "clip"
    frames.parent.mkdir(parents=True)
    (images / "predictions").rename(frames)
    with pytest.raises(ValueError, match="clip is an input and would be overwritten"):
        inputs = [str(clip), str(frames)]
        predict_files(tiny_cfg, inputs, str(tmp_path / "out"), DemoOptions(save_panoptic=True))


def test_what_cannot_be_shown_is_refused_before_the_model_is_built(tiny_cfg, make_video, tmp_path):
    clip = [str(make_video("clip.avi", 1))]
    with pytest.raises(ValueError, match="--masks is for images"):
        predict_files(tiny_cfg, clip, str(tmp_path / "out"), DemoOptions("masks"))
    with pytest.raises(ValueError, match="--masks is for images"):
        predict_webcam(tiny_cfg, 98, None, DemoOptions("masks"))
    with pytest.raises(ValueError, match="--save-panoptic needs a folder"):
        Demo.from_config(tiny_cfg, None, DemoOptions(save_panoptic=True))
    with pytest.raises(ValueError, match="--batch has to be at least 1"):
        DemoOptions(batch_size=0)
    tiny_cfg.merge_from_list(["MODEL.DETR.MASK_ON", False])
    for options in (
        DemoOptions("semantic"),
        DemoOptions(segment_id=1),
        DemoOptions(save_panoptic=1),
    ):
        with pytest.raises(ValueError, match=r"can only show boxes.*MODEL\.DETR\.MASK_ON"):
            predict_files(tiny_cfg, clip, str(tmp_path / "out"), options)
    assert not (tmp_path / "out").exists()


def test_demo_takes_a_camera_and_ends_with_status_130_on_ctrl_c(run_cli, monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr("detr_d2.apps.demo.predict_webcam", interrupted)
    monkeypatch.setattr("detr_d2.apps.demo.predict_files", interrupted)
    monkeypatch.setattr("detr_d2.config.load_config", lambda *args: args)

    def run(*args):
        return run_cli("demo", "--config-file", "x.yaml", *args)

    assert run("--webcam", "1", "MODEL.DEVICE", "cpu") == 130
    assert calls.pop() == (("x.yaml", ["MODEL.DEVICE", "cpu"]), 1, None, DemoOptions())
    assert run("--webcam", "--output", "out", "--mask", "3", "--window") == 130
    assert calls.pop()[1:] == (0, "out", DemoOptions(segment_id=3, window=True))
    assert run("--input", "a", "b", "--output", "o", "--boxes", "--batch", "4", "--save-panoptic")
    assert calls.pop()[1:] == (["a", "b"], "o", DemoOptions("boxes", None, 4, True))
    for wrong in (
        ["--input", "a"],
        ["--webcam", "--save-panoptic"],
        [],
        ["--webcam", "--input", "a"],
    ):
        with pytest.raises(SystemExit, match="2"):
            run(*wrong)
