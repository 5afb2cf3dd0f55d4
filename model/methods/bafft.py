"""One iteration of either stage: which losses, with which weights, in which order.

Source:  cross-entropy                                                       -> backward; memory update
Target:  adversarial + stuff matching + AIM instances + ISIA (+ pseudo-labels) -> backward
Then the discriminators, on the detached maps of both domains                 -> backward
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.networks.batchnorm import statistics_kept
from model.networks.deeplab import DeepLab
from model.terms.adversarial import discriminator_loss, segmenter_loss, shared_scores
from model.terms.aim import aim_weights
from model.terms.isia import isia, released_gap, released_same
from model.terms.matching import instance_matching, nearest_distance, stuff_matching
from model.terms.memory import SourceMemory, correct_labels, recognised
from model.terms.regions import LabelMaps, Regions, pool_regions
from model.terms.segmentation import probabilities, segmentation_loss

Batch = dict[str, Tensor]
Losses = dict[str, Tensor]
Backward = Callable[[Tensor, str], None]  # (loss, "segmenter" or "discriminator")


@dataclass(frozen=True)
class Terms:
    """Weights and forms of the terms; a weight of 0 switches its term off.

    The category and instance terms share nearly all of their work, which is saved only where all three are off.
    """

    segmentation: float = 1.0
    adversarial: float = 0.001
    feature_adversarial: float = 0.001
    stuff: float = 0.01
    instance: float = 0.01
    isia: float = 0.01
    same: float = 0.0
    pseudo_label: float = 0.0
    aim_form: str = "paper"
    aim_beta: float = 1.0
    isia_form: str = "paper"
    absent_stuff: bool = False  # released: an absent class, pooled to zeros, may be matched on the classifier's bias
    bn: str = "shared"
    ignore_label: int = 255

    @property
    def matching(self) -> bool:
        """Is any term on that needs the source memory?"""
        return any((self.stuff, self.instance, self.isia))


class Adaptation:
    """Computes the losses of one iteration and sends each player's through `backward`.

    segmenter: images -> (features [B, D, h, w], logits [B, C, h, w]). discriminators: any of "output", "feature";
    their parameters are frozen while the segmenter learns. memory: None without category and instance terms.
    """

    def __init__(
        self,
        segmenter: DeepLab,
        discriminators: nn.ModuleDict,
        memory: SourceMemory | None,
        terms: Terms,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.discriminators = discriminators
        self.memory = memory
        self.terms = terms
        self.amp_dtype = amp_dtype

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, *, matching: bool = True) -> Losses:
        """Forward and backward of one (sub-)iteration; gradients accumulate, no optimiser steps.

        source: "image" [B, 3, H, W], "label" [B, H, W]; target the same at its own size, "label" only where
        pseudo-labels are used; None for source only. `matching=False` (first iteration of a run) fills the memory but
        leaves the terms out that read it. Returns every term, unweighted and detached, by name.
        """
        device = source["image"].device

        def outside(loss: Tensor, player: str) -> None:
            with torch.autocast(device.type, enabled=False):
                backward(loss, player)

        # One context around both domains: it casts each weight once, not once a domain.
        with torch.autocast(device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            return self._iteration(source, target, outside, matching)

    def _iteration(self, source: Batch, target: Batch | None, backward: Backward, matching: bool) -> Losses:
        terms = self.terms
        with statistics_kept(self.segmenter, terms.bn == "target" and target is not None):
            features_s, logits_s = self.segmenter(source["image"])
        # Label maps set out for the host before the work that the device then does meanwhile.
        learnt = self.memory is not None and target is not None
        correct = LabelMaps(correct_labels(logits_s.detach(), source["label"])) if learnt else None
        loss = segmentation_loss(logits_s, source["label"], terms.ignore_label)
        losses = {"seg": loss.detach()}
        loss = terms.segmentation * loss
        together = terms.same > 0 and target is not None  # a term with gradient through both domains: one backward
        if not together:
            backward(loss, "segmenter")
        if target is None:
            return losses
        if self.memory is not None and correct is not None:
            self.memory.update(features_s.detach(), correct, self.segmenter.classify)

        with statistics_kept(self.segmenter, terms.bn == "source"):
            features_t, logits_t = self.segmenter(target["image"])
        compared = self.memory is not None and matching and terms.matching
        predicted = LabelMaps(logits_t.detach().argmax(1)) if compared else None
        scores = {
            name: shared_scores(self.discriminators[name], maps)
            for name, maps in self._maps(features_t, logits_t, target["image"].shape[2:]).items()
        }
        fooled = {name: segmenter_loss(for_segmenter) for name, (for_segmenter, _) in scores.items()}
        target_losses, total = self._target_losses(features_t, logits_t, fooled, target, predicted)
        if together:
            pairs = zip(logits_s, logits_t, strict=True)
            same = torch.stack([released_same(s, t, features_t.shape[1]) for s, t in pairs]).mean()
            target_losses["same"] = same.detach()
            total = total + terms.same * same + loss
        losses |= target_losses
        backward(total, "segmenter")

        with torch.no_grad():
            maps_s = self._maps(features_s, logits_s, source["image"].shape[2:])
        for name, maps in maps_s.items():
            loss = discriminator_loss(self.discriminators[name](maps.detach()), scores[name][1])
            backward(loss, "discriminator")
            losses[f"D_{name}"] = loss.detach()
        return losses

    def _maps(self, features: Tensor, logits: Tensor, size: torch.Size) -> dict[str, Tensor]:
        """What each discriminator looks at, by its name."""
        maps = {"output": lambda: probabilities(logits, size), "feature": lambda: features}
        return {name: maps[name]() for name in self.discriminators}

    def _target_losses(
        self, features: Tensor, logits: Tensor, fooled: Losses, target: Batch, predicted: LabelMaps | None
    ) -> tuple[Losses, Tensor]:
        """Terms of a target batch, and their weighted sum.

        fooled: the adversarial ones by discriminator; predicted: P, None to leave the category and instance terms out.
        """
        terms = self.terms
        weighted: dict[str, tuple[float, Tensor]] = {}
        if "output" in fooled:
            weighted["adv"] = (terms.adversarial, fooled["output"])
        if "feature" in fooled:
            weighted["adv_feat"] = (terms.feature_adversarial, fooled["feature"])
        if terms.pseudo_label:
            weighted["pseudo"] = (terms.pseudo_label, segmentation_loss(logits, target["label"], terms.ignore_label))
        if self.memory is not None and predicted is not None:
            images = pool_regions(features, predicted, self.memory.split)
            with torch.autocast(features.device.type, enabled=False):
                source = self.memory.centroids()
                classify = self.segmenter.classify
                per_image = [category_terms(image, self.memory, source, classify, terms) for image in images]
            for name, weight in (("cls", terms.stuff), ("ins", terms.instance), ("isia", terms.isia)):
                weighted[name] = (weight, torch.stack([losses[name] for losses in per_image]).mean())
        # A zero with a graph, so that backward is allowed when every term is off; of no value that could overflow.
        total = logits.flatten()[:0].float().sum()
        for weight, loss in weighted.values():
            total = total + weight * loss
        return {name: loss.detach() for name, (_, loss) in weighted.items()}, total


def category_terms(
    image: Regions,
    memory: SourceMemory,
    source: tuple[Tensor, Tensor],
    classify: Callable[[Tensor], Tensor],
    terms: Terms,
) -> Losses:
    """Stuff matching, instance matching and ISIA of one target image, unweighted; 0 where no class takes part.

    source: the memory's `centroids()`, which all images of a batch share.
    """
    stuff = image.centroids[memory.stuff_ids]
    stuff_matched = recognised(stuff[:, None], memory.stuff_ids, classify)[:, 0] & memory.stuff.ready
    if not terms.absent_stuff:
        stuff_matched = stuff_matched & image.present[memory.stuff_ids]
    things_matched = image.is_instance & memory.things.ready[:, None]

    stuff_distance = nearest_distance(stuff[:, None], memory.stuff.entries)[:, 0]
    things_distance = nearest_distance(image.instances, memory.things.entries)
    stuff_weight, things_weight = aim_weights(
        stuff_distance, stuff_matched, things_distance, things_matched, terms.aim_form, terms.aim_beta
    )
    if terms.isia_form == "paper":
        category = isia(image.centroids, image.present, *source)
    else:
        category = released_gap(stuff, stuff_matched, image.instances, things_matched, memory.num_prototype)
    return {
        "cls": stuff_matching(stuff_distance, stuff_matched, stuff_weight),
        "ins": instance_matching(things_distance, things_matched, things_weight),
        "isia": category,
    }
