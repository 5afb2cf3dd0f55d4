"""How `--help` presents the options: their groups, and which options the short help shows."""

from __future__ import annotations

FIRST_OF = {
    "preset": "task and data",
    "backbone": "network",
    "generator_width": "restyling",
    "source_only": "terms",
    "ema": "self-training (--method plus)",
    "batch_size": "schedule and machine",
    "continue_train": "files",
    "flip": "prediction and saved masks",
}
"""The first option of every group, in the order of the fields of `Options`."""

COMMON = frozenset(
    (
        *("preset", "method", "source", "target", "classes", "data_dir", "data_dir_target", "set"),
        *("input_size", "input_size_target", "restore_from", "source_only", "batch_size", "num_steps"),
        *("learning_rate", "random_seed", "amp", "cpu", "continue_train", "snapshot_dir", "overwrite"),
        *("ssl_target_dir", "save", "save_ids", "json", "flip", "scales", "pred_ids", "workers", "out", "semantic"),
    )
)
"""The options that most people use, which `-h` shows; `--help-all` shows all of them."""

_FOLDERS = ("cache", "save", "out")
_METAVARS = {"int": "N", "float": "X", "tuple[int, int]": "W,H", "tuple[float, ...]": "X,X,..."}


def metavar(name: str, kind: str) -> str:
    """The placeholder that the help shows for an option's value. kind: its annotation, without None."""
    if kind != "str":
        return _METAVARS[kind]
    if name.endswith("_dir") or "_dir_" in name or name in _FOLDERS:
        return "DIR"
    return "NAME" if name == "set" else "FILE"
