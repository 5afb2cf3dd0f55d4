"""The trainer: what it builds from the options, one iteration, and skipped steps."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch

from model.methods.bafft import Alignment
from model.methods.base import Batch
from tests.scripts import SOURCE, TARGET, TRAINING
from utils.options import config
from utils.reporting import tables
from utils.reporting.sinks import JsonLines
from utils.setup import data_sets, networks
from utils.system.errors import UserError
from utils.system.precision import Precision
from utils.training import run as loop
from utils.training.meter import Meter
from utils.training.run import Run
from utils.training.trainer import Data, Trainer


@pytest.fixture
def trainer(benchmark_root, tmp_path):
    def make(*arguments: str, stage: str = "step1") -> Trainer:
        data = ("--data-dir", str(benchmark_root / SOURCE.name), "--data-dir-target", str(benchmark_root / TARGET.name))
        folder = ("--snapshot-dir", str(tmp_path / "run"), "--restore-from", "none")
        options, given, _ = config.parse(stage, [*TRAINING, *data, *folder, *arguments])
        table = data_sets.class_table(options)
        target = data_sets.target_data(options, table) if networks.method_class(options, stage).uses_target else None
        method = networks.method(options, stage, networks.segmenter(options, given, table), table)
        return Trainer(options, method, Data(data_sets.source_data(options, table), target))

    return make


def test_optimisers_hold_every_trainable_parameter_once_at_its_rate(trainer):
    made = trainer("--learning-rate", "0.1", "--backbone-lr-mult", "3", "--learning-rate-D", "0.2", "--momentum", "0.5")
    backbone, classifier = made.method.optimizers["segmenter"].param_groups
    assert (backbone["base_lr"], classifier["base_lr"]) == pytest.approx((0.3, 1.0))
    held = [id(p) for group in made.method.optimizers["segmenter"].param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in made.method.segmenter.parameters() if p.requires_grad)
    in_use = [p for p in made.method.segmenter.layer6.parameters() if p.requires_grad]
    assert {id(p) for p in classifier["params"]} == {id(p) for p in in_use}
    adam = made.method.optimizers["discriminator"].param_groups[0]
    assert (adam["base_lr"], adam["betas"]) == (0.2, (0.9, 0.99))
    assert made.method.optimizers["segmenter"].defaults["momentum"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "discriminators", "memory"),
    [
        ([], ["output", "feature"], True),
        (["--lambda-adv-target", "0"], ["feature"], True),
        (["--method", "released"], ["output"], True),
        (["--lambda-adv-cls", "0", "--lambda-adv-ins", "0", "--lambda-adv-cate", "0"], ["output", "feature"], False),
        (["--source-only"], [], False),
    ],
)
def test_only_what_a_term_needs_is_built(trainer, arguments, discriminators, memory):
    made = trainer(*arguments)
    assert list(made.method.networks) == ["segmenter", *discriminators]
    assert ("memory" in made.method.state_dict()) == memory
    assert list(made.method.optimizers) == ["segmenter"] + ["discriminator"] * bool(discriminators)


def test_memory_has_the_slots_asked_for(trainer):
    memory = trainer("--num-prototype", "3").method.state_dict()["memory"]
    assert memory["stuff"]["entries"].shape[:2] == (8, 3)
    assert memory["things"]["entries"].shape[:2] == (11, 30)


def test_flags_reach_the_data(benchmark_root):
    data = ("--data-dir", str(benchmark_root / SOURCE.name), "--data-dir-target", str(benchmark_root / TARGET.name))
    flags = ("--random-scale", "--no-random-mirror", "--random-jitter", "--input-size", "64,32")
    options = config.parse("step1", [*TRAINING, *data, *flags, "--ignore-label", "200"])[0]
    table = data_sets.class_table(options)
    source, target = data_sets.source_data(options, table), data_sets.target_data(options, table)
    for images in (source, target):
        assert (images.augment.mirror, images.augment.scale, images.augment.jitter) == (False, True, True)
    assert source[0]["image"].shape == (3, 32, 64) and source[0]["label"].shape == (32, 64)
    assert target[0]["image"].shape == (3, 64, 96) and "label" not in target[0]
    assert source.ignore_label == 200 and source.seed != target.seed


def test_channels_last_changes_rounding_alone(trainer):
    losses, weights = [], []
    for argument in ("--channels-last", "--no-channels-last"):
        torch.manual_seed(0)
        made = trainer("--batch-size", "2", argument)
        convs = [
            m for m in made.method.networks.modules() if isinstance(m, torch.nn.Conv2d) and m.weight[0, 0].numel() > 1
        ]
        assert all(
            conv.weight.is_contiguous(memory_format=torch.channels_last) == (argument == "--channels-last")
            for conv in convs
        )
        made.steps = 1
        losses.append(made.step([pair_of_batches()]))
        weights.append([p.detach() for p in made.method.segmenter.parameters()])
    assert losses[0].keys() == losses[1].keys() and "adv_cate" in losses[0]
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], rtol=1e-4, atol=1e-6)
    for a, b in zip(*weights):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def pair_of_batches() -> tuple[Batch, Batch]:
    torch.manual_seed(1)
    image, label = torch.randint(256, (2, 2, 3, 64, 96), dtype=torch.uint8), torch.randint(19, (2, 2, 64, 96))
    return {"image": image[0], "label": label[0]}, {"image": image[1], "label": label[1]}


def test_a_run_can_be_resumed_with_another_memory_format(trainer):
    torch.manual_seed(0)
    before = trainer("--no-channels-last")
    before.step([pair_of_batches()])
    state = copy.deepcopy(before.state_dict())
    torch.manual_seed(0)
    resumed = trainer("--channels-last")
    resumed.load_state_dict(state, Path("last.pth"))
    for made in (before, resumed):
        made.step([pair_of_batches()])
    networks = [made.method.networks.values() for made in (before, resumed)]
    for ours, expected in zip(*networks):
        for p, q in zip(ours.parameters(), expected.parameters()):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    for name, optimizer in resumed.method.optimizers.items():
        for p, held in optimizer.state.items():
            assert all(v.stride() == p.stride() for v in held.values() if v.shape == p.shape), name


def test_skipped_steps_are_logged_by_player(trainer):
    made = trainer()
    made.precision = Precision("fp16", made.device, {}, made.method.optimizers)
    weights(made)["seg"] = 1e37
    made.step([pair_of_batches()])
    run = Run(made, "step1")
    record = run._record()
    assert (record["skipped_segmenter"], record["skipped_discriminator"]) == (1, 0)
    assert tables.cells(record)["skipped_segmenter"] == "1"


def weights(made: Trainer) -> dict[str, float]:
    assert isinstance(made.method, Alignment)
    return made.method.weights


def test_a_first_step_that_is_left_out_leaves_weights_and_momentum_alone(trainer):
    made = trainer()
    made.precision = Precision("fp16", made.device, {}, made.method.optimizers)
    made.meter = Meter(overflows=made.precision.skips_overflows)
    before = {name: p.clone() for name, p in made.method.segmenter.named_parameters()}
    for step, weight in enumerate((1e37, 1.0, 1.0)):
        weights(made)["seg"] = weight
        made.step([pair_of_batches()])
        if step == 0:
            assert all(torch.equal(p, before[name]) for name, p in made.method.segmenter.named_parameters())
            momenta = [state["momentum_buffer"] for state in made.method.optimizers["segmenter"].state.values()]
            assert len(momenta) == sum(
                len(group["params"]) for group in made.method.optimizers["segmenter"].param_groups
            )
            assert not any(momentum.any() for momentum in momenta)
    moved = [name for name, p in made.method.segmenter.named_parameters() if not torch.equal(p, before[name])]
    assert made.finite()  # although the first step's loss is infinite
    assert "layer6.conv2d_list.0.weight" in moved


def test_a_run_that_only_skips_stops(trainer, monkeypatch):
    monkeypatch.setattr(loop, "HOPELESS", 3)
    made = trainer()
    made.precision = Precision("fp16", made.device, {}, made.method.optimizers)
    skipped = {"segmenter": 2, "discriminator": 1}
    monkeypatch.setattr(made.precision, "skipped", lambda: {k: torch.tensor(float(v)) for k, v in skipped.items()})
    run = Run(made, "step1")
    made.steps = 2
    made.meter.add({"seg": torch.tensor(1.0)})
    assert run._record()["skipped_segmenter"] == 2
    made.steps = 4
    made.meter.add({"seg": torch.tensor(1.0)})
    with pytest.raises(UserError, match=r"step 4: .* 4 steps of the segmenter .* overflow"):
        run._record()


def test_the_disk_space_ahead_counts_every_checkpoint_that_is_kept(trainer, tmp_path, caplog):
    caplog.set_level("INFO", logger="bafft")
    run = Run(trainer("--keep-last", "3", "--select-by", "snd", "--num-steps", "100"), "step1")
    run.folder, run.kept = tmp_path, {"weights": torch.zeros(250_000)}
    for sink in run._outputs(JsonLines(tmp_path / "log.jsonl")):
        sink.record({"step": 60, "iterations_per_s": 1.0})
    assert "checkpoints take 4 MB" in caplog.text


def test_the_count_of_skipped_steps_is_part_of_the_state(trainer):
    made = trainer()
    first, second = (Precision("fp16", made.device, {}, made.method.optimizers) for _ in range(2))
    first._skipped["segmenter"] += 3
    second.load_state_dict(first.state_dict())
    assert {name: int(count) for name, count in second.skipped().items()} == {"segmenter": 3, "discriminator": 0}


@pytest.mark.parametrize(
    "option", ["--compile", "--compile --compile-mode reduce-overhead", "--checkpoint-activations"]
)
def test_an_iteration_with_an_option_for_speed_or_memory_equals_the_plain_one(trainer, monkeypatch, option):
    # The compiler's code generation is not tested here, because it takes a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    made, losses = [], []
    for arguments in ((), option.split()):
        torch.manual_seed(0)
        made.append(trainer("--batch-size", "2", *arguments))
        made[-1].steps = 1
        losses.append(made[-1].step([pair_of_batches()]))
    plain, ours = made
    assert (ours.method.segmenter._compiled_call_impl is not None) == ("--compile" in option)
    assert ours.method.segmenter.checkpoint_activations == (option == "--checkpoint-activations")
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=1e-5, atol=1e-7)
    assert plain.method.segmenter.state_dict().keys() == ours.method.segmenter.state_dict().keys()
    for a, b in zip(plain.method.segmenter.state_dict().values(), ours.method.segmenter.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_gradients_are_measured_in_a_compiled_network_whose_first_steps_are_not_measured(trainer, monkeypatch):
    monkeypatch.setattr("torch._functorch.config.donated_buffer", True)  # as torch has it; restored afterwards
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager_decomp_partition"))
    made = trainer("--compile", "--log-gradients", "2")
    made.steps = 1
    found = [made.step([pair_of_batches()]) for _ in range(2)]
    assert "grad_seg" not in found[0] and found[1]["grad_seg"] > 0


def test_the_panels_are_those_of_the_last_pass(trainer, monkeypatch):
    made, trained, shown = trainer(), [], []
    iteration = made.method.iteration

    def note(source, target, backward, step):
        trained.append((source, target, step))
        return iteration(source, target, backward, step)

    def panels(source, target, step):
        shown.append((source, target, step))
        return {}

    monkeypatch.setattr(made.method, "iteration", note)
    monkeypatch.setattr(made.method, "panels", panels)
    made.panels()
    assert not shown
    made.step([pair_of_batches()])
    made.panels()
    assert trained[0][2] == shown[0][2]
    assert all(one is other for one, other in zip(trained[0][:2], shown[0][:2]))


def test_processes_are_compared_by_the_bytes_of_what_they_hold(trainer):
    """Not by sums, because other GPUs round them differently, and because a swap does not change them."""
    made = trainer()
    before = made.digests()
    weight = made.method.segmenter.conv1.weight
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    swapped = made.digests()
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert {name for name in before if before[name] != swapped[name]} == {"weights"}
    assert made.digests() == before
