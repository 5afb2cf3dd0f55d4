"""Checks before any data are read or drawn: for missing files, and for folders that are in use.

The messages name the command that makes a missing file.
"""

from __future__ import annotations

from pathlib import Path

from utils.options.config import RESTYLE, TRAIN, Options
from utils.options.flags import flag
from utils.setup import build
from utils.system import distributed, lock
from utils.system.errors import UserError

_MAKERS = {"step1": "train_step1.py", "step2": "train_step2.py", "restyle": "restyle_source.py train"}
"""The script that writes a folder below `snapshots/PRESET`."""


def refuse(options: Options, script: str) -> None:
    """Raises UserError if a checkpoint that the script starts from is missing, or if its folder holds another run or is
    in use."""
    resumed = build.resumed_from(options) if script in TRAIN else None
    path = str(resumed or options.restore_from)
    if path != "none" and script not in RESTYLE:
        _refuse_missing(path, options, resumed, script)
    if script not in TRAIN:
        return
    folder = Path(options.snapshot_dir)
    refuse_used(folder, resumed, overwrite=options.overwrite)
    if distributed.is_main():
        with lock.held(folder):
            pass


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
    if Path(path).exists():
        return
    if resumed:
        raise UserError(
            f"--continue-train: {path} does not exist; expected a checkpoint of this stage: name one, or leave the "
            f"flag out to start anew"
        )
    makers = [name for run, name in _MAKERS.items() if Path(path) == Path(f"snapshots/{options.preset}/{run}/last.pth")]
    made = f"; `python {makers[0]} {flag('preset')} {options.preset}` makes it" if makers else ""
    others = ", or pretrained weights (pretrained/README.md says where to get them), or 'none' for random weights"
    raise UserError(
        f"--restore-from: {path} does not exist; expected the checkpoint of the previous stage"
        f"{others if script == 'step1' else ''}{made}"
    )
