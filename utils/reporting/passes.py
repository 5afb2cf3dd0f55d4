"""A few images through the network, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dataset.base import SegmentationDataset
from dataset.skip import LeavingOut
from model.networks.batchnorm import evaluating
from model.networks.deeplab import DeepLab
from utils.system.precision import AMP_DTYPES


@torch.inference_mode()
def passes(
    segmenter: DeepLab, dataset: SegmentationDataset, number: int, amp: str = "off"
) -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:
    """`number` samples, spread evenly over a data set, each with its features [1, D, h, w] and logits [1, C, h', w'].

    The network predicts in eval mode; afterwards, each layer returns to its own mode. No random state changes, and the
    function does not wait for other processes. With `skip_bad`, bad images are left out.
    """
    device, dtype = segmenter.input_mean.device, AMP_DTYPES[amp]
    samples = LeavingOut(dataset) if dataset.skip_bad else dataset
    count = min(number, len(dataset))
    with evaluating(segmenter):
        for index in (len(dataset) * place // count for place in range(count)):
            sample = samples[index]
            if "skipped" not in sample:
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    features, logits = segmenter(sample["image"][None].to(device))
                yield sample, features.float(), logits.float()
