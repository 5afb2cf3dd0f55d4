"""The report of a run, or of several side by side, as one HTML page that needs no other files.

`render` and `compare` are pure functions of what `utils.reporting.run.read_run` has read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from utils.reporting import sections
from utils.reporting.run import ORDER, Picture, RunData
from utils.reporting.sections import Section
from utils.reporting.tables import averaged
from utils.system.logs import logger

_HERE = Path(__file__).resolve().parent

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="soft">$subtitle</p>
$figures
</header>
<nav><div>$links</div></nav>
<main>
$sections
</main>
<footer class="soft">$left_out</footer>
<script>
$script</script>
</body>
</html>
""")


def render(run: RunData) -> str:
    """The report of one run, with the target scores of the runs beside it."""
    run = replace(_without_broken_notes(run), beside=[_without_broken_notes(other) for other in run.beside])
    family = _in_order([*run.beside, run], run)
    shade = sections.colour(family.index(run))
    found = [(picture.name, picture) for picture in run.pictures]
    body = [
        sections.what(run),
        sections.scores(family),
        sections.curves([run], [shade]),
        sections.pictures(found, run.classes),
        sections.pseudo_labels(run),
        sections.source_memory(run, shade),
        sections.confusion(run),
        sections.label_free([run], [shade]),
        sections.feature_map(run),
    ]
    return _page(f"{run.title} · {run.note.get('preset', 'BAFFT')}", _state(run), _tiles(run), body)


def compare(runs: Sequence[RunData]) -> str:
    """Several runs side by side: what differs, scores, curves, and the pictures that they have in common."""
    runs = [_without_broken_notes(run) for run in runs]
    colours = [sections.colour(number) for number, _ in enumerate(runs)]
    titles = _titles(runs)
    named = [replace(run, name=title) for run, title in zip(runs, titles, strict=True)]
    body = [
        sections.overview(named),
        sections.scores(named),
        sections.curves(named, colours),
        sections.pictures(_common_pictures(named), next((run.classes for run in named if run.classes), {})),
        sections.label_free(named, colours),
    ]
    return _page(" · ".join(titles), f"Comparison of {len(runs)} runs", "", body)


def _without_broken_notes(run: RunData) -> RunData:
    """The run without those notes that nothing can be made from, because another program wrote or changed them."""
    for name, show in _SHOWN_BY.items():
        try:
            show(RunData(run.name, (), **{name: getattr(run, name)}))
        except Exception as error:  # whatever is wrong, the note is the cause
            logger.info("attention: %s: broken %s left out: %s: %s", run.name, name, type(error).__name__, error)
            nothing: dict[str, Any] = {name: {}}
            run = replace(run, **nothing)
    return run


def _show_note(run: RunData) -> None:
    sections.what(run)
    sections.overview([run])
    _state(run)
    _tiles(run)
    for colours in run.classes.values():
        sections.rgb(colours)


_SHOWN_BY: dict[str, Callable[[RunData], object]] = {
    "note": _show_note,
    "scores": sections.confusion,
    "pseudo_labels": sections.pseudo_labels,
    "memory": lambda run: sections.source_memory(run, sections.colour(0)),
}
"""What is made from each note of a run."""


def _titles(runs: Sequence[RunData]) -> list[str]:
    """A name for each run, with a number if two would be the same."""
    names = [run.title for run in runs]
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _in_order(runs: Sequence[RunData], last: RunData) -> list[RunData]:
    """The runs in this order: source only, stage 1, stage 2, then the others as they come."""
    return sorted(runs, key=lambda run: ORDER.index(run.name) if run.name in ORDER else len(ORDER) + (run is last))


def _common_pictures(runs: Sequence[RunData]) -> list[tuple[str, Picture]]:
    """The pictures of groups that all runs have. Equal pictures appear once; others get the name of their run."""
    groups = [{picture.group for picture in run.pictures} for run in runs]
    common = set.intersection(*groups) if groups else set()
    found: dict[tuple[str, str, bytes], tuple[str, Picture]] = {}
    for run in runs:
        for picture in (picture for picture in run.pictures if picture.group in common):
            same = {other.content for one in runs for other in one.pictures if _place(other) == _place(picture)}
            title = picture.name if len(same) == 1 else f"{picture.name}, {run.title}"
            found.setdefault((*_place(picture), picture.content), (title, picture))
    order = list(dict.fromkeys(place[:2] for place in found))
    return [found[place] for place in sorted(found, key=lambda place: order.index(place[:2]))]


def _place(picture: Picture) -> tuple[str, str]:
    return picture.group, picture.name


def _state(run: RunData) -> str:
    steps = run.note.get("steps")
    if not steps:
        return f"step {run.step}"
    finished = "finished" if run.step >= steps else "running, or stopped,"
    return f"{finished} at step {run.step} of {steps}"


def _tiles(run: RunData) -> str:
    """The figures that a person looks for first."""
    last = run.last_score
    rate = run.last("iterations_per_s")
    tiles = [
        (
            "target mIoU",
            f"{sections.percent(last['miou'])} %" if last else "–",
            averaged(last, run.main_set) if last else "",
        ),
        ("steps", f"{run.step}", f"of {run.note['steps']}" if run.note.get("steps") else ""),
        ("time", sections.duration(sections.seconds(run)) if sections.sessions(run) else "–", ""),
        ("speed", f"{rate:.2f}" if rate else "–", "iterations/s"),
        ("peak memory", sections.memory(sections.peak(run)), ""),
    ]
    shown = "".join(f"<div><dt>{n}</dt><dd>{v} <small>{escape(more)}</small></dd></div>" for n, v, more in tiles)
    return f'<dl class="figures">{shown}</dl>'


def _page(title: str, subtitle: str, figures: str, body: Sequence[Section]) -> str:
    shown = [section for section in body if section.body]
    missing = [section.missing for section in body if section.missing]
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        figures=figures,
        style=(_HERE / "report.css").read_text(encoding="utf-8"),
        script=(_HERE / "report.js").read_text(encoding="utf-8"),
        links="".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in shown),
        sections="\n".join(
            f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.body}</section>'
            for section in shown
        ),
        left_out=f"Not in this report: {escape('; '.join(missing))}." if missing else "",
    )
