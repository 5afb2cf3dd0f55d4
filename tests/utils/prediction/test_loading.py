"""Loading a trained network in one call, and predicting with it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.classes import CITYSCAPES
from model.networks.deeplab import build_segmenter
from model.networks.upsampling import best_class
from tests.scripts import MAINS, STEP1, call, mask
from utils.options import config
from utils.prediction.evaluation import Variants, maps
from utils.prediction.loading import load
from utils.setup import networks
from utils.system.errors import UserError


def test_a_checkpoint_brings_its_network_classes_and_input_size(after_stage1):
    segmenter, classes, size = load(STEP1 / "last.pth")
    content = torch.load(STEP1 / "last.pth", weights_only=True)
    assert not segmenter.training and segmenter.architecture == content["architecture"]
    assert classes.names == CITYSCAPES.names
    assert size == tuple(content["options"]["input_size_target"]) == (96, 64)
    for name, value in segmenter.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, content["segmenter"][name]), name


def test_a_checkpoint_of_version_1_gives_the_size_of_its_options(after_stage1):
    content = torch.load(STEP1 / "last.pth", weights_only=True)
    torch.save({name: value for name, value in content.items() if name != "input_size"}, "old.pth")
    assert load("old.pth").size == (96, 64)


def test_weights_of_others_say_too_little(tmp_path):
    torch.save(build_segmenter("tiny", 3).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth: holds weights, but no classes"):
        load(tmp_path / "weights.pth")


def test_maps_are_those_of_eval_mode_and_change_nothing(after_stage1):
    segmenter = load(STEP1 / "last.pth").segmenter
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = segmenter(images)[1]
    segmenter.train()
    bn1 = segmenter.get_submodule("bn1").eval()
    state = {name: value.clone() for name, value in segmenter.state_dict().items()}
    [found] = maps(segmenter, images)
    torch.testing.assert_close(found, expected)
    assert segmenter.training and not bn1.training
    assert all(torch.equal(value, state[name]) for name, value in segmenter.state_dict().items())
    both = maps(segmenter, images, Variants((1.0, 0.5), flip=True))
    assert [tuple(m.shape[2:]) for m in both] == [tuple(found.shape[2:]), (5, 7)]
    assert all(torch.allclose(m.sum(1), torch.ones(())) for m in both)


def test_scripts_predict_at_the_size_of_the_checkpoint_and_say_so(after_stage1, caplog):
    logging.getLogger("bafft").propagate = True

    def size(*arguments: str) -> tuple[tuple[int, int], str]:
        caplog.clear()
        options, given, _ = config.parse("evaluate", ["--preset", "builtin", *arguments])
        options = networks.with_input_size(options, given)
        return options.input_size_target, " ".join(record.getMessage() for record in caplog.records)

    with caplog.at_level("INFO", logger="bafft"):
        path = ("--restore-from", str(STEP1 / "last.pth"))
        found, said = size(*path)
        assert found == (96, 64) and "--input-size-target 96,64 (the preset has 256,128)" in said
        found, said = size(*path, "--input-size-target", "128,64")
        assert found == (128, 64) and said.startswith("attention") and "96,64" in said
        found, said = size(*path, "--input-size-target", "96,64")
        assert found == (96, 64) and not said


def test_masks_without_a_size_on_the_command_line_are_those_of_the_size_trained_with(after_stage1):
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--save", "asked")
    command = ["--preset", "builtin", "--cpu", "--num-workers", "0", "--restore-from", str(STEP1 / "last.pth")]
    MAINS["evaluate"]([*command, "--save", "found"])
    names = sorted(path.name for path in Path("asked").glob("*Img8bit.png"))
    assert names and all(np.array_equal(mask(Path("asked") / name), mask(Path("found") / name)) for name in names)
    segmenter, _, (width, height) = load(STEP1 / "last.pth")
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    assert best_class(maps(segmenter, images), (10, 20))[1].shape == (1, 10, 20)
