"""A run as it would be read from its folder, with some of everything."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from dataset.classes import CITYSCAPES
from utils.reporting import notes
from utils.reporting.features import Points
from utils.reporting.run import Picture, RunData

NAMES = CITYSCAPES.names


def png(shade: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 4), (shade, shade, shade)).save(encoded, "PNG")
    return encoded.getvalue()


def picture(group: str, name: str, shade: int = 0) -> Picture:
    return Picture(group, name, 40, (8, 4), png(shade), "png")


def points() -> Points:
    draw = np.random.default_rng(0)
    classes = np.array([0, 0, 10, 10, 13, 13], np.uint8)
    target = np.array([False, True] * 3)
    instance = np.array([False] * 4 + [True] * 2)
    vectors, layout = (draw.normal(size=(6, size)).astype(np.float32) for size in (4, 2))
    return Points(vectors, classes, target, instance, layout)


def record(step: int, seg: float) -> dict[str, object]:
    ready = {"ready_stuff": 3, "ready_things": step // 20}
    return {"step": step, "seg": seg, "adv_cls": seg / 2, "D_output": 0.7, "lr_segmenter": 0.01, **ready}


def score(step: int, road: float) -> dict[str, object]:
    iou = {name: None if name == "train" else road for name in NAMES}
    label_free = {"snd": 1.5, "infomax": 0.2, "agreement": 0.9}
    return {"step": step, "miou": road, "classes": "19", "miou_16": road / 2, "iou": iou, **label_free}


def stage(name: str, road: float) -> RunData:
    records = [record(20, 2.0), score(20, road / 2), record(40, 1.0), score(40, road)]
    return RunData(name, records, {"classes": notes.class_note(CITYSCAPES), "preset": "builtin", "steps": 40})


def full() -> RunData:
    """Stage 2, to be compared with source only and stage 1."""
    confusion = np.zeros((19, 19), int)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = 90, 10, 5
    session = {
        "command": "train_step2.py --preset builtin",
        "began": "2026-01-02T03:04:05+00:00",
        "from_step": 0,
        "step": 40,
        "seconds": 3725.0,
        "memory_mb": 1536,
        "gpu_memory_mb": 4096,
        "revision": "abc1234",
        "machine": "CPU, 2 threads; Linux",
        "processes": 2,
    }
    run = stage("step2", 0.5)
    note = {
        **run.note,
        "seed": 7,
        "batch": 8,
        "differs": {"--num-steps": 40, "--input-size": [96, 64], "--cpu": True},
        "data": {"source": {"from": "gta5:data/<mine>", "images": 6}, "target": {"from": "cityscapes:b", "images": 4}},
        "sessions": [session],
    }
    labels = {name: {"threshold": 0.75, "kept": 30, "predicted": 60} for name in NAMES[:2]}
    labels["train"] = {"threshold": 0.0, "kept": 0, "predicted": 0}
    return replace(
        run,
        note=note,
        options={"preset": "builtin", "random_seed": 7, "input_size": [96, 64]},
        scores={"step": 40, "classes": list(NAMES), "confusion": confusion.tolist(), "no_class": [0] * 19},
        pseudo_labels={"masks": 4, "classes": labels},
        memory={"step": 40, "classes": {"road": {"written": 6, "slots": 5}, "car": {"written": 25, "slots": 50}}},
        pictures=[picture("example 1", name, i) for i, name in enumerate(("image", "truth", "prediction"))],
        before=points(),
        after=points(),
        beside=[stage("source_only", 0.25), stage("step1", 0.375)],
    )
