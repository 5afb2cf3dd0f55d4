"""Scores without labels: by hand, and against plain loops over the images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from model.networks.batchnorm import set_training_mode
from tests.utils.prediction.test_evaluation import images, segmenter  # noqa: F401
from utils.prediction import label_free as module
from utils.prediction.label_free import label_free, soft_neighbourhood_density
from utils.system import interrupt


def test_density_by_hand() -> None:
    """Confident pixels of two classes: each resembles only the pixels of its own class."""
    certain = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]])[:, None]
    found = soft_neighbourhood_density(certain, torch.Generator())
    far = math.exp(-20)  # relative to exp(1 / 0.05), the weight at a similarity of 1

    def entropy(near: int, others: int) -> float:
        total = near + others * far
        return near / total * math.log(total) + others * far / total * (math.log(total) + 20)

    assert found.item() == pytest.approx((3 * entropy(2, 2) + 2 * entropy(1, 3)) / 5, abs=1e-5)
    assert soft_neighbourhood_density(torch.full((3, 4, 50), 1 / 3), torch.Generator()).item() == pytest.approx(
        math.log(99)
    )


def test_scores_of_a_data_set_equal_plain_loops(images, segmenter) -> None:  # noqa: F811
    found = label_free(segmenter, images, [2, 0], seed=5)
    segmenter.eval()
    maps, agreed, densities = [], [], []
    for number, index in enumerate((2, 0)):
        image = images[index]["image"][None]
        probabilities = segmenter(image)[1][0].softmax(0)
        mirrored = segmenter(image.flip(3))[1][0].flip(2)
        agreed.append((probabilities.argmax(0) == mirrored.argmax(0)).double().mean())
        densities.append(soft_neighbourhood_density(probabilities, torch.Generator().manual_seed(5 + number)))
        maps.append(probabilities.double().flatten(1))
    pixels = torch.cat(maps, 1)
    mean = pixels.mean(1)
    entropies = [-(p * p.clamp_min(1e-300).log()).sum(0).mean() for p in (mean[:, None], pixels)]
    assert found.infomax == pytest.approx(float(entropies[0] - entropies[1]), abs=1e-5)
    assert found.agreement == pytest.approx(float(torch.stack(agreed).mean()))
    assert found.snd == pytest.approx(float(torch.stack(densities).mean()))
    shares = np.bincount(pixels.argmax(0).numpy(), minlength=19) / pixels.shape[1]
    np.testing.assert_allclose(found.share, shares, atol=1e-6)


def test_a_network_that_gives_every_pixel_one_class_has_no_information(images, segmenter) -> None:  # noqa: F811
    for conv in segmenter.layer6.convs():
        conv.weight.zero_()
        conv.bias.copy_(torch.arange(19.0) * 5)
    found = label_free(segmenter, images, [0, 1])
    assert found.infomax == pytest.approx(0, abs=1e-5) and found.agreement == 1 and found.share.argmax() == 18
    assert found.share.tolist() == [0] * 18 + [1]


def test_the_network_stays_as_it_is(images, segmenter) -> None:  # noqa: F811
    set_training_mode(segmenter, "frozen")
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    modes = [module.training for module in segmenter.modules()]
    state = torch.get_rng_state()
    label_free(segmenter, images, [0])
    assert modes == [module.training for module in segmenter.modules()]
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_reading_processes_change_nothing_and_do_not_see_signals(images, segmenter, monkeypatch) -> None:  # noqa: F811
    loaders: list[DataLoader] = []

    def noted(loader: DataLoader) -> Iterator[Any]:
        loaders.append(loader)
        return interrupt.shielded(loader)

    monkeypatch.setattr(module, "shielded", noted)
    expected = label_free(segmenter, images, [1, 0])
    found = label_free(segmenter, images, [1, 0], num_workers=1)
    assert (found.snd, found.infomax, found.agreement) == (expected.snd, expected.infomax, expected.agreement)
    assert [loader.num_workers for loader in loaders] == [0, 1]
