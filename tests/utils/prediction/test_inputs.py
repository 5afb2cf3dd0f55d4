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


def test_no_key_leads_out_of_the_output_folder(tree, monkeypatch):
    monkeypatch.chdir("a/b")
    assert keys("2.JPG", "../1.png", "../../c/1.png") == ["a/b/2", "a/1", "c/1"]
    assert keys("../b/2.JPG", "../../c/*.png") == ["a/b/2", "c/1"]
    with pytest.raises(UserError, match=r"2\.JPG and \.\./b/2\.JPG .*same file"):
        find(["2.JPG", "../b/2.JPG"])


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


def test_linked_folders_are_followed(tree):
    Path("links").mkdir()
    Path("links/to_a").symlink_to(Path("a").absolute())
    assert keys("links") == ["to_a/1", "to_a/b/2"]
    Path("a/loop").symlink_to(Path("a").absolute())
    with pytest.raises(UserError, match=r"loop: a link to a folder that contains it"):
        find(["a"])


def test_predictions_below_the_output_folder_are_left_out(tree, caplog):
    caplog.set_level("INFO")
    for name in ("a/pred/ids/1.png", "a/pred/overlay/b/2.jpg", "a/pred/mine.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    expected = [source for source in find(["a"]) if source.key not in ("pred/ids/1", "pred/overlay/b/2")]
    assert find(["a"], Path("a/pred")) == expected and len(expected) == 3
    assert "a: 2 predictions below --out" in caplog.text
    assert [source.key for source in find(["**/*.png"], Path("a/pred"))] == ["a/1", "a/pred/mine", "c/1"]
    assert len(find(["a"], Path())) == 5  # ids/ and so on lie in the current folder
    assert [source.key for source in find(["a/pred/ids/1.png"], Path("a/pred"))] == ["1"]  # its name was given
    with pytest.raises(UserError, match="no images or videos"):
        find(["a/pred/ids"], Path("a/pred"))


def test_an_image_with_the_name_of_a_frame_is_refused(tree):
    Path("c/clip").mkdir()
    Path("c/clip/000123.png").touch()
    with pytest.raises(UserError, match=r"c/clip/000123\.png .*same file as a frame of c/clip\.mp4"):
        find(["c"])


@pytest.mark.parametrize(
    ("text", "message"), [("nowhere", "not found"), ("*.gif", "no images or videos"), ("a/.hidden", "1 image")]
)
def test_what_leads_nowhere_is_refused(tree, text, message):
    if text == "a/.hidden":  # a hidden file is read if its name is given
        assert keys(text) == ["3"]
        return
    with pytest.raises(UserError, match=message):
        find([text])


@pytest.mark.parametrize(
    ("name", "mode"),
    [("p.jpg", "RGB"), ("p.webp", "RGB"), ("p.tif", "RGB"), ("p.png", "RGB"), ("p.png", "RGBA"), ("p.png", "I;16")],
)
def test_a_photograph_is_turned_as_its_exif_says(tmp_path, name, mode):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    deep = mode == "I;16"
    image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257) if deep else Image.fromarray(pixels).convert(mode)
    exif = image.getexif()
    exif[274] = 6  # shown turned clockwise
    image.save(tmp_path / name, exif=exif, quality=100)
    assert read_still(tmp_path / name).shape == (8, 4, 3)
    assert read_still(tmp_path / name)[:4].min() > 200


def test_a_photograph_with_damaged_exif_is_read_as_it_is_stored(tmp_path):
    Image.new("RGB", (8, 4)).save(tmp_path / "p.jpg", exif=b"Exif\0\0neither II nor MM")
    assert read_still(tmp_path / "p.jpg").shape == (4, 8, 3)


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


def test_a_video_whose_name_opencv_cannot_open_is_refused(tmp_path):
    video = Video(tmp_path / "x\n\udcff.mp4", "v")
    write_video(tmp_path / "v.mp4", 2)
    (tmp_path / "v.mp4").rename(video.path)
    assert count_frames(video) == 0
    with pytest.raises(Unreadable, match=r"x\\n\\udcff\.mp4: a name that is not UTF-8"), opened(video):
        pass
    video.path.unlink()
    with pytest.raises(Unreadable, match=r"udcff\.mp4: video not found"), opened(video):
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
