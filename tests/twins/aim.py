"""Twin of `model.terms.aim`: the three forms of the weight, one region at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def weights(
    stuff: dict[int, Tensor], things: dict[int, list[Tensor]], form: str, beta: float
) -> tuple[dict[int, Tensor], dict[int, list[Tensor]]]:
    """The weights of one image's matched stuff classes and thing instances, from their distances."""
    one = torch.ones((), dtype=torch.float64)
    if form == "none":
        return dict.fromkeys(stuff, one), {c: [one for _ in ds] for c, ds in things.items()}
    if form == "released":
        return dict(stuff), {c: [beta * d for d in ds] for c, ds in things.items()}
    assert form == "paper"
    everything = [d.item() for d in stuff.values()] + [d.item() for ds in things.values() for d in ds]
    mean = sum(everything) / len(everything) if everything else 0.0

    def relative(d: Tensor) -> Tensor:
        return d.detach() / mean if mean > 0 else one

    return {c: relative(d) for c, d in stuff.items()}, {c: [relative(d) for d in ds] for c, ds in things.items()}
