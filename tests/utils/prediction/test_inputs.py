"""Which files a command line names, under which keys, and how they are read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.prediction import inputs
from utils.prediction.inputs import Camera, Still, Unreadable, Video, count_frames, find, opened, read_still
from utils.system.errors import UserError


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/b/2.JPG", "a/.hidden/3.png", "a/notes.txt", "c/1.png", "c/clip.mp4", "c/1.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def keys(*given: str) -> list[str]:
    return [source.key for source in find(given)]


def test_a_folder_gives_its_tree_in_order(tree):
    assert find(["a"]) == [Still(Path("a/1.png"), "1"), Still(Path("a/b/2.JPG"), "b/2")]
    assert Video(Path("c/clip.mp4"), "clip") in find(["c"])


def test_single_files_and_globs_share_the_deepest_folder(tree):
    assert keys("a/1.png") == ["1"]
    assert keys("a/1.png", "a/b/2.JPG") == ["1", "b/2"]
    assert keys("a/1.png", "c/1.png") == ["a/1", "c/1"]
    assert keys("**/1.png") == ["a/1", "c/1"]
    assert keys("a/**/*.JPG", "a/b/2.JPG") == ["2"]


def test_files_of_one_name_keep_their_endings(tree):
    assert keys("c") == ["1.jpg", "1.png", "clip"]


def test_two_inputs_of_one_key_are_refused(tree):
    with pytest.raises(UserError, match=r"a/1\.png and c/new/1\.png .*same file"):
        Path("c/new").mkdir()
        Path("c/new/1.png").touch()
        find(["a", "c/new"])


def test_a_number_is_a_camera_unless_a_file_has_that_name(tree):
    [camera] = find(["0"])
    assert isinstance(camera, Camera) and camera.number == 0 and camera.key.startswith("camera0_")
    Path("7").mkdir()
    Image.new("RGB", (2, 2)).save("7/x.png")
    assert keys("7") == ["x"]


@pytest.mark.parametrize(
    ("text", "message"), [("nowhere", "not found"), ("*.gif", "no images or videos"), ("a/.hidden", "1 image")]
)
def test_what_leads_nowhere_is_refused(tree, text, message):
    if text == "a/.hidden":  # a hidden file is read if its name is given
        assert keys(text) == ["3"]
        return
    with pytest.raises(UserError, match=message):
        find([text])


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = 6  # shown turned clockwise
    image.save(tmp_path / "p.jpg", exif=exif, quality=100)
    assert read_still(tmp_path / "p.jpg").shape == (8, 4, 3)
    assert read_still(tmp_path / "p.jpg")[:4].min() > 200


def write_video(path: Path, frames: int, size: tuple[int, int] = (32, 16), rate: float = 12.5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), (10 * number, 0, 0), np.uint8))
    writer.release()


def test_a_video_gives_its_rate_and_rgb_frames(tmp_path):
    write_video(tmp_path / "v.mp4", 5)
    video = Video(tmp_path / "v.mp4", "v")
    with opened(video) as clip:
        assert (clip.rate, clip.frames, clip.size) == (12.5, 5, (32, 16))
        frames = list(clip)
    assert len(frames) == 5 == count_frames(video)
    assert frames[4][..., 2].mean() > 20 and frames[4][..., 0].mean() < 10  # blue


def test_a_broken_video_is_named(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"nothing")
    video = Video(tmp_path / "v.mp4", "v")
    assert count_frames(video) == 0
    with pytest.raises(Unreadable, match=r"v\.mp4: cannot be opened"), opened(video):
        pass


def test_a_video_that_ends_early_is_said(tmp_path, caplog, monkeypatch):
    write_video(tmp_path / "v.mp4", 4)
    monkeypatch.setattr(inputs.logger, "propagate", True)
    with caplog.at_level("INFO", logger="bafft"), opened(Video(tmp_path / "v.mp4", "v")) as clip:
        clip.frames = 40
        assert len(list(clip)) == 4
    assert "ends after 4 of 40 frames" in caplog.text


def test_labels_beside_images_are_mentioned(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("images/a.png", "labels/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert len(inputs.find([str(tmp_path / "images")])) == 1 and not caplog.messages
    assert len(inputs.find([str(tmp_path)])) == 2
    assert f"labels/ too; give {tmp_path / 'images'} for the images only" in caplog.text
