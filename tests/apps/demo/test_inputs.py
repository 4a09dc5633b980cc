"""Which files are found, and what their pictures are called."""

from pathlib import Path

import pytest

from detr_d2.data.input_files import distinct_names, find_pictures


def test_finds_files_folders_and_globs(images):
    from detr_d2.data.input_files import find_images

    everything = [images / "a.jpg", images / "broken.jpg", images / "sub" / "a.png"]
    assert find_images([str(images)]) == everything
    assert find_images([str(images / "*.jpg")]) == everything[:2]
    assert find_images([str(images / "**" / "*.png")]) == everything[2:]
    assert find_images([str(images / "missing.jpg")]) == [images / "missing.jpg"]
    for empty in (images / "*.gif", images / "sub" / "*.jpg"):
        with pytest.raises(FileNotFoundError, match="No images in"):
            find_images([str(empty)])


def test_finds_images_and_videos(images, make_video):
    video = make_video("images/sub/clip.MOV.avi", 1)
    found, videos = find_pictures([str(images)])
    assert found == [images / "a.jpg", images / "broken.jpg", images / "sub" / "a.png"]
    assert videos == [video]
    assert find_pictures(["gone.txt", "gone.mp4"]) == ([Path("gone.txt")], [Path("gone.mp4")])
    with pytest.raises(FileNotFoundError, match="No images or videos in"):
        find_pictures([str(images / "*.gif")])


def test_names_differ():
    paths = [Path(name) for name in ("a.jpg", "b/a.png", "a_2.jpg", "c/a.bmp", "A.png")]
    assert distinct_names(paths) == ["a", "a_2", "a_2_2", "a_3", "A_4"]
