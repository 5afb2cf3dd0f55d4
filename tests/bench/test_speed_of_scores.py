"""The benchmarks of scores, evaluation and pseudo-labels on tiny inputs: both ways agree, and what is reported."""

from __future__ import annotations

import json
from argparse import Namespace
from functools import partial

import numpy as np
import pytest

from bench import evaluation, iou, pseudo_labels, results
from bench.timing import interleaved


def test_all_ways_of_scoring_count_the_same_and_most_pixels_are_right(tmp_path):
    files = iou.generate(tmp_path, 2, (128, 64))
    matrix = iou.published(files)
    assert 0.5 * matrix.sum() < np.trace(matrix) < matrix.sum()
    for way in (iou.cityscapes_scripts, iou.ours):
        assert np.array_equal(way(files), matrix)


def test_the_iou_bench_stops_where_the_ways_differ(monkeypatch):
    arguments = Namespace(pairs=1, size=(64, 32), rounds=1, workers=2)
    found = iou.measure(arguments)
    assert found["speedup"] == pytest.approx(found["pairs_per_s"]["ours"] / found["pairs_per_s"]["published"])
    lines, cpu = iou.table(found), found["cpu_ms_per_pair"]
    assert sum(line.startswith("|") for line in lines) == 2 + len(iou.WAYS)
    assert f"would need {cpu['decoding_pillow'] / cpu['ours']:.1f} times our CPU time" in lines[-1]
    assert found["cityscapesscripts_path"] in ("C", "Python")
    monkeypatch.setattr(iou, "ours", lambda files: iou.published(files) + 1)
    with pytest.raises(RuntimeError, match="counts otherwise"):
        iou.measure(arguments)


def test_the_evaluation_bench_checks_the_label_maps(monkeypatch):
    found = evaluation.measure(Namespace(size=(40, 64), classes=5, rounds=1, cpu=True))
    assert found["speedup"] == found["published_ms"] / found["ours_ms"] and found["identical"]
    monkeypatch.setattr(evaluation, "ours", lambda logits, size: 1 - evaluation.published(logits, size))
    with pytest.raises(RuntimeError, match="pixels differ"):
        evaluation.measure(Namespace(size=(40, 64), classes=2, rounds=1, cpu=True))


def test_the_bench_of_pseudo_labels_prints_one_json_object_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    page = tmp_path / "RESULTS.md"
    page.write_text("<!-- pseudo_labels -->\n<!-- end pseudo_labels -->\n")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(results, "write_section", partial(results.write_section, page=page))
    arguments = ["--images", "5", "--twin-images", "3", "--rounds", "1", "--folder", str(tmp_path / "scratch")]
    generate = pseudo_labels.generate
    monkeypatch.setattr(pseudo_labels, "generate", lambda number, size: generate(2, (64, 32)))
    pseudo_labels.main([*arguments, "--json", "--write"])
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert list(found)[:3] == ["peak_above_base_gib", "ms_per_image", "speedup"]
    assert found["images"] == 5 and found["speedup"] > 0 and found["peak_above_base_gib"] < 0.5
    assert "| published |" in page.read_text() and not list((tmp_path / "scratch").iterdir())


def test_ways_are_timed_in_turn():
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == list("baabbaab") and set(times) == {"a", "b"}
