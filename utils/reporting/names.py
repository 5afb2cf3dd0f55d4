"""What the keys of a run's records mean, for tables, TensorBoard and the report."""

from __future__ import annotations

from typing import NamedTuple


class Name(NamedTuple):
    """group: the keys that are drawn together: terms, discriminators, gradients, target scores, label-free scores,
    memory, rates, speed or other; title: a few words."""

    group: str
    title: str


NAMES = {
    "seg": Name("terms", "source cross-entropy"),
    "adv_target": Name("terms", "adversarial, output space; in restyling, images restyled as target"),
    "adv_feat": Name("terms", "adversarial, feature space"),
    "adv_cls": Name("terms", "stuff matching"),
    "adv_ins": Name("terms", "instance matching"),
    "adv_cate": Name("terms", "category divergence (ISIA)"),
    "same": Name("terms", "'same' term of an earlier release"),
    "pseudo": Name("terms", "pseudo-label cross-entropy"),
    "mix": Name("terms", "cross-entropy of mixed images"),
    "masked": Name("terms", "cross-entropy of images with hidden blocks"),
    "imagenet": Name("terms", "distance to ImageNet features on things"),
    "adv_source": Name("terms", "adversarial, images restyled as source"),
    "cycle": Name("terms", "difference after restyling there and back"),
    "identity": Name("terms", "change of images that are of the wanted domain already"),
    "semantic": Name("terms", "cross-entropy of classes before and after restyling"),
    "sure": Name("other", "share of pixels of which the teacher is sure"),
    "teacher_classes": Name("other", "classes among the teacher's labels"),
    "grad_seg": Name("gradients", "norm of the source cross-entropy's gradient on the backbone"),
    "D_output": Name("discriminators", "discriminator, output space"),
    "D_feature": Name("discriminators", "discriminator, feature space"),
    "iou": Name("target scores", "target IoU"),
    "averaged": Name("target scores", "number of classes in a mean"),
    "miou": Name("target scores", "target mean IoU"),
    "snd": Name("label-free scores", "soft neighbourhood density (SND)"),
    "infomax": Name("label-free scores", "InfoMax"),
    "agreement": Name("label-free scores", "agreement of an image and its mirror image"),
    "ready_stuff": Name("memory", "stuff classes that are ready in the source memory"),
    "ready_things": Name("memory", "thing classes that are ready in the source memory"),
    "iterations_per_s": Name("speed", "iterations per second"),
    "data_wait": Name("speed", "share of the time spent waiting for images"),
    "memory_mb": Name("speed", "peak memory, MiB"),
}

_PREFIXES = {
    "grad_": ("gradients", "share of the source cross-entropy's: "),
    "lr_": ("rates", "learning rate of the "),
    "skipped_": ("other", "steps skipped after an overflow: "),
    "miou_": ("target scores", "target mean IoU, classes: "),
    "D_": ("discriminators", "discriminator: "),
    "ready_": ("memory", "ready in the source memory: "),
}


def describe(key: str) -> Name:
    """The group and title of a record's key. An unknown key counts as a term with its own name as title."""
    if key in NAMES:
        return NAMES[key]
    for prefix, (group, title) in _PREFIXES.items():
        if key.startswith(prefix):
            return Name(group, title + key.removeprefix(prefix).replace("_", " "))
    return Name("terms", key.replace("_", " "))
