"""Evaluation of a data set against plain loops."""

from __future__ import annotations

import numpy as np
import torch

from dataset import READERS
from model.deeplab import build_segmenter
from tests.twins import evaluation as twin
from utils.evaluation import evaluate


def test_confusion_and_iou_of_a_data_set_equal_the_twin(benchmark_root) -> None:
    images = READERS["cityscapes"](benchmark_root / "Cityscapes", split="val", size=(64, 32), label_size="native")
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", 19)
    segmenter.layer6.requires_grad_(False)
    for conv in segmenter.layer6.convs():
        conv.weight *= 30  # apart, so that no two classes tie

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
