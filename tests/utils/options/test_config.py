"""Options: which script has which flag, where a value comes from, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from model.networks.choices import BN_MODES
from utils.options import config, groups
from utils.options.config import parse, resolve
from utils.options.flags import flag
from utils.options.presets import METHOD_OPTIONS, PRESETS
from utils.options.table import TRAIN, Options
from utils.system.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
STAGES, NETWORK = ("step1", "step2"), ("step1", "step2", "pseudo", "evaluate")
SOURCE = (*STAGES, "check")
ALL = (*NETWORK, "iou", "check")
RESTYLE = ("restyle_train", "restyle_apply")
# Flags of the published scripts that are kept: flag, a value, what it becomes, and the scripts that have it.
PUBLISHED = [
    ("--preset", "synthia_to_cityscapes", "synthia_to_cityscapes", ALL),
    ("--source", "camvid", "camvid", SOURCE),
    ("--target", "camvid", "camvid", ALL),
    ("--classes", "a.yaml", "a.yaml", ALL),
    ("--data-dir", "here", "here", SOURCE),
    ("--data-dir-target", "here", "here", ALL),
    ("--data-list", "a.txt", "a.txt", SOURCE),
    ("--data-list-target", "a.txt", "a.txt", (*SOURCE, "pseudo")),
    ("--data-list-target-test", "a.txt", "a.txt", (*SOURCE, "evaluate", "iou")),
    ("--input-size", "640,360", (640, 360), STAGES),
    ("--input-size-target", "512,256", (512, 256), NETWORK),
    ("--batch-size", "3", 3, NETWORK),
    ("--scales", "0.5,1", (0.5, 1.0), ("evaluate",)),
    ("--flip", None, True, ("evaluate",)),
    ("--workers", "3", 3, ("iou",)),
    ("--iter-size", "3", 3, STAGES),
    ("--num-steps", "300000", 300_000, STAGES),
    ("--num-steps-stop", "7", 7, STAGES),
    ("--learning-rate", "1e-3", 1e-3, STAGES),
    ("--learning-rate-D", "1e-3", 1e-3, STAGES),
    ("--momentum", "0.5", 0.5, STAGES),
    ("--weight-decay", "0", 0.0, STAGES),
    ("--power", "1", 1.0, STAGES),
    ("--lambda-adv-target", "0.5", 0.5, STAGES),
    ("--lambda-adv-cls", "0.5", 0.5, STAGES),
    ("--lambda-adv-ins", "0.5", 0.5, STAGES),
    ("--lambda-adv-cate", "0.5", 0.5, STAGES),
    ("--num-prototype", "7", 7, STAGES),
    ("--random-mirror", None, True, STAGES),
    ("--random-scale", None, True, STAGES),
    ("--random-seed", "7", 7, STAGES),
    ("--restore-from", "a.pth", "a.pth", NETWORK),
    ("--not-restore-last", None, True, ("step1",)),
    ("--continue-train", None, "last", STAGES),
    ("--continue-train", "a.pth", "a.pth", STAGES),
    ("--save-pred-every", "7", 7, STAGES),
    ("--snapshot-dir", "here", "here", STAGES),
    ("--log-dir", "here", "here", STAGES),
    ("--tensorboard", None, True, STAGES),
    ("--ssl-target-dir", "here", "here", ("pseudo", "step2")),
    ("--save", "here", "here", ("evaluate",)),
    ("--set", "train", "train", (*SOURCE, "evaluate")),
    ("--cpu", None, True, NETWORK),
    ("--num-workers", "7", 7, (*NETWORK, "check")),
    ("--num-classes", "7", 7, ALL),
    ("--ignore-label", "200", 200, ALL),
    ("--amp", "bf16", "bf16", NETWORK),
    ("--source-only", None, True, ("step1",)),
    ("--json", "a.json", "a.json", ("evaluate", "iou")),
]
TAKEN = [(script, name, text, value) for name, text, value, scripts in PUBLISHED for script in scripts]
NOT_TAKEN = [(s, name, text) for name, text, _, scripts in PUBLISHED for s in ALL if s not in scripts]


@pytest.mark.parametrize(("script", "name", "text", "value"), TAKEN)
def test_a_script_takes_its_flags(script, name, text, value):
    options, given, _ = parse(script, [name] if text is None else [name, text])
    field = name.removeprefix("--").replace("-", "_")
    assert getattr(options, field) == value
    assert given == {field}


@pytest.mark.parametrize(("script", "name", "text"), NOT_TAKEN)
def test_a_flag_of_another_script_is_an_error(script, name, text):
    with pytest.raises(UserError, match=f"unrecognized arguments: {name}"):
        parse(script, [name] if text is None else [name, text])


@pytest.mark.parametrize("script", ALL)
@pytest.mark.parametrize("name", ["--nonsense", "--num-class", "--pre", "--devkit-dir"])
def test_an_unknown_or_abbreviated_flag_is_an_error(script, name):
    with pytest.raises(UserError, match=f"unrecognized arguments: {name} 5"):
        parse(script, [name, "5"])


@pytest.mark.parametrize("script", ALL)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_every_script_its_options(script, preset):
    options = resolve(script, {"preset": preset})
    assert options.preset == preset
    texts = [value for value in options.as_dict().values() if isinstance(value, str)]
    assert not [text for text in texts if "{" in text]
    values = [v for v in PRESETS[preset].values() if not isinstance(v, dict)]
    names = [n for n, v in PRESETS[preset].items() if not isinstance(v, dict)] + list(PRESETS[preset].get(script, {}))
    assert values and set(names) <= {field.name for field in dataclasses.fields(Options)}
    assert json.loads(json.dumps(options.as_dict()))["preset"] == preset


def test_the_default_preset_is_the_papers():
    step1, step2 = resolve("step1", {}), resolve("step2", {})
    assert step1.preset == "gta5_to_cityscapes"
    assert (step1.source, step1.target, step1.backbone) == ("gta5", "cityscapes", "resnet101")
    assert (step1.input_size, step1.input_size_target) == ((1280, 720), (1024, 512))
    assert (step1.num_steps, step1.num_steps_stop, step2.num_steps) == (250_000, 200_000, 300_000)
    assert (step1.learning_rate, step1.momentum, step1.weight_decay, step1.power) == (2.5e-4, 0.9, 5e-4, 0.9)
    assert (step1.learning_rate_D, step1.lambda_adv_target, step1.lambda_adv_feat) == (1e-4, 0.001, 0.001)
    assert (step1.lambda_adv_cls, step1.lambda_adv_ins, step1.lambda_adv_cate) == (0.01, 0.01, 0.01)
    assert (step2.lambda_adv_cls, step2.lambda_adv_ins, step2.lambda_adv_cate) == (0.001, 0.001, 0.001)
    builtin = [resolve(script, {"preset": "builtin"}) for script in ("step1", "pseudo", "evaluate")]
    assert [options.batch_size for options in builtin] == [4, 1, 1]
    assert (step1.batch_size, step1.num_prototype, step1.bn, step1.aspp_branches) == (1, 50, "shared", 2)


@pytest.mark.parametrize("preset", PRESETS)
def test_stages_share_no_folder_and_find_each_other(preset):
    source_only = resolve("step1", {"preset": preset, "source_only": True})
    step1, step2, pseudo, evaluate = (resolve(script, {"preset": preset}) for script in NETWORK[:2] + NETWORK[2:])
    assert len({o.snapshot_dir for o in (source_only, step1, step2)}) == 3
    assert step2.restore_from == pseudo.restore_from == f"{step1.snapshot_dir}/last.pth"
    assert evaluate.restore_from == f"{step2.snapshot_dir}/last.pth"
    assert pseudo.ssl_target_dir == resolve("step2", {"preset": preset, "method": "paper"}).ssl_target_dir
    assert step1.log_dir == f"{step1.snapshot_dir}/tensorboard"


@pytest.mark.parametrize("preset", PRESETS)
def test_restyling_is_as_in_the_paper_of_cyclegan_whatever_the_preset_says_about_the_segmenter(preset):
    train, apply = (resolve(script, {"preset": preset}) for script in RESTYLE)
    assert (train.learning_rate, train.learning_rate_D, train.batch_size, train.random_mirror) == (2e-4, 2e-4, 1, True)
    assert (train.lambda_cycle, train.lambda_identity, train.random_scale, train.random_jitter) == (10, 5, False, False)
    assert train.num_steps == train.num_steps_stop
    for size in (train.input_size, train.input_size_target):
        assert train.crop is not None and train.crop[0] <= size[0] and train.crop[1] <= size[1]
    assert apply.restore_from == f"{train.snapshot_dir}/last.pth"
    assert train.snapshot_dir not in {resolve(stage, {"preset": preset}).snapshot_dir for stage in STAGES}
    assert (apply.input_size, apply.num_workers) == (train.input_size, train.num_workers)


def test_a_flag_of_restyling_overrides_its_defaults():
    options = parse("restyle_train", ["--preset", "builtin", "--learning-rate", "1e-3", "--num-steps", "7"])[0]
    assert (options.learning_rate, options.num_steps, options.num_steps_stop, options.crop) == (1e-3, 7, 7, (128, 128))


def test_ids_of_masks_are_refused_if_no_masks_are_saved():
    with pytest.raises(UserError, match="--save-ids has no effect with --save none"):
        parse("evaluate", ["--save", "none", "--save-ids", "label"])


def test_log_dir_follows_a_given_snapshot_dir_whatever_its_name():
    assert parse("step1", ["--snapshot-dir", "runs/{a}"])[0].log_dir == "runs/{a}/tensorboard"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_method_sets_its_switches_over_any_preset(preset, stage, method):
    options = resolve(stage, {"preset": preset, "method": method})
    assert {name: getattr(options, name) for name in METHOD_OPTIONS[method][stage]} == METHOD_OPTIONS[method][stage]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_to_name_the_default_method_changes_nothing(preset, stage):
    plain = resolve(stage, {"preset": preset})
    assert resolve(stage, {"preset": preset, "method": plain.method}) == plain


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_method_leaves_the_weights_of_the_terms_that_it_keeps_to_the_preset(preset, stage):
    plain, released = (resolve(stage, {"preset": preset, "method": m}).as_dict() for m in ("paper", "released"))
    off = {"lambda_adv_feat": 0.0} | ({"lambda_adv_cate": 0.0} if stage == "step1" else {})
    weights = {name: value for name, value in plain.items() if name.startswith("lambda_")}
    assert {name: released[name] for name in weights} == weights | off


def test_the_released_method_is_as_the_specification_says():
    step1, step2 = (resolve(stage, {"method": "released"}) for stage in STAGES)
    assert (step1.aim, step1.lambda_adv_cate, step1.lambda_adv_feat, step1.absent_stuff) == ("none", 0, 0, True)
    assert (step2.aim, step2.isia, step2.lambda_adv_cate, step2.absent_stuff) == ("released", "released", 0.001, True)


@pytest.mark.parametrize("preset", ["gta5_to_cityscapes", "synthia_to_cityscapes"])
@pytest.mark.parametrize("script", ["step1", "step2"])
def test_the_papers_street_tasks_change_no_image_at_random(script, preset):
    options = parse(script, ["--preset", preset])[0]
    assert (options.random_mirror, options.random_scale, options.random_jitter) == (False, False, False)


def test_a_flag_overrides_method_preset_and_stage():
    given = ["--preset", "builtin", "--method", "released", "--aim", "paper", "--backbone", "vgg16", "--num-steps", "9"]
    options = parse("step1", given)[0]
    assert (options.aim, options.backbone, options.num_steps, options.num_steps_stop) == ("paper", "vgg16", 9, 9)
    assert options.absent_stuff  # from the method, since nothing overrides it
    assert parse("step1", ["--no-random-mirror"])[0].random_mirror is False


def test_a_planned_stop_of_a_preset_gives_way_to_fewer_steps_but_a_given_one_does_not():
    assert parse("step1", ["--num-steps", "10"])[0].num_steps_stop == 10
    assert parse("step1", ["--num-steps-stop", "10"])[0].num_steps_stop == 10
    with pytest.raises(UserError, match=r"--num-steps-stop: found 11, .* --num-steps 10"):
        parse("step1", ["--num-steps", "10", "--num-steps-stop", "11"])
    with pytest.raises(UserError, match=r"--num-steps-stop: found 250001, .* --num-steps 250000"):
        parse("step1", ["--num-steps-stop", "250001"])


@pytest.mark.parametrize("preset", ["own_images", "camvid_day_to_dusk", "builtin"])
@pytest.mark.parametrize(("method", "optimizer"), [("paper", "sgd"), ("plus", "adamw")])
def test_the_baseline_is_trained_as_its_method_is(preset, method, optimizer):
    given = {"preset": preset, "method": method}
    arms = [resolve("step1", given), resolve("step1", given | {"source_only": True})]
    for name in ("optimizer", "learning_rate", "weight_decay", "class_balance", "num_steps"):
        assert len({getattr(arm, name) for arm in arms}) == 1, name
    assert arms[1].optimizer == optimizer and arms[1].num_steps_stop == arms[1].num_steps


def test_the_warmup_of_a_preset_takes_at_most_half_of_the_steps():
    given = ["--method", "plus", "--num-steps"]
    assert [parse("step2", [*given, n])[0].warmup_steps for n in ("40000", "1000")] == [1500, 500]
    assert parse("step2", [*given, "1000", "--warmup-steps", "1000"])[0].warmup_steps == 1000


def test_another_optimizer_needs_a_learning_rate_of_its_own():
    for given, usual, rate in (
        (["--method", "paper", "--optimizer", "adamw"], "sgd", "0.004"),
        (["--method", "plus", "--optimizer", "sgd"], "adamw", "0.0003"),
    ):
        given = ["--preset", "own_images", *given]
        with pytest.raises(UserError, match=rf"--optimizer \w+: found no --learning-rate and --w.* {rate} .*{usual};"):
            parse("step1", given)
        with pytest.raises(UserError, match=r"--optimizer \w+: found no --weight-decay; "):
            parse("step1", [*given, "--learning-rate", "0.01"])
        assert parse("step1", [*given, "--learning-rate", "0.01", "--weight-decay", "0"])[0].learning_rate == 0.01
    assert parse("step1", ["--optimizer", "sgd"])[0].optimizer == "sgd"  # the preset's own


def test_help_shows_the_defaults_of_the_script(capsys):
    with pytest.raises(SystemExit):
        parse("step2", ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for default in ("[snapshots/gta5_to_cityscapes/step1/last.pth]", "[target_ssl_gt]", "[1280,720]", "[300000]"):
        assert default in shown
    assert "[None]" not in shown and "{snapshots}" not in shown


@pytest.mark.parametrize("script", NETWORK)
def test_help_shows_what_is_on_by_default(script, capsys):
    with pytest.raises(SystemExit):
        parse(script, ["--help-all"])
    shown = " ".join(capsys.readouterr().out.split())
    defaults = resolve(script, {}).as_dict()
    switches = [f for f in dataclasses.fields(Options) if f.type == "bool" and script in f.metadata["on"]]
    on = {"channels_last", "autotune", "tf32"} | ({"report"} if script in TRAIN else set())
    on |= {"class_mixing"} if script == "step2" else set()
    assert {f.name for f in switches if defaults[f.name]} == on
    for field in switches:
        assert f"{field.metadata['help']} [{'on' if defaults[field.name] else 'off'}]" in shown, field.name


def help_of(script: str, *arguments: str) -> str:
    printed = StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit):
        parse(script, [*arguments])
    return printed.getvalue()


@pytest.mark.parametrize("script", [*ALL, "restyle_train", "restyle_apply"])
def test_the_short_help_shows_few_options_and_the_long_one_all(script):
    flags = {flag(f.name) for f in dataclasses.fields(Options) if script in f.metadata["on"]}
    short, everything = (set(re.findall(r"^  (--[\w-]+)", help_of(script, h), re.M)) for h in ("-h", "--help-all"))
    assert everything == flags | {"--help-all"}
    assert short == {name for name in flags if name[2:].replace("-", "_") in groups.COMMON} | {"--help-all"}
    assert 5 <= len(short) <= 23 and "--preset" in short


def test_help_groups_its_options_and_names_their_values():
    shown = help_of("step1", "--help-all")
    for group in ("task and data", "network", "terms", "schedule and machine", "files"):
        assert f"\n{group}:\n" in shown
    for line in ("--input-size W,H", "--data-dir DIR", "--classes FILE", "--num-steps N", "--learning-rate X"):
        assert f"\n  {line}" in shown
    assert "restyling" not in shown and "INPUT_SIZE" not in shown
    assert not re.search(r"--[\w-]+ [A-Z]+_", shown)


def test_help_shows_the_defaults_of_the_preset_and_method_on_the_command_line():
    def default(option: str, *arguments: str) -> str:
        found = re.search(rf"--{option} \S+.*?\[([^\]]*)\]\n", help_of("step1", *arguments, "--help-all"), re.S)
        assert found
        return found[1]

    assert default("backbone") == "resnet101" and default("backbone", "--preset", "builtin") == "tiny"
    assert default("backbone", "--preset=own_images") == "mobilenet_v2"
    assert default("lambda-adv-feat", "--method", "released") == "0.0"
    assert default("snapshot-dir", "--source-only").endswith("source_only")
    assert help_of("step1", "--help-all", "--preset", "nonsense") == help_of("step1", "--help-all")


@pytest.mark.parametrize("name", ["--no-cpu", "--no-not-restore-last", "--no-overwrite", "--no-source-only"])
def test_what_is_off_everywhere_cannot_be_switched_off(name):
    with pytest.raises(UserError, match=f"unrecognized arguments: {name}"):
        parse("step1", [name])


def test_group_starts_are_options_in_order():
    names = [field.name for field in dataclasses.fields(Options)]
    starts = [names.index(name) for name in groups.FIRST_OF]
    assert starts == sorted(starts) and starts[0] == 0
    assert set(names) >= groups.COMMON


def test_the_check_reads_with_all_processors():
    assert resolve("check", {"preset": "builtin"}).num_workers == os.cpu_count()
    assert resolve("check", {"num_workers": 3}).num_workers == 3


# `--help` must not wait for torch. The test checks imports, not seconds, which depend on the load of the machine.
IMPORTED = """
import contextlib, io, runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = name
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
    (runpy.run_path if name.endswith(".py") else runpy.run_module)(name, run_name="__main__")
assert "usage: " in printed.getvalue()
print(*sorted({"torch", "scipy", "matplotlib", "tensorboard"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "command",
    [
        *((f"{name}.py", "--help") for name in ("train_step1", "train_step2", "Generate_Pseudo_Label")),
        *((f"{name}.py", "--help") for name in ("evaluate_cityscapes", "compute_iou", "predict", "export_onnx")),
        ("prepare_aerial.py", "--help"),
        ("demo.py", "--help"),
        ("restyle_source.py", "train", "--help-all"),
        *((name, "--help") for name in ("dataset.check", "dataset.builtin", "utils.report", "utils.states")),
    ],
    ids=" ".join,
)
def test_help_does_not_import_torch(command):
    done = subprocess.run([sys.executable, "-c", IMPORTED, *command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_help_explains_every_mode_of_batchnorm():
    text = Options.__dataclass_fields__["bn"].metadata["help"]
    assert all(re.search(rf"\b{mode}\b", text) for mode in BN_MODES)


def test_every_option_has_help_and_a_script():
    for field in dataclasses.fields(Options):
        assert field.metadata["help"] and field.metadata["on"], field.name
        assert set(field.metadata["on"]) <= {*ALL, *RESTYLE}
    assert flag("learning_rate_D") == "--learning-rate-D"


@pytest.mark.parametrize("script", ALL)
def test_describe_shows_the_options_of_the_script_and_no_other(script):
    options = resolve(script, {"preset": "builtin"})
    lines = [line.split() for line in config.describe(options, script).splitlines()]
    expected = [flag(f.name) for f in dataclasses.fields(Options) if script in f.metadata["on"]]
    assert [line[0] for line in lines] == expected


def test_changes_of_a_resumed_run_leave_out_files():
    before = resolve("step1", {"learning_rate": 0.1, "num_steps": 5}).as_dict()
    after = resolve("step1", {"learning_rate": 0.2, "num_steps": 5, "snapshot_dir": "x", "continue_train": "last"})
    assert config.changes(before, after, "step1") == ["--learning-rate 0.1 -> 0.2"]


def exits(main, capsys) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        config.run(main)
    return ended.value.code, capsys.readouterr().err


def test_run_turns_the_end_of_a_script_into_an_exit_code(capsys):
    def bad():
        raise UserError("a.png: corrupt")

    def wrapped():
        raise UserError(
            "Caught UserError in DataLoader worker.\nTraceback:\nutils.system.errors.UserError: a.png: corrupt\n"
        )

    def stopped(number):
        os.kill(os.getpid(), number)

    assert exits(lambda: None, capsys) == (0, "")
    assert exits(bad, capsys) == (2, "error: a.png: corrupt\n")
    assert exits(wrapped, capsys) == (2, "error: a.png: corrupt\n")
    assert exits(lambda: stopped(signal.SIGINT), capsys) == (130, "SIGINT: stopped; no file is left half-written\n")
    assert exits(lambda: stopped(signal.SIGTERM), capsys) == (143, "SIGTERM: stopped; no file is left half-written\n")
    with pytest.raises(ZeroDivisionError):  # an error in our own code keeps its traceback
        config.run(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
