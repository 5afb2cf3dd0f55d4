"""Checks before any data are read or drawn: for missing files, and for folders that are in use.

The messages name the command that makes a missing file.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from model.terms.image_level import fda_window
from utils.options.config import resolve
from utils.options.flags import flag
from utils.options.table import TRAIN, TRAINING, Options
from utils.setup import networks
from utils.states import checkpoint
from utils.states.weights import describe_file
from utils.system import lock
from utils.system.errors import UserError, fault
from utils.system.logs import logger

_MAKERS = {"step1": "train_step1.py", "step2": "train_step2.py", "restyle": "restyle_source.py train"}
"""The script that writes a folder below `snapshots/PRESET`."""
_FOLDERS = {"pseudo": "ssl_target_dir", "restyle_apply": "out"}
"""The option for the folder of a script that writes into another one than `--snapshot-dir`."""


def refuse(options: Options, script: str) -> None:
    """Raises UserError if weights that the script needs or pseudo-labels are missing, if its folder holds another run
    or is in use, or if the checkpoint is of high-resolution crops and the training is without.

    Pseudo-labels that stage 2 does not use are mentioned in the log.
    """
    resumed = networks.resumed_from(options) if script in TRAINING else None
    path = str(resumed or options.restore_from)
    if path != "none":
        _refuse_missing(path, options, resumed, script)
    if script == "restyle_train" and options.semantic is not None and not Path(options.semantic).exists():
        raise UserError(
            f"--semantic: {options.semantic} does not exist; expected the checkpoint of a trained segmenter: give "
            f"last.pth of a training script, or leave the flag out"
        )
    if script == "step2" and options.lambda_imagenet and not Path(str(options.imagenet_weights)).exists():
        raise UserError(
            f"--imagenet-weights: {options.imagenet_weights} does not exist; expected the weights that the backbone "
            f"started from"
        )
    if script == "step2":
        if networks.method_class(options, script).uses_target_labels(options):
            _refuse_without_pseudo_labels(options)
        elif options.ssl_target_dir is None:
            _mention_unused_pseudo_labels(options)
    if script in TRAINING:
        refuse_used(Path(options.snapshot_dir), resumed, overwrite=options.overwrite)
    if script in (*TRAINING, *_FOLDERS):
        with lock.held_for_all(Path(getattr(options, _FOLDERS.get(script, "snapshot_dir")))):
            pass
    if path != "none" and script in TRAIN:
        _refuse_crops(path, options)
    if script in TRAIN and options.image_level == "fda":
        _mention_small_window(options.fda_beta, options.crop or options.input_size)


def _mention_small_window(beta: float, size: tuple[int, int]) -> None:
    """Log that FDA changes only the mean colour, if its window is of one frequency."""
    if not fda_window(beta, size):
        found = f"--fda-beta {beta:g}: only changes the mean colour of images of {size[0]}x{size[1]}"
        logger.info("attention: %s; give at least %.3f", found, 1 / min(size) + 5e-4)


def _refuse_crops(path: str, options: Options) -> None:
    """Raises UserError if a checkpoint of high-resolution crops is to be trained without them."""
    if not options.high_resolution_crops and describe_file(path).high_resolution_crops:
        raise UserError(
            f"{path}: trained with --high-resolution-crops, expected a checkpoint without; give another one, or "
            f"train_step2.py --method plus --high-resolution-crops"
        )


def refuse_used(folder: Path, resumed: Path | None, *, overwrite: bool) -> None:
    """Raises UserError if `folder` holds a run that is neither resumed (the path of its checkpoint) nor replaced."""
    last = folder / "last.pth"
    here = resumed is not None and resumed.resolve().parent == folder.resolve()
    if last.exists() and not here and not overwrite:
        raise UserError(
            f"--snapshot-dir: found {last} of an earlier run, expected a new folder: add --continue-train to "
            f"resume it, --overwrite to replace it, or choose another --snapshot-dir"
        )


def _refuse_missing(path: str, options: Options, resumed: Path | None, script: str) -> None:
    if "://" in path:
        raise UserError(
            f"--restore-from: {path}: nothing is downloaded; expected a file: fetch it yourself (pretrained/README.md)"
        )
    if fault(path) != "not found":
        checkpoint.require_file(Path(path))
        return
    if resumed:
        raise UserError(
            f"--continue-train: {path} does not exist; expected a checkpoint of this stage: name one, or leave the "
            f"flag out to start anew"
        )
    makers = [name for run, name in _MAKERS.items() if Path(path) == Path(f"snapshots/{options.preset}/{run}/last.pth")]
    made = f"; `{_command(makers[0], options)}` makes it" if makers else ""
    expected = f"the checkpoint of {_MAKERS['restyle'] if script == 'restyle_apply' else 'the previous stage'}{made}"
    if script == "step1":
        expected = "pretrained weights (see pretrained/README.md), a checkpoint, or 'none' for random weights"
    raise UserError(f"--restore-from: {path} does not exist; expected {expected}")


def _command(maker: str, options: Options) -> str:
    """`python MAKER` with the preset, and with the method unless it is the preset's."""
    words = ["python", *maker.split(), flag("preset"), options.preset]
    if options.method != resolve("step1", {"preset": options.preset}).method:
        words += [flag("method"), options.method]
    return shlex.join(words)


def _refuse_without_pseudo_labels(options: Options) -> None:
    """The reader names single masks that are missing; here there is none at all."""
    assert options.ssl_target_dir is not None  # else no method uses any
    folder = Path(options.ssl_target_dir)
    if not _has_masks(folder):
        found = "no mask in it" if folder.exists() else "does not exist"
        raise UserError(
            f"--ssl-target-dir: {folder}: {found}; expected a pseudo-label for each target image: "
            f"`{pseudo_label_command(options)}` makes them"
        )


def _mention_unused_pseudo_labels(options: Options) -> None:
    usual = resolve("pseudo", {"preset": options.preset}).ssl_target_dir
    if usual is not None and _has_masks(Path(usual)):
        logger.info(
            "--method %s does not use the pseudo-labels in %s; --ssl-target-dir %s would use them instead of the "
            "teacher's labels",
            *(options.method, usual, usual),
        )


def _has_masks(folder: Path) -> bool:
    return next(folder.rglob("*.png"), None) is not None


def pseudo_label_command(options: Options) -> str:
    """`Generate_Pseudo_Label.py` with those options of stage 2 that are not its own defaults."""
    words = ["python", "Generate_Pseudo_Label.py", flag("preset"), options.preset]
    usual = resolve("pseudo", {"preset": options.preset})
    given = {"target": options.target, "data_dir_target": options.data_dir_target}
    if options.target != usual.target:  # one word names both
        given = {"target": f"{options.target}:{options.data_dir_target}"}
    for name in ("data_list_target", "classes", "restore_from", "ssl_target_dir"):
        given[name] = getattr(options, name)
    for name, value in given.items():
        if value is not None and value != getattr(usual, name):
            words += [flag(name), str(value)]
    return shlex.join(words)
