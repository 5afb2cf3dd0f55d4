"""Scores that need no labels: how good a network's predictions of target images look.

They help to choose between checkpoints and settings without target labels. A larger score is better for all three; none
of them can see whether a confident prediction is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataset.base import SegmentationDataset
from model.networks.batchnorm import evaluating
from model.networks.deeplab import DeepLab
from utils.prediction.evaluation import in_order
from utils.system.interrupt import shielded
from utils.system.precision import AMP_DTYPES
from utils.system.transfer import to_host

SND_PIXELS = 100
SND_TEMPERATURE = 0.05


@dataclass(frozen=True)
class LabelFree:
    """The scores of a network on a set of images; larger is better.

    snd: soft neighbourhood density (Saito et al. 2021), in nats. infomax: the entropy of the mean prediction minus the
    mean entropy, in nats; a network that gives every pixel the same class gets 0, however confident it is. agreement:
    the share of pixels that get the same class in an image and in its mirror image. share: the share of all pixels for
    which each class is predicted, [C]. images: the number of scored images.
    """

    snd: float
    infomax: float
    agreement: float
    share: npt.NDArray[np.float64]
    images: int


@torch.inference_mode()
def label_free(
    segmenter: DeepLab,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    *,
    seed: int = 0,
    amp: str = "off",
    num_workers: int = 0,
) -> LabelFree:
    """The scores of the images of `indices`, at feature size, in eval mode; means over the images.

    dataset: without random changes to its images; their labels are not read. seed: chooses the pixels of SND; it must
    be the same for all networks that are compared.
    """
    device = segmenter.input_mean.device
    dtype = AMP_DTYPES[amp]
    each: list[Tensor] = []
    means: list[Tensor] = []
    shares: list[Tensor] = []
    with evaluating(segmenter):
        for _, images in shielded(in_order(dataset, num_workers, device.type == "cuda", 1, indices)):
            if images is not None:
                image = images.to(device, non_blocking=True)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    logits, mirrored = segmenter(image)[1], segmenter(image.flip(3))[1].flip(3)
                probabilities = logits[0].float().softmax(0)
                predicted = probabilities.argmax(0)
                generator = torch.Generator().manual_seed(seed + len(each))
                density = soft_neighbourhood_density(probabilities, generator)
                agreed = (predicted == mirrored[0].float().argmax(0)).float().mean()
                each.append(torch.stack([density, entropy(probabilities, 0).mean(), agreed]))
                means.append(probabilities.mean((1, 2)))
                shares.append(predicted.flatten().bincount(minlength=len(probabilities)) / predicted.numel())
    if not each:
        return LabelFree(math.nan, math.nan, math.nan, np.zeros(0), 0)
    snd, uncertain, agreement = to_host(torch.stack(each).mean(0)).tolist()
    mean, share = to_host(torch.stack([torch.stack(means).mean(0), torch.stack(shares).mean(0)]))
    return LabelFree(snd, float(entropy(torch.from_numpy(mean), 0)) - uncertain, agreement, share, len(each))


def soft_neighbourhood_density(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """SND of one image (Saito et al. 2021): how many of the other pixels a pixel's prediction resembles.

    100 random pixels of the soft-max map [C, h, w], each vector scaled to length 1; for each pixel the entropy of the
    soft-max over its similarities, divided by 0.05, to all others; the mean over the pixels.
    """
    pixels = probabilities.flatten(1).T
    chosen = torch.randperm(len(pixels), generator=generator)[:SND_PIXELS].to(pixels.device)
    vectors = torch.nn.functional.normalize(pixels[chosen], dim=1)
    similarity = (vectors @ vectors.T) / SND_TEMPERATURE
    similarity.fill_diagonal_(-math.inf)
    return entropy(similarity.softmax(1), 1).mean()


def entropy(probabilities: Tensor, dim: int) -> Tensor:
    """In nats, along one dimension; 0 log 0 is 0."""
    return torch.special.entr(probabilities).sum(dim)
