"""The order of samples: balanced, seeded, and resumed exactly."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataset import GTA5
from dataset.augment import Augment
from dataset.sampler import EndlessSampler
from tests.dataset.test_base import write


def drawn(sampler: EndlessSampler, batches: int) -> list[tuple[int, int]]:
    return list(itertools.chain.from_iterable(itertools.islice(sampler, batches)))


def test_sampler_is_balanced_and_numbers_its_samples():
    samples = drawn(EndlessSampler(7, 3, seed=0), 14)
    assert [draw for _, draw in samples] == list(range(42))
    epochs = [[index for index, _ in samples[start : start + 7]] for start in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs[2] == np.random.default_rng([0, 2]).permutation(7).tolist()
    assert samples != drawn(EndlessSampler(7, 3, seed=1), 14)


@pytest.mark.parametrize("batches", [0, 1, 2, 7, 9])
def test_sampler_resumes_exactly(batches):
    whole = drawn(EndlessSampler(5, 2, seed=4), 20)
    assert drawn(EndlessSampler(5, 2, seed=4, start=2 * batches), 20 - batches) == whole[2 * batches :]


def test_sampler_batches_larger_than_the_data():
    batch = next(iter(EndlessSampler(2, 5, seed=0)))
    assert sorted(index for index, _ in batch[:4]) == [0, 0, 1, 1]
    for arguments in ((0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, -1)):
        with pytest.raises(ValueError):
            EndlessSampler(*arguments)


def test_samplers_of_several_processes_share_the_batches_of_one():
    alone = list(itertools.islice(EndlessSampler(7, 6, seed=3, start=6), 5))
    parts = [itertools.islice(EndlessSampler(7, 2, seed=3, start=6, rank=rank, size=3), 5) for rank in range(3)]
    assert [list(itertools.chain(*shares)) for shares in zip(*parts)] == alone
    with pytest.raises(ValueError, match="process 3 of 3"):
        EndlessSampler(7, 2, seed=3, rank=3, size=3)


def test_sampler_in_a_loader(tmp_path):
    for number in (1, 2, 3):
        colour = np.full((4, 8, 3), (10 * number, 100, 200), np.uint8)
        write(tmp_path, f"0000{number}.png", colour, np.full((4, 8), 7, np.uint8))
    dataset = GTA5(tmp_path, size=(8, 4), augment=Augment(mirror=True, jitter=True), seed=2)
    loader = DataLoader(dataset, batch_sampler=EndlessSampler(len(dataset), 2, seed=2))
    batches = list(itertools.islice(loader, 3))
    resumed = next(iter(DataLoader(dataset, batch_sampler=EndlessSampler(len(dataset), 2, seed=2, start=4))))
    assert batches[2]["image"].shape == (2, 3, 4, 8)
    assert torch.equal(batches[2]["image"], resumed["image"])
    assert batches[2]["name"] == resumed["name"]
