"""Reads weight files: finds out their kind, and copies them into a segmenter, with a report.

There are three kinds: this project's own checkpoints (`bafft`), torchvision's ImageNet networks (`torchvision`), and
the DeepLab checkpoints and the caffe/COCO initialisation of this field (`caffe`). Own checkpoints are used as they are;
in the files of other projects the network is looked for (`unwrapping`). A model changes only after everything has been
checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dataset.classes import ClassTable
from dataset.tables import parse_classes
from model.networks.deeplab import BACKBONES, DeepLab
from model.networks.norm import FusedNorm
from utils.states import checkpoint
from utils.states.unwrapping import CLASSIFIER, START_WEIGHTS, Network, counts, find_network, with_classifier
from utils.system.errors import UserError
from utils.system.logs import logger

__all__ = ["FileInfo", "Report", "describe_file", "load_weights"]

# Heads that are not used here: the other head of a two-head DeepLab (or the caffe file's own classifier), the ImageNet
# classifiers of torchvision, and MobileNetV2's last 1x1 convolution, which belongs to its classifier.
_UNUSED = ("layer5.", "fc.", "classifier.", "features.18.")
_BOTTLENECKS = ("resnet50", "resnet101")  # only for these does the stride style make a difference
_FILTERS = 16  # smallest number for a meaningful median
_SMALL_VALUES = 60.0  # between 1.7 and 1.7 * 60^2, see `_saw_small_values`
_SHOWN = 4  # names listed of each group
_ATTENTION = "attention."  # the head of `HighResolution`; only checkpoints of such a network have it


class FileInfo(NamedTuple):
    """What a weight file is, and what its weights expect.

    kind: `bafft`, `torchvision` or `caffe`. normalization, stride_style: arguments of `build_segmenter` that suit the
    weights. architecture: the saved arguments of a `bafft` checkpoint, else None; classes: its class table, if it holds
    one; input_size: its `--input-size-target`, if it holds that.
    """

    kind: str
    normalization: str
    stride_style: str
    architecture: dict[str, Any] | None
    classes: ClassTable | None = None
    input_size: tuple[int, int] | None = None

    @property
    def high_resolution_crops(self) -> bool:
        return bool((self.architecture or {}).get("high_resolution_crops"))


@dataclass(frozen=True)
class Report:
    """What was done with every tensor, except `num_batches_tracked`.

    matched, missing, mismatched (another shape) and skipped (left out on request) are names of the model's tensors;
    together they are all of them. unexpected: names in the file that the model does not have; unused: those of them
    that are known to be heads which are not used here. place: what was unwrapped and removed from the names, in words.
    """

    path: str
    kind: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    place: str = ""

    def __str__(self) -> str:
        unused = f", of which {len(self.unused)} unused ({_heads(self.unused)})" if self.unused else ""
        strange = [name for name in self.unexpected if name not in self.unused]
        parts = [
            f"{len(self.matched)} tensors matched",
            f"{len(self.missing)} missing{_named(self.missing)}",
            f"{len(self.unexpected)} unexpected{unused}{_named(strange)}",
            f"{len(self.mismatched)} shape-mismatched{_named(self.mismatched)}",
        ]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        return f"weights {self.path} ({self.kind}): " + "; ".join(
            (", ".join(parts), *filter(None, [self.place]), *self.notes)
        )


def describe_file(path: str | Path) -> FileInfo:
    """The kind of a weight file, and the `normalization` and `stride_style` to build the model with.

    Raises:
        UserError: the file cannot be read or holds no weights.
    """
    own, network = _read(path, keep=True)
    if own is None:
        return _classify(network, None)
    return _classify(network, own.architecture)._replace(classes=own.classes, input_size=own.input_size)


def load_weights(
    model: DeepLab, path: str | Path, *, not_restore_last: bool = False, needs_classifier: bool = False
) -> Report:
    """Copy the weights of a file into `model`, and log a report of what matched.

    This project's checkpoints, torchvision's networks and those of this field are accepted, in any wrappers and with
    any prefixes (`find_network`), and with any name of the classifier (`with_classifier`); half precision is converted.
    A file without a classifier leaves the model's as it is, unless one is needed. If an error is raised, nothing has
    been copied.

    Args:
        model: takes the weights; its parameters keep their type and device.
        path: file written by `torch.save`, or a safetensors file.
        not_restore_last: leave the classifier as it is, even if the file has one.
        needs_classifier: the file must have a classifier, because the caller predicts with it.

    Raises:
        UserError: an unreadable file, or a backbone that the file does not cover completely; without
            `not_restore_last`, also a classifier with another number of classes, an incomplete one, or a missing one if
            it is needed.
    """
    targets = {name: tensor for name, tensor in model.state_dict().items() if counts(name)}
    own, network = _read(path, {name: tensor.shape for name, tensor in targets.items()})
    info = _classify(network, None if own is None else own.architecture)
    if own is None:
        classes = int(model.architecture["num_classes"])
        network = with_classifier(network, model.feature_dim, classes, needed=needs_classifier)
    found = network.tensors
    report = _compare(model, targets, str(path), info, network, not_restore_last)
    logger.info("%s", report)
    _check_backbone(model, info, found, report)
    if not not_restore_last:
        _check_classifier(model, found, report, needs_classifier)
    with torch.no_grad():
        for name in report.matched:
            targets[name].copy_(found[name])
    return report


def _compare(
    model: DeepLab,
    targets: Mapping[str, Tensor],
    path: str,
    info: FileInfo,
    network: Network,
    not_restore_last: bool,
) -> Report:
    found = network.tensors
    fates: dict[str, list[str]] = {"matched": [], "missing": [], "mismatched": [], "skipped": []}
    for name, target in targets.items():
        if name not in found:
            fate = "missing"
        elif not _fits(found[name], target):
            fate = "mismatched"
        else:
            fate = "skipped" if not_restore_last and name.startswith(CLASSIFIER) else "matched"
        fates[fate].append(name)
    unexpected = sorted((found.keys() - targets.keys()) | set(network.beside))
    return Report(
        path=path,
        kind=info.kind,
        unexpected=tuple(unexpected),
        unused=tuple(name for name in unexpected if name.startswith(_UNUSED)),
        notes=(*network.notes, *_notes(model, info, found, not_restore_last)),
        place=network.place,
        **{fate: tuple(names) for fate, names in fates.items()},
    )


# ---------------------------------------------------------------- reading


class _Own(NamedTuple):
    """What a checkpoint of this project says about its network."""

    architecture: dict[str, Any]
    classes: ClassTable | None
    input_size: tuple[int, int] | None


def _read(
    path: str | Path, shapes: Mapping[str, torch.Size] | None = None, *, keep: bool = False
) -> tuple[_Own | None, Network]:
    """What a checkpoint of this project says about its network (None for other files), and the network in the file.
    keep: hold the content for the next call."""
    content = checkpoint.read(path, keep=keep)
    if not isinstance(content, Mapping) or content.get("format") != checkpoint.FORMAT:
        return None, find_network(content, path, shapes)
    architecture, table, state = (content.get(key) for key in ("architecture", "classes", "segmenter"))
    if not isinstance(architecture, dict) or not isinstance(state, Mapping):
        raise UserError(f"{path}: this checkpoint lacks 'architecture' or 'segmenter'; give another file")
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and counts(name)}
    classes = None if table is None else parse_classes(table, f"{path}, class table")
    return _Own(architecture, classes, _input_size(content)), Network(tensors)


def _input_size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """The input size of a checkpoint; before version 2 it was only among the options."""
    options = content.get("options")
    size = content.get("input_size") or (options.get("input_size_target") if isinstance(options, Mapping) else None)
    match size:
        case [int(width), int(height)]:
            return width, height
    return None


def _fits(value: Tensor, target: Tensor) -> bool:
    return value.shape == target.shape and value.is_floating_point() and value.layout == torch.strided


# ---------------------------------------------------------------- origin


def _classify(network: Network, architecture: dict[str, Any] | None) -> FileInfo:
    if architecture is not None:
        normalization = str(architecture.get("normalization", "caffe"))
        return FileInfo("bafft", normalization, str(architecture.get("stride_style", "caffe")), architecture)
    names = network.tensors
    known = [*names, *(f"{head.name}." for head in network.heads)]
    deeplab = START_WEIGHTS in network.prefix or any(re.search(r"(^|[./])layer[56]\.", name) for name in known)
    # MobileNetV2 has no caffe ancestor in this field: it expects ImageNet's normalisation, whatever its head.
    mobilenet = any(re.match(r"features\.\d+\.conv\.", name) for name in names)
    # So do the networks of newer libraries, whose files hold heads of other kinds beside the backbone.
    imagenet = any(name.startswith(("fc.", "classifier.", "features.")) for name in names)
    imagenet = imagenet or any(name.endswith(".weight") for name in network.beside)
    if network.heads and not deeplab:  # DeepLab in the code of other projects, which has both ancestors
        imagenet = _saw_small_values(names)
    if mobilenet or (imagenet and not deeplab):
        return FileInfo("torchvision", "imagenet", "torchvision", None)
    return FileInfo("caffe", "caffe", "caffe", None)


def _saw_small_values(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a ResNet was trained on images with a standard deviation of about 1 (ImageNet's normalisation), not 60.

    The variance that the first BatchNorm has seen, divided by the squared weights before it, is the variance of the
    images up to a factor that depends on the filters. Its median is 1.7 in torchvision's MobileNetV2; the other case
    gives 60^2 times that. (Our choice.)
    """
    weight, variance = tensors.get("conv1.weight"), tensors.get("bn1.running_var")
    if weight is None or variance is None or weight.dim() != 4 or variance.shape != weight.shape[:1]:
        return False
    if len(variance) < _FILTERS or bool((variance <= 0).any()) or bool((variance == 1).all()):  # or no batch seen yet
        return False
    squares = weight.float().square().sum((1, 2, 3))
    return bool((variance.float() / squares).median() < _SMALL_VALUES)


def _guess_backbone(names: Iterable[str]) -> str:
    """The network that these names probably belong to, in words."""
    names = set(names)
    if any(re.match(r"features\.\d+\.conv\.", name) for name in names):
        return "mobilenet_v2"
    if any(re.match(r"features\.\d+\.", name) for name in names):
        convs = sum(1 for name in names if re.fullmatch(r"features\.\d+\.weight", name))
        normalised = any(name.endswith("running_mean") for name in names)
        return "vgg16" if convs == 13 and not normalised else "a VGG other than vgg16"
    depth = len({match[1] for name in names if (match := re.match(r"layer3\.(\d+)\.", name))})
    if "layer1.0.conv3.weight" in names:
        known = {6: "resnet50", 23: "resnet101", 36: "resnet152"}
    else:
        known = {1: "tiny", 2: "resnet18", 6: "resnet34"}
    return known.get(depth, "no backbone of this project")


def _notes(model: DeepLab, info: FileInfo, found: Mapping[str, Tensor], not_restore_last: bool) -> Iterable[str]:
    has_classifier = any(name.startswith(CLASSIFIER) for name in found)
    if not has_classifier:
        yield "no classifier (layer6) in the file; that of the network stays as initialised"
    elif not_restore_last:
        classes = _class_counts(found)
        yield f"the classifier (layer6, {classes} classes) is not loaded, as requested; it stays as initialised"
    if not info.high_resolution_crops and any(name.startswith(_ATTENTION) for name, _ in model.named_parameters()):
        yield "no attention for high-resolution crops in the file; that of the network stays as initialised"
    if info.kind == "torchvision":
        yield "torchvision's weights expect stride_style torchvision and normalization imagenet"
    if (info.architecture or {}).get("norm") != "inplace-abn":
        scales = [f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, FusedNorm)]
        negative = sum(int((found[name] < 0).sum()) for name in scales if name in found)
        if negative:
            yield f"attention: {negative} scales of BatchNorm are negative in the file, and inplace-abn uses |scale|"
    wanted = info.architecture or {"stride_style": info.stride_style, "normalization": info.normalization}
    options = ["aspp_branches", "output_stride", "normalization"]
    if model.architecture["backbone"] in _BOTTLENECKS:
        options.append("stride_style")
    for option in options:
        here = model.architecture[option]
        if wanted.get(option, here) != here:
            yield f"attention: the weights expect {option} {wanted[option]}, the model has {here}"


# ---------------------------------------------------------------- checks


def _check_backbone(model: DeepLab, info: FileInfo, found: dict[str, Tensor], report: Report) -> None:
    missing, mismatched = _backbone(report.missing), _backbone(report.mismatched)
    # A deeper network of the same family covers a shallower one by name and shape; only the left-over tensors show it.
    stages = tuple(f"{name}." for name, _ in model.named_children())
    over = [name for name in _backbone(report.unexpected) if name.startswith(stages)]
    over = [name for name in over if name not in report.unused]
    own = str(model.architecture["backbone"])
    guess = str((info.architecture or {}).get("backbone") or _guess_backbone(found))
    if not (missing or mismatched or over or (info.architecture and guess != own)):
        return
    covered = len(_backbone(report.matched))
    advice = f"--backbone {guess}" if guess != own and guess in BACKBONES else f"weights of a complete {own}"
    raise UserError(
        f"{report.path}: does not fit the backbone {own}: "
        f"{covered} of {covered + len(missing) + len(mismatched)} tensors fit, "
        f"{len(missing)} missing{_named(missing)}, {len(mismatched)} of another shape{_named(mismatched)}, "
        f"{len(over)} left over{_named(over)}; "
        f"the file looks like {guess}; give {advice}"
    )


def _check_classifier(model: DeepLab, found: dict[str, Tensor], report: Report, needed: bool) -> None:
    own, there = str(model.architecture["num_classes"]), _class_counts(found)
    anew = "" if needed else ", or --not-restore-last to start with a new classifier"
    if not any(name.startswith(CLASSIFIER) for name in found):
        if needed:
            heads = sorted({name.split(".")[0] for name in report.unexpected if name.endswith(".weight")})
            beside = f"; the tensors of {', '.join(heads[:_SHOWN])} do not belong to this network" if heads else ""
            raise UserError(
                f"{report.path}: no classifier in it (layer6), expected one of {own} classes; give the weights of a "
                f"trained segmenter, such as last.pth of stage 1{beside}"
            )
        return
    if there != own:
        fitting = ", or the --classes or --num-classes that it was trained with" if needed else anew
        raise UserError(
            f"{report.path}: its classifier has {there} classes, the model {own}; give a file of {own} classes{fitting}"
        )
    branches = range(model.layer6.branches)
    used = tuple(f"{CLASSIFIER}conv2d_list.{branch}." for branch in branches)
    lacking = [name for name in report.missing if name.startswith(used)]
    lacking += [name for name in report.mismatched if name.startswith(CLASSIFIER)]
    if lacking:
        raise UserError(f"{report.path}: its classifier does not fit{_named(lacking)}; give a complete file{anew}")


def _class_counts(found: Mapping[str, Tensor]) -> str:
    """The number of classes of a file's classifier, in words if its tensors disagree."""
    tensors = [value for name, value in found.items() if name.startswith(CLASSIFIER)]
    return " or ".join(str(count) for count in sorted({len(value) for value in tensors if value.dim()}))


def _backbone(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith((CLASSIFIER, _ATTENTION))]


# ---------------------------------------------------------------- words


def _named(names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    return f" ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"


def _heads(names: Iterable[str]) -> str:
    return ", ".join(sorted({next(head for head in _UNUSED if name.startswith(head))[:-1] for name in names}))
