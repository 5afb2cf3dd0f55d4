"""Reading the files of a run for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from utils.reporting import features, notes
from utils.reporting.charts import Series, Value
from utils.reporting.features import Points
from utils.reporting.names import describe
from utils.reporting.sinks import PICTURES, read_records
from utils.system.errors import UserError

LOG = "log.jsonl"
MOST_BESIDE = 5  # largest number of runs that are shown beside one
ORDER = ("source_only", "step1", "step2")
_TITLES = {"source_only": "source only", "step1": "stage 1", "step2": "stage 2"}


@dataclass(frozen=True)
class Picture:
    """A picture of a group, all of which show the same pixels. content: an encoded PNG or JPEG file."""

    group: str
    name: str
    step: int | None
    size: tuple[int, int]
    content: bytes
    kind: str  # "png" or "jpeg"


@dataclass(frozen=True)
class RunData:
    """A run as the report shows it. Everything but `name` and `records` may be empty.

    name: of its folder; records: from log.jsonl; note, scores, pseudo_labels, memory: the notes of
    `utils.reporting.notes`; options: from config.json; before, after: features at its start and at its last checkpoint;
    beside: runs in folders beside it, without pictures and features.
    """

    name: str
    records: Sequence[dict[str, Any]]
    note: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    pseudo_labels: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    before: Points | None = None
    after: Points | None = None
    beside: Sequence[RunData] = ()

    @property
    def title(self) -> str:
        """A readable name."""
        return _TITLES.get(self.name, self.name.replace("_", " "))

    @property
    def step(self) -> int:
        return max((record["step"] for record in self.records), default=0)

    @property
    def classes(self) -> dict[str, tuple[int, int, int]]:
        """The colour of each class by its name, in the order of the class table."""
        table = self.note.get("classes", {})
        return {name: tuple(colour) for name, colour in zip(table.get("names", ()), table.get("palette", ()))}

    @property
    def last_score(self) -> dict[str, Any]:
        """The last record of target scores; empty if there is none."""
        return next((record for record in reversed(self.records) if "miou" in record), {})

    @property
    def main_set(self) -> str:
        """The name of the class set whose mean the records call "miou"; the others are "miou_NAME"."""
        return str(self.last_score.get("classes", "all"))

    def series(self, key: str, colour: str = "var(--run0)") -> Series:
        """The values of a key over the steps; "iou/road" is a value of a table by class."""
        outer, _, inner = key.partition("/")
        held = [record for record in self.records if outer in record]
        values = [record[outer].get(inner) if inner else record[outer] for record in held]
        return Series(self.title, [record["step"] for record in held], values, colour)

    def last_table(self, key: str) -> dict[str, Value]:
        """The last table by class of a key; empty if there is none."""
        tables = [record[key] for record in self.records if isinstance(record.get(key), dict)]
        return tables[-1] if tables else {}

    def last(self, key: str) -> Value:
        """The last value of a key; None if there is none."""
        values = self.series(key).y
        return values[-1] if values else None

    def keys(self, group: str) -> list[str]:
        """The keys of a group (`utils.reporting.names`) that have a number in some record, in their order there."""
        found = dict.fromkeys(
            key
            for record in self.records
            for key, value in record.items()
            if key != "step" and isinstance(value, (int, float)) and describe(key).group == group
        )
        return list(found)


def read_run(folder: Path, *, beside: bool = True, pictures: bool = True, place: bool = True) -> RunData:
    """Read the files of a run in `folder`, by default with the runs beside it, and with pictures and features.
    place: compute the places of features on their map that the run itself has not computed, which takes seconds.

    Raises UserError if the folder has no log.jsonl. Notes that are missing, or not JSON objects, are left out; the page
    leaves out those of another shape.
    """
    if folder.is_file():
        raise UserError(f"{folder}: a file, expected the folder of a run (its --snapshot-dir): give {folder.parent}")
    if not (folder / LOG).is_file():
        raise UserError(f"{folder}: no {LOG} in it; expected the folder of a run (its --snapshot-dir)")
    return RunData(
        name=folder.resolve().name,
        records=list(read_records(folder / LOG)),
        note=notes.read(folder / notes.RUN),
        options=notes.read(folder / "config.json"),
        scores=notes.read(folder / notes.SCORES),
        pseudo_labels=notes.read(folder / notes.PSEUDO_LABELS),
        memory=notes.read(folder / notes.MEMORY),
        pictures=_pictures(folder / PICTURES) if pictures else (),
        before=features.load(folder / features.BEFORE, place=place) if pictures else None,
        after=features.load(folder / features.AFTER, place=place) if pictures else None,
        beside=[read_run(other, beside=False, pictures=False) for other in _beside(folder)] if beside else (),
    )


def _beside(folder: Path) -> list[Path]:
    """The folders of other runs beside a run's: the stages in their order first, then others by name."""
    own = folder.resolve()
    others = [path.parent for path in own.parent.glob(f"*/{LOG}") if path.parent != own]
    known = [path for name in ORDER for path in others if path.name == name]
    return [*known, *sorted(path for path in others if path not in known)][:MOST_BESIDE]


def _pictures(folder: Path) -> list[Picture]:
    found = []
    for path in sorted(folder.rglob("*.png"), key=_place):
        try:
            with Image.open(path) as image:
                step = image.info.get("step", "")
                content, kind = _small(image.convert("RGB"))
                group = path.relative_to(folder).parent.as_posix()
                name = path.stem
                found.append(
                    Picture(
                        name if group == "." else group,
                        name,
                        int(step) if str(step).isdecimal() else None,
                        image.size,
                        content,
                        kind,
                    )
                )
        except Exception:  # whatever Pillow raises for a foreign or damaged file: the report leaves it out
            continue
    return found


_PICTURES_FIRST = ("source", "target", "image", "truth", "prediction", "overlay", "pseudo-label", "confidence")


def _place(path: Path) -> tuple[str, int, str]:
    """Pictures by group; in each group, inputs come before results."""
    first = _PICTURES_FIRST.index(path.stem) if path.stem in _PICTURES_FIRST else len(_PICTURES_FIRST)
    return str(path.parent), first, path.stem


def _small(image: Image.Image) -> tuple[bytes, str]:
    """The smaller one of a PNG, which suits label maps, and a JPEG, which suits photographs."""
    found = []
    for kind in ("png", "jpeg"):
        encoded = io.BytesIO()
        image.save(encoded, kind, quality=85)  # of the JPEG
        found.append((encoded.getvalue(), kind))
    return min(found, key=lambda one: len(one[0]))
