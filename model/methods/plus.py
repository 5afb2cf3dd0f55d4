"""`--method plus`: stage 2 with a mean teacher beside the paper's terms (docs/PLUS.md).

One iteration:
    source batch restyled by the image level, if there is one
    teacher: pseudo-labels of the target batch, without a gradient
    source:  cross-entropy (and the ImageNet feature distance) -> backward; update of the source memory
    target:  cross-entropy with the teacher's labels, or with masks made before; adversarial terms -> backward
    mixed:   classes of the source pasted onto the target, colours jittered and blurred; cross-entropy with the labels
             pasted alike, category and instance terms in the light of these labels -> backward
    masked:  blocks of the target hidden; cross-entropy with the teacher's labels -> backward
After the step the teacher's weights move a little towards the student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.methods.bafft import ALIGNMENT, CATEGORY, PSEUDO_LABELS, Alignment, SourcePass, TargetPass, Term
from model.methods.base import Backward, Batch, Context, Losses, Step
from model.networks.batchnorm import set_training_mode, statistics_kept
from model.networks.deeplab import DeepLab
from model.networks.high_resolution import Detail, HighResolution, halved
from model.terms.borders import visible, without_rows
from model.terms.feature_distance import feature_distance
from model.terms.masking import hide_blocks
from model.terms.memory import resized_labels
from model.terms.mixing import Mixed, class_mix
from model.terms.regions import LabelMaps
from model.terms.segmentation import weighted_segmentation_loss
from model.terms.strong_augmentation import strong_augmentation
from model.terms.teacher import (
    PseudoLabels,
    averaging,
    labels_by_class,
    labels_by_image,
    teacher_of,
    update_teacher,
)
from model.terms.thresholds import ClassThresholds
from utils.system.transfer import to_host

COLLAPSED = 0.995
"""Share of the teacher's labels of one class, from which a warning says so."""
_SLOW = 0.9  # of itself that the record of the teacher's classes keeps per pass


def _weighted(view: TargetPass) -> Tensor:
    batch = view.batch
    return weighted_segmentation_loss(view.logits, batch["label"], batch["weight"], view.ignore_label, view.detail)


class Plus(Alignment):
    """Stage 2 with a mean teacher, class mixing, masked consistency, and the paper's terms on the mixed images.

    The student ("segmenter") is scored and predicts; the teacher is saved beside it.

    Attributes:
        mixed_terms, masked_terms: those of the further passes, in order; `terms` are those of the plain target batch.
        thresholds: of the teacher's labels, under `--pseudo-selection class`.
        seen: [C] the share of the teacher's labels that each class has, a moving average.
    """

    name = "plus"
    terms = (*(term for term in ALIGNMENT if term.name not in CATEGORY), *PSEUDO_LABELS)
    mixed_terms = (Term("mix", _weighted), *(term for term in ALIGNMENT if term.name in CATEGORY))
    masked_terms = (Term("masked", _weighted),)
    all_terms = (*terms, *mixed_terms, *masked_terms)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.networks["teacher"] = teacher_of(self.segmenter)
        # Not among the networks that are saved: it never changes, and is read from its file again.
        self.imagenet, self.things = context.imagenet, context.split.things
        self.num_classes = context.split.num_classes
        device = self.segmenter.input_mean.device
        self.thresholds = ClassThresholds(self.num_classes, device)
        self.seen = torch.zeros(self.num_classes, device=device)

    @classmethod
    def uses_target_labels(cls, options: Any) -> bool:
        return options.lambda_pseudo > 0 and options.ssl_target_dir is not None

    @property
    def asks_teacher(self) -> bool:
        """Whether any loss uses the teacher's labels."""
        return not self.uses_target_labels(self.options) or self.weights["masked"] > 0

    @property
    def teacher(self) -> DeepLab:
        teacher = self.networks["teacher"]
        assert isinstance(teacher, DeepLab)
        return teacher

    def set_training_mode(self) -> None:
        super().set_training_mode()
        set_training_mode(self.teacher, self.options.bn)

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        """See `Method.iteration`. The target's "label" holds masks that were made before, if there are any."""
        assert target is not None
        generator = step.generator()
        source = self._restyled(source, target, generator)
        guidance, given = self._target_labels(target)
        mixed = self._mix(source, target, given.labels, generator)
        losses: Losses = {}
        self.gradients.start(step.number)
        learnt = self._source_pass(self._placed(source, generator), backward, losses)
        labelled = target | {"label": given.labels, "quality": given.quality}
        self._target_pass(self._placed(labelled, generator), learnt, backward, step, losses)
        if self.active(self.mixed_terms):
            self._mixed_pass(mixed, given, learnt, backward, step, losses, generator)
        if guidance is not None:
            if self.active(self.masked_terms):
                self._masked_pass(target["image"], guidance, learnt, backward, losses, generator)
            losses["sure"] = guidance.sure.float().mean()
        return losses

    def _placed(self, batch: Batch, generator: torch.Generator) -> Batch:
        """With high-resolution crops, the batch and a random "place" for its crop; else the batch."""
        if not isinstance(self.segmenter, HighResolution):
            return batch
        return batch | {"place": torch.rand(2, generator=generator)}

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Detail | None]:
        if not isinstance(self.segmenter, HighResolution):
            return super()._predict(batch)
        features, logits, detail = self.segmenter.with_detail(batch["image"], batch["place"])
        return features, logits, detail._replace(weight=self.options.lambda_detail)

    def _target_labels(self, target: Batch, *, learn: bool = True) -> tuple[PseudoLabels | None, PseudoLabels]:
        """The teacher's labels, if any loss uses them (learn: see `_ask_teacher`), and the labels of the target passes
        and of the mixed images: masks that were made before, if there are any, or else those of the teacher."""
        guidance = self._ask_teacher(target["image"], learn=learn) if self.asks_teacher else None
        given = self._made_before(target["label"]) if "label" in target else guidance
        assert given is not None
        return guidance, given

    def _made_before(self, labels: Tensor) -> PseudoLabels:
        """The masks of `Generate_Pseudo_Label.py`, of which every label counts fully."""
        return PseudoLabels(labels, labels != self.options.ignore_label, labels.new_ones(len(labels)).float())

    @torch.no_grad()
    def _ask_teacher(self, images: Tensor, *, learn: bool = True) -> PseudoLabels:
        """The teacher's labels. learn: they count for the thresholds and for the record of the classes."""
        options = self.options
        with statistics_kept(self.teacher, True):
            logits = self.teacher(images)[1]
        shown = visible(images)[:, 0]
        if options.pseudo_selection == "class":
            found = labels_by_class(logits, shown, self.thresholds, options.ignore_label, learn=learn)
        else:
            found = labels_by_image(logits, shown, options.pseudo_threshold, options.ignore_label)
        if learn:
            shares = (found.labels[:, ::4, ::4, None] == torch.arange(self.num_classes, device=images.device)).float()
            self.seen.lerp_(shares.mean((0, 1, 2)), 1 - _SLOW)
        top, bottom = options.pseudo_borders
        return found._replace(labels=without_rows(found.labels, top, bottom, options.ignore_label))

    def _further_source_terms(self, source: Batch, features: Tensor, losses: Losses) -> Tensor | float:
        """ImageNet feature distance on things."""
        if self.imagenet is None:
            return 0.0
        image = source["image"]
        if isinstance(self.segmenter, HighResolution):
            image = halved(self.imagenet.prepared(image))  # the features are those of the context
        with torch.no_grad():
            reference = self.imagenet(image)[0]
        distance = feature_distance(features, reference, source["label"], self.things)
        return self._noted("imagenet", distance, self.options.lambda_imagenet, losses)

    def _mix(self, source: Batch, target: Batch, labels: Tensor, generator: torch.Generator) -> Mixed:
        """The mixed batch, its colours jittered and blurred. labels: those of the target [B, H, W]."""
        classes = self.num_classes if self.options.class_mixing else 0
        ignored = self.options.ignore_label
        mixed = class_mix(source["image"], source["label"], target["image"], labels, classes, generator, ignored)
        return mixed._replace(image=self._augmented(mixed.image, generator))

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return strong_augmentation(images, self.options.strong_jitter, self.options.strong_blur, generator)

    def _mixed_pass(
        self,
        mixed: Mixed,
        given: PseudoLabels,
        source: SourcePass,
        backward: Backward,
        step: Step,
        losses: Losses,
        generator: torch.Generator,
    ) -> None:
        """The terms of the mixed images. given: the labels of the target images in them."""
        batch = {"image": mixed.image, "label": mixed.label, "weight": mixed.weights(given.quality)}
        compared = contrasted = None
        if self.memory is not None and step.number > 0:
            compared = mixed.label
            if self.forms.isia == "contrast":
                contrasted = mixed.label.where(mixed.pasted | given.sure, self.options.ignore_label)
        self._further_pass(self.mixed_terms, batch, source, backward, losses, generator, compared, contrasted)

    def _masked_pass(
        self,
        images: Tensor,
        guidance: PseudoLabels,
        source: SourcePass,
        backward: Backward,
        losses: Losses,
        generator: torch.Generator,
    ) -> None:
        """The terms of the target images with hidden blocks."""
        options = self.options
        hidden = hide_blocks(self._augmented(images, generator), options.mask_block, options.mask_ratio, generator)
        batch = {"image": hidden, "label": guidance.labels, "weight": guidance.quality[:, None, None]}
        self._further_pass(self.masked_terms, batch, source, backward, losses, generator)

    def _further_pass(
        self,
        terms: Sequence[Term],
        batch: Batch,
        source: SourcePass,
        backward: Backward,
        losses: Losses,
        generator: torch.Generator,
        compared: Tensor | None = None,
        contrasted: Tensor | None = None,
    ) -> None:
        """A pass of images that were made from the target's.

        compared, contrasted: the labels [B, H, W] that the category and instance terms, and `--isia contrast`, take in
        place of predictions; None where they do not apply.
        """
        batch = self._placed(batch, generator)
        # The target's running statistics are those of its plain images: mixed ones cost 1.4 mIoU on the built-in data.
        with statistics_kept(self.segmenter, True):
            features, logits, detail = self._predict(batch)
        size = features.shape[2:]
        labels = None if compared is None else LabelMaps(resized_labels(compared, size))
        view = self._view(batch, features, logits, labels, source.logits, detail)
        view.sure = None if contrasted is None else resized_labels(contrasted, size)
        backward(self._total(self.active(terms), view, losses), "segmenter")

    def after_step(self, step: int) -> None:
        update_teacher(self.teacher, self.segmenter, averaging(step, self.options.ema))

    def averaged(self) -> list[Tensor]:
        return [*super().averaged(), self.seen, self.thresholds.counts]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"seen": self.seen, "thresholds": self.thresholds.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = dict(state)
        self.seen.copy_(state.pop("seen"))
        self.thresholds.counts.copy_(state.pop("thresholds"))
        super().load_state_dict(state)

    def counts(self) -> dict[str, Tensor]:
        """Beside the memory's: how many classes have at least a thousandth of the teacher's labels."""
        if not self.asks_teacher:
            return super().counts()
        return super().counts() | {"teacher_classes": (self.seen >= self.seen.sum() / 1000).sum()}

    def totals(self) -> dict[str, int]:
        return super().totals() | ({"teacher_classes": self.num_classes} if self.asks_teacher else {})

    def warnings(self, names: Sequence[str]) -> list[str]:
        shares = to_host(self.seen / self.seen.sum().clamp_min(1e-6))
        if shares.max() < COLLAPSED:
            return []
        name = names[int(shares.argmax())]
        return [
            f"the teacher has collapsed: it calls nearly every pixel of the target {name}; start from a network that "
            f"tells more classes apart there, or give a lower --learning-rate"
        ]

    def panels(self, source: Batch, target: Batch | None, step: Step) -> dict[str, Tensor]:
        assert target is not None
        if not self.options.sync_bn:  # then it would wait for the other processes, which make no pictures
            set_training_mode(self.teacher, self.options.bn)  # as in training, it uses the statistics of the batch
        guidance, given = self._target_labels(target, learn=False)
        generator = step.generator()
        mixed = self._mix(self._restyled(source, target, generator), target, given.labels, generator)
        shown = {"image": target["image"]}
        if guidance is not None:
            shown["teacher"] = guidance.labels
        if "label" in target:
            shown["pseudo-label"] = given.labels
        return super().panels(source, target, step) | {
            **{f"target batch/{name}": batch[0] for name, batch in shown.items()},
            "class mixing/image": mixed.image[0],
            "class mixing/label": mixed.label[0],
        }
