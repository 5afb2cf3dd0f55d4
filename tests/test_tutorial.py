"""docs/TUTORIAL.md and its notebook have the same content, and running it does what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from illustration import run_tutorial as tutorial

PAGE = tutorial.PAGE.read_text(encoding="utf-8")
FRAMES = 24
SIZE = (192, 96)
CLASSES = ("road", "pavement", "building", "plants", "sky", "pole", "person", "vehicle")


def test_the_notebook_is_that_of_the_page():
    stored = json.loads(tutorial.NOTEBOOK.read_text(encoding="utf-8"))
    made = json.loads(json.dumps(tutorial.notebook(PAGE)))
    for cell in stored["cells"]:
        cell["source"] = "".join(cell["source"])
    assert stored == made, "run: python illustration/run_tutorial.py --notebook"


def test_cells_of_a_page_and_what_they_printed():
    page = (
        "# Title\n\nWords.\n\n```bash\nls \\\n  a\n```\n\n```text\nold\n```\n\nMore.\n\n```python\nx = 1\n```\n\n"
        "![a picture](../illustration/tutorial/a.jpg)\n\n```\nnot run\n```\n"
    )
    made = tutorial.notebook(page)
    assert [(cell.cell_type, cell.source) for cell in made.cells] == [
        ("markdown", "# Title\n\nWords."),
        ("code", tutorial.SETUP.strip()),
        ("code", "%%bash -e\nls \\\n  a"),
        ("markdown", "More."),
        ("code", "x = 1"),
        ("markdown", "```\nnot run\n```"),
    ]
    assert tutorial.renewed(page, ["new  \nlines\n", "x"]) == page.replace("old", "new\nlines")


def test_the_pictures_of_the_page_are_small_and_all_used():
    names = tutorial.PICTURE.findall(PAGE)
    files = {path.name: path.stat().st_size for path in tutorial.PICTURES.iterdir()}
    assert sorted(names) == sorted(files)
    assert sum(files.values()) < 400_000


def film(path: Path) -> list[np.ndarray]:
    video, frames = cv2.VideoCapture(str(path)), []
    while video.grab():
        frames.append(video.retrieve()[1])
    return frames


def blocks(page: str) -> list[str]:
    """The printed texts that a page shows."""
    return [text for _, _, text in tutorial.CELL.findall(page) if text]


def without_numbers(text: str) -> str:
    return re.sub(r" *\d[\d.]*", " 0", text)


@pytest.mark.timeout(1200)  # a minute or two, but other tests use the machine too
def test_the_tutorial_gives_what_it_promises(tmp_path):
    made = tutorial.notebook(PAGE)
    tutorial.run(made, tmp_path)
    result = tmp_path / "result/tutorial"
    clip, overlay = (film(path) for path in (tmp_path / "data/tutorial/drive.mp4", result / "film/overlay/drive.mp4"))
    assert len(clip) == len(overlay) == FRAMES
    assert overlay[0].shape[1] == SIZE[0] and overlay[0].shape[0] > SIZE[1]  # the legend is below
    masks = [np.array(Image.open(path)) for path in sorted((result / "film/ids/drive").iterdir())]
    assert len(masks) == FRAMES and {mask.shape for mask in masks} == {SIZE[::-1]}
    assert max(mask.max() for mask in masks) < len(CLASSES) and len(np.unique(masks)) > 2
    for stage in ("step1", "plus"):
        scores = json.loads((result / f"{stage}.json").read_text())
        assert tuple(scores["iou"]) == CLASSES and scores["images"] == FRAMES
        assert all(0 <= iou <= 1 for iou in scores["iou"].values())
        assert scores["iou"]["road"] > 0.4  # the network has learnt something
        assert len(list((result / stage).glob("*_color.png"))) == FRAMES
        assert (tmp_path / f"snapshots/tutorial/{stage}/report.html").stat().st_size > 10_000
    assert (tmp_path / "snapshots/tutorial/plus/selected.pth").is_file()
    for name in tutorial.PICTURE.findall(PAGE):
        with Image.open(result / name) as picture:
            assert picture.width >= SIZE[0] and getattr(picture, "n_frames", 1) == (FRAMES if "film" in name else 1)

    shown, again = (blocks(page) for page in (PAGE, tutorial.renewed(PAGE, tutorial.printed(made))))
    assert shown[0] == again[0]  # the check of the data, which prints the same anywhere
    assert len(shown) == 3 and list(map(without_numbers, shown)) == list(map(without_numbers, again))
