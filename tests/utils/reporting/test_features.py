"""Points of the feature space: from which regions they come, and how they are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataset import READERS
from dataset.classes import CITYSCAPES
from model.networks.deeplab import DeepLab, build_segmenter
from model.networks.high_resolution import HighResolution
from model.terms.memory import correct_labels
from model.terms.regions import ClassSplit
from utils.reporting import features
from utils.reporting.features import Points

SPLIT = ClassSplit(19, CITYSCAPES.stuff, CITYSCAPES.things)


@pytest.fixture(scope="module", params=[DeepLab, HighResolution], ids=["plain", "crops"])
def found(benchmark_root, request):
    torch.manual_seed(0)
    segmenter = build_segmenter(num_classes=19, backbone="tiny", kind=request.param).train()
    source = READERS["gta5"](benchmark_root / "gta5_deeplab", size=(96, 64))
    target = READERS["cityscapes"](benchmark_root / "Cityscapes", split="train", size=(96, 64), labels=False)
    points = features.points(segmenter, source, target, SPLIT, images=3)
    assert segmenter.training
    return segmenter.eval(), source, target, points


def at_features(segmenter, image):
    """Features, and logits at their size: of high-resolution crops every second point, up to rounding."""
    maps, logits = segmenter(image)
    return maps, logits if logits.shape[2:] == maps.shape[2:] else logits[:, :, ::2, ::2]


def test_target_points_are_of_predictions_and_source_points_of_what_is_right(found):
    segmenter, source, target, points = found
    with torch.inference_mode():
        predicted, right = set(), set()
        for index in (0, 1, 2):
            image = target[index]["image"][None]
            predicted |= set(at_features(segmenter, image)[1].argmax(1).unique().tolist())
            logits = at_features(segmenter, source[2 * index]["image"][None])[1]
            right |= set(correct_labels(logits, source[2 * index]["label"][None]).unique().tolist()) - {255}
    centroid = ~points.instance
    assert set(points.classes[centroid & points.target].tolist()) == predicted
    assert set(points.classes[centroid & ~points.target].tolist()) == right
    assert set(points.classes[points.instance].tolist()) <= set(CITYSCAPES.things)
    assert points.vectors.shape == (len(points.classes), segmenter.feature_dim)


def test_a_centroid_is_the_mean_feature_of_its_pixels(found):
    segmenter, _, target, points = found
    with torch.inference_mode():
        maps, logits = at_features(segmenter, target[0]["image"][None])
    first = np.flatnonzero(points.target & ~points.instance)[0]
    mask = (logits.argmax(1)[0] == int(points.classes[first])).flatten()
    expected = maps[0].flatten(1)[:, mask].mean(1)
    np.testing.assert_allclose(points.vectors[first], expected, rtol=1e-4, atol=1e-5)


def test_few_points_of_each_kind_are_kept(found, monkeypatch):
    segmenter, source, target, every = found
    monkeypatch.setattr(features, "MOST", 2)
    few = features.points(segmenter, source, target, SPLIT, images=3)
    assert len(few.classes) <= 8 < len(every.classes)
    assert {tuple(vector) for vector in few.vectors} <= {tuple(vector) for vector in every.vectors}


def points(number: int) -> Points:
    draw = np.random.default_rng(0)
    classes = np.arange(number, dtype=np.uint8) % 3
    vectors = (draw.normal(size=(number, 4)) + 50 * classes[:, None]).astype(np.float32)
    return Points(vectors, classes, np.arange(number) % 2 == 1, np.zeros(number, bool))


def test_points_are_kept_with_their_layout(tmp_path):
    pytest.importorskip("sklearn")
    path, made = tmp_path / "points.npz", points(30)
    features.save(path, made)
    read = features.load(path)
    assert read is not None and read.layout is not None
    assert np.array_equal(read.classes, made.classes) and np.array_equal(read.target, made.target)
    assert np.array_equal(read.vectors, made.vectors)
    places = read.layout
    centres = np.stack([places[made.classes == c].mean(0) for c in range(3)])
    apart = np.linalg.norm(places[:, None] - centres[None], axis=2)
    assert (apart.argmin(1) == made.classes).all()
    assert np.array_equal(features.layout(made.vectors), features.layout(made.vectors))


def test_points_are_kept_without_a_layout_where_scikit_learn_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "has_layout", lambda: False)
    features.save(tmp_path / "points.npz", points(5))
    read = features.load(tmp_path / "points.npz")
    assert read is not None and read.layout is None


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 damaged"])
def test_a_damaged_file_holds_no_points(tmp_path, content):
    if content is not None:
        (tmp_path / "points.npz").write_bytes(content)
    assert features.load(tmp_path / "points.npz") is None


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_a_layout_of_few_points(number):
    pytest.importorskip("sklearn")
    assert features.layout(points(number).vectors).shape == (number, 2)


@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf])
def test_vectors_of_a_broken_network_do_not_crash_the_layout(value):
    pytest.importorskip("sklearn")
    same = np.full((30, 4), value, np.float32)
    assert np.isfinite(features.layout(same)).all()
    mixed = np.concatenate([same, points(30).vectors])
    places = features.layout(mixed)
    assert np.isfinite(places).all() and (places[:30] == places[0]).all()
