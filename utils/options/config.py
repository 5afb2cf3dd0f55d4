"""From a command line to the options of a script, and how a script runs.

A value comes from the field's default, the stage, the preset, `--method`, or the command line; later ones override
earlier ones.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

from utils.options import contradictions, groups, parsing
from utils.options.flags import flag
from utils.options.presets import METHOD_OPTIONS, PRESETS, STAGES
from utils.options.table import PROGRAMS, RESTYLE, TRAIN, TRAINING, Options
from utils.system import machine, processes
from utils.system.amp import apex_amp
from utils.system.errors import UserError, line_for_user
from utils.system.files import write_json
from utils.system.interrupt import Interrupted, raised

_TYPES: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "tuple[int, int]": parsing.pair,
    "tuple[float, ...]": parsing.numbers,
}


def _layers() -> Iterator[dict[str, Any]]:
    """Everything that sets values by name, at any depth: stages, presets and methods."""
    waiting: list[dict[str, Any]] = [STAGES, PRESETS, METHOD_OPTIONS]
    while waiting:
        layer = waiting.pop()
        yield layer
        waiting += [value for value in layer.values() if isinstance(value, dict)]


def _can_be_switched_off(item: Field[Any]) -> bool:
    """Whether anything but the command line switches an option on."""
    return item.default is True or any(layer.get(item.name) is True for layer in _layers())


def _add(parser: argparse._ArgumentGroup, item: Field[Any], default: Any, *, shown: bool) -> None:
    meta = item.metadata
    kind = str(item.type).removesuffix(" | None")
    value = default
    if kind == "bool":
        value = "on" if default else "off"
    elif isinstance(default, tuple):
        value = ",".join(map(str, default))
    help = (meta["help"] if value is None else f"{meta['help']} [{value}]").replace("%", "%%")
    extra: dict[str, Any] = {"default": argparse.SUPPRESS, "help": help if shown else argparse.SUPPRESS}
    if kind == "bool":
        action = argparse.BooleanOptionalAction if _can_be_switched_off(item) else "store_true"
        parser.add_argument(flag(item.name), action=action, **extra)
        return
    extra |= {key: meta[key] for key in ("nargs", "const", "metavar") if key in meta}
    if meta["choices"]:
        extra["choices"] = meta["choices"]
    else:
        extra.setdefault("metavar", groups.metavar(item.name, kind))
    parser.add_argument(flag(item.name), type=_TYPES[kind], **extra)


def parse(
    script: str,
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    positional: Mapping[str, str] | None = None,
) -> tuple[Options, frozenset[str], argparse.Namespace]:
    """Options of one script from its command line.

    script: "step1", "step2", "pseudo", "evaluate", "iou", "check" or one of `RESTYLE`; positional: the help of each
    positional argument. Returns the resolved options, the names that the user gave, and the positional arguments.
    Raises UserError for an unknown flag, preset or choice, or a value out of range.
    """
    positional = positional or {}
    words = sys.argv[1:] if argv is None else argv
    places = "".join(f" {name.upper()}" for name in positional)
    parser = parsing.parser(description, usage=f"{PROGRAMS[script]}{places} [options]")
    parser.help_flag, parser.elsewhere = "--help-all", _of_other_scripts(script)
    parser.add_argument("--help-all", action="help", help="show all options, including those that few people need")
    for name in positional:
        parser.add_argument(name, metavar=name.upper(), help=positional[name])
    defaults = resolve(script, _named(script, words))
    group: Any = parser
    for item in fields(Options):
        if item.name in groups.FIRST_OF:
            group = parser.add_argument_group(groups.FIRST_OF[item.name])
        if script in item.metadata["on"]:
            shown = "--help-all" in words or item.name in groups.COMMON
            _add(group, item, getattr(defaults, item.name), shown=shown)
    namespace = parser.parse_args(words)
    arguments = argparse.Namespace(**{name: vars(namespace).pop(name) for name in positional})
    given = vars(namespace)
    options = resolve(script, given)
    contradictions.refuse(options.as_dict(), given)
    _check_optimizer(options, defaults, given)
    return options, frozenset(given), arguments


def _of_other_scripts(script: str) -> dict[str, list[str]]:
    """The flags that a script lacks, each with the scripts that take it."""
    return {
        flag(item.name): [PROGRAMS[other] for other in item.metadata["on"]]
        for item in fields(Options)
        if script not in item.metadata["on"]
    }


def _named(script: str, words: Sequence[str]) -> dict[str, Any]:
    """Those options of a command line that set the defaults of others, if they are valid."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for item in fields(Options):
        if item.name in ("preset", "method") and script in item.metadata["on"]:
            parser.add_argument(flag(item.name), choices=item.metadata["choices"], default=argparse.SUPPRESS)
        elif item.name == "source_only" and script in item.metadata["on"]:
            parser.add_argument(flag(item.name), action="store_true", default=argparse.SUPPRESS)
    try:
        return vars(parser.parse_known_args(words)[0])
    except argparse.ArgumentError:  # which the whole command line raises too
        return {}


def resolve(script: str, given: dict[str, Any]) -> Options:
    """Fill in what the user did not give, from method, preset, stage and defaults, and check every value."""
    given = _with_folders(given)
    arm = "source_only" if given.get("source_only") else script
    preset = PRESETS[given.get("preset", "gta5_to_cityscapes")]
    layers = [STAGES.get(script, {}), {k: v for k, v in preset.items() if not isinstance(v, dict)}]
    for domain, (_, *lists) in _FILES.items():
        if given.get(domain) not in (None, preset[domain]):  # the preset's lists name images of other data
            layers[1] = {k: v for k, v in layers[1].items() if k not in lists}
    # The restore_from of a preset is the start of stage 1; later scripts start from the previous stage.
    if script != "step1":
        layers[1].pop("restore_from", None)
    if script not in TRAIN:
        layers[1].pop("batch_size", None)  # a preset's is for training
    if script == "check":
        layers.append({"num_workers": os.cpu_count() or 1})  # it does nothing but read
    if script in RESTYLE:
        layers.reverse()  # what a preset says about training is about a segmenter
    layers += [preset.get(script, {}), preset.get(arm, {}) if arm != script else {}]
    method = given.get("method", preset.get("method"))
    if method is not None:
        layers.append(METHOD_OPTIONS.get(method, {}).get(script, {}))
        layers.append(preset.get(method, {}).get(arm, {}))
    values: dict[str, Any] = {item.name: item.default for item in fields(Options)}
    for layer in [*layers, given]:
        values |= layer
    names = {"preset": values["preset"], "arm": arm, "snapshots": f"snapshots/{values['preset']}"}
    if "snapshot_dir" not in given:
        values["snapshot_dir"] = values["snapshot_dir"].format(**names)
    names["snapshot_dir"] = values["snapshot_dir"]
    for name, value in values.items():
        if isinstance(value, str) and name not in {*given, "snapshot_dir"}:
            values[name] = value.format(**names)
    values["amp"] = "apex-O1" if values["amp"] == "apex" else values["amp"]
    stop, planned = values["num_steps_stop"], values["num_steps"]
    if isinstance(stop, float):
        stop = max(1, round(stop * planned))
    values["num_steps_stop"] = min(stop or planned, planned)
    if "warmup_steps" not in given:  # a preset's is for its own number of steps
        values["warmup_steps"] = min(values["warmup_steps"], planned // 2)
    options = Options(**values)
    _check(options, script, given, stop)
    return options


_FILES = {
    "source": ("data_dir", "data_dir_labels", "data_list"),
    "target": ("data_dir_target", "data_list_target", "data_list_target_test"),
}


def _with_folders(given: dict[str, Any]) -> dict[str, Any]:
    """`--source READER:PATH` taken apart into the reader and its folder."""
    for domain, (root, *_) in _FILES.items():
        reader, colon, path = str(given.get(domain, "")).partition(":")
        if not colon:
            continue
        if not path:
            raise UserError(f"{flag(domain)}: found {given[domain]!r}, expected READER:PATH such as {reader}:data/mine")
        if root in given:
            raise UserError(
                f"{flag(domain)} {given[domain]}: found {flag(root)} {given[root]} too, expected one folder; leave "
                f"{flag(root)} out"
            )
        given = given | {domain: reader, root: os.path.expanduser(path)}
    return given


def _check(options: Options, script: str, given: Collection[str], stop: int | None) -> None:
    for item in fields(Options):
        value, check = getattr(options, item.name), item.metadata["check"]
        value = stop if item.name == "num_steps_stop" else value
        expected = check(value) if check and value is not None else None
        if isinstance(value, int) and value >= 2**32:
            expected = "a number below 4294967296"
        if expected and script in item.metadata["on"]:
            raise UserError(f"{flag(item.name)}: found {str(value)[:40]}, expected {expected}")
    if script in TRAINING and "num_steps_stop" in given and (stop or 0) > options.num_steps:
        raise UserError(
            f"--num-steps-stop: found {stop}, expected at most --num-steps {options.num_steps}, over which the "
            f"learning rates are planned; raise --num-steps"
        )
    if script == "step1" and options.isia == "contrast":
        raise UserError("--isia contrast is only for stage 2 of --method plus; expected paper or released in stage 1")
    if options.ignore_label > 255:
        raise UserError(f"--ignore-label: found {options.ignore_label}, expected a label value up to 255")
    if options.sync_bn and options.norm != "batchnorm":
        raise UserError(f"--sync-bn: found --norm {options.norm}, expected --norm batchnorm; leave one of them out")
    if options.compile and options.checkpoint_activations:
        raise UserError("--compile: found --checkpoint-activations too, expected only one of them; leave one out")
    if options.compile_mode != "default" and not options.compile:
        raise UserError(f"--compile-mode {options.compile_mode} has an effect only with --compile; give both")
    if options.amp.startswith("apex"):
        if script not in TRAINING:
            raise UserError(f"--amp {options.amp} is for training only; expected one of off, bf16, fp16")
        apex_amp()
    if options.amp not in ("off", "bf16") and options.cpu:
        raise UserError(f"--amp {options.amp} needs a GPU: leave --cpu out, or choose --amp off")


def _check_optimizer(options: Options, usual: Options, given: Collection[str]) -> None:
    """Refuse the preset's learning rate and weight decay with an optimiser for which they were not chosen. usual: the
    options of the same preset and method without any other flag."""
    missing = " and ".join(flag(name) for name in ("learning_rate", "weight_decay") if name not in given)
    if options.optimizer != usual.optimizer and missing:
        raise UserError(
            f"--optimizer {options.optimizer}: found no {missing}; the preset's learning rate {usual.learning_rate:g} "
            f"and weight decay {usual.weight_decay:g} are for {usual.optimizer}; give {missing} too (AdamW often needs "
            "a tenth of SGD's learning rate or less, and weight decay 0.01; SGD has 0.0005)"
        )


def describe(options: Options, script: str) -> str:
    """The options of a script, one per line."""
    shown = [f for f in fields(options) if script in f.metadata["on"]]
    return "\n".join(f"  {flag(f.name):26s} {getattr(options, f.name)}" for f in shown)


_RUN = ("cache", "continue_train", "overwrite", "restore_from", "snapshot_dir", "log_dir", "num_steps_stop")


def changes(before: dict[str, Any], options: Options, script: str) -> list[str]:
    """The options of a resumed run that differ from those of its checkpoint (`before`), one line each; options that
    only name files do not count."""
    shown = [f.name for f in fields(options) if script in f.metadata["on"] and f.name not in _RUN and f.name in before]
    pairs = [(flag(name), before[name], getattr(options, name)) for name in shown]
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def save(options: Options, folder: Path) -> None:
    """Write the resolved options to `folder`/config.json."""
    write_json(folder / "config.json", options.as_dict())


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main`. Bad input ends with one line and exit code 2; Ctrl-C, SIGTERM and SIGHUP end with one line
    and exit code 130, 143 or 129.

    Any other error is also recorded for the report of torchrun, if torchrun has started this process.
    """
    # More reading processes than cores are fine: decoding large images waits for the disk too.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the program
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    note = machine.system_note()
    if note and processes.is_main():
        print(note, file=sys.stderr)
    try:
        with _session(), raised():
            _recorded(main)
    except Exception as error:
        line = line_for_user(error)
        if line is None:
            raise
        logging.getLogger("bafft").debug("bad input", exc_info=True)
        _refuse(line)
    except Interrupted as signal:
        with suppress(OSError):  # a terminal that is closed
            print(signal, file=sys.stderr)
        sys.exit(signal.code)
    sys.exit(0)


def _session() -> AbstractContextManager[None]:
    if processes.size() == 1:
        return nullcontext()
    from utils.system import distributed

    return distributed.session()


def _recorded(main: Callable[[], None]) -> None:
    try:
        main()
    except Exception as error:
        if line_for_user(error) is None and processes.launched():
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        raise
