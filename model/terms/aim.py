"""AIM: the weight a(x) of a matched centroid or instance, its alignment complexity (paper, section on AIM)."""

from __future__ import annotations

import torch
from torch import Tensor

from model.terms.choices import AIM_FORMS


def aim_weights(
    stuff: Tensor,
    stuff_matched: Tensor,
    things: Tensor,
    things_matched: Tensor,
    form: str = "paper",
    beta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Weights of the matched stuff centroids and thing instances of one image, from their distances.

    stuff, things: distances d of any shapes, with bool masks of the same shapes. Returns weights of those shapes.
    `none`: a = 1 (released step 1). `paper`: a = d, detached, divided by the mean of d over all matched stuff and
    instances of the image; 1 if that mean is 0. `released` (step 2): a = d, not detached, so that the term is d^2, and
    `beta` times that for instances.
    """
    if form == "none":
        return torch.ones_like(stuff), torch.ones_like(things)
    if form == "released":
        return stuff, beta * things
    if form != "paper":
        raise ValueError(f"unknown AIM form {form!r}, expected one of {AIM_FORMS}")
    matched = torch.cat([stuff_matched.flatten(), things_matched.flatten()])
    distances = torch.cat([stuff.detach().flatten(), things.detach().flatten()]).where(matched, 0)
    mean = distances.sum() / matched.sum().clamp_min(1)

    def relative(distance: Tensor) -> Tensor:
        return (distance.detach() / mean.where(mean > 0, 1)).where(mean > 0, 1)

    return relative(stuff), relative(things)
