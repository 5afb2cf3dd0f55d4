"""What the keys of a run's records mean, for tables, TensorBoard and the report."""

from __future__ import annotations

from typing import NamedTuple


class Name(NamedTuple):
    """group: the keys that are drawn together: terms, discriminators, gradients, target scores, label-free scores,
    memory, rates, speed or other; title: a few words; better: "higher" or "lower", if one of them is better."""

    group: str
    title: str
    better: str = ""


NAMES = {
    "seg": Name("terms", "source cross-entropy", "lower"),
    "adv_target": Name("terms", "adversarial, output space"),
    "adv_feat": Name("terms", "adversarial, feature space"),
    "adv_cls": Name("terms", "stuff matching", "lower"),
    "adv_ins": Name("terms", "instance matching", "lower"),
    "adv_cate": Name("terms", "category divergence (ISIA)"),
    "same": Name("terms", "'same' term of an earlier release"),
    "pseudo": Name("terms", "pseudo-label cross-entropy", "lower"),
    "mix": Name("terms", "cross-entropy of mixed images", "lower"),
    "masked": Name("terms", "cross-entropy of images with hidden blocks", "lower"),
    "imagenet": Name("terms", "distance to ImageNet features on things", "lower"),
    "sure": Name("other", "share of pixels of which the teacher is sure", "higher"),
    "teacher_classes": Name("other", "classes among the teacher's labels", "higher"),
    "grad_seg": Name("gradients", "norm of the source cross-entropy's gradient on the backbone"),
    "D_output": Name("discriminators", "discriminator, output space"),
    "D_feature": Name("discriminators", "discriminator, feature space"),
    "iou": Name("target scores", "target IoU", "higher"),
    "averaged": Name("target scores", "number of classes in a mean"),
    "miou": Name("target scores", "target mean IoU", "higher"),
    "snd": Name("label-free scores", "soft neighbourhood density (SND)", "higher"),
    "infomax": Name("label-free scores", "InfoMax", "higher"),
    "agreement": Name("label-free scores", "agreement of an image and its mirror image", "higher"),
    "ready_stuff": Name("memory", "stuff classes that are ready in the source memory"),
    "ready_things": Name("memory", "thing classes that are ready in the source memory"),
    "iterations_per_s": Name("speed", "iterations per second", "higher"),
    "data_wait": Name("speed", "share of the time spent waiting for images", "lower"),
    "memory_mb": Name("speed", "peak memory, MiB", "lower"),
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
