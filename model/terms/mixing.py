"""Class mixing: half of the classes of a source image, pasted onto a target image (ClassMix, DACS)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Mixed(NamedTuple):
    """image: uint8 RGB [B, 3, H, W]; label: uint8 [B, H, W]; pasted: bool [B, H, W], true for source pixels."""

    image: Tensor
    label: Tensor
    pasted: Tensor

    def weights(self, quality: Tensor) -> Tensor:
        """[B, H, W]: 1 for pasted pixels, the image's `quality` [B] for the others."""
        return torch.where(self.pasted, 1.0, quality[:, None, None])


def class_mix(
    source_image: Tensor,
    source_label: Tensor,
    target_image: Tensor,
    target_label: Tensor,
    num_classes: int,
    generator: torch.Generator,
    ignore_label: int = 255,
) -> Mixed:
    """Paste half of the classes of the i-th source image, rounded up, onto the i-th target image, with their labels.

    Images are uint8 RGB [B, 3, H, W], labels [B, H, W]. If the domains differ in size, the source is cut at a random
    place, or put at a random place of the target, so that its objects keep their size (our choice). Ignored source
    pixels are never pasted. The random numbers come from `generator`, on the CPU; nothing waits for the device.
    """
    size = target_image.shape[2:]
    windows = [
        _window(image, label, size, generator, ignore_label)
        for image, label in zip(source_image, source_label.to(target_label.dtype), strict=True)
    ]
    image, label = (torch.stack(parts) for parts in zip(*windows, strict=True))
    pasted = _chosen(label, num_classes, generator)
    return Mixed(torch.where(pasted[:, None], image, target_image), torch.where(pasted, label, target_label), pasted)


def _chosen(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """[B, H, W] bool: the pixels of half of each image's classes, rounded up."""
    order = torch.rand(len(labels), num_classes, generator=generator).to(labels.device, non_blocking=True)
    flat = labels.flatten(1).long()
    present = torch.zeros(len(labels), 256, dtype=torch.bool, device=labels.device).scatter_(1, flat, True)
    present = present[:, :num_classes]
    # The classes of the image come first, in random order; the first half of them is chosen.
    rank = order.where(present, 2.0).argsort(1).argsort(1)
    chosen = torch.zeros(len(labels), 256, dtype=torch.bool, device=labels.device)
    chosen[:, :num_classes] = present & (2 * rank < present.sum(1, keepdim=True))
    return chosen.gather(1, flat).view(labels.shape)


def _window(
    image: Tensor, label: Tensor, size: torch.Size, generator: torch.Generator, ignore_label: int
) -> tuple[Tensor, Tensor]:
    """Image [3, H, W] and label [H, W] at another size, cut or surrounded by ignored pixels at a random place."""
    padding: list[int] = []  # negative if something is cut off
    for have, want in zip(reversed(label.shape), reversed(size), strict=True):
        first = int(torch.randint(abs(want - have) + 1, (), generator=generator))
        first = first if want > have else -first
        padding += [first, want - have - first]
    return F.pad(image, padding), F.pad(label, padding, value=ignore_label)
