"""What each method, and each part of it, gives on real images: pairs of domains, MobileNetV2 from ImageNet weights.

    python bench/real.py carla_to_cityscapes source_only --seed 1 --data /where/realdata   # train and score one arm
    python bench/real.py --table                                                         # bench/RESULTS.md

An arm is a chain of stages; each is a call of one of the project's scripts, on one thread. All arms of a pair take the
same number of source steps under the same schedule of learning rates, and are scored at the end (last.pth): only the
method differs. Arms of one seed share the stages that they have in common. A finished stage is not run again, a killed
one resumes, and an arm that has a score is not run. Target labels are used only to report the score. Settings may be
chosen by the score on the source's own validation images, if there are any.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import charts
from bench.builtin_gains import spread
from bench.results import write_section
from utils.options import config
from utils.system.errors import UserError
from utils.system.files import write_json
from utils.system.logs import revision

ROOT = Path(__file__).resolve().parent.parent
SCORES = ROOT / "bench" / "scores" / "real"
SEEDS = (1, 2, 3)

# The learning rate of every arm at a source step: RATE (1 - step / total)^POWER.
RATE = 4e-3
POWER = 0.9
BATCH = 2
SAVE = 500  # steps between checkpoints, which a killed run resumes from

# Large blocks of memory are kept and lie on large pages: a seventh of the processor time less on one core (glibc).
KEEP_MEMORY = "hugetlb=1", "mmap_threshold=4294967296", "trim_threshold=4294967296", "top_pad=67108864"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{setting}" for setting in KEEP_MEMORY),
}

Arguments = tuple[str, ...]

# {data} stands for the folder of the data, see `Runner.filled`.
WEIGHTS = "{data}/pretrained/mobilenet_v2_features.pth"


@dataclass(frozen=True)
class Schedule:
    """Source steps of every arm. Before any adaptation, an arm trains on the source for `start` steps, or for `early`
    if it adapts early, as plus does. If the paper's stage 2 follows, the next `align` steps are those of stage 1.

    That plus starts early was chosen on CARLA -> CamVid.
    """

    total: int
    start: int
    early: int
    align: int

    def rate(self, first: int) -> float:
        """The learning rate at a source step."""
        return RATE * (1 - first / self.total) ** POWER


@dataclass(frozen=True)
class Sizes:
    """Width and height of source and target images, and of the random crops that are trained on, if any."""

    source: str
    target: str
    crop: str | None = None

    @property
    def training(self) -> Arguments:
        crop = () if self.crop is None else ("--crop", self.crop)
        return ("--input-size", self.source, "--input-size-target", self.target, *crop)


@dataclass(frozen=True)
class Pair:
    """Arguments of the scripts.

    large: sizes of the arms that learn from crops of larger images, at about the same cost per step.
    source_test: in place of `target` to score the source's validation images; empty if there are none.
    restyled: in place of `source` for source images of CycleGAN in the folder {restyled}.
    prepare: makes what the data lack, given their folder and one to write into, which {made} stands for.
    """

    title: str
    schedule: Schedule
    preset: str
    target: Arguments
    source: Arguments
    sizes: Sizes
    large: Sizes
    classes: Arguments = ()
    source_test: Arguments = ()
    restyled: Arguments = ()
    prepare: Callable[[Path, Path], None] | None = None


def camvid_in_classes_of_carla(data: Path, made: Path) -> None:
    """CamVid by day as a target for CARLA: its training images, and its validation images with labels.

    Terrain and wall do not occur; signs and cyclists, which CARLA has no class for, are ignored.
    """
    table = np.full(256, 255, np.uint8)
    table[[0, 1, 2, 3, 4, 5, 7, 8, 9]] = [8, 2, 5, 0, 1, 6, 4, 10, 9]
    folder = made / "camvid_as_carla"
    for part, names in (("train", "train_day.txt"), ("val", "val_day.txt")):
        lines = (data / "CamVid" / names).read_text().split()
        for name in lines:
            image, label = folder / "images" / f"{name}.jpg", folder / "labels" / f"{name}.png"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            if label.exists():
                continue
            image.symlink_to(data / "CamVid" / f"{name}.jpg")
            ids = np.asarray(Image.open(data / "CamVid" / f"{name.replace('/', 'annot/')}.png"))
            Image.fromarray(table[ids]).save(label)
        (folder / f"{part}.txt").write_text("".join(f"{name}.jpg\n" for name in lines))


PAIRS = {
    "carla_to_camvid": Pair(
        "CARLA -> CamVid by day, on whose labels the parts of `--method plus` were chosen",
        Schedule(total=2000, start=1200, early=500, align=300),
        preset="own_images",
        classes=("--classes", "{data}/carla/classes.yaml"),
        target=("--target", "folder:{made}/camvid_as_carla"),
        source=("--source", "folder:{data}/carla"),
        sizes=Sizes("320,240", "320,240"),
        large=Sizes("480,360", "480,360", crop="320,240"),
        source_test=("--target", "folder:{data}/carla"),
        prepare=camvid_in_classes_of_carla,
    ),
    "carla_to_cityscapes": Pair(
        "CARLA -> Cityscapes (256)",
        Schedule(total=3000, start=1500, early=750, align=500),
        preset="own_images",
        classes=("--classes", "{data}/carla/classes.yaml"),
        target=("--target", "folder:{data}/cityscapes256"),
        source=("--source", "folder:{data}/carla"),
        sizes=Sizes("320,240", "320,160"),
        large=Sizes("512,384", "512,256", crop="320,192"),
        source_test=("--target", "folder:{data}/carla"),
        restyled=(
            *("--source", "folder", "--data-dir", "{restyled}", "--data-dir-labels", "{data}/carla"),
            *("--data-list", "{data}/carla/train.txt"),
        ),
    ),
    "camvid_to_idd": Pair(
        "CamVid -> India Driving Dataset",
        Schedule(total=2000, start=1000, early=500, align=400),
        preset="own_images",
        classes=("--classes", "{data}/idd/classes.yaml"),
        target=("--target", "folder:{data}/idd"),
        source=(
            *("--source", "folder", "--data-dir", "{data}/CamVid/train"),
            *("--data-dir-labels", "{data}/camvid_as_idd/labels", "--data-list", "{data}/camvid_as_idd/train.txt"),
        ),
        sizes=Sizes("320,240", "320,224"),
        large=Sizes("480,360", "480,336", crop="320,224"),
    ),
    "camvid_day_to_dusk": Pair(
        "CamVid day -> dusk",
        Schedule(total=2000, start=1000, early=500, align=400),
        preset="camvid_day_to_dusk",
        target=("--data-dir-target", "{data}/CamVid"),
        source=("--data-dir", "{data}/CamVid"),
        sizes=Sizes("320,240", "320,240"),
        large=Sizes("480,360", "480,360", crop="320,240"),
        source_test=("--data-dir-target", "{data}/CamVid", "--data-list-target-test", "val_day.txt"),
    ),
}


@dataclass(frozen=True)
class Resolution:
    """How finely a network sees: `options` of its training; large: it learns from crops of the pair's large images.

    tail, words: what it adds to the name and the title of an arm.
    """

    tail: str = ""
    words: str = ""
    options: Arguments = ()
    large: bool = False


USUAL = Resolution()
LARGE = Resolution("_large", ", crops of larger images", large=True)
STRIDE_8 = Resolution("_stride8", ", output stride 8", ("--output-stride", "8"))


@dataclass(frozen=True)
class Stage:
    """One call of a script, from source step `first` to `last`.

    after: the stage before. With `resumes`, this stage continues its run; otherwise, it starts from its weights.
    masks, images: the stages that make the pseudo-labels and the restyled source images, if it uses any.
    """

    name: str
    script: Arguments
    first: int
    last: int
    options: Arguments = ()
    after: Stage | None = None
    resumes: bool = False
    masks: Stage | None = None
    images: Stage | None = None
    resolution: Resolution = USUAL

    def chain(self) -> Iterator[Stage]:
        """All stages up to this one, in order."""
        for stage in (self.images, self.after, self.masks):
            if stage is not None:
                yield from stage.chain()
        yield self


STEP1, STEP2, PSEUDO = ("train_step1.py",), ("train_step2.py",), ("Generate_Pseudo_Label.py",)
TRAIN_CYCLEGAN, APPLY_CYCLEGAN = ("restyle_source.py", "train"), ("restyle_source.py", "apply")
CYCLEGAN_STEPS: Arguments = ("--num-steps", "3000", "--crop", "128,128")

PAPER, PLUS = ("--method", "paper"), ("--method", "plus")
NO_TERMS: Arguments = (
    *("--lambda-adv-target", "0", "--lambda-adv-feat", "0"),
    *("--lambda-adv-cls", "0", "--lambda-adv-ins", "0", "--lambda-adv-cate", "0"),
)


def weights(category: str) -> Arguments:
    """The paper's, whatever the preset's; `category`: of the category and instance terms."""
    adversarial = ("--lambda-adv-target", "0.001", "--lambda-adv-feat", "0.001")
    return (*adversarial, "--lambda-adv-cls", category, "--lambda-adv-ins", category, "--lambda-adv-cate", category)


CATEGORY_FACTORS = 10, 100  # at the paper's weights, these terms have a hundredth of the gradient of the cross-entropy

# What is taken from `--method plus`, or given to it, in the arms that try its parts.
PLUS_VARIANTS: dict[str, Arguments] = {
    "without plain images": ("--lambda-pseudo", "0"),
    "without mixed images": ("--lambda-mix", "0"),
    "without class mixing": ("--no-class-mixing",),
    "without jitter and blur": ("--strong-jitter", "0", "--strong-blur", "0"),
    "with labels weighed by image": ("--pseudo-selection", "image"),
    "with masked consistency": ("--lambda-masked", "1"),
    "with rare-class sampling": ("--rare-class-temperature", "0.01"),
    "with pixel contrast": ("--isia", "contrast", "--lambda-adv-cate", "0.1"),
    "with the paper's terms": weights("0.01"),
}

# Whose BatchNorm statistics was chosen only by the agreement of an image and its mirror image, without labels: on `lab`
# images those of both domains (0.89 to 0.91), then the source's, then the target's (0.85 to 0.89); seed 1, three
# checkpoints.
SHARED: Arguments = ("--bn", "shared")


def image_level(level: str) -> Arguments:
    return () if level == "none" else ("--image-level", level)


EARLY, LATE = "which starts as early as plus", "which starts as late as the paper's stages"


class Arms:
    """The arms of a schedule: title and last stage by name; names by group, for a reader."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.titles: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        self.groups: dict[str, list[str]] = {}
        self._group("Source only")
        self._add("source_only", "source only", self._unadapted("source_only", "none"))
        for level in ("lab", "fda"):
            self._add(level, f"source only, on `{level}` images", self._unadapted(level, level))
        for resolution in (LARGE, STRIDE_8):
            for level, name, title in (
                ("none", "source_only", "source only"),
                ("lab", "lab", "source only, on `lab` images"),
            ):
                last = self._unadapted(f"{name}{resolution.tail}", level, resolution)
                self._add(last.name, f"{title}{resolution.words}", last)
        self._cyclegan()
        for level, tail, words in (("none", "", ""), ("lab", "_lab", ", `lab`"), ("fda", "_fda", ", `fda`")):
            self._group("The paper and plus, on plain images" if level == "none" else f"The same on `{level}` images")
            self._paper(level, tail, words)
            self._add(f"plus{tail}", f"plus{words}", self._plus(f"plus{tail}", level))
            late = self._plus(f"plus{tail}_late", level, first=self.schedule.start)
            self._add(late.name, f"plus{words}, {LATE}", late)
        self._group("Parts of plus")
        self._self_training("self_training_lab", "only the pseudo-labels of the start, `lab`, shared statistics")
        for resolution in (LARGE, STRIDE_8):
            last = self._plus(f"plus_lab{resolution.tail}", "lab", resolution=resolution)
            self._add(last.name, f"plus, `lab`{resolution.words}", last)
        for level, tail, words in (("none", "", ""), ("lab", "_lab", ", `lab`")):
            for title, options in PLUS_VARIANTS.items():
                name = f"plus{tail}_{re.sub(r'[^a-z]+', '_', title)}"
                self._add(name, f"plus{words}, {title}", self._plus(name, level, options))

    def _add(self, name: str, title: str, last: Stage) -> None:
        self.titles[name], self.stages[name] = title, last
        next(reversed(self.groups.values())).append(name)

    def _group(self, title: str) -> None:
        """What is added from now on belongs to this group."""
        self.groups[title] = []

    def _cyclegan(self) -> None:
        """Training on source images that CycleGAN restyled before."""
        trained = Stage("train_cyclegan", TRAIN_CYCLEGAN, 0, 0)
        images = Stage("apply_cyclegan", APPLY_CYCLEGAN, 0, 0, after=trained)
        whole = Stage("cyclegan", STEP1, 0, self.schedule.total, ("--source-only",), images=images)
        self._add("cyclegan", "source only, on images of CycleGAN", whole)

    def _start(self, level: str, last: int, resolution: Resolution = USUAL) -> Stage:
        """Training on the source, restyled by `level`, without adaptation."""
        options = ("--source-only",) if level == "none" else (*PLUS, *image_level(level))
        early = "" if last == self.schedule.start else "_early"
        name = f"start_{level}{early}{resolution.tail}"
        return Stage(name, STEP1, 0, last, (*options, *resolution.options), resolution=resolution)

    def _unadapted(self, name: str, level: str, resolution: Resolution = USUAL) -> Stage:
        return self._whole(name, self._start(level, self.schedule.start, resolution))

    def _paper(self, level: str, tail: str, words: str) -> None:
        """Both stages with the paper's weights and without any term."""
        paper = self._stopped(f"align{tail}", level, weights("0.01"))
        plain = self._stopped(f"align_no_terms{tail}", level, NO_TERMS)
        title = f"stage 1 without any term{words} (only BatchNorm statistics)"
        self._add(f"no_terms{tail}", title, self._whole(f"no_terms{tail}", plain))
        title = f"only pseudo-labels{words} (stage 2 without any term of either stage)"
        self._add(f"pseudo_labels{tail}", title, self._step2(f"pseudo_labels{tail}", level, NO_TERMS, plain))
        self._add(f"paper_step1{tail}", f"the paper's stage 1{words}", self._whole(f"paper_step1{tail}", paper))
        for factor in CATEGORY_FACTORS:
            options = (*weights(f"{factor * 0.01:g}"), "--log-gradients", "50")
            stopped = self._stopped(f"align{tail}_{factor}", level, options)
            title = f"the paper's stage 1{words}, {factor} times the category and instance weights"
            self._add(f"paper_step1{tail}_{factor}", title, self._whole(f"paper_step1{tail}_{factor}", stopped))
        title = f"the paper's stage 1 and 2{words}"
        self._add(f"paper_step2{tail}", title, self._step2(f"paper_step2{tail}", level, weights("0.001"), paper))
        early = self._stopped(f"align{tail}_early", level, weights("0.01"), self.schedule.early)
        early = self._step2(f"paper_step2{tail}_early", level, weights("0.001"), early)
        self._add(early.name, f"{title}, {EARLY}", early)

    def _plus(
        self,
        name: str,
        level: str,
        options: Arguments = (),
        first: int | None = None,
        resolution: Resolution = USUAL,
    ) -> Stage:
        """Plus from the source step `first` on; None: `early`."""
        start = self._start(level, self.schedule.early if first is None else first, resolution)
        options = (*PLUS, *options, *image_level(level), *resolution.options)
        return Stage(name, STEP2, start.last, self.schedule.total, options, start, resolution=resolution)

    def _self_training(self, name: str, title: str) -> None:
        """Stage 2 from the start, on pseudo-labels that it made, without any other term."""
        start = self._start("lab", self.schedule.start)
        masks = Stage("start_lab_masks", PSEUDO, start.last, start.last, after=start)
        options = (*PAPER, *NO_TERMS, *SHARED, *image_level("lab"))
        self._add(name, title, Stage(name, STEP2, start.last, self.schedule.total, options, start, masks=masks))

    def _stopped(self, name: str, level: str, options: Arguments, first: int | None = None) -> Stage:
        """Stage 1 as stage 2 takes it, from the source step `first` on; None: `start`."""
        start = self._start(level, self.schedule.start if first is None else first)
        last = start.last + self.schedule.align
        return Stage(name, STEP1, start.last, last, (*PAPER, *options, *image_level(level)), start)

    def _whole(self, name: str, stopped: Stage) -> Stage:
        """The rest of a run that was stopped."""
        total, resolution = self.schedule.total, stopped.resolution
        return Stage(
            name, stopped.script, stopped.last, total, stopped.options, stopped, resumes=True, resolution=resolution
        )

    def _step2(self, name: str, level: str, options: Arguments, stopped: Stage) -> Stage:
        masks = Stage(f"{name}_masks", PSEUDO, stopped.last, stopped.last, after=stopped)
        options = (*PAPER, *options, *image_level(level))
        return Stage(name, STEP2, stopped.last, self.schedule.total, options, stopped, masks=masks)


ARMS = {name: Arms(pair.schedule) for name, pair in PAIRS.items()}
NAMES = list(next(iter(ARMS.values())).titles)


class Runner:
    """Runs the stages of one pair and seed in the folder `out`, with one folder per stage."""

    def __init__(self, pair: Pair, seed: int, data: Path, out: Path, common: Path) -> None:
        """common: the folder of what pairs and seeds share: decoded images, and files that the data lack."""
        self.pair, self.seed, self.data, self.out = pair, seed, data, out
        self.cache, self.made = common / "cache", common / "made"
        if pair.prepare is not None:
            self.made.mkdir(parents=True, exist_ok=True)
            with open(self.made / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                pair.prepare(data, self.made)

    def finish(self, last: Stage) -> dict[str, Any]:
        """Run what is missing of an arm up to its last stage, and score it."""
        stages = list(dict.fromkeys(last.chain()))
        records = [self.stage(stage) for stage in stages]
        pair, scores = self.pair, {"target": self.evaluate(last, self.pair.target)}
        if pair.source_test:
            size = (pair.large if last.resolution.large else pair.sizes).source
            scores["source"] = self.evaluate(last, (*pair.source_test, "--input-size-target", size))
        target = scores["target"]
        return {
            "miou": mean(target),
            "iou": target["iou"],
            "images": target["images"],
            "source_miou": mean(scores["source"]) if "source" in scores else None,
            "minutes": round(sum(record["minutes"] for record in records), 1),
            "processor_minutes": round(sum(record["processor_minutes"] for record in records), 1),
            "steps": last.last,
            "gradients": gradients(self.out / last.name / "log.jsonl"),
            "stages": [{"name": stage.name, **record} for stage, record in zip(stages, records, strict=True)],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        }

    def stage(self, stage: Stage) -> dict[str, Any]:
        """Run a stage unless it is finished; returns what it took. A second process waits for the first."""
        folder = self.out / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        done, attempts = folder / "done.json", folder / "attempts.jsonl"
        with open(folder / "stage.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                command, began = self.command(stage), time.monotonic()
                code = self.call(command, self.out / f"{stage.name}.log")
                with open(attempts, "a") as file:
                    file.write(json.dumps({"s": time.monotonic() - began, "cpu_s": children_seconds()}) + "\n")
                if code:
                    raise UserError(f"{stage.name}: exit code {code}; see {self.out / f'{stage.name}.log'}")
                times = [json.loads(line) for line in attempts.read_text().splitlines()]
                record = {
                    "minutes": round(sum(entry["s"] for entry in times) / 60, 2),
                    "processor_minutes": round(sum(entry["cpu_s"] for entry in times) / 60, 2),
                    "options": shlex.join(self.options(stage)),
                    "revision": revision(),
                }
                write_json(done, record)
            return json.loads(done.read_text())

    def options(self, stage: Stage) -> Arguments:
        """What makes the stage what it is, without folders."""
        if stage.script == TRAIN_CYCLEGAN:
            return (*("--random-seed", str(self.seed)), *CYCLEGAN_STEPS)
        if stage.script in (PSEUDO, APPLY_CYCLEGAN):
            return ()
        schedule = self.pair.schedule
        first = stage.after.first if stage.resumes and stage.after else stage.first  # of the run that goes on
        return (
            *("--random-seed", str(self.seed), "--batch-size", str(BATCH), "--learning-rate"),
            *(f"{schedule.rate(first):.4g}", "--power", str(POWER)),
            *("--num-steps", str(schedule.total - first), "--num-steps-stop", str(stage.last - first)),
            *stage.options,
        )

    def command(self, stage: Stage) -> list[str]:
        pair, folder = self.pair, self.out / stage.name
        before = [] if stage.after is None else ["--restore-from", str(self.out / stage.after.name / "last.pth")]
        command = [*stage.script, "--preset", pair.preset, "--num-workers", "0", "--cpu"]
        if stage.script == PSEUDO:
            command += [*pair.classes, *pair.target, *before, "--cache", str(self.cache)]
            return self.filled([*command, "--ssl-target-dir", str(folder / "masks")])
        if stage.script == APPLY_CYCLEGAN:
            command += [*pair.source, "--input-size", pair.sizes.source]
            return self.filled([*command, *before, "--out", str(folder / "restyled")])
        command += pair.target
        command += pair.source if stage.images is None else self.restyled(stage.images)
        if stage.script == TRAIN_CYCLEGAN:
            command += pair.sizes.training
        else:
            command += [*pair.classes, *(pair.large if stage.resolution.large else pair.sizes).training]
        command += [*self.options(stage), "--cache", str(self.cache), "--snapshot-dir", str(folder)]
        command += ["--save-pred-every", str(SAVE), "--keep-last", "0"]
        if stage.masks is not None:
            command += ["--ssl-target-dir", str(self.out / stage.masks.name / "masks")]
        if (folder / "last.pth").exists():
            command.append("--continue-train")
        elif stage.resumes:
            command += ["--continue-train", before[1]]
        elif stage.script != TRAIN_CYCLEGAN:
            command += before or ["--restore-from", WEIGHTS]
        return self.filled(command)

    def restyled(self, images: Stage) -> list[str]:
        """The arguments of a source whose images a stage has restyled."""
        return [part.replace("{restyled}", str(self.out / images.name / "restyled")) for part in self.pair.restyled]

    def evaluate(self, stage: Stage, images: Arguments) -> dict[str, Any]:
        path = self.out / stage.name / "scores.json"
        # Images are read at the size that the checkpoint knows, unless `images` says otherwise.
        command = ["evaluate_cityscapes.py", "--preset", self.pair.preset, *self.pair.classes, *images]
        command += ["--restore-from", str(self.out / stage.name / "last.pth")]
        command += ["--save", "none", "--json", str(path), "--num-workers", "0", "--cpu"]
        code = self.call(self.filled(command), self.out / f"{stage.name}.log")
        if code:
            raise UserError(f"{stage.name}: evaluation failed with code {code}")
        return json.loads(path.read_text())

    def filled(self, command: Sequence[str]) -> list[str]:
        return [part.replace("{data}", str(self.data)).replace("{made}", str(self.made)) for part in command]

    def call(self, command: list[str], log: Path) -> int:
        """Run a script of the project on one thread; its output is appended to `log`."""
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"$ python {shlex.join(command)}\n")
            file.flush()
            return subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env=os.environ | ENVIRONMENT,
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode


_counted = 0.0


def children_seconds() -> float:
    """Processor time of the finished children since the last call."""
    global _counted
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = usage.ru_utime + usage.ru_stime
    own, _counted = total - _counted, total
    return own


def gradients(log: Path) -> dict[str, float]:
    """The mean over a run of every term's gradient on the backbone, as a share of that of the source cross-entropy."""
    shares: dict[str, list[float]] = {}
    for line in log.read_text().splitlines():
        for name, value in json.loads(line).items():
            if name.startswith("grad_") and name != "grad_seg":
                shares.setdefault(name.removeprefix("grad_"), []).append(value)
    return {name: statistics.mean(values) for name, values in shares.items()}


def mean(scores: dict[str, Any]) -> float:
    """The mean over the whole class table."""
    return next(iter(scores["means"].values()))


def path_of(scores: Path, pair: str, arm: str, seed: int) -> Path:
    return scores / pair / arm / f"seed{seed}.json"


def read(scores: Path, pair: str) -> dict[str, dict[int, dict[str, Any]]]:
    """The records of a pair by arm and seed; arms without records are left out."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for arm in NAMES:
        paths = {seed: path_of(scores, pair, arm, seed) for seed in SEEDS}
        records = {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}
        if records:
            found[arm] = records
    return found


def table(scores: Path) -> list[str]:
    """Of every pair: the means over the seeds, the gain over source only on the same seeds, and the IoU per class."""
    lines: list[str] = []
    for name, pair in PAIRS.items():
        records, titles = read(scores, name), ARMS[name].titles
        base = {seed: 100 * record["miou"] for seed, record in records.get("source_only", {}).items()}
        lines += [f"### {pair.title}: {pair.schedule.total} source steps", ""]
        if not records:
            lines += ["No arm has been run.", ""]
            continue
        lines += [
            f"| target mIoU, % | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean ± std | over source only | "
            "source val | minutes | processor minutes |",
            "|---" * (len(SEEDS) + 6) + "|",
        ]
        for arm, of_seed in records.items():
            values = {seed: 100 * record["miou"] for seed, record in of_seed.items()}
            cells = " | ".join(f"{values[seed]:.1f}" if seed in values else "not run" for seed in SEEDS)
            gain = [values[seed] - base[seed] for seed in values if seed in base]
            on_source = [100 * r["source_miou"] for r in of_seed.values() if r["source_miou"] is not None]
            times = [statistics.mean(r[key] for r in of_seed.values()) for key in ("minutes", "processor_minutes")]
            lines.append(
                f"| {titles[arm]} | {cells} | {spread(list(values.values()))} | "
                f"{spread(gain) if gain and arm != 'source_only' else ''} | "
                f"{spread(on_source) if on_source else ''} | {times[0]:.0f} | {times[1]:.0f} |"
            )
        lines += ["", *class_table(records, titles), ""]
        shares = [f"{titles[arm]}: {share}" for arm, of_seed in records.items() if (share := shares_of(of_seed))]
        if shares:
            lines += ["Gradient on the backbone as a share of that of the source cross-entropy, mean over the run:", ""]
            lines += [*(f"- {line}" for line in shares), ""]
    return lines[:-1]


def not_run(scores: Path) -> list[str]:
    """What has been run of each pair: every group with missing arms, then the arms with fewer seeds than planned."""
    lines: list[str] = []
    for name, pair in PAIRS.items():
        records, arms = read(scores, name), ARMS[name]
        lines += [f"**{pair.title}**", ""]
        if records:
            lines += [
                f"- {group}: {words}."
                for group, members in arms.groups.items()
                if (words := lacking(members, arms, records))
            ]
        else:
            lines.append(f"- None of {len(arms.titles)} arms has been run.")
        for number in range(1, len(SEEDS)):
            fewer = [arms.titles[arm] for arm, of_seed in records.items() if len(of_seed) == number]
            if fewer:
                lines.append(f"- With {number} of {len(SEEDS)} seeds: {'; '.join(fewer)}.")
        lines.append("")
    return lines[:-1]


def lacking(members: Sequence[str], arms: Arms, records: Collection[str]) -> str:
    """The arms of a group that have records, or those without if they are fewer; empty if none is missing."""
    missing, found = ([arms.titles[arm] for arm in members if (arm in records) is there] for there in (False, True))
    if not missing or len(missing) <= len(found):
        return f"{len(found)} of {len(members)} arms have been run (not {'; '.join(missing)})" if missing else ""
    run = f"{len(found)} of {len(members)} arms have been run ({'; '.join(found)})"
    return run if found else f"none of {len(members)} arms has been run"


def draw_chart(scores: Path) -> None:
    """The target mIoU of all arms and seeds, one axis per pair that has scores."""
    groups = {}
    for name, pair in PAIRS.items():
        records, titles = read(scores, name), ARMS[name].titles
        if records:
            arms = {titles[arm]: [100 * r["miou"] for r in of_seed.values()] for arm, of_seed in records.items()}
            groups[pair.title.split(",")[0]] = arms
    if groups:
        charts.draw(charts.FOLDER / "real.svg", groups, "target mIoU, %")


def shares_of(of_seed: dict[int, dict[str, Any]]) -> str:
    """The gradient shares of an arm in words, means of the seeds; empty if none were measured."""
    measured = [record["gradients"] for record in of_seed.values() if record.get("gradients")]
    names = measured[0] if measured else ()
    return ", ".join(f"{name} {100 * statistics.mean(shares[name] for shares in measured):.1f} %" for name in names)


def class_table(records: dict[str, dict[int, dict[str, Any]]], titles: dict[str, str]) -> list[str]:
    names = list(next(iter(next(iter(records.values())).values()))["iou"])
    lines = [f"| IoU, %, mean of the seeds | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for arm, of_seed in records.items():
        columns = [[record["iou"][name] for record in of_seed.values()] for name in names]
        cells = [f"{100 * statistics.mean(column):.1f}" if None not in column else "absent" for column in columns]
        lines.append(f"| {titles[arm]} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", nargs="?", choices=PAIRS, help="the pair of domains")
    parser.add_argument("arm", nargs="?", choices=NAMES, help="the arm")
    parser.add_argument("--seed", type=int, choices=SEEDS, default=SEEDS[0])
    parser.add_argument(
        "--data", default=os.environ.get("BAFFT_REALDATA"), help="folder of the images [BAFFT_REALDATA]"
    )
    parser.add_argument("--out", type=Path, default=Path("result/real"), help="folder of checkpoints and logs")
    parser.add_argument("--scores", type=Path, default=SCORES, help="folder of the scores")
    parser.add_argument(
        "--table", action="store_true", help="write the sections and the chart of the results page from the scores"
    )
    arguments = parser.parse_args()
    if arguments.table:
        lines, command = table(arguments.scores), "python bench/real.py --table"
        write_section("real", command, lines)
        write_section("real not run", command, not_run(arguments.scores))
        draw_chart(arguments.scores)
        print("\n".join(lines))
        return
    if arguments.arm is None:
        raise UserError("found no pair or no arm, expected both, such as carla_to_cityscapes source_only (see --help)")
    if not arguments.data or not Path(arguments.data).is_dir():
        raise UserError(f"--data: {arguments.data}: expected the folder of the real images, or set BAFFT_REALDATA")
    path = path_of(arguments.scores, arguments.pair, arguments.arm, arguments.seed)
    if path.exists():
        print(f"{path} is there")
        return
    out = arguments.out.absolute()
    folder = out / arguments.pair / f"seed{arguments.seed}"
    runner = Runner(PAIRS[arguments.pair], arguments.seed, Path(arguments.data).absolute(), folder, out)
    record = runner.finish(ARMS[arguments.pair].stages[arguments.arm])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    print(f"{arguments.pair} {arguments.arm} seed {arguments.seed}: {100 * record['miou']:.1f}")


if __name__ == "__main__":
    config.run(main)
