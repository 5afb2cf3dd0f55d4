"""The list of skipped images: new ones are added once, in order, and after those of an earlier run."""

from __future__ import annotations

import logging

from utils.system.skipped import LIST, Skipped


def test_the_list(tmp_path, caplog):
    skipped = Skipped()
    skipped.list_in(tmp_path)
    assert not (tmp_path / LIST).exists()
    with caplog.at_level(logging.INFO, "bafft"):
        skipped.add(["b: bad", "a: bad", "b: bad"])
        skipped.add(["a: bad"])
        skipped.add(["größe: bad"])
    assert [record.message for record in caplog.records] == [
        "skipped (1) b: bad", "skipped (2) a: bad", "skipped (3) größe: bad"
    ]  # fmt: skip
    assert (tmp_path / LIST).read_text(encoding="utf-8") == "b: bad\na: bad\ngröße: bad\n"


def test_a_run_that_goes_on_keeps_the_list_and_a_new_one_does_not(tmp_path):
    first, second, third = Skipped(), Skipped(), Skipped()
    first.list_in(tmp_path)
    first.add(["a", "b"])
    second.add(["b", "c"])  # before the folder exists
    second.list_in(tmp_path, go_on=True)
    second.add(["a", "d"])
    assert (tmp_path / LIST).read_text() == "a\nb\nc\nd\n" and second.reasons == ["a", "b", "c", "d"]
    third.list_in(tmp_path)
    assert not (tmp_path / LIST).exists()
