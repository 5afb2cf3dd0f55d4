"""The benchmark of training speed: what it counts, full cases and options at tiny size, and what it writes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import results, train_speed
from bench.train_speed import Case, full_table, main, options_table, parse, side_by_side
from model.methods.bafft import ADVERSARIAL, CATEGORY, Alignment

SIZES = ("--source-size", "128,96", "--target-size", "128,96")
TINY = ("--cpu", "--backbone", "tiny", *SIZES, "--stage", "1", "--iterations", "1")


def case(**values: object) -> Case:
    return Case(1, train_speed._given(parse([*TINY, "--batch", "1"])) | values)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    page = tmp_path / "RESULTS.md"
    names = ("train_speed full", "train_speed options")
    page.write_text("".join(f"<!-- {name} -->\nold {name}\n<!-- end {name} -->\n" for name in names))
    monkeypatch.setattr(train_speed, "write_section", partial(results.write_section, page=page))
    return page


def test_convolutions_are_counted_forward_and_backward_and_once() -> None:
    one = case()
    convs = [m for m in one.segmenter.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.requires_grad]
    macs = 0

    def add(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, torch.nn.Conv2d):
            # Forward pass, gradient of the weight, and gradient of the input, except for the first layer.
            macs += output.numel() * module.weight[0].numel() * (2 if module.in_channels == 3 else 3)

    method = one.trainer.method
    assert isinstance(method, Alignment)
    method.discriminators.clear()
    method.weights |= {"adv_target": 0.0, "adv_feat": 0.0}
    method.optimizers.pop("discriminator")
    hooks = [conv.register_forward_hook(add) for conv in convs]
    one.iterate()
    for hook in hooks:
        hook.remove()
    assert one.convolution_tflop() == pytest.approx(2 * macs / 1e12)
    one.segmenter.checkpoint_activations = True
    assert one.convolution_tflop() == pytest.approx(2 * macs / 1e12)
    assert one.segmenter.checkpoint_activations


def test_all_terms_are_active() -> None:
    losses = case().iterate()
    assert losses.keys() >= {*ADVERSARIAL, *CATEGORY} and losses["adv_ins"] > 0 and losses["adv_cate"] > 0


def test_recomputed_activations_are_not_kept() -> None:
    found = side_by_side(parse(TINY), 1, "checkpoint-activations")
    assert found["with_kept_mib"] < 0.5 * found["without_kept_mib"]
    assert found["ratio"] == found["with_s"] / found["without_s"] > 0


def test_half_precision_keeps_less() -> None:
    size = (512, 256)  # so large that the maps outweigh the cast weights, which are kept too
    assert case(amp="bf16", input_size=size).kept_mib() < 0.75 * case(input_size=size).kept_mib()


def test_an_option_that_does_not_run_is_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train_speed.OPTIONS, "norm inplace-abn", ({"norm": "nowhere"}, {}))
    arguments = parse([*TINY, "--options", "norm inplace-abn"])
    found = train_speed.options_compared(arguments)
    [failed] = found["options"]
    assert failed["option"] == "norm inplace-abn" and "nowhere" in failed["failed"]
    lines = options_table(arguments, found)
    [line] = [line for line in lines if "does not run here" in line]
    assert line.count("|") == lines[2].count("|")


def test_parts_add_up() -> None:
    parts = case().profiled()["parts"]
    assert sum(parts.values()) == pytest.approx(1)
    assert parts["convolutions, forward"] > 0.02 and parts["convolutions, backward"] > 0.02


def test_options_side_by_side_write_their_section(page: Path, tmp_path: Path) -> None:
    main([*TINY, "--options", "channels-last", "--json", str(tmp_path / "new/a.json")])
    text = page.read_text()
    assert "old train_speed full" in text and "old train_speed options" not in text
    assert "tiny, 128x96 / 128x96, batch 1" in text and "| 1 | `--channels-last` |" in text
    [result] = json.loads((tmp_path / "new/a.json").read_text())["results"]["options"]
    assert result["option"] == "channels-last" and result["cpu_ratio"] > 0


def test_full_cases_run_in_processes_and_write_theirs(page: Path, tmp_path: Path) -> None:
    full = ("--full", "--amp", "off", "--batch", "2", "--warmup", "1", "--workers", "0", "--images", "2")
    native = ("--native", "160,120", "192,96")
    main([*TINY, *full, *native, "--json", str(tmp_path / "a.json")])
    [result] = json.loads((tmp_path / "a.json").read_text())["results"]
    case = [result[key] for key in ("stage", "method", "compile", "amp", "batch")]
    assert case == [1, "paper", "no", "off", 2]
    assert result["images_per_s"] == pytest.approx(4 * result["iterations_per_s"])
    assert 0 < result["data_wait_ms"] < result["ms"]
    rate = result["convolution_tflop"] * result["iterations_per_s"] / result["card_tflop_per_s"]
    assert result["share"] == pytest.approx(rate) and "measured" in result["card_rate"]
    assert "old train_speed options" in page.read_text() and "| 1 | paper | no | off | 2 |" in page.read_text()


CASE = {"stage": 2, "method": "plus", "compile": "default", "amp": "bf16", "batch": 4}


def test_a_case_that_does_not_fit_is_a_line_of_the_table() -> None:
    lines = full_table([CASE | {"failed": "out of memory"}])
    assert lines[2].startswith("| 2 | plus | default | bf16 | 4 | out of memory |")
    assert lines[2].count("|") == lines[0].count("|")


def test_kept_results_make_the_section(page: Path, tmp_path: Path) -> None:
    kept = {"device": "a card", "command": "a command", "results": [CASE | {"ms": 12.34, "kernels": 5}]}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    main(["--table", str(tmp_path / "kept.json")])
    text = page.read_text()
    assert "a card, `a command`:" in text and "old train_speed options" in text
    assert "| 2 | plus | default | bf16 | 4 | 12.3 | – | 5 | – | – | – | – | – |" in text
