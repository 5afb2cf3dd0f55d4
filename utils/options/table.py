"""The options of all scripts, each with its default, help, check, and the scripts that take its flag."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from dataset import READERS
from model.methods import METHODS
from model.networks.choices import BACKBONES, BN_MODES, NORMALIZATIONS, NORMS, STRIDE_STYLES
from model.terms.choices import AIM_FORMS, IMAGE_LEVELS, ISIA_FORMS, PSEUDO_SELECTIONS
from utils.options import parsing
from utils.options.presets import PRESETS
from utils.system.amp import AMP

TRAIN = ("step1", "step2")
RESTYLE = ("restyle_train", "restyle_apply")
TRAINING = (*TRAIN, "restyle_train")
NETWORK = (*TRAIN, "pseudo", "evaluate")
ALL = (*NETWORK, "iou", "check")
PROGRAMS = {
    "step1": "train_step1.py",
    "step2": "train_step2.py",
    "pseudo": "Generate_Pseudo_Label.py",
    "evaluate": "evaluate_cityscapes.py",
    "iou": "compute_iou.py",
    "check": "python -m dataset.check",
    "restyle_train": "restyle_source.py train",
    "restyle_apply": "restyle_source.py apply",
}
"""What runs a script."""
SOURCE = (*TRAIN, "check")

Check = Callable[[Any], str | None]  # value -> what was expected, or None if it is fine


def _at_least(low: float) -> Check:
    return lambda value: None if low <= value < math.inf else f"a number of at least {low}"


def _between(low: int, high: int) -> Check:
    return lambda value: None if low <= value <= high else f"a number of at least {low} and at most {high}"


def _above(low: float) -> Check:
    return lambda value: None if low < value < math.inf else f"a number above {low}"


def _fraction(value: float) -> str | None:
    return None if 0 <= value < 1 else "a number of at least 0 and below 1"


def _share(value: float) -> str | None:
    return None if 0 <= value <= 1 else "a number from 0 to 1"


def _below_half(value: float) -> str | None:
    return None if 0 <= value < 0.5 else "a number of at least 0 and below 0.5"


def _seed(value: int) -> str | None:
    return None if 0 <= value < 2**32 else "a whole number from 0 to 4294967295"


def _borders(values: tuple[float, ...]) -> str | None:
    fine = len(values) == 2 and min(values) >= 0 and sum(values) < 1
    return None if fine else "TOP,BOTTOM, two shares of at least 0 whose sum is below 1"


_READER_NAMES = ", ".join(READERS)


def _reader(value: str) -> str | None:
    return None if value in READERS else f"one of {_READER_NAMES}, or READER:PATH such as folder:data/mine"


def option(
    default: Any,
    help: str,
    on: Sequence[str] = ALL,
    *,
    check: Check | None = None,
    choices: Sequence[str] = (),
    **extra: Any,
) -> Any:
    """A field of `Options`: its help and check, and the scripts that take its flag."""
    metadata = {"help": help, "on": tuple(on), "check": check, "choices": tuple(choices), **extra}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Resolved options, which do not change. The flag of the field `input_size` is `--input-size`, and so on."""

    # Task and data
    preset: str = option(
        "gta5_to_cityscapes",
        f"the task, which sets the defaults of all other options; one of {', '.join(PRESETS)}",
        (*ALL, *RESTYLE),
        choices=tuple(PRESETS),
        metavar="NAME",
    )
    method: str = option(
        "paper",
        "paper (what it says), released (what its published code does), or plus (self-training with a mean teacher in "
        "stage 2; with some presets, stage 1 then only learns the source)",
        TRAIN,
        choices=tuple(METHODS),
    )
    source: str = option(
        "gta5",
        f"the labelled domain, as READER or READER:PATH; the readers are {_READER_NAMES}",
        (*SOURCE, *RESTYLE),
        check=_reader,
        metavar="READER",
    )
    target: str = option(
        "cityscapes",
        f"the unlabelled domain, as READER or READER:PATH; the readers are {_READER_NAMES}",
        (*ALL, "restyle_train"),
        check=_reader,
        metavar="READER",
    )
    classes: str | None = option(
        None,
        "class table: a YAML file or an info.json (default: that of the checkpoint, if one is loaded, or of the data)",
        metavar="FILE",
    )
    data_dir: str = option("data/gta5_deeplab", "root of the source data", (*SOURCE, *RESTYLE))
    data_dir_labels: str | None = option(
        None,
        "root of the source labels, if it is not that of the images (restyled images, for example)",
        (*SOURCE, *RESTYLE),
    )
    data_dir_target: str = option("data/Cityscapes", "root of the target data", (*ALL, "restyle_train"))
    data_list: str | None = option(
        None, "list of source images, one name per line (default: all in the folder)", (*SOURCE, *RESTYLE)
    )
    data_list_target: str | None = option(
        None, "list of target images (default: all in the folder)", (*SOURCE, "pseudo", "restyle_train")
    )
    data_list_target_test: str | None = option(
        None, "list of labelled target images to score (default: all in the folder)", (*SOURCE, "evaluate", "iou")
    )
    set: str = option("val", "split of the target data that is scored", (*SOURCE, "evaluate"))
    input_size: tuple[int, int] = option(
        (1280, 720), "width and height to which source images are resized", (*TRAIN, *RESTYLE), check=parsing.is_size
    )
    input_size_target: tuple[int, int] = option(
        (1024, 512),
        "width and height to which target images are resized; scripts that predict take it from the checkpoint",
        (*NETWORK, "restyle_train"),
        check=parsing.is_size,
    )
    crop: tuple[int, int] | None = option(
        None,
        "width and height of the random crops of the resized images that are trained on (default: whole images)",
        TRAINING,
        check=parsing.is_size,
    )
    num_classes: int | None = option(
        None, "use only the first N classes of the table (default: all)", check=_at_least(2)
    )
    ignore_label: int = option(
        255, "train id of pixels without a class, which losses and scores leave out", check=_at_least(0)
    )
    random_mirror: bool = option(False, "mirror images at random", TRAINING)
    random_scale: bool = option(False, "scale images by a random factor from 0.5 to 1.5, then crop or pad them", TRAIN)
    random_jitter: bool = option(False, "change brightness, contrast and saturation at random", TRAIN)
    rare_class_temperature: float = option(
        0.0,
        "draw source images with rare classes more often: the smaller the value, the more often; 0 draws all equally",
        ("step2",),
        check=_at_least(0),
    )
    skip_bad_images: bool = option(
        False,
        "leave out images that are missing, corrupt, or of another shape than their label, instead of stopping",
        (*NETWORK, "check", *RESTYLE),
    )
    cache: str | None = option(
        None,
        "folder that keeps decoded and resized images for later epochs and runs, see data/README.md (default: none)",
        (*NETWORK, *RESTYLE),
        check=lambda value: None if value else "a folder",
    )
    num_workers: int = option(
        4,
        "processes that read images, in training for each domain; 0 reads them in the main process",
        (*NETWORK, "check", *RESTYLE),
        check=_between(0, 512),
    )

    # Network
    backbone: str = option(
        "resnet101",
        "backbone of DeepLab-v2; a checkpoint's comes before the preset's",
        NETWORK,
        choices=BACKBONES,
    )
    output_stride: int = option(
        8,
        "pixels of the image per pixel of the features: 8, or 16 with mobilenet_v2",
        NETWORK,
        check=lambda v: None if v in (8, 16) else "8 or 16",
    )
    aspp_branches: int = option(
        2,
        "number of classifier branches that are summed: 2 as published, 4 as in ADVENT",
        NETWORK,
        check=lambda v: None if v in (2, 4) else "2 or 4",
    )
    stride_style: str = option(
        "auto",
        "convolution of a ResNet bottleneck that has the stride: the first (caffe) or the 3x3 one (torchvision); auto "
        "follows the weights",
        NETWORK,
        choices=("auto", *STRIDE_STYLES),
    )
    normalization: str = option(
        "auto",
        "input normalisation that the network expects; auto follows the weights",
        NETWORK,
        choices=("auto", *NORMALIZATIONS),
    )
    restore_from: str = option(
        "none",
        "checkpoint to load the weights from; train_step1.py also takes pretrained weights, or 'none' for random ones",
        (*NETWORK, "restyle_apply"),
    )
    not_restore_last: bool = option(
        False, "do not load the classifier of --restore-from; it starts from random weights", ("step1",)
    )
    norm: str = option(
        "batchnorm",
        "normalisation layers; inplace-abn (an optional package) joins BatchNorm and leaky ReLU to save memory",
        NETWORK,
        choices=NORMS,
    )
    bn: str = option(
        "shared",
        "domain that updates BatchNorm's running statistics, with which the network predicts: shared (both, as "
        "published), source, target, or frozen (neither; training uses them too)",
        TRAIN,
        choices=BN_MODES,
    )
    sync_bn: bool = option(False, "compute BatchNorm over the images of all processes of torchrun (GPUs only)", TRAIN)

    discriminator_width: float = option(
        1.0, "factor on the discriminators' numbers of channels, for small segmenters", TRAINING, check=_above(0)
    )

    # Restyling
    generator_width: float = option(
        1.0,
        "factor on the generators' numbers of channels, for small data and CPUs",
        ("restyle_train",),
        check=_above(0),
    )
    lambda_cycle: float = option(10.0, "weight of the cycle loss", ("restyle_train",), check=_at_least(0))
    lambda_identity: float = option(5.0, "weight of the identity loss", ("restyle_train",), check=_at_least(0))
    semantic: str | None = option(
        None,
        "trained segmenter that must see the same classes before and after restyling, as in CyCADA (default: none)",
        ("restyle_train",),
        metavar="CHECKPOINT",
    )
    lambda_semantic: float = option(
        1.0, "weight of the semantic loss (--semantic)", ("restyle_train",), check=_at_least(0)
    )
    out: str = option("data/restyled/{preset}", "folder for the restyled images", ("restyle_apply",))

    # Terms
    source_only: bool = option(False, "train the baseline, which never sees a target image", ("step1",))
    image_level: str = option(
        "none",
        "restyle source images as target images: match means and deviations of CIELAB colours (lab), or low "
        "frequencies (fda)",
        TRAIN,
        choices=IMAGE_LEVELS,
    )
    image_level_share: float = option(
        1.0, "share of the source images that are restyled; the others stay as they are", TRAIN, check=_share
    )
    fda_beta: float = option(
        0.01, "half the side of FDA's window, as a share of the image's shorter side", TRAIN, check=_below_half
    )
    lambda_seg: float = option(1.0, "weight of the source cross-entropy", TRAIN, check=_at_least(0))
    class_balance: float = option(
        0.0,
        "weight each class in the source cross-entropy by its share of the pixels to the power of -X; 0: all alike",
        TRAIN,
        check=_share,
    )
    lambda_adv_target: float = option(0.001, "weight of the output-space adversarial term", TRAIN, check=_at_least(0))
    lambda_adv_feat: float = option(0.001, "weight of the feature-space adversarial term", TRAIN, check=_at_least(0))
    lambda_adv_cls: float = option(0.01, "weight of stuff matching", TRAIN, check=_at_least(0))
    lambda_adv_ins: float = option(0.01, "weight of instance matching", TRAIN, check=_at_least(0))
    lambda_adv_cate: float = option(0.01, "weight of ISIA", TRAIN, check=_at_least(0))
    lambda_same: float = option(0.0, "weight of an earlier release's 'same' term", ("step2",), check=_at_least(0))
    lambda_pseudo: float = option(1.0, "weight of the pseudo-label cross-entropy", ("step2",), check=_at_least(0))
    aim: str = option(
        "paper",
        "weights of stuff and instances in matching: none, as in the paper, or as released",
        TRAIN,
        choices=AIM_FORMS,
    )
    aim_beta: float = option(1.0, "factor on the weights of instances, for --aim released", TRAIN, check=_above(0))
    isia: str = option(
        "paper",
        "form of ISIA, the category divergence: paper, released (the gap term of step 2), or contrast (pixels instead "
        "of centroids; only with --method plus)",
        TRAIN,
        choices=ISIA_FORMS,
    )
    absent_stuff: bool = option(
        False, "also match stuff classes that are absent from the image, as the released code does", TRAIN
    )
    num_prototype: int = option(
        50,
        "slots of the source memory per stuff class; thing classes have 10 times as many",
        TRAIN,
        check=_between(1, 100_000),
    )

    # Self-training (plus)
    ema: float = option(
        0.999,
        "share of its own weights that the mean teacher keeps per step (less in the first steps)",
        ("step2",),
        check=_fraction,
    )
    pseudo_selection: str = option(
        "class",
        "which of the teacher's labels are learnt: class (those above the median confidence of their class, or 0.9 if "
        "that is less), or image (all, weighted by the image's share of confidences above --pseudo-threshold)",
        ("step2",),
        choices=PSEUDO_SELECTIONS,
    )
    pseudo_threshold: float = option(
        0.968,
        "with --pseudo-selection image: confidence above which the teacher is sure of a pixel; each image is weighted "
        "by its share of such pixels",
        ("step2",),
        check=_fraction,
    )
    pseudo_borders: tuple[float, ...] = option(
        (0.0, 0.0),
        "TOP,BOTTOM: shares of an image's rows in which the teacher's labels are ignored",
        ("step2",),
        check=_borders,
        metavar="TOP,BOTTOM",
    )
    lambda_mix: float = option(1.0, "weight of the cross-entropy on mixed images", ("step2",), check=_at_least(0))
    class_mixing: bool = option(True, "paste half of the classes of a source image onto each target image", ("step2",))
    strong_jitter: float = option(
        0.2, "strength of the colour jitter on the student's images; 0: none", ("step2",), check=_fraction
    )
    strong_blur: float = option(
        1.15, "largest sigma of the blur on the student's images, in pixels; 0: none", ("step2",), check=_at_least(0)
    )
    lambda_masked: float = option(
        0.0, "weight of the cross-entropy on target images with hidden blocks", ("step2",), check=_at_least(0)
    )
    mask_block: int = option(64, "side of a hidden block, in pixels", ("step2",), check=_at_least(1))
    mask_ratio: float = option(0.7, "share of the blocks that are hidden", ("step2",), check=_fraction)
    high_resolution_crops: bool = option(
        False,
        "read images at twice the input sizes; predict each one as a whole, reduced to the input size, and in a window "
        "of the input size (HRDA)",
        ("step2",),
    )
    lambda_detail: float = option(
        0.1,
        "weight of the cross-entropy of the window's own prediction, beside that of the fused one",
        ("step2",),
        check=_at_least(0),
    )
    lambda_imagenet: float = option(
        0.0,
        "weight of the distance between the features of source things and those of a frozen ImageNet backbone",
        ("step2",),
        check=_at_least(0),
    )
    imagenet_weights: str | None = option(
        None, "weights of the frozen ImageNet backbone, for --lambda-imagenet", ("step2",), metavar="FILE"
    )

    # Schedule
    batch_size: int = option(
        1,
        "images per forward pass; in training, per domain and per process of torchrun",
        (*NETWORK, "restyle_train"),
        check=_between(1, 4096),
    )
    iter_size: int = option(1, "forward passes whose gradients are averaged per step", TRAINING, check=_at_least(1))
    num_steps: int = option(
        250_000,
        "number of steps over which the learning rates decay; --num-steps-stop may be smaller",
        TRAINING,
        check=_at_least(1),
    )
    num_steps_stop: int | None = option(None, "step to stop at, at most --num-steps", TRAINING, check=_at_least(1))
    learning_rate: float = option(
        2.5e-4,
        "learning rate (of a segmenter's backbone; that of its classifier is 10 times as high)",
        TRAINING,
        check=_above(0),
    )
    learning_rate_D: float = option(1e-4, "learning rate of the discriminators", TRAINING, check=_above(0))
    backbone_lr_mult: float = option(
        1.0, "factor on the backbone's learning rate (published code: in effect about 3)", TRAIN, check=_above(0)
    )
    optimizer: str = option(
        "sgd",
        "optimiser of the segmenter: SGD (paper) or AdamW; if it is not the preset's, also give --learning-rate and "
        "--weight-decay",
        TRAIN,
        choices=("sgd", "adamw"),
    )
    momentum: float = option(0.9, "momentum of SGD", TRAIN, check=_fraction)
    weight_decay: float = option(5e-4, "weight decay of the segmenter", TRAIN, check=_at_least(0))
    power: float = option(
        0.9, "exponent of the poly decay (1 - i/N)^power of the learning rates", TRAIN, check=_at_least(0)
    )
    warmup_steps: int = option(
        0, "number of first steps over which the learning rates rise linearly", TRAIN, check=_at_least(0)
    )
    random_seed: int = option(1234, "seed of all random numbers", TRAINING, check=_seed)
    channels_last: bool = option(
        True, "store feature maps pixel by pixel (channels last), which is often faster", (*NETWORK, *RESTYLE)
    )
    checkpoint_activations: bool = option(
        False, "recompute the backbone's activations in the backward pass: less memory, more time", TRAIN
    )
    autotune: bool = option(True, "let cuDNN try its algorithms on the first batches (GPU)", (*NETWORK, *RESTYLE))
    compile: bool = option(False, "compile the segmenter with torch.compile, which takes minutes at the start", TRAIN)
    compile_mode: str = option(
        "default",
        "mode of torch.compile; reduce-overhead replays the segmenter's passes as CUDA graphs: the fastest on a GPU",
        TRAIN,
        choices=("default", "reduce-overhead"),
    )
    deterministic: bool = option(False, "use only operations that give the same result in every run (slower)", TRAINING)
    amp: str = option(
        "off",
        "mixed precision; apex means apex-O1, and apex is for training only",
        (*NETWORK, *RESTYLE),
        choices=(*AMP, "apex"),
    )
    tf32: bool = option(
        True,
        "let float32 convolutions round their inputs to TF32, as PyTorch does by default (GPUs since Ampere)",
        (*NETWORK, *RESTYLE),
    )
    cpu: bool = option(False, "do not use a GPU", (*NETWORK, *RESTYLE))

    # Files
    continue_train: str | None = option(
        None,
        "resume a run from CHECKPOINT (default: last.pth in --snapshot-dir)",
        TRAINING,
        metavar="CHECKPOINT",
        nargs="?",
        const="last",
    )
    snapshot_dir: str = option("{snapshots}/{arm}", "folder of checkpoints, log and configuration", TRAINING)
    overwrite: bool = option(False, "replace what an earlier run has written to the same folder", (*TRAIN, *RESTYLE))
    save_pred_every: int = option(
        5000, "number of steps between two checkpoints, each of which is scored", TRAINING, check=_at_least(1)
    )
    keep_last: int = option(
        2,
        "number of the newest checkpoints that are also kept under their step number; 0: none",
        TRAINING,
        check=_at_least(0),
    )
    label_free_images: int = option(
        32,
        "target images on which every checkpoint is scored without labels: SND, InfoMax, agreement; 0: none",
        TRAIN,
        check=_at_least(0),
    )
    select_by: str = option(
        "none",
        "label-free score that chooses the checkpoint selected.pth, kept beside last.pth",
        TRAIN,
        choices=("none", "snd", "infomax", "agreement"),
    )
    select_on_target_labels: bool = option(
        False, "also keep best.pth, chosen with target labels, so that its score is not a fair result", TRAIN
    )
    log_every: int = option(100, "number of steps between two log lines", TRAINING, check=_at_least(1))
    log_gradients: int = option(
        0,
        "number of steps between two measurements of each term's gradient on the backbone, as a share of that of the "
        "source cross-entropy; 0: none",
        TRAIN,
        check=_at_least(0),
    )
    log_dir: str = option("{snapshot_dir}/tensorboard", "folder of TensorBoard files", TRAINING)
    tensorboard: bool = option(False, "write TensorBoard files", TRAINING)
    report: bool = option(True, "write report.html, with pictures, at every checkpoint", TRAIN)
    ssl_target_dir: str | None = option("target_ssl_gt/{preset}", "folder of pseudo-labels", ("pseudo", "step2"))
    save: str | None = option("result/{preset}", "folder for the predicted masks; 'none' writes none", ("evaluate",))
    save_ids: str = option(
        "train",
        "ids in these masks: train ids, with a coloured mask beside each; or label ids, as the official evaluation and "
        "the test server of Cityscapes expect",
        ("evaluate",),
        choices=("train", "label"),
    )
    json: str | None = option(None, "file to write the scores to", ("evaluate", "iou"))

    # Prediction and saved masks
    flip: bool = option(False, "predict mirrored images too, and average the probabilities (our choice)", ("evaluate",))
    scales: tuple[float, ...] = option(
        (1.0,),
        "predict at these scales of the input size, such as 0.75,1,1.25, and average the probabilities (our choice)",
        ("evaluate",),
        check=parsing.are_scales,
    )
    gt_ids: str = option(
        "auto",
        "ids in the files of ground truth; auto: train ids in files named labelTrainIds, label ids in all others",
        ("iou",),
        choices=("auto", "label", "train"),
    )
    pred_ids: str = option(
        "train",
        "ids in the predicted masks; coloured masks are read with either",
        ("iou",),
        choices=("train", "label"),
    )
    resize_pred: str = option(
        "none",
        "how to resize masks whose size differs from that of their label; none: it is an error",
        ("iou",),
        choices=("none", "nearest"),
    )
    workers: int = option(
        1, "processes that read masks; the scores do not depend on their number", ("iou",), check=_between(1, 512)
    )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as saved beside the checkpoints."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
