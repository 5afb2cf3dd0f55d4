"""Evaluation of a data set compared with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data._utils.pin_memory import pin_memory

from dataset import READERS
from dataset.base import SegmentationDataset
from model.networks.batchnorm import set_training_mode
from model.networks.deeplab import DeepLab, build_segmenter
from tests.twins import evaluation as twin
from utils.prediction import evaluation
from utils.prediction.evaluation import Group, Variants, evaluate, grouped, in_order, predict


@pytest.fixture
def images(benchmark_root) -> SegmentationDataset:
    return READERS["cityscapes"](benchmark_root / "Cityscapes", split="train", size=(64, 32), label_size="native")


@pytest.fixture
def segmenter() -> DeepLab:
    """A frozen network whose classes differ so much that no two tie."""
    torch.manual_seed(0)
    network = build_segmenter("tiny", 19).requires_grad_(False)
    for conv in network.layer6.convs():
        conv.weight *= 30
    return network


def test_batches_give_the_maps_of_single_images(images, segmenter):
    segmenter.double()  # so that another order of summation changes nothing
    single = list(predict(segmenter, images))
    for batch_size in (2, 3):
        batched = list(predict(segmenter, images, batch_size=batch_size))
        assert [sample["name"] for sample, _ in batched] == images.names
        for (_, [one]), (_, [other]) in zip(single, batched, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
    chosen = list(predict(segmenter, images, indices=range(1, 3)))
    assert [sample["name"] for sample, _ in chosen] == images.names[1:3]
    matrices = [evaluate(segmenter, images, batch_size=n).matrix for n in (1, 3)]
    assert np.abs(matrices[0] - matrices[1]).sum() <= 2 * 4  # a tie may be resolved the other way


def test_images_are_stacked_where_they_are_read(images):
    first, second = in_order(images, 0, False, 3, range(4))
    assert first.images.shape == (3, 3, 32, 64) and first.images.dtype == torch.uint8
    assert [sample["name"] for sample in first.samples] == images.names[:3]
    assert all(sample.keys() == {"name", "size", "label"} for sample in first.samples)
    assert torch.equal(second.images[0], images[3]["image"])
    group = grouped([{"name": "a", "skipped": "bad"}, images[1], {"name": "b", "skipped": "bad"}])
    assert group.images is not None and torch.equal(group.images, images[1]["image"][None]) and len(group.samples) == 3
    assert grouped([{"name": "a", "skipped": "bad"}]).images is None


def test_what_is_pinned_is_what_is_sent():
    class Pinnable:
        def pin_memory(self) -> str:
            return "pinned"

    group = pin_memory(Group([{"name": "a", "label": Pinnable()}, {"name": "b"}], Pinnable()))  # type: ignore[arg-type]
    assert group == Group([{"name": "a", "label": "pinned"}, {"name": "b"}], "pinned")  # type: ignore[arg-type]
    assert isinstance(group, Group)


def test_scales_and_mirrored_images_average_the_soft_max(images, segmenter):
    """Against plain loops over the versions."""
    segmenter.eval()
    maps = [m for _, m in predict(segmenter, images, variants=Variants((0.5, 1.0), flip=True))]
    assert [len(m) for m in maps] == [2] * len(images)
    for number, (half, full) in enumerate(maps):
        image = images[number]["image"][None]
        small = F.interpolate(segmenter.normalise(image), size=(16, 32), mode="bilinear", antialias=True)
        for found, version in ((full, image), (half, small)):
            straight, mirrored = (segmenter(v)[1].softmax(1) for v in (version, version.flip(3)))
            torch.testing.assert_close(found, (straight + mirrored.flip(3)) / 2)
    plain = evaluate(segmenter, images).matrix
    assert not np.array_equal(evaluate(segmenter, images, variants=Variants((0.5, 1.0))).matrix, plain)
    assert not np.array_equal(evaluate(segmenter, images, variants=Variants(flip=True)).matrix, plain)


def test_masks_appear_only_once_all_are_made(images, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "colorize", lambda *_: 1 / 0)  # in the background
    with pytest.raises(ZeroDivisionError):
        evaluate(segmenter, images, save=tmp_path / "masks")
    assert not list(tmp_path.iterdir())


def test_confusion_and_iou_of_a_data_set_equal_the_twin(benchmark_root) -> None:
    images = READERS["cityscapes"](benchmark_root / "Cityscapes", split="val", size=(64, 32), label_size="native")
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", 19)
    segmenter.layer6.requires_grad_(False)
    for conv in segmenter.layer6.convs():
        conv.weight *= 30  # so that no two classes tie

    found = evaluate(segmenter, images)

    assert segmenter.training
    segmenter.eval()
    with torch.no_grad():
        samples = [images[i] for i in range(len(images))]
        logits = [segmenter(sample["image"][None])[1][0] for sample in samples]
    expected = twin.confusion([(z, s["label"].tolist()) for z, s in zip(logits, samples, strict=True)], 19)
    assert found.matrix.tolist() == expected
    assert sum(count > 0 for row in expected for count in row) > 10  # more than one class on either side
    ious = [np.nan if value is None else value for value in twin.iou(expected)]
    np.testing.assert_allclose(found.iou(), ious, rtol=1e-12)


def test_each_layer_is_left_in_its_own_mode(images, segmenter):
    set_training_mode(segmenter, "frozen")
    before = {name: module.training for name, module in segmenter.named_modules()}
    assert len(set(before.values())) == 2
    evaluate(segmenter, images)
    assert {name: module.training for name, module in segmenter.named_modules()} == before
    for _ in predict(segmenter, images):
        break  # the caller stops early
    assert {name: module.training for name, module in segmenter.named_modules()} == before


def test_labels_of_another_size_than_their_images_are_scored_at_their_size(benchmark_root, tmp_path, segmenter):
    names = [path.relative_to(benchmark_root / "Cityscapes") for path in (benchmark_root / "Cityscapes").rglob("*.png")]
    for name in names:  # images at half their size, labels as they are
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(benchmark_root / "Cityscapes" / name) as image:
            half = (image.width // 2, image.height // 2)
            (image.resize(half) if "leftImg8bit" in name.name else image).save(tmp_path / name)
    data = READERS["cityscapes"](tmp_path, split="train", size=(64, 32), label_size="native")
    sample = data[0]
    assert sample["label"].shape[::-1] == tuple(2 * side for side in sample["size"])
    expected = np.zeros((19, 19), np.int64)
    for sample, maps in predict(segmenter, data):
        large = F.interpolate(maps[0], size=sample["label"].shape, mode="bilinear", align_corners=True).argmax(1)[0]
        valid = sample["label"] < 19
        np.add.at(expected, (sample["label"][valid].numpy(), large[valid].numpy()), 1)
    scores = evaluate(segmenter, data, save=tmp_path / "masks")
    assert np.abs(scores.matrix - expected).sum() <= 2 * 4
    with Image.open(tmp_path / "masks" / f"{data.key(data.names[0])}.png") as mask:
        assert mask.size == data[0]["size"]
