"""Records as rows of text."""

from __future__ import annotations

from utils.reporting import tables


def test_a_row_shows_numbers_of_the_run():
    record = {
        **{"step": 20, "seg": 0.51239, "pseudo": None, "lr_segmenter": 0.01, "ready_stuff": 3, "ready_things": 2},
        **{"iterations_per_s": 2, "data_wait": 0.031, "memory_mb": 900, "iou": {"road": 1.0}, "classes": "19"},
    }
    assert tables.cells(record, {"ready_stuff": 8}) == {
        **{"seg": "0.5124", "pseudo": "-", "stuff": "3/8", "things": "2", "wait": "3%", "it/s": "2.00"},
    }


def test_headings_are_merged_in_order():
    assert tables.merged(["a", "c"], ["a", "b", "c", "d"]) == ["a", "b", "c", "d"]
    assert tables.merged(["b"], ["a"]) == ["a", "b"]
    assert tables.merged([], ["a", "b"]) == ["a", "b"]


def test_rows_are_aligned_to_the_right():
    assert tables.aligned([{"step": "5", "x": "1"}, {"step": "10", "seg": "0.25", "x": "2"}]) == [
        "step   seg  x",
        "   5     -  1",
        "  10  0.25  2",
    ]
    assert tables.aligned([]) == [""]
