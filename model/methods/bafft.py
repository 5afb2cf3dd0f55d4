"""The paper's method: alignment of the target with the source (stage 1), and with self-training added (stage 2).

One iteration of either stage:
    source: restyled if there is an image level; cross-entropy -> backward; update of the source memory
    target: the weighted sum of `terms` -> backward
    both:   the discriminators, on detached maps -> backward
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from model.methods.base import Backward, Batch, Context, Losses, Method, Step
from model.methods.gradients import GradientShares
from model.methods.optimizers import discriminator_optimizer
from model.networks.batchnorm import statistics_kept
from model.networks.discriminator import FeatureDiscriminator, OutputDiscriminator
from model.networks.high_resolution import Detail
from model.networks.upsampling import at_size
from model.terms.adversarial import discriminator_loss, segmenter_loss, shared_scores
from model.terms.aim import aim_weights
from model.terms.contrast import pixel_contrast
from model.terms.image_level import ImageLevel
from model.terms.isia import isia, released_gap, released_same
from model.terms.matching import instance_matching, nearest_distance, stuff_matching
from model.terms.memory import SourceMemory, correct_labels, predicted_labels, recognised
from model.terms.regions import LabelMaps, Regions, pool_regions
from model.terms.segmentation import probabilities, segmentation_loss


@dataclass(frozen=True)
class Forms:
    """The forms of the category and instance terms, in which the paper and its released code differ.

    aim, isia: see `aim_weights` and `isia`. absent_stuff: stuff classes that are absent from the image may be matched
    too (released): their centroid is zero, and the classifier's bias decides whether it is accepted.
    """

    aim: str = "paper"
    aim_beta: float = 1.0
    isia: str = "paper"
    absent_stuff: bool = False


@dataclass
class TargetPass:
    """The target batch of one iteration after its forward pass: the inputs of the terms.

    batch: may have the "quality" of its labels, a weight [B] of each image. features [B, D, h, w] and logits [B, C, h,
    w] are the target's, source_logits [B, C, h', w'] the source's. fooled: the segmenter's adversarial loss by
    discriminator. predicted: argmax of the logits, or None if the category and
    instance terms do not apply (the first step of a run only fills the memory). sure: with `--isia contrast`, train ids
    [B, h, w] of the pixels that are contrasted, and the ignore label for the others. detail: the prediction for a
    high-resolution crop, if there is one; the logits then have about twice the features' size.
    """

    batch: Batch
    features: Tensor
    logits: Tensor
    source_logits: Tensor
    fooled: dict[str, Tensor]
    predicted: LabelMaps | None
    memory: SourceMemory | None
    classify: Callable[[Tensor], Tensor]
    forms: Forms
    ignore_label: int
    sure: Tensor | None = None
    detail: Detail | None = None

    @cached_property
    def category(self) -> dict[str, Tensor]:
        """Stuff matching, instance matching and ISIA, which share nearly all of their work: means over the images."""
        if self.memory is None or self.predicted is None:
            return {}
        images = pool_regions(self.features, self.predicted, self.memory.split)
        with torch.autocast(self.features.device.type, enabled=False):
            centroids = self.memory.centroids()
            each = [category_terms(image, self.memory, centroids, self.classify, self.forms) for image in images]
        losses = {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}
        if self.forms.isia == "contrast":
            assert self.sure is not None
            losses["adv_cate"] = pixel_contrast(self.features, self.sure, *centroids)
        return losses


@dataclass(frozen=True)
class SourcePass:
    """The source batch of one iteration after its forward pass: features [B, D, h, w], logits [B, C, h, w] and image
    size. loss: the weighted cross-entropy, if its gradient must be computed together with the target's."""

    features: Tensor
    logits: Tensor
    size: torch.Size
    loss: Tensor | None


@dataclass(frozen=True)
class Term:
    """A term of the target's loss.

    name: as in the log, the documents and its option, `--lambda-NAME` with hyphens. loss: the unweighted term, a
    scalar, or None if it does not apply in this step. both_domains: its gradient flows through the source's forward
    pass too.
    """

    name: str
    loss: Callable[[TargetPass], Tensor | None]
    both_domains: bool = False


def _pseudo(view: TargetPass) -> Tensor:
    batch = view.batch
    weights = batch.get("quality")
    return segmentation_loss(view.logits, batch["label"], view.ignore_label, view.detail, image_weights=weights)


def _same(view: TargetPass) -> Tensor:
    pairs = zip(view.source_logits, view.logits, strict=True)
    return torch.stack([released_same(source, target, view.features.shape[1]) for source, target in pairs]).mean()


ADVERSARIAL = {"adv_target": "output", "adv_feat": "feature"}
"""The adversarial terms, and the discriminator that each one needs."""
CATEGORY = ("adv_cls", "adv_ins", "adv_cate")
"""The terms that need the source memory."""
ALIGNMENT = (
    Term("adv_target", lambda view: view.fooled["output"]),
    Term("adv_feat", lambda view: view.fooled["feature"]),
    Term("adv_cls", lambda view: view.category.get("adv_cls")),
    Term("adv_ins", lambda view: view.category.get("adv_ins")),
    Term("adv_cate", lambda view: view.category.get("adv_cate")),
)
PSEUDO_LABELS = (Term("pseudo", _pseudo), Term("same", _same, both_domains=True))


class Alignment(Method):
    """Stage 1: adversarial, category and instance alignment.

    Attributes:
        terms: the terms of the target's loss, in order; `all_terms` also has those of a subclass's other passes.
        weights: the weights of the source cross-entropy ("seg") and of every term, by name; 0 switches a term off.
        image_level: restyles the source batch before anything else.
        memory: the source memory; None if no term needs it.
    """

    name = "step1"
    terms: tuple[Term, ...] = ALIGNMENT
    all_terms: tuple[Term, ...] = ALIGNMENT

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        segmenter, options = context.segmenter, context.options
        names = ("seg", *(term.name for term in self.all_terms))
        self.weights: dict[str, float] = {name: getattr(options, f"lambda_{name}") for name in names}
        self.image_level = ImageLevel(options.image_level, options.image_level_share, options.fda_beta)
        self.gradients = GradientShares(segmenter.parameter_groups()[0], options.log_gradients)
        self.forms = Forms(options.aim, options.aim_beta, options.isia, options.absent_stuff)
        self.discriminators = nn.ModuleDict()
        width = options.discriminator_width
        if self.weights["adv_target"]:
            self.discriminators["output"] = OutputDiscriminator(context.split.num_classes, width)
        if self.weights["adv_feat"]:
            self.discriminators["feature"] = FeatureDiscriminator(segmenter.feature_dim, width)
        context.place(self.discriminators)
        if self.discriminators:
            self.networks.update(dict(self.discriminators.items()))
            self.optimizers["discriminator"] = discriminator_optimizer(self.discriminators, options)
        self.memory: SourceMemory | None = None
        if any(self.weights[name] for name in CATEGORY):
            device = segmenter.input_mean.device
            self.memory = SourceMemory(
                context.split, segmenter.feature_dim, options.num_prototype, device, context.gather
            )

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        """See `Method.iteration`. The target's "label" holds the pseudo-labels in stage 2."""
        assert target is not None
        source = self._restyled(source, target, step.generator())
        losses: Losses = {}
        self.gradients.start(step.number)
        learnt = self._source_pass(source, backward, losses)
        self._target_pass(target, learnt, backward, step, losses)
        return losses

    def _restyled(self, source: Batch, target: Batch, generator: torch.Generator) -> Batch:
        """The source batch after the image level."""
        return source | {"image": self.image_level(source["image"], target["image"], generator)}

    def active(self, terms: Sequence[Term]) -> list[Term]:
        """Those whose weight is not 0."""
        return [term for term in terms if self.weights[term.name]]

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Detail | None]:
        """Features and logits of a batch, and the prediction for a high-resolution crop, if there is one."""
        return (*self.segmenter(batch["image"]), None)

    def _source_pass(self, source: Batch, backward: Backward, losses: Losses) -> SourcePass:
        """The cross-entropy of the source batch, and the update of the source memory."""
        with statistics_kept(self.segmenter, self.options.bn == "target"):
            features, logits, detail = self._predict(source)
        # The copy of the label maps to the CPU starts first, so that the device works on the rest meanwhile.
        correct = None
        if self.memory is not None:
            correct = LabelMaps(correct_labels(at_size(logits.detach(), features.shape[2:]), source["label"]))
        ignored = self.options.ignore_label
        loss = segmentation_loss(logits, source["label"], ignored, detail, self.class_weights)
        loss = self._noted("seg", loss, self.weights["seg"], losses)
        loss = loss + self._further_source_terms(source, features, losses)
        together = any(term.both_domains for term in self.active(self.terms))
        if not together:
            backward(loss, "segmenter")
        if self.memory is not None and correct is not None:
            self.memory.update(features.detach(), correct, self.segmenter.classify)
        return SourcePass(features, logits, source["image"].shape[2:], loss if together else None)

    def _further_source_terms(self, source: Batch, features: Tensor, losses: Losses) -> Tensor | float:
        """Weighted sum of further losses on the source, besides the cross-entropy."""
        return 0.0

    def _target_pass(self, target: Batch, source: SourcePass, backward: Backward, step: Step, losses: Losses) -> None:
        """The active terms of the target batch, and the discriminators. Without active terms, only the target's
        BatchNorm statistics are updated."""
        active = self.active(self.terms)
        if not active:
            if self.options.bn in ("target", "shared"):
                with torch.no_grad():
                    self._predict(target)
            return
        with statistics_kept(self.segmenter, self.options.bn == "source"):
            features, logits, detail = self._predict(target)
        compared = self.memory is not None and step.number > 0
        predicted = None
        if compared:
            predicted = LabelMaps(predicted_labels(at_size(logits.detach(), features.shape[2:]), target["image"]))
        maps_t = self._maps(features, logits, target["image"].shape[2:])
        scores = {name: shared_scores(self.discriminators[name], maps) for name, maps in maps_t.items()}
        view = self._view(target, features, logits, predicted, source.logits, detail)
        view.fooled = {name: segmenter_loss(for_segmenter) for name, (for_segmenter, _) in scores.items()}
        total = self._total(active, view, losses)
        backward(total if source.loss is None else total + source.loss, "segmenter")

        with torch.no_grad():
            maps_s = self._maps(source.features, source.logits, source.size)
        for name, maps in maps_s.items():
            loss = discriminator_loss(self.discriminators[name](maps.detach()), scores[name][1])
            backward(loss, "discriminator")
            losses[f"D_{name}"] = loss.detach()

    def _view(
        self,
        batch: Batch,
        features: Tensor,
        logits: Tensor,
        predicted: LabelMaps | None,
        source_logits: Tensor,
        detail: Detail | None,
    ) -> TargetPass:
        return TargetPass(
            batch=batch,
            features=features,
            logits=logits,
            source_logits=source_logits,
            fooled={},
            predicted=predicted,
            memory=self.memory,
            classify=self.segmenter.classify,
            forms=self.forms,
            ignore_label=self.options.ignore_label,
            detail=detail,
        )

    def _total(self, terms: Sequence[Term], view: TargetPass, losses: Losses) -> Tensor:
        """Weighted sum of the terms of a pass; each of them is added to `losses`."""
        # A zero with a graph, so that backward is allowed when no term has a value; a sum over nothing cannot overflow.
        total = view.logits.flatten()[:0].float().sum()
        for term in terms:
            value = term.loss(view)
            if value is not None:
                total = total + self._noted(term.name, value, self.weights[term.name], losses)
        return total

    def _noted(self, name: str, loss: Tensor, weight: float, losses: Losses) -> Tensor:
        """The weighted loss. The loss is added to `losses`, and its gradient too, if this step measures gradients."""
        losses[name] = loss.detach()
        weighted = weight * loss
        self.gradients.measure(name, weighted, losses)
        return weighted

    def _maps(self, features: Tensor, logits: Tensor, size: torch.Size) -> dict[str, Tensor]:
        """The input of each discriminator, by its name."""
        maps = {"output": lambda: probabilities(logits, size), "feature": lambda: features}
        return {name: maps[name]() for name in self.discriminators}

    def state_dict(self) -> dict[str, Any]:
        return {} if self.memory is None else {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (self.memory is None) != ("memory" not in state):
            raise ValueError("a source memory in only one of the two")
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])

    def counts(self) -> dict[str, Tensor]:
        """How many classes of the source memory are ready."""
        if self.memory is None:
            return {}
        return {"ready_stuff": self.memory.stuff.ready.sum(), "ready_things": self.memory.things.ready.sum()}

    def totals(self) -> dict[str, int]:
        if self.memory is None:
            return {}
        return {"ready_stuff": len(self.memory.split.stuff), "ready_things": len(self.memory.split.things)}

    def panels(self, source: Batch, target: Batch | None, step: Step) -> dict[str, Tensor]:
        """The first source image that is restyled in this step, if any, with its style and the result."""
        assert target is not None
        styles = self.image_level.styles(len(source["image"]), len(target["image"]), step.generator())
        results = self.image_level.restyle(source["image"], target["image"], styles)
        for image, style, result in zip(source["image"], styles, results, strict=True):
            if style is not None:
                shown = {"image level/source": image, "image level/result": result}
                return shown | {"image level style": target["image"][style]}
        return {}


class SelfTraining(Alignment):
    """Stage 2: the terms of stage 1, and the cross-entropy of the target with its pseudo-labels."""

    name = "step2"
    terms = all_terms = (*ALIGNMENT, *PSEUDO_LABELS)

    @classmethod
    def uses_target_labels(cls, options: Any) -> bool:
        return options.lambda_pseudo > 0


def category_terms(
    image: Regions,
    memory: SourceMemory,
    source: tuple[Tensor, Tensor],
    classify: Callable[[Tensor], Tensor],
    forms: Forms,
) -> dict[str, Tensor]:
    """Stuff matching, instance matching and ISIA of one target image, unweighted; 0 if no class takes part.

    source: the memory's `centroids()`, which all images of a batch share. With `--isia contrast`, which compares the
    pixels of the whole batch, there is no ISIA of one image.
    """
    stuff = image.centroids[memory.stuff_ids]
    stuff_matched = recognised(stuff[:, None], memory.stuff_ids, classify)[:, 0] & memory.stuff.ready
    if not forms.absent_stuff:
        stuff_matched = stuff_matched & image.present[memory.stuff_ids]
    things_matched = image.is_instance & memory.things.ready[:, None]

    stuff_distance = nearest_distance(stuff[:, None], memory.stuff.entries)[:, 0]
    things_distance = nearest_distance(image.instances, memory.things.entries)
    stuff_weight, things_weight = aim_weights(
        stuff_distance, stuff_matched, things_distance, things_matched, forms.aim, forms.aim_beta
    )
    losses = {
        "adv_cls": stuff_matching(stuff_distance, stuff_matched, stuff_weight),
        "adv_ins": instance_matching(things_distance, things_matched, things_weight),
    }
    if forms.isia == "paper":
        losses["adv_cate"] = isia(image.centroids, image.present, *source)
    elif forms.isia == "released":
        losses["adv_cate"] = released_gap(stuff, stuff_matched, image.instances, things_matched, memory.num_prototype)
    return losses
