"""`predict.py` end to end: what it writes, at which size, what it refuses, and how a stopped run resumes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import predict
from dataset.classes import CITYSCAPES
from tests.scripts import STEP1, call, mask
from tests.utils.prediction.test_inputs import write_video
from utils.options import config
from utils.prediction import inputs, streams, writing
from utils.prediction.any_size import Predictor, label_map
from utils.prediction.loading import load

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = str(STEP1 / "last.pth")
OUT = Path("result/predict")


def run(*arguments: str) -> None:
    predict.main([CHECKPOINT, *arguments, "--cpu"])


def exit_code(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: run(*arguments))
    return ended.value.code


@pytest.fixture
def photos(after_stage1) -> Path:
    """A folder with a landscape image, and a portrait image in a folder below it."""
    rng = np.random.default_rng(0)
    for name, size in (("photos/wide.png", (64, 96, 3)), ("photos/sub/tall.jpg", (75, 50, 3))):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(name)
    return Path("photos")


def written() -> dict[str, int]:
    return {str(path.relative_to(OUT)): path.stat().st_mtime_ns for path in OUT.rglob("*") if path.is_file()}


def test_every_kind_is_written_at_the_size_of_its_image(photos):
    run("photos", "--write", "ids,colours,overlay,confidence")
    sizes = {"wide": (96, 64), "sub/tall": (50, 75)}
    files = {f"{kind}/{key}.png" for kind in ("ids", "colours", "confidence") for key in sizes}
    assert set(written()) == files | {f"overlay/{key}.jpg" for key in sizes} | {"predict.json", "inputs.jsonl"}
    segmenter, classes, size = load(CHECKPOINT)
    for key, (width, height) in sizes.items():
        source = next(photos.glob(f"{key}.*"))
        ids = mask(OUT / f"ids/{key}.png")
        assert np.array_equal(ids, label_map(segmenter, inputs.read_still(source), size))
        assert ids.shape == (height, width)
        colours = Image.open(OUT / f"colours/{key}.png")
        assert np.array_equal(np.array(colours), ids)
        assert np.array_equal(np.array(colours.convert("RGB")), np.array(classes.palette, np.uint8)[ids])
        assert mask(OUT / f"confidence/{key}.png").min() >= 255 // classes.num_classes
        with Image.open(OUT / f"overlay/{key}.jpg") as overlay:
            assert overlay.width == width and overlay.height > height
    note = json.loads((OUT / "predict.json").read_text())
    assert [entry["name"] for entry in note["classes"]["classes"]] == list(classes.names)


def test_masks_of_the_target_are_those_of_the_evaluation(after_stage1):
    call("evaluate", "--restore-from", CHECKPOINT, "--save", "evaluated")
    run("data/builtin/Cityscapes/leftImg8bit/val", "--write", "ids")
    found = sorted((OUT / "ids").rglob("*.png"))
    assert len(found) == 2
    for path in found:
        assert np.array_equal(mask(path), mask(Path("evaluated") / path.name))


def test_the_legend_names_every_class_and_fits_the_width():
    names, palette = ("road", "sky", "traffic light"), ((9, 0, 0), (0, 9, 0), (0, 0, 9))
    for width in (40, 400, 4000):
        strip = writing.legend(names, palette, width)
        assert strip.shape[1] == width
        if width > 40:
            assert all((strip == colour).all(2).sum() > 50 for colour in palette)


def test_an_overlay_is_half_the_image_and_half_the_colour():
    table = CITYSCAPES
    pixels = np.full((2, 200, 3), 100, np.uint8)
    labels = np.zeros((2, 200), np.uint8)
    found = writing.overlay(pixels, labels, table)[:2]
    assert np.abs(found.astype(int) - (100 + np.array(table.palette[0])) / 2).max() <= 0.5


def test_a_video_keeps_its_rate_size_and_frames(after_stage1):
    write_video(Path("v.mp4"), 5, size=(96, 64), rate=12.5)
    run("v.mp4", "--batch-size", "2")
    frames = sorted((OUT / "ids/v").iterdir())
    assert [path.name for path in frames] == [f"{n:06d}.png" for n in range(5)]
    assert {mask(path).shape for path in frames} == {(64, 96)}
    for kind in ("colours", "overlay"):
        capture = cv2.VideoCapture(str(OUT / f"{kind}/v.mp4"))
        assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (12.5, 5)
        assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 96
        capture.release()


@pytest.fixture
def predicted(monkeypatch) -> list[int]:
    """A list of how many images go through the network in each batch."""
    counts: list[int] = []
    call_ = Predictor.__call__

    def counted(self, batch):
        counts.append(len(batch))
        return call_(self, batch)

    monkeypatch.setattr(Predictor, "__call__", counted)
    return counts


def test_the_same_command_predicts_only_what_is_missing(photos, predicted):
    run("photos")
    before = written()
    run("photos")
    assert sum(predicted) == 2 and written() == before
    (OUT / "overlay/wide.jpg").unlink()
    run("photos")
    assert sum(predicted) == 3
    os.utime("photos/sub/tall.jpg")  # a changed image
    run("photos")
    assert sum(predicted) == 4
    run("photos", "--overwrite")
    assert sum(predicted) == 6


def test_another_file_of_the_same_name_is_predicted(after_stage1, predicted):
    rng = np.random.default_rng(0)
    for day, changed in (("day1", 1), ("day2", 2)):
        Path(day).mkdir()
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(f"{day}/1.png")
        os.utime(f"{day}/1.png", (changed, changed))
    run("day1", "--write", "ids,overlay")
    first = (OUT / "overlay/1.jpg").read_bytes()
    run("day2", "--write", "ids,overlay")
    second = (OUT / "overlay/1.jpg").read_bytes()
    assert sum(predicted) == 2 and first != second
    os.replace("day1/1.png", "day2/1.png")  # an older file
    run("day2", "--write", "ids,overlay")
    assert sum(predicted) == 3 and (OUT / "overlay/1.jpg").read_bytes() == first


def test_a_folder_without_a_record_is_predicted_again(photos, predicted, capsys):
    run("photos", "--write", "ids")
    (OUT / "inputs.jsonl").unlink()
    run("photos", "--write", "ids")
    assert capsys.readouterr().out.count("did not record") == 1 and sum(predicted) == 4
    run("photos", "--write", "ids")
    assert "did not record" not in capsys.readouterr().out and sum(predicted) == 4


def test_what_a_stopped_overwriting_has_not_replaced_is_predicted(photos, predicted, monkeypatch):
    run("photos", "--write", "ids")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing.Output, "write_still", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run("photos", "--write", "ids", "--flip", "--overwrite")
    predicted.clear()
    run("photos", "--write", "ids", "--flip")
    assert sum(predicted) == 2


def film_length() -> float:
    capture = cv2.VideoCapture(str(OUT / "overlay/v.mp4"))
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    return frames


@pytest.mark.parametrize("kinds", ["ids,overlay", "overlay", "ids"])
def test_the_first_frames_of_a_film_are_not_the_whole(after_stage1, predicted, kinds):
    write_video(Path("v.mp4"), 6, size=(96, 64))
    run("v.mp4", "--frames", "3", "--write", kinds)
    before = written()
    run("v.mp4", "--frames", "3", "--write", kinds)
    assert sum(predicted) == 3 and written() == before
    run("v.mp4", "--write", kinds)
    assert sum(predicted) == (6 if "ids" in kinds else 9)
    before = written()
    run("v.mp4", "--write", kinds)
    run("v.mp4", "--write", kinds, "--frames", "3")  # there are more already
    assert written() == before
    assert "overlay" not in kinds or film_length() == 6
    assert "ids" not in kinds or len(list((OUT / "ids/v").iterdir())) == 6


def test_nothing_of_a_longer_film_stays(after_stage1, predicted):
    write_video(Path("v.mp4"), 6, size=(96, 64))
    run("v.mp4")
    write_video(Path("v.mp4"), 4, size=(96, 64))
    os.utime("v.mp4", (1, 1))
    run("v.mp4")
    assert sum(predicted) == 10 and film_length() == 4
    assert [path.stem for path in sorted((OUT / "ids/v").iterdir())] == [f"{n:06d}" for n in range(4)]


def test_a_damaged_frame_is_predicted_again(after_stage1, predicted):
    write_video(Path("v.mp4"), 4, size=(96, 64))
    run("v.mp4")
    (OUT / "ids/v/000002.png").write_bytes(b"damaged")
    (OUT / "overlay/v.mp4").unlink()
    run("v.mp4")
    assert sum(predicted) == 5 and mask(OUT / "ids/v/000002.png").shape == (64, 96)


def test_what_a_killed_run_left_is_removed(photos):
    (OUT / "ids/sub").mkdir(parents=True)
    for name in (".predict.json.0123abcd.tmp", "ids/.wide.png.0123abcd.tmp", "ids/sub/.tall.png.0123abcd.tmp"):
        (OUT / name).touch()
    run("photos", "--write", "ids")
    assert not list(OUT.rglob("*.tmp"))


def test_an_image_that_is_too_large_for_an_overlay_is_refused(after_stage1, capsys):
    Path("large").mkdir()
    for name, size in (("wide", (65_501, 2)), ("tall", (20, 65_300))):  # the legend makes it longer
        Image.new("RGB", size).save(f"large/{name}.png")
        assert exit_code(f"large/{name}.png", "--input-size", "96,64") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: large/{name}.png: ") and "leave overlay out of --write" in error
        assert not [file for file in written() if file.startswith(("ids", "colours"))]
    run("large", "--input-size", "96,64", "--skip-bad-images")
    assert len((OUT / "skipped_images.txt").read_text().splitlines()) == 2
    run("large", "--input-size", "96,64", "--write", "ids")
    assert mask(OUT / "ids/tall.png").shape == (65_300, 20)


def test_a_stopped_video_goes_on_with_its_frames(after_stage1, predicted, monkeypatch):
    write_video(Path("v.mp4"), 6, size=(96, 64))
    add = writing.Film.add

    def stopping(self, *arguments, **named):
        add(self, *arguments, **named)
        if self.frames == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(writing.Film, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("v.mp4")
    files = sorted(written())
    done = [name for name in files if name.startswith("ids/")]
    assert 1 <= len(done) <= 4 and [name for name in files if name not in done] == ["inputs.jsonl", "predict.json"]
    assert not [path for path in OUT.rglob(".partial*")]
    monkeypatch.setattr(writing.Film, "add", add)
    predicted.clear()
    run("v.mp4")
    assert sum(predicted) == 6 - len(done)
    assert len(list((OUT / "ids/v").iterdir())) == 6 and (OUT / "overlay/v.mp4").is_file()


def test_other_settings_need_another_folder(photos, capsys):
    run("photos")
    assert exit_code("photos", "--flip", "--write", "ids") == 2
    error = capsys.readouterr().err
    assert "predict.json" in error and "flip: false there, true given" in error and "scales" not in error
    assert 'write: ["ids", "colours", "overlay"] there, ["ids"] given' in error and error.count("\n") == 1
    run("photos", "--flip", "--overwrite")


def test_settings_of_a_run_that_predicted_nothing_do_not_matter(photos):
    Path("bad.png").write_bytes(b"")
    assert exit_code("bad.png") == 2
    run("photos", "--flip", "--write", "ids")
    assert json.loads((OUT / "predict.json").read_text())["flip"]


def test_a_bad_image_is_named_or_skipped(photos, capsys):
    Path("photos/bad.png").write_bytes(Path("photos/wide.png").read_bytes()[:300])
    Path("photos/bad.mp4").write_bytes(b"no video")
    assert exit_code("photos", "--write", "ids") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: photos/bad.png: ") and error.count("\n") == 1
    run("photos", "--write", "ids", "--skip-bad-images")
    assert {name for name in written() if name.startswith("ids")} == {"ids/wide.png", "ids/sub/tall.png"}
    lines = (OUT / "skipped_images.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["photos/bad.png", "photos/bad.mp4"]


def test_names_that_are_no_text_are_skipped_in_one_line_each(photos, capsys):
    for name in ("photos/x\ny.png", "photos/\udcff.png", "photos/\udcff.mp4"):
        Path(name).write_bytes(b"nothing")
    Image.new("RGB", (96, 64)).save("photos/good\udcff.png")
    run("photos", "--write", "ids", "--skip-bad-images")
    lines = (OUT / "skipped_images.txt").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        r"photos/\udcff.mp4",
        r"photos/\udcff.png",
        r"photos/x\ny.png",
    ]
    assert sum("skipped (" in line for line in capsys.readouterr().out.splitlines()) == 3
    assert (OUT / "ids/good\udcff.png").is_file()
    write_video(Path("v.mp4"), 2, size=(96, 64))
    assert exit_code("v.mp4", "--out", "\udcff") == 2
    assert "error: --out: " in capsys.readouterr().err


class FakeCamera:
    """Ten frames of a camera that reports no frame rate."""

    def __init__(self, number: int) -> None:
        self.left = 10 if number == 3 else 0

    def isOpened(self) -> bool:
        return self.left > 0

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 96, cv2.CAP_PROP_FRAME_HEIGHT: 64}.get(what, 0.0)

    def read(self):
        self.left -= 1
        return self.left >= 0, np.zeros((64, 96, 3), np.uint8)

    def release(self) -> None:
        pass


def test_a_camera_is_filmed_in_the_time_of_the_scene(after_stage1, monkeypatch):
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: FakeCamera(name) if isinstance(name, int) else real(name))
    seconds = iter(np.arange(0, 1000, 0.1))
    monkeypatch.setattr(streams.time, "monotonic", lambda: float(next(seconds)))
    run("3", "--frames", "4", "--write", "overlay")
    [film] = (OUT / "overlay").iterdir()
    capture = real(str(film))
    assert re.fullmatch(r"camera3_\d{8}_\d{6}\.mp4", film.name) and capture.get(cv2.CAP_PROP_FPS) == 30
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 4 * 3  # at least 0.1 s, that is 3 frames, between two
    assert exit_code("4") == 2


def test_a_camera_is_filmed_even_if_its_only_frame_is_predicted_at_once(after_stage1, monkeypatch):
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: FakeCamera(name) if isinstance(name, int) else real(name))
    monkeypatch.setattr(streams.time, "monotonic", lambda: 5.0)
    run("3", "--frames", "1", "--write", "overlay")
    [film] = (OUT / "overlay").iterdir()
    assert real(str(film)).get(cv2.CAP_PROP_FRAME_COUNT) == 1


def test_a_missing_input_is_refused_before_the_checkpoint_is_read(after_stage1, capsys):
    assert exit_code("nowhere.png") == 2
    assert capsys.readouterr().err.startswith("error: nowhere.png: not found")
    assert not OUT.exists()


def test_progress_says_the_rate_and_the_time_left():
    progress = streams.Progress(100)
    progress.add(20)
    assert progress.line(10.0) == "20 of 100 images, 2 per second, 0:00:40 left"
    assert re.fullmatch(r"20 images in 0:00:00, \S+ per second", progress.close())


@pytest.mark.parametrize("document", ["README.md", "docs/PREDICT.md"])
def test_the_snippet_of_the_document_runs_as_it_stands(photos, document):
    [snippet] = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) == 5
    Path("snapshots/builtin/step2").mkdir(parents=True)
    Path("snapshots/builtin/step2/last.pth").symlink_to(Path(CHECKPOINT).absolute())
    Image.open("photos/wide.png").save("photo.png")
    names: dict = {}
    exec(snippet, names)
    run("photo.png", "--write", "ids")
    assert np.array_equal(names["labels"], mask(OUT / "ids/photo.png"))
    assert names["labels"].max() < names["classes"].num_classes
