"""The sections of a report, as HTML from the files of runs. A section without data says why it has no body."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from utils.options.flags import flag
from utils.reporting import charts
from utils.reporting.charts import Point, Series, Value
from utils.reporting.features import Points
from utils.reporting.names import describe
from utils.reporting.run import Picture, RunData
from utils.reporting.tables import averaged

Colours = Mapping[str, tuple[int, int, int]]


class Section(NamedTuple):
    """anchor: its id in the page; missing: the reason, if there is no body."""

    anchor: str
    title: str
    body: str = ""
    missing: str = ""


def colour(number: int) -> str:
    """The colour of the run with this number."""
    return f"var(--run{number % 6})"


def rgb(colours: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colours)


def percent(value: Value) -> str:
    """0.1234 -> 12.3; a dash for a value that does not exist."""
    return "–" if value is None else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def memory(megabytes: float | None) -> str:
    return "–" if not megabytes else f"{megabytes / 1024:.1f} GiB"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """An HTML table of cells, which are HTML already. kind: "options" for texts, which are broken if they are long."""
    body = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="wide{" " + kind if kind else ""}"><table><tr>{titles}</tr>{"".join(body)}</table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and HTML texts, without the empty ones."""
    return '<dl class="facts">' + "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in pairs if v) + "</dl>"


def key(entries: Iterable[tuple[str, str]]) -> str:
    """A key to the colours: names and CSS colours."""
    items = "".join(f'<li><i style="background:{value}"></i>{escape(name)}</li>' for name, value in entries)
    return f'<ul class="key">{items}</ul>'


def figure(chart: str, title: str, note: str = "") -> str:
    caption = f"<b>{escape(title)}</b>{' · ' + escape(note) if note else ''}"
    return f"<figure><figcaption>{caption}</figcaption>{chart}</figure>"


def run_key(runs: Sequence[RunData]) -> str:
    return key((run.title, colour(i)) for i, run in enumerate(runs)) if len(runs) > 1 else ""


# What was run


def sessions(run: RunData) -> list[dict[str, Any]]:
    return list(run.note.get("sessions", []))


def seconds(run: RunData) -> float:
    return float(sum(session.get("seconds", 0) for session in sessions(run)))


def peak(run: RunData, where: str = "memory_mb") -> float | None:
    return max((session[where] for session in sessions(run) if where in session), default=None)


def options_text(options: Mapping[str, Any]) -> str:
    return " ".join(f"<code>{escape(name)} {escape(option_value(value))}</code>" for name, value in options.items())


def option_value(value: Any) -> str:
    """A value as it is written on a command line; "none" for None."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def what(run: RunData) -> Section:
    """Command, options, data, machine, time and memory of a run."""
    note = run.note
    if not note:
        return Section("run", "What was run", missing="what was run: no run.json in the folder")
    started = [
        f"<code>python {escape(s['command'])}</code>"
        + (f' <span class="soft">from step {s["from_step"]}</span>' if s.get("from_step") else "")
        for s in sessions(run)
    ]
    data = [f"{role}: {escape(held['from'])}, {held['images']} images" for role, held in note.get("data", {}).items()]
    gpu = peak(run, "gpu_memory_mb")
    unique = {
        name: list(dict.fromkeys(str(s.get(name, "")) for s in sessions(run))) for name in ("revision", "machine")
    }
    differs = options_text(note.get("differs", {})) or "none"
    processes = sorted({int(session.get("processes", 1)) for session in sessions(run)})
    each = " of each domain" if "target" in note.get("data", {}) else ""
    many = f" in {'/'.join(map(str, processes))} processes" if processes != [1] else ""
    pairs = [
        ("Command", "<br>".join(started)),
        ("Preset", f"<code>{escape(str(note.get('preset', '')))}</code>"),
        ("Differs from it", differs),
        ("Data", "<br>".join(data)),
        ("Classes", f"{len(run.classes)}, class table {escape(str(note.get('classes', {}).get('table', '')))}"),
        ("Batch", f"{note.get('batch', '–')} images per step{each}{many}"),
        ("Seed", escape(str(note.get("seed", "–")))),
        ("Revision", escape(", ".join(unique["revision"]))),
        ("Machine", "<br>".join(map(escape, unique["machine"]))),
        ("Began", escape(sessions(run)[0]["began"].replace("T", " ")) if sessions(run) else ""),
        ("Time", duration(seconds(run))),
        ("Peak memory", memory(peak(run)) + (f", on the GPU {memory(gpu)}" if gpu else "")),
    ]
    every = {flag(name): value for name, value in run.options.items()}
    rest = f"<details><summary>All options</summary><p>{options_text(every)}</p></details>" if every else ""
    return Section("run", "What was run", facts(pairs) + rest)


def overview(runs: Sequence[RunData]) -> Section:
    """A table of runs, and the options in which they differ."""
    over = [averaged(run.last_score, run.main_set) for run in runs]
    differ = len({text for text, run in zip(over, runs) if run.last_score}) > 1
    rows = [
        [
            f'<i style="color:{colour(i)}">■</i> {escape(run.title)}',
            f"{run.step}",
            percent(run.last("miou")) + (f" ({escape(over[i])})" if differ and run.last_score else ""),
            duration(seconds(run)) if sessions(run) else "–",
            memory(peak(run)),
            escape(sessions(run)[-1].get("revision", "–") if sessions(run) else "–"),
            escape(str(run.note.get("seed", run.options.get("random_seed", "–")))),
        ]
        for i, run in enumerate(runs)
    ]
    body = table(("run", "steps", "target mIoU, %", "time", "memory", "revision", "seed"), rows)
    ignored = ("log_dir", "overwrite", "continue_train")  # --snapshot-dir tells runs of one name apart
    names = [name for name in dict.fromkeys(name for run in runs for name in run.options) if name not in ignored]
    differing = [name for name in names if len({repr(run.options.get(name)) for run in runs}) > 1]
    if differing:
        values = [[option_value(run.options.get(name, "–")) for run in runs] for name in differing]
        cells = [[f"<code>{flag(name)}</code>", *map(escape, row)] for name, row in zip(differing, values)]
        head = ("option", *(run.title for run in runs))
        body += f"<h3>Options in which they differ</h3>{table(head, cells, 'options')}"
    return Section("run", "What was run", body)


# Numbers


def scores(runs: Sequence[RunData]) -> Section:
    """Target scores over time and at the end, by class, of several runs."""
    scored = [(i, run) for i, run in enumerate(runs) if run.series("miou").y]
    title = "Target scores"
    if not scored:
        return Section("scores", title, missing="target scores: there were no labelled target images to score on")
    chosen = [run.title for _, run in scored if run.options.get("select_on_target_labels")]
    by = f"best.pth of {', '.join(chosen)} was chosen by them" if chosen else "no checkpoint was chosen by them"
    body = f"<p>IoU on the labelled target images, in percent. These labels train nothing, and {by}.</p>"
    body += run_key(runs)
    others = [k.removeprefix("miou_") for _, run in scored for k in run.keys("target scores") if k.startswith("miou_")]
    means = list(dict.fromkeys([*(run.main_set for _, run in scored), *others]))
    body += '<div class="charts">'
    for name in means:
        drawn = [percents(run.series(_mean_key(run, name), colour(i))) for i, run in scored]
        body += figure(charts.lines(drawn, f"mean IoU of {name} classes", low=0), f"mean of {name} classes")
    body += "</div>"
    names = list(dict.fromkeys(name for _, run in scored for name in run.classes))
    by_class = [(i, run) for i, run in scored if run.last_table("iou")]
    if not by_class:
        return Section("scores", title, body)
    swatches = {name: rgb(value) for _, run in reversed(scored) for name, value in run.classes.items()}
    body += "<h3>By class, at the last score</h3>"
    last = [
        Series(run.title, (), [run.last_table("iou").get(name) for name in names], colour(i)) for i, run in by_class
    ]
    chart = charts.bars(names, last, "IoU by class", high=1, colours=[swatches[name] for name in names])
    body += f'<div class="side"><div class="grow">{chart}</div>{_class_table(names, by_class, means)}</div>'
    body += '<h3>By class, over time</h3><div class="charts small">'
    for name in names:
        drawn = [percents(run.series(f"iou/{name}", colour(i))) for i, run in by_class]
        if any(value is not None for one in drawn for value in one.y):
            chart = charts.lines(drawn, f"IoU of {name}", low=0, width=180, height=100)
            body += f"<figure><figcaption>{_swatch(swatches[name])}<b>{escape(name)}</b></figcaption>{chart}</figure>"
    return Section("scores", title, body + "</div>")


def _mean_key(run: RunData, classes: str) -> str:
    """The key of the mean over a class set in the records of a run, whose main set may be another one."""
    return "miou" if classes == run.main_set else f"miou_{classes}"


def percents(series: Series) -> Series:
    return Series(series.name, series.x, [None if y is None else 100 * y for y in series.y], series.colour)


def _swatch(value: str) -> str:
    return f'<span class="key" style="display:inline"><i style="background:{value}"></i></span>'


def _class_table(names: Sequence[str], runs: Sequence[tuple[int, RunData]], means: Sequence[str]) -> str:
    rows = [[escape(name), *(percent(run.last_table("iou").get(name)) for _, run in runs)] for name in names]
    rows += [[f"mean of {escape(name)}", *(_mean_cell(run, name) for _, run in runs)] for name in means]
    head = ("class", *(run.title for _, run in runs))
    return table(head, rows)


def _mean_cell(run: RunData, classes: str) -> str:
    """The last mean over a class set; with the number of classes in it, if the others are absent."""
    fewer = run.last_score.get("averaged", {}).get(classes)
    return percent(run.last(_mean_key(run, classes))) + (f" (over {fewer})" if fewer is not None else "")


_CURVES = {
    "terms": "Terms, unweighted",
    "discriminators": "Discriminators",
    "gradients": "Gradients of the weighted terms on the backbone",
    "rates": "Learning rates",
    "speed": "Speed and memory",
    "other": "Other counts",
}


def curves(runs: Sequence[RunData], colours: Sequence[str]) -> Section:
    """Every term, rate and count over the steps, with all runs in one chart."""
    body = ""
    for group, title in _CURVES.items():
        keys = list(dict.fromkeys(name for run in runs for name in run.keys(group)))
        drawn = []
        for name in keys:
            held = [(run, value) for run, value in zip(runs, colours, strict=True) if run.series(name).y]
            chart = charts.lines([run.series(name, value) for run, value in held], describe(name).title)
            drawn.append(figure(chart, name, describe(name).title))
        if drawn:
            body += f'<h3>{title}</h3><div class="charts">{"".join(drawn)}</div>'
    if not body:
        return Section("curves", "Curves", missing="curves: log.jsonl holds no numbers yet")
    means = any(len(record) > charts.MOST_POINTS for record in (run.records for run in runs))
    note = " Long runs are thinned to means over neighbouring log lines." if means else ""
    return Section(
        "curves", "Curves", f"<p>Each value is the mean since the previous log line.{note}</p>{run_key(runs)}{body}"
    )


def label_free(runs: Sequence[RunData], colours: Sequence[str]) -> Section:
    """Scores that need no target labels, beside the target score."""
    keys = list(dict.fromkeys(name for run in runs for name in run.keys("label-free scores")))
    if not keys:
        return Section("label-free", "Label-free scores", missing="label-free scores: none in log.jsonl")
    drawn = []
    for name in [*keys, *(["miou"] if any(run.series("miou").y for run in runs) else [])]:
        series = [run.series(name, value) for run, value in zip(runs, colours, strict=True)]
        drawn.append(figure(charts.lines(series, describe(name).title), name, describe(name).title))
    text = (
        "<p>Computed on unlabelled target images; higher is better. The target score beside them is for comparison.</p>"
    )
    return Section(
        "label-free", "Label-free scores", f'{text}{run_key(runs)}<div class="charts">{"".join(drawn)}</div>'
    )


# What it sees


def data_url(picture: Picture) -> str:
    return f"data:image/{picture.kind};base64,{b64encode(picture.content).decode()}"


def pictures(found: Sequence[tuple[str, Picture]], classes: Colours) -> Section:
    """Pictures with a slider between two of each group. found: the name under which each is shown, and itself."""
    if not found:
        return Section("pictures", "Pictures", missing="pictures: there is no folder panels/ with pictures yet")
    body = ""
    groups = groupby(sorted(found, key=lambda one: one[1].group), key=lambda one: one[1].group)
    for group, members in groups:
        held = list(members)
        steps = sorted({picture.step for _, picture in held if picture.step is not None})
        note = f' <span class="soft">at step {steps[0]}</span>' if len(steps) == 1 else ""
        shown = f"<h3>{escape(group)}{note}</h3>{_slider([n for n, _ in held], held[0][1].size)}{_strip(held)}"
        body += f'<div class="group">{shown}</div>'
    body = f'{key((name, rgb(value)) for name, value in classes.items())}<div class="groups">{body}</div>'
    return Section("pictures", "Pictures", body)


def _slider(names: Sequence[str], size: tuple[int, int]) -> str:
    """The frame of the slider; report.js fills and shows it. It starts with the predictions of the first and the last
    run, with the image and the prediction of a single run, or else with the first and the last picture."""
    if len(names) < 2:
        return ""
    predictions = [i for i, name in enumerate(names) if "prediction" in name]
    left = predictions[0] if len(predictions) > 1 else 0
    right = predictions[-1] if predictions and predictions[-1] else len(names) - 1

    def choice(chosen: int, label: str) -> str:
        options = (f"<option value={i}{' selected' * (i == chosen)}>{escape(n)}</option>" for i, n in enumerate(names))
        return f'<label><span class="soft">{label}</span> <select>{"".join(options)}</select></label>'

    return (
        f'<div class="slider" hidden><div class="stage" style="--at:50%;aspect-ratio:{size[0]}/{size[1]}">'
        '<img alt="left picture"><img alt="right picture"></div>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" aria-label="divide the pictures here">'
        f'<div class="choice">{choice(left, "left")}{choice(right, "right")}</div></div>'
    )


def _strip(held: Sequence[tuple[str, Picture]]) -> str:
    shown = (
        f'<figure><img src="{data_url(picture)}" width="{picture.size[0]}" height="{picture.size[1]}" '
        f'style="height:auto" alt="{escape(name)}">'
        f"{f'<figcaption>{escape(name)}</figcaption>' if len(held) > 1 else ''}</figure>"
        for name, picture in held
    )
    return f'<div class="strip">{"".join(shown)}</div>'


# What it learns from


def pseudo_labels(run: RunData) -> Section:
    """Thresholds and coverage of the pseudo-labels."""
    held = run.pseudo_labels.get("classes", {})
    if not held:
        return Section(
            "pseudo-labels", "Pseudo-labels", missing="pseudo-labels: the run used none, or saved no record of them"
        )
    names = list(held)
    swatches = [rgb(run.classes.get(name, (128, 128, 128))) for name in names]
    predicted = sum(entry["predicted"] for entry in held.values())
    kept = sum(entry["kept"] for entry in held.values())
    limits = [entry["threshold"] if entry["predicted"] else None for entry in held.values()]
    coverage = [entry["kept"] / entry["predicted"] if entry["predicted"] else None for entry in held.values()]
    share = [entry["kept"] / kept if kept and entry["predicted"] else None for entry in held.values()]
    drawn = [
        _bars("lowest confidence that is kept", names, limits, swatches, 1, lambda v: f"{v:.3f}"),
        _bars("kept, of the pixels predicted as the class", names, coverage, swatches, 1),
        _bars("the class, of all pixels kept", names, share, swatches, None),
    ]
    never = [name for name, entry in held.items() if not entry["predicted"]]
    text = f"{percent(kept / predicted if predicted else None)} % of all pixels have a pseudo-label."
    text += f" Never predicted: {escape(', '.join(never))}." if never else ""
    return Section("pseudo-labels", "Pseudo-labels", f'<p>{text}</p><div class="charts">{"".join(drawn)}</div>')


def _bars(
    title: str,
    names: Sequence[str],
    values: Sequence[Value],
    swatches: Sequence[str],
    high: float | None,
    form: Callable[[float], str] = charts.percent,
) -> str:
    chart = charts.bars(names, [Series(title, (), values)], title, high=high, colours=swatches, form=form)
    return figure(chart, title)


def source_memory(run: RunData, shade: str) -> Section:
    """How full the source memory is."""
    keys, held = run.keys("memory"), run.memory.get("classes", {})
    if not keys and not held:
        return Section("memory", "Source memory", missing="source memory: the run has none")
    text = "<p>A class takes part in matching once more vectors have been written to its buffer than it has slots.</p>"
    drawn = [figure(charts.lines([run.series(k, shade)], describe(k).title, low=0), k, describe(k).title) for k in keys]
    body = f'{text}<div class="charts">{"".join(drawn)}</div>'
    if held:
        names = list(held)
        full = [min(entry["written"] / entry["slots"], 1.0) for entry in held.values()]
        swatches = [rgb(run.classes.get(name, (128, 128, 128))) for name in names]
        waiting = [name for name, entry in held.items() if entry["written"] <= entry["slots"]]
        ready = f"Not ready: {escape(', '.join(waiting))}." if waiting else "All classes are ready."
        chart = charts.bars(names, [Series("filled", (), full, shade)], "filled slots", high=1, colours=swatches)
        body += f"<h3>Filled slots, at step {run.memory.get('step', '–')}</h3><p>{ready}</p>{chart}"
    return Section("memory", "Source memory", body)


def confusion(run: RunData) -> Section:
    """The confusion matrix of the last score, by rows."""
    held = run.scores
    if not held.get("confusion"):
        return Section("confusion", "Confusion matrix", missing="confusion matrix: no scores.json in the folder")
    names = list(held["classes"])
    shares = row_shares(held["confusion"], held.get("no_class", [0] * len(names)))
    swatches = [rgb(run.classes.get(name, (128, 128, 128))) for name in names]
    chart = charts.heatmap(shares, names, names, "confusion matrix", row_colours=swatches, column_colours=swatches)
    listed = largest_confusions(shares, names)
    items = "".join(f"<li>{percent(value)} % of {escape(a)} is taken for {escape(b)}</li>" for a, b, value in listed)
    more = f"<div><h3>Largest confusions</h3><ul>{items}</ul></div>" if items else ""
    text = f"<p>Rows: the truth; columns: the prediction; percent of each row, at step {held.get('step', '–')}.</p>"
    return Section(
        "confusion", "Confusion matrix", f'{text}<div class="side"><div class="wide">{chart}</div>{more}</div>'
    )


def row_shares(counts: Sequence[Sequence[int]], no_class: Sequence[int]) -> list[list[Value]]:
    """Each row of counts [C][C] divided by its sum, which includes the pixels [C] predicted as no class; None for an
    absent class."""
    totals = [sum(row) + none for row, none in zip(counts, no_class, strict=True)]
    return [[value / total if total else None for value in row] for row, total in zip(counts, totals, strict=True)]


def largest_confusions(
    shares: Sequence[Sequence[Value]], names: Sequence[str], most: int = 6
) -> list[tuple[str, str, float]]:
    """Pairs of different classes, truth and prediction, by their share of the truth, if it is at least 5 percent."""
    pairs = [
        (names[r], names[c], value)
        for r, row in enumerate(shares)
        for c, value in enumerate(row)
        if r != c and value is not None and value >= 0.05
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def feature_map(run: RunData) -> Section:
    """Centroids and instances of both domains on a plane, before and after training."""
    title = "Feature space"
    held = [(name, found) for name, found in (("before", run.before), ("after", run.after)) if found is not None]
    if not held:
        return Section("features", title, missing="feature space: the run saved no features")
    later = any(found.layout is None for _, found in held)
    held = [(name, found) for name, found in held if found.layout is not None]
    if not held:
        return Section(
            "features", title, missing="feature space: pip install scikit-learn, which draws the map (t-SNE)"
        )
    classes = run.classes
    names = list(classes)
    seen = np.unique(np.concatenate([found.classes for _, found in held]))
    text = (
        "<p>t-SNE of mean features: class centroids of single images (large) and instances of thing classes (small), "
        "coloured by class: the label in the source, the prediction in the target. Where the domains are aligned, "
        "circles and crosses of one colour lie together. Distances between far groups mean little, and the two maps "
        "are computed apart. The domain gap is measured in the feature space itself: the mean distance between the "
        "centroids of a class in the two domains, over the distance to the nearest other class.</p>"
    )
    marks = (
        '<ul class="key"><li><svg viewBox="0 0 12 12"><circle class="point" cx="6" cy="6" r="4.5" '
        'fill="currentColor"/></svg>source</li><li><svg viewBox="0 0 12 12"><path class="cross" stroke="currentColor" '
        'd="M2 2l8 8m0-8l-8 8"/>'
        "</svg>target</li></ul>"
    )
    if later:
        text += (
            "<p>The map after training is drawn at the end of the run, or at once by "
            "<code>python -m utils.report</code> with the folder of the run.</p>"
        )
    drawn = [figure(scatter(found, classes), f"{name} training", gap_text(found)) for name, found in held]
    colours = key((names[i], rgb(classes[names[i]])) for i in seen if i < len(names))
    return Section("features", title, f'{text}{marks}{colours}<div class="charts two">{"".join(drawn)}</div>')


def scatter(found: Points, classes: Colours) -> str:
    """The points in their layout, the small ones first."""
    assert found.layout is not None
    names = list(classes)
    marks = []
    for i in np.lexsort((np.arange(len(found.classes)), ~found.instance)):
        name = names[found.classes[i]] if found.classes[i] < len(names) else str(found.classes[i])
        domain = "target" if found.target[i] else "source"
        what = "instance" if found.instance[i] else "centroid"
        x, y = (float(value) for value in found.layout[i])
        shape = "cross" if found.target[i] else "circle"
        marks.append(
            Point(x, y, rgb(classes.get(name, (128, 128, 128))), shape, f"{name}, {what}, {domain}", what == "centroid")
        )
    return charts.points(marks, "map of the feature space")


def gap_text(found: Points) -> str:
    """The domain gap as a number, measured in the feature space itself: see `domain_gap`."""
    value = domain_gap(found)
    return "" if value is None else f"domain gap {value:.2f}"


def domain_gap(found: Points) -> Value:
    """The mean distance from source to target between the mean centroids of each class in both domains, divided by the
    mean distance from a source class to the nearest other one (our choice); L1. None for fewer than two such classes.
    """
    centroid = ~found.instance
    shared = [
        c
        for c in np.unique(found.classes)
        if all((centroid & (found.classes == c) & (found.target == side)).any() for side in (False, True))
    ]
    if len(shared) < 2:
        return None

    def mean(c: int, target: bool) -> np.ndarray:
        return found.vectors[centroid & (found.classes == c) & (found.target == target)].mean(0)

    source, target = (np.stack([mean(c, side) for c in shared]) for side in (False, True))
    between = np.abs(source[:, None] - source[None]).sum(2)
    np.fill_diagonal(between, np.inf)
    return float(np.abs(source - target).sum(1).mean() / between.min(1).mean())
