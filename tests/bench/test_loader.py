"""The benchmark of the loaders: its published way is what it claims, and the script reports it."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from bench import loader, results
from dataset.cache import Cache

SMALL = ("--pairs", "1", "--rounds", "1", "--native", "96", "52", "--size", "64", "36")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(loader.time, "sleep", lambda _: None)
    threads = loader.torch.get_num_threads()
    yield
    loader.torch.set_num_threads(threads)


def test_the_published_way_by_hand(tmp_path):
    image, label = tmp_path / "image.png", tmp_path / "label.png"
    Image.new("RGB", (4, 2), (10, 20, 30)).save(image)
    Image.fromarray(np.array([[7, 7, 33, 33], [0, 0, 19, 19]], np.uint8)).save(label)
    pixels, ids = loader.published(image, label, (2, 2))
    assert pixels.dtype == ids.dtype == np.float32
    assert ids.tolist() == [[0, 18], [255, 6]]
    np.testing.assert_array_equal(pixels[:, 1, 1], np.array([30, 20, 10], np.float32) - loader.MEAN)


def test_one_json_object_at_the_end(capsys):
    loader.main((*SMALL, "--json"))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for way in ("uncached", "cached"):
        ratio = result[f"{way}_pairs_per_s"] / result["published_pairs_per_s"]
        assert result[f"{way}_speedup"] == pytest.approx(ratio) and ratio > 0
    assert (result["native"], result["size"]) == ([96, 52], [64, 36])


def test_the_section_of_the_results(tmp_path, monkeypatch, capsys):
    page = tmp_path / "RESULTS.md"
    page.write_text("a\n<!-- loader -->\nold\n<!-- end loader -->\nb\n")
    monkeypatch.setattr(results, "write_section", partial(results.write_section, page=page))
    loader.main((*SMALL, "--write"))
    text = page.read_text()
    assert "old" not in text and "python bench/loader.py" in text
    assert text.endswith("<!-- end loader -->\nb\n") and capsys.readouterr().out.rpartition("{")[0].strip() in text


def test_a_way_that_differs_is_an_error(monkeypatch):
    get = Cache.get

    def wrong(*arguments):
        pixels, native = get(*arguments)
        return pixels ^ (pixels == pixels.flat[0]), native

    monkeypatch.setattr(Cache, "get", wrong)
    with pytest.raises(RuntimeError, match="pair 0: cached differs"):
        loader.main(SMALL)
