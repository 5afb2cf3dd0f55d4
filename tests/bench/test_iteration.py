"""The benchmark of the category and instance terms: its worst case is what it claims, and the script reports it."""

from __future__ import annotations

import json
from functools import partial

import cc3d
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import iteration, results
from bench.iteration import KINDS, OF_STAGE_2, Case, enlarged, fitting_map, forced_map, main, parse
from dataset.classes import CITYSCAPES
from model.methods.bafft import CATEGORY, Alignment
from model.terms.memory import correct_labels

TINY = ("--backbone", "tiny", "--source-size", "128,96", "--target-size", "160,96", "--pairs", "1", "--cpu")
TINY_COMPONENTS = (*TINY, "--components", "2")
ROW = {
    **{"ratio": 1.02, "s": [5.1, 5.0], "peak_ratio": 1.01, "peak_mib": [909.0, 900.0]},
    **{"cpu_ratio": 1.03, "cpu_s": [4.1, 4.0], "compare": ["full", "plain"]},
    **{"stage": 2, "backbone": "tiny", "pairs": 3, "source_size": [64, 48], "target_size": [32, 40]},
    **{"threads": 1, "device": "a machine", "command": "python bench/iteration.py --stage 2"},
}


def components(labels: torch.Tensor, class_id: int) -> int:
    return int(cc3d.connected_components((labels.numpy() == class_id).astype(np.uint8), connectivity=8).max())


@pytest.mark.parametrize(("height", "width"), [(23, 41), (17, 33), (65, 129), (91, 161), (60, 20)])
def test_the_map_has_twelve_components_of_every_thing_class_and_all_stuff(height: int, width: int) -> None:
    labels = forced_map(height, width, 12)
    assert labels.shape == (height, width)
    assert [components(labels, c) for c in CITYSCAPES.things] == [12] * 11
    assert set(labels.unique().tolist()) == set(range(19))


def test_a_map_too_small_for_all_components_takes_as_many_as_fit() -> None:
    with pytest.raises(ValueError, match="9x6 map"):
        forced_map(6, 9, 12)
    labels = fitting_map(6, 9, 12)
    assert {components(labels, c) for c in CITYSCAPES.things} == {4}


def test_a_map_without_room_for_one_component_is_an_error() -> None:
    with pytest.raises(ValueError, match="use larger images"):
        fitting_map(3, 3, 12)


@pytest.mark.parametrize(("small", "size"), [((23, 41), (320, 180)), ((17, 33), (256, 128)), ((5, 7), (7, 11))])
def test_enlarged_labels_come_back_when_resized_as_in_training(small: tuple[int, int], size: tuple[int, int]) -> None:
    labels = torch.randint(19, small)
    logits = F.one_hot(labels, 19).permute(2, 0, 1)[None].float()
    large = enlarged(labels, size)
    assert large.shape == size[::-1]
    assert torch.equal(correct_labels(logits, large[None]), labels[None])


@pytest.mark.parametrize("stage", ["1", "2"])
def test_the_case_is_the_worst_one(stage: str) -> None:
    case = Case(parse([*TINY_COMPONENTS, "--stage", stage]), ("full", "plain"))
    full, plain = case.trainers["full"], case.trainers["plain"]
    assert full.method.segmenter is plain.method.segmenter
    assert isinstance(full.method, Alignment) and isinstance(plain.method, Alignment) and plain.method.memory is None
    memory = full.method.memory
    assert memory is not None and bool(memory.stuff.ready.all()) and bool(memory.things.ready.all())
    for batch in case.batches["full"]:
        with torch.no_grad():
            _, logits = full.method.segmenter(batch["image"])
        right = correct_labels(logits, batch["label"])
        height, width = logits.shape[2:]
        assert torch.equal(right[0], fitting_map(height, width, 2))  # all forced predictions are right
    before = {name: p.detach().clone() for name, p in full.method.segmenter.named_parameters() if p.requires_grad}
    losses = full.step([case.batches["full"]])
    assert losses.keys() >= set(CATEGORY) and losses["adv_ins"] > 0 and losses["adv_cate"] > 0
    assert ("pseudo" in losses) == (stage == "2")
    assert any(
        not torch.equal(p, before[name]) for name, p in full.method.segmenter.named_parameters() if name in before
    )
    losses = plain.step([case.batches["plain"]])
    assert not set(CATEGORY) & losses.keys() and "adv_target" in losses and "adv_feat" in losses


def test_the_last_line_is_one_json_object(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peaks = {"peak_ratio": 1.5, "peak_mib": [3.0, 2.0]}
    monkeypatch.setattr(iteration, "peaks", lambda arguments, argv: dict(peaks))
    file = tmp_path / "new/result.json"
    main([*TINY_COMPONENTS, "--json", str(file)])
    [line] = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result == json.loads(file.read_text())
    assert result["ratio"] == result["s"][0] / result["s"][1] > 0 and result["peak_ratio"] == 1.5
    assert result["compare"] == ["full", "plain"]
    main(TINY_COMPONENTS)
    *shown, line = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("One kind of iteration") and json.loads(line)["backbone"] == "tiny"


def test_peaks_are_those_of_one_process_each() -> None:
    found = iteration.peaks(parse(TINY_COMPONENTS), TINY_COMPONENTS)
    first, second = found["peak_mib"]
    assert first > 50 and second > 50 and found["peak_ratio"] == first / second


def test_plus_is_compared_with_the_papers_second_stage() -> None:
    case = Case(parse([*TINY_COMPONENTS, "--stage", "2", "--compare", "plus", "full"]), ("plus", "full"))
    assert case.batches["plus"][0] is case.batches["full"][0]
    losses = {kind: trainer.step([case.batches[kind]]) for kind, trainer in case.trainers.items()}
    assert {"pseudo", "mix", "sure"} <= losses["plus"].keys() and {"pseudo", *CATEGORY} <= losses["full"].keys()
    assert "mix" not in losses["full"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_method_whatever_that_of_the_preset_is(kind: str) -> None:
    options = iteration._options(parse(["--preset", "own_images"]), "step2", kind)
    assert options.method == ("plus" if kind in OF_STAGE_2 else "paper")


def test_high_resolution_crops_read_larger_images_with_a_segmenter_of_their_own() -> None:
    case = Case(parse([*TINY_COMPONENTS, "--stage", "2", "--compare", "crops", "plus"]), ("crops", "plus"))
    sizes = {kind: [tuple(batch["image"].shape[2:]) for batch in pair] for kind, pair in case.batches.items()}
    assert sizes == {"crops": [(192, 256), (192, 320)], "plus": [(96, 128), (96, 160)]}
    losses = {kind: trainer.step([case.batches[kind]]) for kind, trainer in case.trainers.items()}
    assert losses["crops"].keys() == losses["plus"].keys() >= {"pseudo", "mix", "sure"}


def test_plus_is_refused_in_stage_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--compare", "plus", "full"])
    assert "expected it only in stage 2" in capsys.readouterr().err


def test_the_section_is_written_from_the_json_files(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, file = tmp_path / "RESULTS.md", tmp_path / "a.json"
    names = ("iteration", "iteration gpu")
    page.write_text("".join(f"<!-- {name} -->\nold {name}\n<!-- end {name} -->\n" for name in names))
    file.write_text(json.dumps(ROW))
    monkeypatch.setattr(iteration, "write_section", partial(results.write_section, page=page))
    main(["--table", str(file)])
    text = page.read_text()
    assert "old iteration\n" not in text and "old iteration gpu\n" in text
    assert "- `python bench/iteration.py --stage 2`" in text
    assert "| 2, tiny, 64x48 / 32x40 | full / plain | 3 | 5.100 / 5.000 s | 1.020 |" in text
    assert "| 909 / 900 MiB | 1.010 | a machine, 1 threads |" in text
    file.write_text(json.dumps(ROW | {"device": "NVIDIA X"}))
    main(["--table", str(file)])
    assert "old" not in page.read_text() and "| NVIDIA X, 1 threads |" in page.read_text()


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--source-size", "320x180"])
    assert "expected W,H such as 320,180" in capsys.readouterr().err
