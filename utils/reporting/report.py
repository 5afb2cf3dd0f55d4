"""The report of a training run: which files the run keeps for it, and when it is written.

    images = Images(data.source, data.target, data.test)
    begin(folder, options, "step1", images, segmenter, device)              # once, before the first step
    sink.record(score_record(...)); write_scores(...)                       # at every score (utils.reporting.notes)
    look(folder, options, images, segmenter, 400, sinks, memory=memory)     # at every save, and at the end
    sink.flush()                                                            # then, of all sinks; `Report` is the last

If there are several processes, one does this, and the others need not wait for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from dataset.base import SegmentationDataset
from model.networks.deeplab import DeepLab
from model.terms.memory import SourceMemory
from model.terms.regions import ClassSplit
from utils.options.table import Options
from utils.reporting import features, notes
from utils.reporting.page import render
from utils.reporting.pictures import examples
from utils.reporting.run import read_run
from utils.reporting.sinks import PICTURES, Sink
from utils.system.files import write_bytes
from utils.system.logs import logger

REPORT = "report.html"


class Images(NamedTuple):
    """The data sets of a run: labelled source, target for training, and labelled target images, if any."""

    source: SegmentationDataset
    target: SegmentationDataset | None = None
    test: SegmentationDataset | None = None


def begin(
    folder: Path,
    options: Options,
    stage: str,
    images: Images,
    segmenter: DeepLab | None,
    device: torch.device,
    *,
    step: int = 0,
    processes: int = 1,
) -> None:
    """Note what starts, or resumes from `step`, and save the features of the network at the start.

    segmenter: None if the method has none.
    """
    counts = {role: len(data) for role, data in images._asdict().items() if data is not None}
    masks = None if images.target is None else images.target.pseudo_label_dir
    table = images.source.table
    notes.begin(folder, options, stage, table, counts, device, masks=masks, step=step, processes=processes)
    if not step and segmenter is not None:
        with harmless("features"):
            _keep_features(folder / features.BEFORE, options, images, segmenter)


def clear(folder: Path) -> None:
    """Remove the files that a replaced run has left for its report."""
    kept = (notes.RUN, notes.SCORES, notes.PSEUDO_LABELS, notes.MEMORY, features.BEFORE, features.AFTER)
    for name in (REPORT, *kept):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / PICTURES, ignore_errors=True)


def look(
    folder: Path,
    options: Options,
    images: Images,
    segmenter: DeepLab,
    step: int,
    sinks: Iterable[Sink],
    *,
    memory: SourceMemory | None = None,
    last: bool = True,
) -> None:
    """Give example images to the sinks, and save what the report shows of this step: features, and how full the memory
    is. last: at the end of a run, whose features get their places on the map."""
    seen = images.test or images.target or images.source
    truth = seen is not images.target
    with harmless("pictures"):
        held = notes.thresholds(folder, seen.table.names)
        for name, picture in examples(segmenter, seen, thresholds=held, amp=options.amp, truth=truth):
            for sink in sinks:
                sink.panel(step, name, picture)
    with harmless("features"):
        _keep_features(folder / features.AFTER, options, images, segmenter, placed=last)
    if memory is not None:
        notes.write_memory(folder, step, memory, images.source.table)


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Logs any error in the block: a run of days must not end because of a picture."""
    try:
        yield
    except Exception as error:
        logger.info("attention: no %s: %s: %s", what, type(error).__name__, error)


def _keep_features(path: Path, options: Options, images: Images, segmenter: DeepLab, *, placed: bool = True) -> None:
    table, target = images.source.table, images.target or images.test
    if target is not None:
        split = ClassSplit(table.num_classes, table.stuff, table.things)
        found = features.points(segmenter, images.source, target, split, amp=options.amp)
        features.save(path, found, placed=placed)


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from the files of the run so far; returns its path.

    The map of the newest features is left out until they have places on it, which takes seconds: see `look`.
    """
    write_bytes(folder / REPORT, render(read_run(folder, place=False)).encode())
    return folder / REPORT


class Report(Sink):
    """Writes report.html into the folder of a run: at every `flush`, after each checkpoint and score, and at the end.

    It reads the files of the other sinks, and must therefore be the last one in the list. An error in it is logged, and
    never ends the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def flush(self) -> None:
        with harmless("report"):
            write_report(self._folder)

    def close(self) -> None:
        self.flush()
