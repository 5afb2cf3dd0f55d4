"""Small methods for tests: built as the scripts build them, from options and a segmenter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from model.methods.bafft import Alignment, SelfTraining
from model.methods.base import Context
from model.networks.deeplab import DeepLab
from model.terms.regions import ClassSplit
from utils.options import config

OFF: dict[str, Any] = {
    f"lambda_{name}": 0.0 for name in ("adv_target", "adv_feat", "adv_cls", "adv_ins", "adv_cate", "pseudo")
}
"""Switches off every term of the target."""


def method_of(
    segmenter: DeepLab,
    split: ClassSplit,
    kind: type[Alignment] = SelfTraining,
    place: Callable[[nn.Module], nn.Module] = lambda network: network,
    imagenet: DeepLab | None = None,
    **options: Any,
) -> Alignment:
    """A method of the paper with the options of the built-in preset, small discriminators and one prototype."""
    given = {"preset": "builtin", "num_prototype": 1, "discriminator_width": 0.1, "bn": "shared", **options}
    script = "step1" if kind is Alignment else "step2"
    return kind(Context(segmenter, split, config.resolve(script, given), place, imagenet=imagenet))
