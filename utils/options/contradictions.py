"""Flags that make no sense together, and empty values: refused before anything is read or written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from utils.options.flags import flag
from utils.system.errors import UserError

# Options that only the adaptation to a target uses. Sizes and rates are not among them, so that the command lines of
# several arms may share them.
_ADAPTATION = (
    *("data_list_target", "lambda_adv_target", "lambda_adv_feat", "lambda_adv_cls", "lambda_adv_ins"),
    *("lambda_adv_cate", "aim", "isia", "absent_stuff", "log_gradients", "label_free_images"),
)

# Options that only `--method plus` uses, each with the weight without which it has no effect.
PLUS = {
    "ema": None,
    "pseudo_selection": None,
    "pseudo_threshold": None,
    "pseudo_borders": None,
    "lambda_mix": None,
    "lambda_masked": None,
    "class_mixing": "lambda_mix",
    "strong_jitter": None,
    "strong_blur": None,
    "mask_block": "lambda_masked",
    "mask_ratio": "lambda_masked",
    "lambda_imagenet": None,
    "imagenet_weights": "lambda_imagenet",
    "high_resolution_crops": None,
    "lambda_detail": None,
}


_OF_THE_TEACHER = ("ema", "pseudo_selection", "pseudo_threshold", "pseudo_borders")


def refuse(options: Mapping[str, Any], given: Collection[str]) -> None:
    """Raise UserError for the first contradiction. `options`: all values by name; `given`: names the user gave."""
    for message in _contradictions(options, given):
        raise UserError(message)


def _contradictions(options: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
    for name in sorted(given):
        value = options[name]
        if value == "":
            yield f"{flag(name)}: found an empty value, expected a name; leave the flag out for the default"
        if isinstance(value, str) and "\0" in value:
            yield f"{flag(name)}: found {value!r}, expected a name without a zero byte"
    if "set" in given and (Path(options["set"]).is_absolute() or ".." in Path(options["set"]).parts):
        yield f"--set: found {options['set']}, expected a split of the target data, such as val"
    if options["source_only"]:
        for name in (name for name in _ADAPTATION if name in given and options[name]):
            yield f"--source-only trains without a target, and {flag(name)} needs one; leave one of them out"
        if "image_level" in given and options["image_level"] != "none":
            yield (
                f"--source-only trains without a target, and --image-level {options['image_level']} takes its style "
                "from one; leave one of them out, or restyle the images beforehand"
            )
    if options["select_by"] != "none" and options["source_only"]:
        yield "--select-by scores target images, and --source-only never reads one; leave one of them out"
    if options["select_by"] != "none" and not options["label_free_images"]:
        yield "--select-by: found --label-free-images 0, expected some images to score; leave one of them out"
    if options["continue_train"] is not None:
        last = options["continue_train"] == "last"
        if last and options["overwrite"]:
            yield "--continue-train resumes the run that --overwrite would replace; leave one of them out"
        if "restore_from" in given and options["restore_from"] != "none":
            yield "--continue-train loads the weights of its checkpoint, not --restore-from; leave one of them out"
        if options["not_restore_last"]:
            yield "--continue-train also loads the classifier that --not-restore-last leaves out; leave one of them out"
    if options["not_restore_last"] and options["restore_from"] == "none":
        yield "--not-restore-last: --restore-from is none, so nothing is restored; leave the flag out"
    if "aim_beta" in given and options["aim"] != "released":
        yield f"--aim-beta has an effect only with --aim released, found --aim {options['aim']}; leave it out"
    if "image_level_share" in given and options["image_level"] == "none":
        yield "--image-level-share has an effect only with --image-level lab or fda, found none; leave it out"
    if "fda_beta" in given and options["image_level"] != "fda":
        yield (
            f"--fda-beta has an effect only with --image-level fda, found --image-level {options['image_level']}; "
            "leave it out"
        )
    if "lambda_semantic" in given and options["semantic"] is None:
        yield "--lambda-semantic has an effect only with --semantic; leave it out, or give --semantic CHECKPOINT"
    if "save_ids" in given and options["save"] in (None, "none"):
        yield "--save-ids has no effect with --save none; leave one of them out"
    usual = "" if options["method"] == "paper" else f", the default of --method {options['method']}"
    if "isia" in given and not options["lambda_adv_cate"]:
        yield f"--isia: ISIA is off with --lambda-adv-cate 0{usual}; leave --isia out, or also give --lambda-adv-cate"
    if not any(options[f"lambda_{name}"] for name in ("adv_cls", "adv_ins")):
        for name in (name for name in ("aim", "aim_beta", "absent_stuff") if name in given):
            yield (
                f"{flag(name)}: stuff and instance matching are off with --lambda-adv-cls 0 and --lambda-adv-ins 0"
                f"{usual}; leave {flag(name)} out, or also give --lambda-adv-cls"
            )
    if "ssl_target_dir" in given and not options["lambda_pseudo"]:
        yield "--ssl-target-dir has no effect with --lambda-pseudo 0; leave one of them out"
    if options["log_gradients"] and not options["lambda_seg"]:
        yield "--log-gradients gives shares of the source cross-entropy's gradient; found --lambda-seg 0, expected more"
    if "momentum" in given and options["optimizer"] != "sgd":
        yield f"--momentum has an effect only with --optimizer sgd, found {options['optimizer']}; leave it out"
    yield from _of_crop(options)
    yield from _of_plus(options, given)
    if "warmup_steps" in given and options["warmup_steps"] > options["num_steps"]:
        yield (
            f"--warmup-steps: found {options['warmup_steps']}, expected at most --num-steps {options['num_steps']}: "
            "the learning rates would never reach their full values"
        )


def _of_crop(options: Mapping[str, Any]) -> Iterator[str]:
    if options["crop"] is None:
        return
    for name in ("input_size",) if options["source_only"] else ("input_size", "input_size_target"):
        if any(crop > side for crop, side in zip(options["crop"], options[name], strict=True)):
            crop, size = (",".join(map(str, options[key])) for key in ("crop", name))
            yield f"--crop: found {crop}, expected at most {flag(name)} {size}: give a smaller crop or larger images"
    if options["high_resolution_crops"]:
        yield "--crop cuts the images that --high-resolution-crops needs whole; leave one of them out"
    if any(options["pseudo_borders"]) and options["method"] == "plus":
        yield "--pseudo-borders counts rows of whole images, and --crop cuts them; give --pseudo-borders 0,0"


def _of_plus(options: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
    if options["method"] != "plus":
        method = options["method"]
        for name in (name for name in PLUS if name in given):
            yield f"{flag(name)} has an effect only with --method plus, found --method {method}; leave it out"
        if options["isia"] == "contrast":
            yield (
                f"--isia contrast has an effect only with --method plus, found --method {method}; choose "
                "paper or released"
            )
        return
    for name, weight in PLUS.items():
        if name in given and weight and not options[weight]:
            yield f"{flag(name)} has no effect with {flag(weight)} 0; leave one of them out"
    if "lambda_detail" in given and not options["high_resolution_crops"]:
        yield "--lambda-detail has an effect only with --high-resolution-crops; leave it out"
    if options["high_resolution_crops"] and options["compile"]:
        yield "--high-resolution-crops: found --compile, which would compile every position of the crop; leave it out"
    if options["lambda_imagenet"] and options["imagenet_weights"] is None:
        yield "--lambda-imagenet: found no --imagenet-weights, expected the file that training started from"
    if not (options["lambda_mix"] or options["lambda_masked"]):
        for name in (name for name in ("strong_jitter", "strong_blur") if name in given):
            yield f"{flag(name)} has no effect with --lambda-mix 0 and --lambda-masked 0; leave it out"
    if options["ssl_target_dir"] is not None and not options["lambda_masked"]:
        for name in (name for name in _OF_THE_TEACHER if name in given):
            yield f"{flag(name)} has no effect: --ssl-target-dir replaces the teacher's labels; leave one of them out"
    if "pseudo_threshold" in given and options["pseudo_selection"] != "image":
        yield "--pseudo-threshold has an effect only with --pseudo-selection image, found class; leave it out"
    if not any(options[f"lambda_{name}"] for name in ("pseudo", "mix", "masked")):
        yield "--lambda-pseudo, --lambda-mix and --lambda-masked are 0: nothing is learnt from the teacher; give one"
