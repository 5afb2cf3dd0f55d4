"""The baseline: the segmenter learns from the labelled source and never sees a target image."""

from __future__ import annotations

from torch import Tensor

from model.methods.base import Backward, Batch, Losses, Method, Step
from model.terms.segmentation import segmentation_loss


class SourceOnly(Method):
    """Cross-entropy on source images (paper, section "source only")."""

    name = "source_only"
    uses_target = False

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        loss: Tensor = segmentation_loss(self.segmenter(source["image"])[1], source["label"], self.options.ignore_label)
        backward(self.options.lambda_seg * loss, "segmenter")
        return {"seg": loss.detach()}
