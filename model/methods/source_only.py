"""The baseline: the segmenter learns from the labelled source and never sees a target image."""

from __future__ import annotations

from model.methods.base import Backward, Batch, Losses, Method, Step
from model.terms.segmentation import segmentation_loss


class SourceOnly(Method):
    """Cross-entropy on source images (paper, section "source only")."""

    name = "source_only"
    uses_target = False

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        logits, ignored = self.segmenter(source["image"])[1], self.options.ignore_label
        loss = segmentation_loss(logits, source["label"], ignored, class_weights=self.class_weights)
        backward(self.options.lambda_seg * loss, "segmenter")
        return {"seg": loss.detach()}
