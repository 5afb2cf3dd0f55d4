"""What each method, and each part of it, gives on real images: pairs of domains, MobileNetV2 from ImageNet weights.

    python bench/real.py carla_to_cityscapes source_only --seed 1 --data /where/realdata   # train and score one arm
    python bench/real.py --table                                                         # bench/RESULTS.md

An arm is a chain of stages; each is a call of one of the project's scripts, on one thread or, with `--gpu`, on a GPU in
float32. All arms of a pair take the same number of source steps under the same schedule of learning rates, and are
scored at the end (last.pth): only the method differs. Arms of one seed share the stages that they have in common. A
finished stage is not run again, a killed one resumes, and an arm that has a score is not run. Target labels are used
only to report the score. Settings may be chosen by the score on the source's own validation images, if there are any.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import charts
from bench.builtin_gains import spread
from bench.real_arms import APPLY_CYCLEGAN, ARMS, CYCLEGAN_STEPS, NAMES, PSEUDO, TRAIN_CYCLEGAN, WEIGHTS, Arms, Stage
from bench.real_pairs import PAIRS, POWER, Arguments, Pair
from bench.results import write_section
from utils.options import config
from utils.system.errors import UserError
from utils.system.files import write_json
from utils.system.logs import revision

ROOT = Path(__file__).resolve().parent.parent
SCORES = ROOT / "bench" / "scores" / "real"
SEEDS = (1, 2, 3)
BATCH = 2
SAVE = 500  # steps between checkpoints, which a killed run resumes from

ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class Runner:
    """Runs the stages of one pair and seed in the folder `out`, with one folder per stage."""

    def __init__(self, pair: Pair, seed: int, data: Path, out: Path, common: Path, gpu: bool = False) -> None:
        """common: the folder of what pairs and seeds share: decoded images, and files that the data lack."""
        self.pair, self.seed, self.data, self.out = pair, seed, data, out
        self.device: Arguments = ("--no-tf32",) if gpu else ("--cpu",)
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
            "machine": machine(gpu="--cpu" not in self.device),
        }

    def stage(self, stage: Stage) -> dict[str, Any]:
        """Run a stage unless it is finished; returns what it took. A second process waits for the first."""
        folder = self.out / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        started, done, attempts = folder / "started.json", folder / "done.json", folder / "attempts.jsonl"
        options = shlex.join(self.options(stage))
        with open(folder / "stage.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = next((path for path in (done, started) if path.exists()), None)
            if known is None:
                write_json(started, {"options": options, "revision": revision()})
            elif (trained := json.loads(known.read_text())["options"]) != options:
                raise UserError(f"{folder}: trained with the options {trained}; expected {options}; give another --out")
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
                    "options": options,
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
        schedule, optimizer = self.pair.schedule, stage.optimizer
        first = stage.after.first if stage.resumes and stage.after else stage.first  # of the run that goes on
        return (
            *("--random-seed", str(self.seed), "--batch-size", str(BATCH), "--learning-rate"),
            *(f"{optimizer.rate * schedule.decay(first):.4g}", "--power", str(POWER)),
            *("--num-steps", str(schedule.total - first), "--num-steps-stop", str(stage.last - first)),
            *(*stage.options, *optimizer.options),
        )

    def command(self, stage: Stage) -> list[str]:
        pair, folder = self.pair, self.out / stage.name
        before = [] if stage.after is None else ["--restore-from", str(self.out / stage.after.name / "last.pth")]
        command = [*stage.script, "--preset", pair.preset, "--num-workers", "0", *self.device]
        if stage.script == PSEUDO:
            command += [*pair.classes, *pair.target, *before, "--cache", str(self.cache)]
            return self.filled([*command, "--ssl-target-dir", str(folder / "masks")])
        if stage.script == APPLY_CYCLEGAN:
            command += [*pair.source, "--input-size", pair.sizes.source]
            return self.filled([*command, *before, "--out", str(folder / "restyled")])
        command += pair.target
        command += pair.source if stage.images is None else self.restyled(stage.images)
        if stage.script == TRAIN_CYCLEGAN:
            command += [*pair.sizes.training, *(("--semantic", before[1]) if before else ())]
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
        command += ["--save", "none", "--json", str(path), "--num-workers", "0", *self.device]
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


def machine(gpu: bool) -> str:
    """Where an arm was trained, in words."""
    if gpu:
        import torch  # late: the processes of the stages do the work

        return f"{torch.cuda.get_device_name()}, shared with other arms"
    return f"{platform.machine()}, {os.cpu_count()} cores, one thread"


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
    for arm in ARMS[pair].stages:
        paths = {seed: path_of(scores, pair, arm, seed) for seed in SEEDS}
        records = {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}
        if records:
            found[arm] = records
    return found


def table(scores: Path) -> list[str]:
    """For each pair, the means over the seeds, the gain over source only (same seeds, same optimiser), and the IoU per
    class."""
    lines: list[str] = []
    for name, pair in PAIRS.items():
        records, arms = read(scores, name), ARMS[name]
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
            cells = " | ".join(_cell(of_seed.get(seed)) for seed in SEEDS)
            base = {} if arm == arms.base(arm) else records.get(arms.base(arm), {})
            gain = [values[seed] - 100 * base[seed]["miou"] for seed in values if seed in base]
            on_source = [100 * r["source_miou"] for r in of_seed.values() if r["source_miou"] is not None]
            times = minutes(list(of_seed.values()))
            lines.append(
                f"| {arms.titles[arm]} | {cells} | {spread(list(values.values()))} | "
                f"{spread(gain) if gain else '–'} | "
                f"{spread(on_source) if on_source else '–'} | {' | '.join(times)} |"
            )
        lines += ["", *class_table(records, arms.titles), "", *changes_table(records, arms)]
        shares = [f"{arms.titles[arm]}: {share}" for arm, of_seed in records.items() if (share := shares_of(of_seed))]
        if shares:
            lines += ["Gradient on the backbone as a share of that of the source cross-entropy, mean over the run:", ""]
            lines += [*(f"- {line}" for line in shares), ""]
    return lines[:-1]


def _cell(record: dict[str, Any] | None) -> str:
    """The target's mIoU, and whether the network was trained on a GPU."""
    if record is None:
        return "not run"
    return f"{100 * record['miou']:.1f}{'' if _on_one_thread(record) else ' (GPU)'}"


def _on_one_thread(record: dict[str, Any]) -> bool:
    return record["machine"].endswith("one thread")


def minutes(records: Sequence[dict[str, Any]]) -> list[str]:
    """Mean minutes and processor minutes. Only arms trained on one thread count, because a GPU is shared by several."""
    compared = [record for record in records if _on_one_thread(record)]
    if not compared:
        return ["on a GPU", "–"]
    return [f"{statistics.mean(r[key] for r in compared):.0f}" for key in ("minutes", "processor_minutes")]


def not_run(scores: Path) -> list[str]:
    """For each pair, the groups that lack arms, then the arms with fewer seeds than planned."""
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
            lines.append(f"- None of {len(arms.titles)} arms run.")
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
        return f"{len(found)} of {len(members)} arms run (missing: {'; '.join(missing)})" if missing else ""
    run = f"{len(found)} of {len(members)} arms run ({'; '.join(found)})"
    return run if found else f"none of {len(members)} arms run"


def changes_table(records: dict[str, dict[int, dict[str, Any]]], arms: Arms) -> list[str]:
    """What a part of plus changes, in points of target mIoU on the seeds of both; empty if none was run."""
    lines: list[str] = []
    for arm, whole in arms.changed.items():
        common = sorted(set(records.get(arm, {})) & set(records.get(whole, {})))
        change = {seed: 100 * (records[arm][seed]["miou"] - records[whole][seed]["miou"]) for seed in common}
        if change:
            cells = " | ".join(f"{change[seed]:+z.1f}" if seed in change else "" for seed in SEEDS)
            lines.append(f"| {arms.titles[arm]} | {cells} | {statistics.mean(change.values()):+z.1f} |")
    if not lines:
        return []
    seeds = " | ".join(f"seed {seed}" for seed in SEEDS)
    return [
        f"| change of target mIoU by what is named last | {seeds} | mean |",
        "|---" * 5 + "|",
        *lines,
        "",
    ]


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
    parser.add_argument("--gpu", action="store_true", help="train and score on a GPU [on one thread]")
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
    arms = ARMS[arguments.pair]
    if arguments.arm not in arms.stages:
        raise UserError(
            f"{arguments.arm}: found no such arm of {arguments.pair}, expected one of {', '.join(arms.stages)}"
        )
    path = path_of(arguments.scores, arguments.pair, arguments.arm, arguments.seed)
    if path.exists():
        print(f"{path} is there")
        return
    out = arguments.out.absolute()
    folder = out / arguments.pair / f"seed{arguments.seed}"
    runner = Runner(PAIRS[arguments.pair], arguments.seed, Path(arguments.data).absolute(), folder, out, arguments.gpu)
    record = runner.finish(arms.stages[arguments.arm])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    print(f"{arguments.pair} {arguments.arm} seed {arguments.seed}: {100 * record['miou']:.1f}")


if __name__ == "__main__":
    config.run(main)
