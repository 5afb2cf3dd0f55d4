"""Twin of an iteration's losses in `model.methods.cyclegan`: pixel by pixel, in float64 and without a pool."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def absolute(images: Tensor, others: Tensor) -> float:
    return mean([abs(a - b) for a, b in zip(images.flatten().tolist(), others.flatten().tolist(), strict=True)])


def squared(scores: Tensor, wanted: float) -> float:
    return mean([(score - wanted) ** 2 for score in scores.flatten().tolist()])


def losses(networks: nn.ModuleDict, source: Tensor, target: Tensor) -> dict[str, float]:
    """source, target: uint8 images [B, 3, H, W] as the networks see them, already cropped."""
    with torch.no_grad():
        s, t = (2 * images.double() / 255 - 1 for images in (source, target))
        s_as_t, t_as_s = networks["to_target"](s), networks["to_source"](t)
        return {
            "adv_target": squared(networks["real_target"](s_as_t), 1),
            "adv_source": squared(networks["real_source"](t_as_s), 1),
            "cycle": absolute(networks["to_source"](s_as_t), s) + absolute(networks["to_target"](t_as_s), t),
            "identity": absolute(networks["to_target"](t), t) + absolute(networks["to_source"](s), s),
            "D_target": (squared(networks["real_target"](t), 1) + squared(networks["real_target"](s_as_t), 0)) / 2,
            "D_source": (squared(networks["real_source"](s), 1) + squared(networks["real_source"](t_as_s), 0)) / 2,
        }


def total(values: dict[str, float], cycle: float, identity: float) -> float:
    """What the generators minimise."""
    return values["adv_target"] + values["adv_source"] + cycle * values["cycle"] + identity * values["identity"]
