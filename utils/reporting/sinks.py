"""The outputs of a run for people: console, log.jsonl, TensorBoard, picture files.

A run has a list of sinks, and gives the same to each of them:

    sinks = [Console("step1", 2000), JsonLines(folder / "log.jsonl"), Pictures(folder)]
    for sink in sinks:
        sink.record({"step": 20, "seg": 0.5, "lr_segmenter": 0.01, "iterations_per_s": 2.0})
        sink.panel(20, "target/prediction", picture)  # uint8 RGB [H, W, 3]
    for sink in sinks:
        sink.close()

A record has an integer "step", and numbers by name (`utils.reporting.names` says what the names mean). The record of a
score has "miou". None stands for a value that does not exist. Pictures whose names share the part before a slash show
the same pixels: the report shows them over each other.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from utils.reporting import tables
from utils.reporting.names import describe
from utils.system.errors import UserError
from utils.system.files import write_bytes
from utils.system.logs import logger

Record = Mapping[str, Any]
Picture = npt.NDArray[np.uint8]


class Sink:
    """The interface of all sinks. By default, a sink ignores what it gets."""

    def record(self, record: Record) -> None:
        """Take one line of the log."""

    def panel(self, step: int, name: str, image: Picture) -> None:
        """Take a picture of a step: uint8 RGB [H, W, 3]."""

    def flush(self) -> None:
        """Make everything so far visible: called after each checkpoint with its score and pictures."""

    def close(self) -> None:
        """Finish; nothing follows."""


class Console(Sink):
    """A table with aligned columns on the project's logger, and one line per score.

    The header is printed before the first row, and again only if a column is added. Columns keep their order.

    title: what is running, such as "step1"; steps: the step at which the run ends, for the time left; totals: the
    largest value of a count, by its key, such as {"ready_stuff": 8}.
    """

    def __init__(self, title: str, steps: int, totals: Mapping[str, int] | None = None) -> None:
        self._title, self._steps, self._totals = title, steps, dict(totals or {})
        self._headings: list[str] = []

    def record(self, record: Record) -> None:
        if "miou" in record:
            logger.info("%s %d  target mIoU %s", self._title, record["step"], tables.means(record))
            return
        if "snd" in record:
            scores = tables.cells({key: record[key] for key in ("snd", "infomax", "agreement")}, {})
            shown = "  ".join(f"{key} {value}" for key, value in scores.items())
            logger.info("%s %d  without labels: %s", self._title, record["step"], shown)
            return
        row = tables.cells(record, self._totals)
        if "it/s" in row:
            left = round((self._steps - record["step"]) / max(record["iterations_per_s"], 1e-9))
            row["left"] = str(timedelta(seconds=left))
        if not set(row) <= set(self._headings):
            self._headings = tables.merged(self._headings, list(row))
            self._print("step", {heading: heading for heading in self._headings})
        self._print(str(record["step"]), row)

    def _print(self, step: str, row: tables.Cells) -> None:
        first = f"{self._title} {step:>{max(len(str(self._steps)), len('step'))}}"
        others = (f"{row.get(h, '-'):>{max(len(h), _WIDTHS.get(h, 9))}}" for h in self._headings)
        logger.info("%s", "  ".join((first, *others)))


_WIDTHS = {"wait": 4, "it/s": 6, "left": 8, "stuff": 5, "things": 6}


class JsonLines(Sink):
    """A file of one JSON object per line, each written at once, so that no line is half-written.

    keep: decides which lines of an earlier run stay (default: none).
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], bool] = lambda _: False) -> None:
        self.path = path
        kept = [record for record in read_records(path) if keep(record)]
        write_bytes(path, "".join(map(_line, kept)).encode())
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the run

    def record(self, record: Record) -> None:
        """Append a line. Raises UserError if the disk is full."""
        line = _line(record).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room") from error

    def sync(self) -> None:
        """Make the lines survive a power cut, like the checkpoint that is about to be written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, without broken lines, which a power cut may leave; none if there is no file."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield record


class TensorBoard(Sink):
    """TensorBoard files: every number of a record, under a name that says what it is, and every picture.

    folder: where they are written; step: where the run resumes; later entries of an earlier run are hidden.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._board = _summary_writer()(str(folder), purge_step=step + 1)

    @staticmethod
    def check() -> None:
        """Raise UserError if the package is missing."""
        _summary_writer()

    def record(self, record: Record) -> None:
        for key, value in _numbers(record):
            name = describe(key.partition("/")[0])
            self._board.add_scalar(f"{name.group}/{key} ({name.title})", value, record["step"])
        self._board.flush()

    def panel(self, step: int, name: str, image: Picture) -> None:
        self._board.add_image(name, image, step, dataformats="HWC")
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def _numbers(record: Record) -> Iterable[tuple[str, float]]:
    """The numbers of a record; those of a table by class are called KEY/CLASS."""
    for key, value in record.items():
        for name, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            if key != "step" and isinstance(number, (int, float)):
                yield f"{key}/{name}" if name else key, number


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard: the package tensorboard is missing; pip install tensorboard") from error
    return SummaryWriter


PICTURES = "panels"


class Pictures(Sink):
    """The newest picture of each name as `folder`/panels/NAME.png, with its step as metadata; the report shows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PICTURES

    def panel(self, step: int, name: str, image: Picture) -> None:
        note = PngInfo()
        note.add_text("step", str(step))
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG", pnginfo=note)
        write_bytes(self._folder / f"{name}.png", encoded.getvalue())
