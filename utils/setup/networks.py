"""Networks and methods from the resolved options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dataset.class_pixels import Pixels, class_shares, class_weights
from dataset.classes import ClassTable
from model import methods
from model.methods.base import Context, Method
from model.networks.deeplab import DeepLab, build_segmenter
from model.terms.regions import ClassSplit
from utils.options.flags import flag
from utils.options.table import Options
from utils.prediction import loading
from utils.states.weights import describe_file, load_weights
from utils.system import distributed
from utils.system.errors import UserError
from utils.system.logs import logger

Module = TypeVar("Module", bound=nn.Module)


def device(options: Options) -> torch.device:
    """The GPU, if there is one and `--cpu` is not given."""
    return loading.pick_device(options.cpu, options.amp)


def to_device(network: Module, options: Options) -> Module:
    """The network on its device, with its convolutions in the memory format of `--channels-last`."""
    network = network.to(device(options))
    if options.channels_last:
        nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
    return network


def segmenter(options: Options, given: frozenset[str], table: ClassTable, *, needs_classifier: bool = False) -> DeepLab:
    """The network with the weights of `--restore-from`, or random ones for 'none'. needs_classifier: raise UserError
    for weights without a trained classifier, whose predictions would be noise.

    See `loading.build` for the architecture. With `--continue-train`, the architecture is that of the checkpoint, and
    the trainer loads the weights.
    """
    resumed = resumed_from(options)
    path = str(resumed or options.restore_from)
    if needs_classifier and not resumed and path == "none":
        raise UserError(
            "--restore-from: found none, which gives random weights; expected those of a trained segmenter: give the "
            "checkpoint of the previous stage"
        )
    wanted = {name: getattr(options, name) for name in (*loading.ARCHITECTURE, "high_resolution_crops")}
    network = loading.build(None if path == "none" else path, table, wanted, given)
    if path == "none":
        logger.info("weights: random (--restore-from none)")
    elif not resumed:
        load_weights(network, path, not_restore_last=options.not_restore_last, needs_classifier=needs_classifier)
    network.checkpoint_activations = options.checkpoint_activations
    if options.sync_bn:
        if network.architecture.get("norm", "batchnorm") != "batchnorm":  # as its checkpoint says, whatever the options
            raise UserError(f"--sync-bn: {path} has InPlace-ABN layers, expected BatchNorm; leave the flag out")
        if device(options).type == "cpu":
            raise UserError("--sync-bn: found no GPU, expected one for each process: leave the flag out")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return to_device(network, options)


def with_architecture(options: Options, network: DeepLab) -> Options:
    """The options, in which the architecture of the network replaces "auto" and that of the preset."""
    return replace(options, **{name: network.architecture.get(name, "batchnorm") for name in loading.ARCHITECTURE})


def with_input_size(options: Options, given: frozenset[str]) -> Options:
    """The options of a script that predicts, with the input size that its checkpoint was trained with.

    A size that the user gives is used instead, and the log says if it differs from the checkpoint's. If the checkpoint
    was trained with high-resolution crops, the options say so, and images are read at twice that size.
    """
    path = options.restore_from
    if not Path(path).is_file():
        return options
    info = describe_file(path)
    options = replace(options, high_resolution_crops=info.high_resolution_crops)
    return with_trained_size(options, given, "input_size_target", info.input_size, "predicting")


def with_trained_size(
    options: Options, given: frozenset[str], name: str, trained: tuple[int, int] | None, doing: str
) -> Options:
    """The options with the size that the network of `--restore-from` was trained with as the option `name`.

    trained: that size; None if it is not known. A size that the user gives is used instead; the log then says what is
    done (`doing`) at another size.
    """
    path, own = options.restore_from, getattr(options, name)
    if trained is None or trained == own:
        return options
    found, there = (",".join(map(str, size)) for size in (own, trained))
    if name in given:
        logger.info("attention: %s at %s %s, but %s was trained at %s", doing, flag(name), found, path, there)
        return options
    logger.info("taken from the checkpoint %s: %s %s (the preset has %s)", path, flag(name), there, found)
    size: dict[str, Any] = {name: trained}
    return replace(options, **size)


def resumed_from(options: Options) -> Path | None:
    """The checkpoint that `--continue-train` resumes from; None without it."""
    if options.continue_train is None:
        return None
    return Path(options.snapshot_dir) / "last.pth" if options.continue_train == "last" else Path(options.continue_train)


def method_class(options: Options, script: str) -> type[Method]:
    """The class of the method that a training script runs."""
    return methods.find(methods.SOURCE_ONLY if options.source_only else methods.METHODS[options.method][script])


def method(
    options: Options, script: str, network: DeepLab, table: ClassTable, source_pixels: Pixels | None = None
) -> Method:
    """The method that a training script runs, with its networks placed and its optimisers made.

    source_pixels: the counts of `class_pixels`. Raises ValueError without them if `--class-balance` is above 0.
    """
    weights = None
    if options.class_balance:
        if source_pixels is None:
            raise ValueError(f"--class-balance {options.class_balance} needs the pixels of the source's classes")
        weights = torch.tensor(class_weights(source_pixels, options.class_balance), dtype=torch.float32)
        found = class_shares(source_pixels) > 0
        shown = ", ".join(f"{table.names[i]} {weights[i]:.2f}" for i in found.nonzero()[0])
        logger.info("weights of the classes in the source cross-entropy: %s", shown)
    context = Context(
        segmenter=network,
        split=ClassSplit(table.num_classes, table.stuff, table.things),
        options=options,
        place=lambda further: to_device(further, options),
        gather=distributed.gather if distributed.size() > 1 else None,
        imagenet=_imagenet(options, network) if options.lambda_imagenet else None,
        class_weights=None if weights is None else weights.to(device(options)),
    )
    return method_class(options, script)(context)


def _imagenet(options: Options, network: DeepLab) -> DeepLab:
    """The network's backbone with the weights of `--imagenet-weights`, frozen."""
    path = str(options.imagenet_weights)
    info = describe_file(path)
    fitting = {"stride_style": info.stride_style, "normalization": info.normalization}
    plain = {name: value for name, value in network.architecture.items() if name != "high_resolution_crops"}
    frozen = build_segmenter(**(plain | fitting))
    load_weights(frozen, path, not_restore_last=True)
    return to_device(frozen.requires_grad_(False).eval(), options)
