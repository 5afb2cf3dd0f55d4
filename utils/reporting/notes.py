"""Small JSON files that a run keeps in its folder for the report, beside config.json and log.jsonl.

run.json            what was run: command, machine, data, classes, time, memory    `begin`, `progress`
scores.json         the newest scores on labelled target images                    `write_scores`
pseudo_labels.json  thresholds and coverage of the pseudo-labels per class         `write_pseudo_label_note`
memory.json         how full the source memory is per class                        `write_memory`
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.classes import ClassTable
from model.terms.memory import RingBuffers, SourceMemory
from utils.options import config
from utils.options.flags import flag
from utils.options.table import Options
from utils.prediction.metrics import ConfusionMatrix
from utils.prediction.pseudo_labels import Result
from utils.system.files import write_json
from utils.system.logs import revision
from utils.system.transfer import to_host

RUN, SCORES, PSEUDO_LABELS, MEMORY = "run.json", "scores.json", "pseudo_labels.json", "memory.json"

_OF_FILES = ("preset", "snapshot_dir", "log_dir", "overwrite", "continue_train")
"""Options that say where a run's files are, not what it computes, and the preset itself."""
Json = dict[str, Any]


def read(path: Path) -> Json:
    """The content of a note; empty if the file is missing or not a JSON object."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def differing_options(options: Options, stage: str) -> Json:
    """The options of a stage ("step1", "step2") that differ from those of its preset, by flag. Options that only say
    where a run's files are, and those that the preset leaves to the weights ("auto"), are left out."""
    of_arm = {"preset": options.preset, "source_only": options.source_only}
    planned = config.resolve(stage, of_arm).num_steps
    # Resolved for as many steps as the run has, because a preset shortens other options with them.
    default = config.resolve(stage, of_arm | {"num_steps": options.num_steps}).as_dict()
    default |= {"source_only": False, "num_steps": planned}
    mine = options.as_dict()
    taken = [item.name for item in fields(options) if stage in item.metadata["on"] and item.name not in _OF_FILES]
    differing = {name: mine[name] for name in taken if mine[name] != default[name] and default[name] != "auto"}
    return {flag(name): value for name, value in differing.items()}


def begin(
    folder: Path,
    options: Options,
    stage: str,
    table: ClassTable,
    images: Mapping[str, int],
    device: torch.device,
    *,
    masks: Path | None = None,
    step: int = 0,
    processes: int = 1,
) -> None:
    """Note in run.json what starts. A run that resumes from a `step` above 0 is added to the existing note. The note of
    the pseudo-labels is copied, if there is one.

    images: number of images by role ("source", "target", "test"); masks: the folder of the pseudo-labels that the run
    learns from, if any; processes: number of processes of torchrun.
    """
    before = read(folder / RUN).get("sessions", []) if step else []
    session = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "began": datetime.now().astimezone().isoformat(timespec="seconds"),
        "from_step": step,
        "step": step,
        "seconds": 0.0,
        "revision": revision(),
        "machine": machine(device),
        "processes": processes,
    }
    roots = {
        "source": f"{options.source}:{options.data_dir}",
        "target": f"{options.target}:{options.data_dir_target}",
        "test": f"{options.target}:{options.data_dir_target}, split {options.set}",
    }
    write_json(
        folder / RUN,
        {
            "stage": stage,
            "preset": options.preset,
            "steps": options.num_steps_stop,
            "seed": options.random_seed,
            "batch": options.batch_size * options.iter_size * processes,
            "differs": differing_options(options, stage),
            "data": {role: {"from": roots[role], "images": count} for role, count in images.items()},
            "classes": class_note(table),
            "sessions": [*before, session],
        },
    )
    labels = read(masks / PSEUDO_LABELS) if masks is not None else {}
    if labels:
        write_json(folder / PSEUDO_LABELS, labels)


def class_note(table: ClassTable) -> Json:
    return {
        "table": table.name,
        "names": list(table.names),
        "palette": [list(colour) for colour in table.palette],
        "stuff": list(table.stuff),
        "things": list(table.things),
    }


def progress(folder: Path, step: int, device: torch.device) -> None:
    """Note the step that the run has reached, how long it took, and its peak memory."""
    content = read(folder / RUN)
    if not content.get("sessions"):
        return
    session = content["sessions"][-1]
    began = datetime.fromisoformat(session["began"]).timestamp()
    session |= {"step": step, "seconds": round(time.time() - began, 1), **peak_memory(device)}
    write_json(folder / RUN, content)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak memory so far, in MiB: of this process, and of what torch has allocated on its GPU, if it uses one."""
    found = {}
    with suppress(ImportError):  # Windows has no such module
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        found["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
    if device.type == "cuda":
        found["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return found


def machine(device: torch.device) -> str:
    """Device, Python and torch, in one line."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{device_name(device)}; {system}, Python {platform.python_version()}, torch {torch.__version__}"


def device_name(device: torch.device) -> str:
    """The name of a GPU, or how many threads torch uses on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def score_record(step: int, scores: ConfusionMatrix, table: ClassTable, main: str) -> Json:
    """The record of a score: "miou" over the subset `main`, "classes" (its name), "miou_NAME" for the other subsets,
    and "iou" by class; 0 to 1, None for an absent class. "averaged": the number of classes in the mean of a subset, if
    some of its classes are absent."""
    content = scores.as_dict(table)
    others = {f"miou_{name}": value for name, value in content["means"].items() if name != main}
    fewer = {name: n for name, n in scores.averaged(table).items() if n < len(table.subsets[name])}
    record = {"step": step, "miou": content["means"][main], "classes": main, **others, "iou": content["iou"]}
    return record | ({"averaged": fewer} if fewer else {})


def write_scores(folder: Path, step: int, scores: ConfusionMatrix, table: ClassTable) -> None:
    """Write scores.json: the step, and what `ConfusionMatrix.as_dict` holds."""
    write_json(folder / SCORES, {"step": step, "images": scores.images, **scores.as_dict(table)})


def write_pseudo_label_note(folder: Path, result: Result, table: ClassTable) -> None:
    """Write pseudo_labels.json: by class, the threshold, and the numbers of predicted and kept pixels."""
    rows = zip(table.names, result.thresholds, result.kept, result.predicted, strict=True)
    by_class = {
        name: {"threshold": float(threshold), "kept": int(kept), "predicted": int(predicted)}
        for name, threshold, kept, predicted in rows
    }
    write_json(folder / PSEUDO_LABELS, {"masks": result.masks, "classes": by_class})


def thresholds(folder: Path, names: Sequence[str]) -> np.ndarray | None:
    """The thresholds [C] noted in pseudo_labels.json; None if there is no such note for these classes."""
    by_class = read(folder / PSEUDO_LABELS).get("classes", {})
    if list(by_class) != list(names):
        return None
    return np.array([by_class[name]["threshold"] for name in names])


def write_memory(folder: Path, step: int, memory: SourceMemory, table: ClassTable) -> None:
    """Write memory.json: by class, the number of vectors written and the number of slots."""
    by_class: Json = {}
    for ids, buffers in ((memory.split.stuff, memory.stuff), (memory.split.things, memory.things)):
        by_class |= {table.names[i]: fill for i, fill in zip(ids, _fill(buffers), strict=True)}
    write_json(folder / MEMORY, {"step": step, "classes": {n: by_class[n] for n in table.names if n in by_class}})


def _fill(buffers: RingBuffers) -> list[dict[str, int]]:
    return [{"written": int(count), "slots": buffers.size} for count in to_host(buffers.count)]
