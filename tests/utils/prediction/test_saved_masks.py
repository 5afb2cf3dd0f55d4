"""Scores of saved masks compared with the official Cityscapes evaluation and with counts by hand."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from PIL import Image

from dataset import CamVid, Cityscapes
from dataset.classes import AERIAL, CAMVID, CITYSCAPES, CITYSCAPES_IDS
from tests.messages import says
from utils.prediction import saved_masks
from utils.prediction.metrics import ConfusionMatrix
from utils.prediction.saved_masks import count_pairs, joint_counts
from utils.system.errors import UserError

RNG = np.random.default_rng(0)
LABEL_IDS = [int(np.flatnonzero(c == CITYSCAPES_IDS)[0]) for c in range(19)]


def save(path: Path, ids: np.ndarray) -> Path:
    Image.fromarray(ids.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def maps() -> list[tuple[np.ndarray, np.ndarray]]:
    """Random label ids (all 34), and predictions of which half are right."""
    pairs = []
    for shape in ((41, 67), (64, 33), (1, 200)):
        truth, other = RNG.integers(0, 34, (2, *shape))
        pairs.append((truth, np.where(RNG.random(shape) < 0.5, truth, other)))
    return pairs


@pytest.fixture(scope="module")
def reference(maps, tmp_path_factory) -> tuple[np.ndarray, list[float], float]:
    """Matrix [34, 34], IoU of the 19 classes and their mean, by the official functions."""
    folder = tmp_path_factory.mktemp("official")
    arguments = official.args
    arguments.evalInstLevelScore = False
    matrix = official.generateMatrix(arguments)
    for truth, prediction in maps:
        files = [str(save(folder / name, ids)) for name, ids in (("p.png", prediction), ("t.png", truth))]
        official.evaluatePair(*files, matrix, {}, {}, arguments)
    scores = {c: official.getIouScoreForLabel(c, matrix, arguments) for c in arguments.evalLabels}
    return matrix.astype(np.int64), [scores[c] for c in LABEL_IDS], official.getScoreAverage(scores, arguments)


def score(pairs: list[tuple[Path, Path]], truth_ids: str, predicted_ids: str, workers: int = 1) -> ConfusionMatrix:
    counter = saved_masks.counter(Cityscapes, CITYSCAPES, truth_ids=truth_ids, predicted_ids=predicted_ids)
    scores = ConfusionMatrix(19)
    for seen in count_pairs(counter.seen, pairs, workers):
        scores.add(seen.by_class)
    return scores


@pytest.mark.parametrize(("truth_ids", "predicted_ids"), list(product(("label", "train"), repeat=2)))
@pytest.mark.parametrize("workers", [1, 2])
def test_the_matrix_is_the_official_one(tmp_path, maps, reference, truth_ids, predicted_ids, workers):
    forms = {"label": lambda ids: ids, "train": lambda ids: CITYSCAPES_IDS[ids]}
    pairs = [
        (save(tmp_path / f"t{i}.png", forms[truth_ids](t)), save(tmp_path / f"p{i}.png", forms[predicted_ids](p)))
        for i, (t, p) in enumerate(maps)
    ]
    scores = score(pairs, truth_ids, predicted_ids, workers)
    matrix, ious, mean = reference
    assert np.array_equal(scores.matrix, matrix[np.ix_(LABEL_IDS, LABEL_IDS)])
    assert np.array_equal(scores.no_class, matrix[LABEL_IDS].sum(1) - scores.matrix.sum(1))
    assert scores.iou().tolist() == ious
    assert scores.mean() == pytest.approx(mean, rel=1e-12)


def test_every_pixel_counts_once_also_in_strips(monkeypatch):
    truth, prediction = RNG.integers(0, 256, (2, 37, 11)).astype(np.uint8)
    expected = np.zeros((256, 256), np.int64)
    np.add.at(expected, (truth, prediction), 1)
    assert np.array_equal(joint_counts(truth, prediction), expected)
    for largest in (1, 30, 11 * 36):
        monkeypatch.setattr(saved_masks, "_EXACT", largest)
        assert np.array_equal(joint_counts(truth, prediction), expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "forms", "said"),
    [
        ([7, 7], [0, 19], ("label", "train"), "p.png: prediction: id 19 ... 0 to 18 or 255"),
        ([7, 7], [0, 26], ("label", "train"), "p.png: ... whether --pred-ids"),
        ([0, 26], [0, 13], ("train", "train"), "t.png: label: id 26 ... 0 to 18 or 255"),
        ([0, 255], [0, 13], ("label", "train"), "t.png: label: id 255 ... 0 to 33"),
    ],
)
def test_ids_of_the_other_form_are_refused(tmp_path, truth, predicted, forms, said):
    pair = save(tmp_path / "t.png", np.array([truth])), save(tmp_path / "p.png", np.array([predicted]))
    with pytest.raises(UserError) as refused:
        score([pair], *forms)
    assert str(tmp_path) in str(refused.value) and says(str(refused.value), said)


def test_below_ignored_truth_any_id_may_be_predicted(tmp_path):
    pair = save(tmp_path / "t.png", np.array([[0, 7, 8]])), save(tmp_path / "p.png", np.array([[200, 0, 255]]))
    scores = score([pair], "label", "train")
    assert (scores.matrix.sum(), scores.matrix[0, 0], scores.no_class.tolist()) == (1, 1, [0, 1] + [0] * 17)
    assert scores.iou()[:2].tolist() == [1.0, 0.0]


def test_of_fewer_classes_the_others_are_ignored_in_the_truth_and_none_in_label_id_predictions(tmp_path):
    pair = save(tmp_path / "t.png", np.array([[7, 8, 11]])), save(tmp_path / "p.png", np.array([[7, 11, 11]]))
    counter = saved_masks.counter(Cityscapes, CITYSCAPES.first(2), truth_ids="label", predicted_ids="label")
    assert counter.seen(pair).by_class.tolist() == [[1, 0, 0], [0, 0, 1]]
    pair = save(tmp_path / "t.png", np.array([[0, 1, 2]])), save(tmp_path / "p.png", np.array([[0, 1, 9]]))
    counter = saved_masks.counter(Cityscapes, CITYSCAPES.first(2), truth_ids="train", predicted_ids="train")
    assert counter.seen(pair).by_class.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_another_size_is_refused_or_resized_by_nearest(tmp_path):
    truth, small = np.array([[0, 0, 1, 1]] * 2), np.array([[0, 1]])
    pair = save(tmp_path / "t.png", truth), save(tmp_path / "p.png", small)
    counter = partial(saved_masks.counter, CamVid, CAMVID, truth_ids="train", predicted_ids="train")
    with pytest.raises(UserError, match=r"p\.png: 2x1 .* 4x2 .*--resize-pred nearest"):
        counter().seen(pair)
    counts = counter(resize=True).seen(pair).by_class
    assert (counts[0, 0], counts[1, 1], counts.sum()) == (4, 4, 8)


def test_an_own_ignore_label_and_its_class_sets():
    lookup = saved_masks.classes_of_train_ids(2, 7, 2)
    assert (lookup[:2].tolist(), lookup[7], lookup[255]) == ([0, 1], 2, 2)
    assert set(np.delete(lookup, [0, 1, 7, 255])) == {-1}
    scores = ConfusionMatrix(2)
    scores.add(np.array([[3, 1, 0], [0, 2, 4]]))
    assert scores.iou().tolist() == [3 / 4, 2 / 7]
    assert scores.table(AERIAL).splitlines()[-1].endswith("counted as missed: 4 pixels (40.00 %)")
