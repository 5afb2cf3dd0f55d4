"""Sizes of network inputs, and label maps at the size of each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.networks.deeplab import build_segmenter
from model.networks.upsampling import upsample
from utils.prediction.any_size import Predictor, label_map, network_size
from utils.prediction.evaluation import Variants


@pytest.mark.parametrize(
    ("native", "trained", "expected"),
    [
        ((2048, 1024), (1024, 512), (1024, 512)),
        ((1914, 1052), (1280, 720), (1280, 720)),  # 2 % off
        ((1000, 1000), (1024, 512), (724, 724)),
        ((512, 1024), (1024, 512), (512, 1024)),
        ((3000, 4000), (640, 480), (480, 640)),
        ((5, 5000), (64, 64), (32, 2024)),
    ],
)
def test_an_image_keeps_its_shape_at_the_pixels_trained_with(native, trained, expected):
    assert network_size(native, trained) == expected


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return build_segmenter("tiny", 4).eval()


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (33, 250)])
def test_a_label_map_has_the_size_of_its_image(segmenter, size):
    labels = label_map(segmenter, pixels(*size), (96, 64))
    assert labels.shape == size and labels.dtype == np.uint8 and labels.max() < 4


def test_labels_and_confidence_are_those_of_the_definition(segmenter):
    image = pixels(64, 96)
    predictor = Predictor(segmenter, (96, 64), confidence=True)
    [found] = predictor([predictor.prepare(image)])
    with torch.no_grad():
        logits = segmenter(torch.from_numpy(image).permute(2, 0, 1)[None])[1]
    assert found.confidence is not None
    assert np.array_equal(found.labels, upsample(logits, (64, 96)).argmax(1)[0].numpy())
    probability = upsample(logits.softmax(1), (64, 96)).max(1).values[0]
    assert np.abs(found.confidence / 255 - probability.numpy()).max() < 0.003


def test_a_batch_predicts_each_image_as_alone(segmenter):
    predictor = Predictor(segmenter, (96, 64), Variants((0.5, 1.0), flip=True), confidence=True)
    images = [pixels(64, 96), pixels(128, 192)[:, ::-1].copy()]
    together = predictor([predictor.prepare(image) for image in images])
    for image, found in zip(images, together, strict=True):
        [alone] = predictor([predictor.prepare(image)])
        assert (found.labels == alone.labels).mean() > 0.999 and found.labels.shape == image.shape[:2]
        assert found.confidence is not None and alone.confidence is not None
        assert np.abs(found.confidence.astype(int) - alone.confidence).max() <= 1


def test_exact_squeezes_every_image_to_the_size(segmenter):
    assert Predictor(segmenter, (96, 64), exact=True).prepare(pixels(100, 50)).image.shape == (3, 64, 96)


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_another_kind_of_array_is_an_error(segmenter, array):
    with pytest.raises(ValueError, match="expected uint8 RGB"):
        label_map(segmenter, array, (96, 64))
