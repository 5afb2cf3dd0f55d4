"""One iteration: losses and gradients compared with the twins, waits and memory, and 20 steps by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dataset.classes import ClassTable
from model.methods.bafft import CATEGORY, Forms, category_terms
from model.methods.base import Batch, Context, Step
from model.methods.source_only import SourceOnly
from model.networks.deeplab import DeepLab, build_segmenter
from model.networks.upsampling import upsample
from model.terms import regions
from model.terms.memory import SourceMemory
from model.terms.regions import LabelMaps, pool_regions
from tests.copies import counted_copies
from tests.methods import OFF, method_of
from tests.twins import adaptation as twin
from tests.twins import adversarial, isia, segmentation
from tests.twins import memory as twin_memory
from tests.twins.cases import (
    SIZES,
    Case,
    assert_gradient,
    assert_value,
    blobs,
    copy_into,
    fill_memories,
    random_case,
    split_of,
)
from tests.twins.regions import Features
from utils.options import config
from utils.setup import networks
from utils.system import transfer
from utils.training.trainer import Data, Trainer

# ---------------------------------------------------------------- category and instance terms

FORMS = [
    Forms(aim, beta, form, absent)
    for aim, form, absent, beta in [
        ("none", "paper", False, 1.0),
        ("none", "released", True, 1.0),
        ("paper", "paper", False, 1.0),
        ("paper", "released", True, 1.0),
        ("released", "paper", False, 10.0),
        ("released", "released", True, 1.0),
    ]
]


def assert_terms_equal_the_twin(
    case: Case, ours: SourceMemory, memory: twin_memory.Memory, forms: Forms
) -> dict[str, float]:
    """Compare values (1e-5) and gradients (1e-4) of each image and term; returns the sums of values over the images."""
    features = case.features.clone().requires_grad_()
    values: dict[str, float] = {}
    for number, image in enumerate(pool_regions(features, LabelMaps(case.prediction), case.split)):
        losses = category_terms(image, ours, ours.centroids(), case.classify, forms)
        pixels = Features(case.features[number])
        expected = twin.category_terms(pixels, case.prediction[number].tolist(), memory, case.classifier, forms)
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            assert_value(loss, expected[name])
            (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
            assert_gradient(gradient[number], pixels.gradient(expected[name]))
            others = [i for i in range(len(features)) if i != number]
            assert not gradient[others].any()
            values[name] = values.get(name, 0.0) + loss.item()
    return values


@pytest.mark.parametrize("forms", FORMS, ids=lambda f: f"{f.aim}-{f.isia}")
@pytest.mark.parametrize(("batch", "classes", "height", "width"), SIZES)
def test_terms_equal_the_twin(batch: int, classes: int, height: int, width: int, forms: Forms) -> None:
    case = random_case(10, batch, classes, height, width)
    ours, memory = case.memories(2)
    fill_memories(ours, memory, seed=1)
    assert_terms_equal_the_twin(case, ours, memory, forms)


@pytest.mark.parametrize("forms", FORMS[2::3], ids=lambda f: f"{f.aim}-{f.isia}")
def test_terms_of_a_full_size_map_equal_the_twin(forms: Forms) -> None:
    case = random_case(11, 1, 19, 91, 161, dim=4)
    ours, memory = case.memories(1)
    fill_memories(ours, memory, seed=2)
    values = assert_terms_equal_the_twin(case, ours, memory, forms)
    assert all(values.values())


@pytest.mark.parametrize("forms", FORMS[2::3], ids=lambda f: f"{f.aim}-{f.isia}")
@pytest.mark.parametrize("fill", ["empty", "one short of full", "full", "wrapped twice", "mixed"])
def test_only_classes_whose_buffer_has_wrapped_take_part(fill: str, forms: Forms) -> None:
    case = random_case(12, 2, 7, 12, 17)
    ours, memory = case.memories(3)
    writes = {}
    for c, ring in memory.rings.items():
        size = len(ring.slots)
        by_fill = {"empty": 0, "one short of full": size - 1, "full": size, "wrapped twice": 2 * size + 1}
        writes[c] = by_fill.get(fill, [size, size + 1, 2 * size][c % 3])
    fill_memories(ours, memory, 3, writes)
    values = assert_terms_equal_the_twin(case, ours, memory, forms)
    ready = fill in ("wrapped twice", "mixed")
    assert bool(values["adv_cls"]) == bool(values["adv_ins"]) == ready
    if forms.isia == "released":
        assert bool(values["adv_cate"]) == ready
    else:  # the separation among target centroids needs no memory
        assert values["adv_cate"] > 0


@pytest.mark.parametrize("forms", FORMS, ids=lambda f: f"{f.aim}-{f.isia}")
@pytest.mark.parametrize("what", ["zero features", "zero features and memory", "one class"])
def test_degenerate_images_equal_the_twin(what: str, forms: Forms) -> None:
    case = random_case(13, 1, 5, 6, 7)
    ours, memory = case.memories(2)
    if what == "zero features and memory":
        zeros = {c: len(ring.slots) + 1 for c, ring in memory.rings.items()}
        fill_memories(ours, memory, 4, zeros)
        for ring in memory.rings.values():
            ring.slots = [torch.zeros_like(slot) for slot in ring.slots]
        copy_into(ours, memory)
    else:
        fill_memories(ours, memory, 4)
    if what.startswith("zero features"):
        case.features = torch.zeros_like(case.features)
        case.bias = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    else:
        case.prediction = torch.full_like(case.prediction, 1)
    assert_terms_equal_the_twin(case, ours, memory, forms)


@pytest.mark.parametrize("forms", FORMS, ids=lambda f: f"{f.aim}-{f.isia}")
def test_an_image_of_classes_that_nobody_knows_has_no_loss(forms: Forms) -> None:
    forms = replace(forms, absent_stuff=False)
    case = random_case(14, 1, 5, 6, 7)
    ours, memory = case.memories(2)
    fill_memories(ours, memory, 5)
    case.prediction = torch.full_like(case.prediction, 255)
    assert assert_terms_equal_the_twin(case, ours, memory, forms) == {"adv_cls": 0.0, "adv_ins": 0.0, "adv_cate": 0.0}


def test_an_absent_stuff_class_is_matched_only_as_released_and_has_no_gradient() -> None:
    case = random_case(15, 1, 3, 5, 5)
    case.prediction = torch.full_like(case.prediction, 1)  # class 1 is a thing, so both stuff classes are absent
    case.bias = torch.tensor([2.0, 1.0, 0.0])  # so that zeros are accepted as class 0
    ours, memory = case.memories(2)
    fill_memories(ours, memory, 6)
    features = case.features.requires_grad_()
    [image] = pool_regions(features, LabelMaps(case.prediction), case.split)
    forms = (Forms("none", absent_stuff=absent) for absent in (False, True))
    paper, released = (category_terms(image, ours, ours.centroids(), case.classify, form)["adv_cls"] for form in forms)
    assert paper == 0
    assert released.item() == pytest.approx(ours.stuff.entries[0].mean(1).min().item())
    (gradient,) = torch.autograd.grad(released, features)
    assert not gradient.any()


# ---------------------------------------------------------------- one iteration of a small network

CLASSES = 5
ALL_ON = {
    "lambda_adv_target": 0.3,
    "lambda_adv_feat": 0.2,
    "lambda_adv_cls": 0.7,
    "lambda_adv_ins": 0.5,
    "lambda_adv_cate": 0.9,
    "lambda_pseudo": 0.6,
    "lambda_same": 0.4,
}
ON_TARGET = ALL_ON | {"lambda_same": 0.0}


def batch_of(seed: int, batch: int = 2, size: tuple[int, int] = (32, 64)) -> Batch:
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (batch, 3, *size), generator=g, dtype=torch.uint8)
    return {"image": image, "label": torch.stack([blobs(g, CLASSES, *size, absent=False) for _ in range(batch)])}


class Setup:
    """A tiny network that predicts several classes, in float64; discriminators; memories that are ready."""

    def __init__(self, options: dict[str, Any], num_classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(0)
        self.model = build_segmenter("tiny", num_classes, width=0.25).to(dtype).train()
        with torch.no_grad():
            for conv in self.model.layer6.convs():
                conv.weight.mul_(20)
        self.split = split_of(num_classes)
        self.method = method_of(self.model, self.split, place=lambda network: network.to(dtype), **options)
        self.discriminators = self.method.discriminators
        self.twin = twin_memory.Memory(self.split, self.model.feature_dim, 1)
        if self.method.memory is not None:
            fill_memories(self.method.memory, self.twin, 0)
        self.forms = self.method.forms

    @property
    def memory(self) -> SourceMemory:
        assert self.method.memory is not None
        return self.method.memory

    def classifier(self) -> twin_memory.Classifier:
        used = self.model.layer6.convs()[: self.model.layer6.branches]
        weight = torch.stack([conv.weight[:, :, 1, 1] for conv in used]).sum(0)
        return twin_memory.Classifier(weight, torch.stack([cast(Tensor, conv.bias) for conv in used]).sum(0))

    def iteration(self, source: Batch, target: Batch, step: int = 1) -> dict[str, Tensor]:
        return self.method.iteration(source, target, lambda loss, player: loss.backward(), Step(step))

    def gradients(self) -> dict[str, Tensor]:
        return gradients_of(self.model)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Gradients by the parameter's name; zeros for parameters that got none."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained.items()}


def target_maps(setup: Setup, source: Batch, target: Batch) -> tuple[DeepLab, tuple[Tensor, ...]]:
    """A copy of the network, and its features and logits of both domains, with their graph."""
    model = copy.deepcopy(setup.model)
    return model, (*model(source["image"]), *model(target["image"]))


def scores_of(discriminator: nn.Module, name: str, features: Tensor, logits: Tensor, size: torch.Size) -> Tensor:
    if name == "feature":
        return discriminator(features)
    return discriminator(F.interpolate(logits, size=size, mode="bilinear", align_corners=True).softmax(1))


def expected_losses(setup: Setup, source: Batch, target: Batch) -> dict[str, float]:
    """Every term of an iteration, computed by the twins; also updates the twin of the memory."""
    _, (features_s, logits_s, features_t, logits_t) = target_maps(setup, source, target)
    size_s, size_t = source["image"].shape[2:], target["image"].shape[2:]
    up_s, up_t = upsample(logits_s, size_s).detach(), upsample(logits_t, size_t).detach()
    setup.twin.update(features_s, logits_s, source["label"], setup.classifier())
    losses = {
        "seg": segmentation.segmentation_loss(up_s, source["label"])[0],
        "pseudo": segmentation.segmentation_loss(up_t, target["label"])[0],
    }
    images = [
        twin.category_terms(Features(f), z.argmax(0).tolist(), setup.twin, setup.classifier(), setup.forms)
        for f, z in zip(features_t, logits_t)
    ]
    losses |= {name: sum(float(image[name].detach()) for image in images) / len(images) for name in images[0]}
    pairs = zip(logits_s.tolist(), logits_t.tolist())
    dim = features_t.shape[1]
    losses["same"] = sum(isia.released_same(s, t, dim) for s, t in pairs) / len(logits_s)
    for name, player, discriminator in (
        ("output", "adv_target", setup.discriminators["output"]),
        ("feature", "adv_feat", setup.discriminators["feature"]),
    ):
        scores_s = scores_of(discriminator, name, features_s, logits_s, size_s).detach()
        scores_t = scores_of(discriminator, name, features_t, logits_t, size_t).detach()
        losses[player] = adversarial.domain_loss(scores_t, 0)
        losses[f"D_{name}"] = (adversarial.domain_loss(scores_s, 0) + adversarial.domain_loss(scores_t, 1)) / 2
    return losses


@pytest.mark.parametrize(
    ("aim", "form", "batch"), [("none", "released", 1), ("paper", "paper", 3), ("released", "released", 2)]
)
def test_every_loss_of_an_iteration_equals_the_twins(aim: str, form: str, batch: int) -> None:
    """Mean losses over the images; the target losses see the memory after the source update."""
    setup = Setup(ALL_ON | {"aim": aim, "isia": form})
    for seed in (1, 2):
        source, target = batch_of(seed, batch), batch_of(seed + 10, batch)
        before = setup.memory.stuff.count.sum() + setup.memory.things.count.sum()
        expected = expected_losses(setup, source, target)
        losses = setup.iteration(source, target)
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            assert value != 0, name
            assert_value(losses[name], value, 2e-5 if name == "same" else 1e-5)
            assert not losses[name].requires_grad
        assert setup.memory.stuff.count.sum() + setup.memory.things.count.sum() > before
        for ids, buffers in ((setup.split.stuff, setup.memory.stuff), (setup.split.things, setup.memory.things)):
            assert buffers.count.tolist() == [setup.twin.rings[c].count for c in ids]


def term_gradients(setup: Setup, source: Batch, target: Batch, term: str) -> dict[str, Tensor]:
    """Gradient of one unweighted target term with respect to the parameters: the twin's, propagated back by hand."""
    model, (features_s, logits_s, features, logits) = target_maps(setup, source, target)
    size = target["image"].shape[2:]
    if term in CATEGORY:
        setup.twin.update(features_s, logits_s, source["label"], setup.classifier())
        cotangent = torch.zeros_like(features)
        for number, (f, z) in enumerate(zip(features, logits)):
            pixels, prediction = Features(f), z.argmax(0).tolist()
            losses = twin.category_terms(pixels, prediction, setup.twin, setup.classifier(), setup.forms)
            cotangent[number] = pixels.gradient(losses[term]) / len(features)
        features.backward(cotangent)
    elif term == "pseudo":
        up = upsample(logits, size)
        up.backward(segmentation.segmentation_loss(up.detach(), target["label"])[1])
    elif term == "same":
        loss = (logits_s.softmax(1) - logits.softmax(1)).abs().sum() / features.shape[1] / len(logits)
        loss.backward()
    else:
        name = "output" if term == "adv_target" else "feature"
        scores = scores_of(setup.discriminators[name], name, features, logits, size)
        scores.backward(adversarial.domain_gradient(scores.detach(), 0))
        setup.discriminators.zero_grad()
    return gradients_of(model)


TERMS = [name.removeprefix("lambda_") for name in ALL_ON]


@pytest.mark.parametrize("term", TERMS)
def test_a_term_adds_exactly_its_weight_times_its_gradient(term: str) -> None:
    source, target = batch_of(3), batch_of(4)
    weight = 0.37
    without, with_term = Setup(OFF), Setup(OFF | {f"lambda_{term}": weight})
    expected = term_gradients(with_term, source, target, term)
    losses_without, losses_with = without.iteration(source, target), with_term.iteration(source, target)
    assert torch.equal(losses_without["seg"], losses_with["seg"]) and losses_with[term] != 0
    a, b = without.gradients(), with_term.gradients()
    difference = torch.cat([(b[name] - a[name]).flatten() for name in a])
    wanted = torch.cat([weight * expected[name].flatten() for name in a])
    assert wanted.any()
    assert_gradient(difference, wanted)


def test_all_terms_together_add_their_weighted_gradients() -> None:
    source, target = batch_of(5), batch_of(6)
    without, together = Setup(OFF), Setup(ALL_ON)
    wanted = torch.zeros(())
    for term in TERMS:
        gradients = term_gradients(Setup(ALL_ON), source, target, term)
        wanted = wanted + ALL_ON[f"lambda_{term}"] * torch.cat([g.flatten() for g in gradients.values()])
    without.iteration(source, target)
    together.iteration(source, target)
    a, b = without.gradients(), together.gradients()
    assert_gradient(torch.cat([(b[name] - a[name]).flatten() for name in a]), wanted)


def test_the_first_iteration_of_a_run_fills_the_memory_and_leaves_its_terms_out() -> None:
    source, target = batch_of(1), batch_of(2)
    first, without = Setup(ALL_ON), Setup(ALL_ON | {f"lambda_{name}": 0.0 for name in CATEGORY})
    before = first.memory.stuff.count.clone()
    losses = first.iteration(source, target, step=0)
    assert losses.keys() == {"seg", "adv_target", "adv_feat", "pseudo", "same", "D_output", "D_feature"}
    without.iteration(source, target)
    assert (first.memory.stuff.count > before).any()
    for name, gradient in without.gradients().items():
        assert torch.equal(first.gradients()[name], gradient)


def test_source_only_is_the_cross_entropy_alone() -> None:
    setup, reference = Setup(OFF), Setup(OFF)
    source = batch_of(1)
    losses = source_only(setup, source)
    up = upsample(reference.model(source["image"])[1], (32, 64))
    up.backward(segmentation.segmentation_loss(up.detach(), source["label"])[1])
    assert losses.keys() == {"seg"}
    for name, gradient in reference.gradients().items():
        assert_gradient(setup.gradients()[name], gradient)


def source_only(setup: Setup, source: Batch) -> dict[str, Tensor]:
    method = SourceOnly(Context(setup.model, setup.split, config.resolve("step1", {"source_only": True})))
    return method.iteration(source, None, lambda loss, player: loss.backward(), Step(1))


def test_each_player_learns_from_its_own_losses_only() -> None:
    """The discriminators get the gradients of their loss on detached maps, and they stay trainable."""
    setup = Setup(ON_TARGET)
    source, target = batch_of(7), batch_of(8)
    _, maps = target_maps(setup, source, target)
    features_s, logits_s, features_t, logits_t = (tensor.detach() for tensor in maps)
    reference = copy.deepcopy(setup.discriminators)
    for name, discriminator in reference.items():
        scores_s = scores_of(discriminator, name, features_s, logits_s, source["image"].shape[2:])
        scores_t = scores_of(discriminator, name, features_t, logits_t, target["image"].shape[2:])
        scores_s.backward(adversarial.domain_gradient(scores_s.detach(), 0) / 2)
        scores_t.backward(adversarial.domain_gradient(scores_t.detach(), 1) / 2)
    setup.iteration(source, target)
    for ours, wanted in zip(setup.discriminators.parameters(), reference.parameters()):
        assert ours.requires_grad and ours.grad is not None and wanted.grad is not None
        assert_gradient(ours.grad, wanted.grad)


def test_players_are_told_apart_and_come_in_order() -> None:
    seen: list[str] = []

    def backward(loss: Tensor, player: str) -> None:
        seen.append(player)
        loss.backward()

    setup = Setup(ON_TARGET)
    setup.method.iteration(batch_of(1), batch_of(2), backward, Step(1))
    assert seen == ["segmenter", "segmenter", "discriminator", "discriminator"]


def test_label_maps_set_out_for_the_host_before_the_work_that_hides_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Noted(transfer.PendingCopy):
        def __init__(self, tensor: Tensor) -> None:
            seen.append("sent")
            super().__init__(tensor)

        def wait(self) -> np.ndarray:
            seen.append("arrived")
            return super().wait()

    def backward(loss: Tensor, player: str) -> None:
        seen.append(player)
        loss.backward()

    monkeypatch.setattr(regions, "PendingCopy", Noted)
    setup = Setup(ON_TARGET)
    for name, discriminator in setup.discriminators.items():
        discriminator.register_forward_hook(lambda *_, name=name: seen.append(name))
    setup.method.iteration(batch_of(1), batch_of(2), backward, Step(1))
    assert seen[:3] == ["sent", "segmenter", "arrived"]
    assert seen[3:8] == ["sent", "output", "feature", "arrived", "segmenter"]


def test_ignored_pixels_everywhere_give_zero_and_no_nan() -> None:
    setup = Setup(OFF | {"lambda_pseudo": 1.0})
    source, target = batch_of(1), batch_of(2)
    source["label"].fill_(255)
    target["label"].fill_(255)
    losses = setup.iteration(source, target)
    assert losses["seg"] == 0 and losses["pseudo"] == 0
    assert not any(gradient.any() for gradient in setup.gradients().values())


def test_terms_that_are_all_off_leave_the_cross_entropy_alone() -> None:
    setup, reference = Setup(OFF), Setup(OFF)
    setup.iteration(batch_of(1), batch_of(2))
    source_only(reference, batch_of(1))
    for name, gradient in reference.gradients().items():
        assert torch.equal(setup.gradients()[name], gradient)


@pytest.mark.parametrize("bn", ["shared", "source", "target", "frozen"])
def test_terms_that_are_all_off_see_the_target_for_its_statistics_only(bn: str) -> None:
    """The target gets no backward pass then, and a forward pass only if it feeds the running statistics."""
    setup, sizes, losses = Setup(OFF | {"bn": bn}), [], []
    setup.method.segmenter.register_forward_hook(lambda _, images, maps: sizes.append(images[0].shape[2:]))
    source, target = batch_of(1, size=(40, 72)), batch_of(2, size=(32, 48))
    setup.method.iteration(source, target, lambda loss, _: losses.append(loss), Step(1))
    assert sizes == [(40, 72), (32, 48)][: 2 if bn in ("shared", "target") else 1]
    assert len(losses) == 1


def test_domains_may_differ_in_size() -> None:
    setup = Setup(ALL_ON)
    losses = setup.iteration(batch_of(1, size=(40, 72)), batch_of(2, size=(32, 48)))
    assert all(torch.isfinite(value) for value in losses.values())


def backward_outside_autocast(loss: Tensor, player: str) -> None:
    with torch.autocast("cpu", enabled=False):
        loss.backward()


def test_bf16_autocast_agrees_within_its_precision_and_keeps_float32_losses() -> None:
    full, low = Setup(ALL_ON, dtype=torch.float32), Setup(ALL_ON, dtype=torch.float32)
    source, target = batch_of(1), batch_of(2)
    expected = full.iteration(source, target)
    with torch.autocast("cpu", torch.bfloat16):
        losses = low.method.iteration(source, target, backward_outside_autocast, Step(1))
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert value.dtype == torch.float32
        # If the class of a pixel changes, the terms that count regions change by more than rounding.
        tolerance = 0.15 if name in CATEGORY else 0.03
        assert value.item() == pytest.approx(expected[name].item(), rel=tolerance), name
    assert low.memory.stuff.entries.dtype == torch.float32
    assert all(torch.isfinite(gradient).all() for gradient in low.gradients().values())


# ---------------------------------------------------------------- waits and memory


class Traffic(TorchDispatchMode):
    """Counts operations that make the host wait for a device, and records the largest new tensor."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "item")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if by_mask or any(name.removeprefix("_").startswith(wait.removeprefix("_")) for wait in self.WAITS):
            self.waits.append(name)
        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return result


def test_the_counter_sees_what_it_should() -> None:
    x = torch.rand(4)
    with Traffic() as traffic:
        x.sum().item()
        bool(x[0] > 2)
        x[x > 0.5]
        x.nonzero()
        x[x >= 0] = x + 1  # one value per place; a single number would be a fill, which does not wait
        torch.where(x > 0, x, 0)
    assert traffic.waits == ["_local_scalar_dense", "_local_scalar_dense", "index", "nonzero", "index_put_"]


@pytest.mark.parametrize("forms", ["paper", "released"])
@pytest.mark.parametrize("classes", [2, 19])
def test_a_full_iteration_waits_for_the_device_at_most_four_times(
    classes: int, forms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ALL_ON | {"aim": forms, "isia": forms, "absent_stuff": forms == "released"}
    setup = Setup(options, classes, torch.float32)
    g = torch.Generator().manual_seed(0)
    source, target = (
        {
            "image": torch.randint(256, (2, 3, 64, 128), generator=g, dtype=torch.uint8),
            "label": torch.stack([blobs(g, classes, 64, 128) for _ in range(2)]),
        }
        for _ in range(2)
    )
    assert setup.memory.stuff.ready.all() and setup.memory.things.ready.all()
    copies = counted_copies(monkeypatch)
    with Traffic() as traffic:
        setup.iteration(source, target)
    assert len(copies) == 2  # the label map of each domain
    assert len(copies) + len(traffic.waits) <= 4, traffic.waits


@pytest.mark.parametrize("forms", FORMS, ids=lambda f: f"{f.aim}-{f.isia}")
def test_category_and_instance_terms_allocate_less_than_twice_the_feature_map(forms: Forms) -> None:
    """The worst case: all classes are present, each thing class ten times or more; the memory exceeds the map."""
    classes, dim, height, width = 19, 256, 17, 33
    case = random_case(0, 1, classes, height, width, dim=dim)
    case.prediction = torch.randint(classes, (1, height, width), generator=torch.Generator().manual_seed(0))
    case.labels, case.logits = case.prediction, F.one_hot(case.prediction, classes).permute(0, 3, 1, 2).float()
    ours, memory = case.memories(50)
    fill_memories(ours, memory, 0)
    features = case.features.requires_grad_()
    assert ours.things.entries.numel() > 2 * features.numel()
    with Traffic() as traffic:
        ours.update(features.detach(), case.correct(), case.classify)
        [image] = pool_regions(features, LabelMaps(case.prediction), case.split)
        assert image.present.all() and image.is_instance.all()
        losses = category_terms(image, ours, ours.centroids(), case.classify, forms)
        torch.stack(list(losses.values())).sum().backward()
    assert traffic.largest <= 2 * features.numel() * features.element_size()


# ---------------------------------------------------------------- 20 steps by hand

TABLE = ClassTable("five", tuple("abcde"), ((0, 0, 0),) * 5, (0, 2, 4), (1, 3), {"5": (0, 1, 2, 3, 4)})


def trainer_of(model: DeepLab, **options: Any) -> Trainer:
    """A trainer of stage 1 that gets its batches one by one."""
    given = {
        "preset": "builtin",
        "num_steps": 40,
        "warmup_steps": 0,
        "learning_rate": 0.002,
        "learning_rate_D": 1e-4,
        "backbone_lr_mult": 1.0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "power": 0.9,
        "iter_size": 1,
        "bn": "shared",
        "lambda_seg": 1.0,
        "cpu": True,
        "discriminator_width": 0.1,
        "lambda_adv_cls": 0.0,
        "lambda_adv_ins": 0.0,
        "lambda_adv_cate": 0.0,
        **options,
    }
    domain = cast(Any, SimpleNamespace(table=TABLE))
    resolved = config.resolve("step1", given)
    method = networks.method(resolved, "step1", model.train(), TABLE)
    return Trainer(resolved, method, Data(source=domain, target=domain))


def by_hand(
    model: DeepLab, D: nn.Module, batches: list[tuple[Batch, Batch]], total: int, lr: float, lr_D: float, lam: float
) -> None:
    """Supervised and output-space adversarial training as in AdaptSegNet, with the poly schedule."""
    bce, ce = nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(ignore_index=255)
    head = [p for p in model.layer6.parameters() if p.requires_grad]
    body = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("layer6")]
    sgd = torch.optim.SGD([{"params": body}, {"params": head}], lr=lr, momentum=0.9, weight_decay=5e-4)
    adam = torch.optim.Adam(D.parameters(), lr=lr_D, betas=(0.9, 0.99))
    for i, (source, target) in enumerate(batches):
        decay = (1 - i / total) ** 0.9
        sgd.param_groups[0]["lr"], sgd.param_groups[1]["lr"] = lr * decay, 10 * lr * decay
        adam.param_groups[0]["lr"] = lr_D * decay
        z_s = F.interpolate(model(source["image"])[1], size=(32, 64), mode="bilinear", align_corners=True)
        z_t = F.interpolate(model(target["image"])[1], size=(32, 64), mode="bilinear", align_corners=True)
        fooled = D(z_t.softmax(1))
        loss = ce(z_s, source["label"]) + lam * bce(fooled, torch.zeros_like(fooled))
        sgd.zero_grad()
        loss.backward()
        adam.zero_grad()
        d_s, d_t = D(z_s.detach().softmax(1)), D(z_t.detach().softmax(1))
        ((bce(d_s, torch.zeros_like(d_s)) + bce(d_t, torch.ones_like(d_t))) / 2).backward()
        sgd.step()
        adam.step()


def distance(a: Iterable[Tensor], b: Iterable[Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b))


@pytest.mark.parametrize("lam", [0.001, 1.0])
def test_twenty_steps_without_category_and_instance_terms_equal_a_loop_by_hand(lam: float) -> None:
    torch.manual_seed(0)
    model = build_segmenter("tiny", CLASSES, width=0.25)
    start, reference = copy.deepcopy(model), copy.deepcopy(model).train()
    trainer = trainer_of(model, lambda_adv_target=lam, lambda_adv_feat=0.0)
    D = copy.deepcopy(trainer.method.networks["output"])
    options = trainer.options
    batches = [(batch_of(i, 1), batch_of(100 + i, 1)) for i in range(20)]
    by_hand(reference, D, batches, options.num_steps, options.learning_rate, options.learning_rate_D, lam)
    feed = iter(batches)
    for _ in range(20):
        trainer.step(feed)
    assert trainer.steps == 20
    for network, expected in ((model, reference), (trainer.method.networks["output"], D)):
        assert distance(network.parameters(), expected.parameters()) <= 1e-6
    for ours, statistics in zip(model.buffers(), reference.buffers()):
        torch.testing.assert_close(ours, statistics, rtol=1e-6, atol=1e-6)
    assert distance(model.parameters(), start.parameters()) > 1e-3


def test_sub_iterations_sum_to_the_mean_of_their_gradients() -> None:
    torch.manual_seed(0)
    model = build_segmenter("tiny", CLASSES, width=0.25)
    pairs = [(batch_of(i, 1), batch_of(10 + i, 1)) for i in range(2)]
    trainer = trainer_of(model, iter_size=2, bn="frozen")
    reference = copy.deepcopy(trainer.method)
    for source, target in pairs:
        reference.iteration(source, target, lambda loss, player: (loss / 2).backward(), Step(0))
    trainer.step(pairs)
    for ours, expected in zip(model.parameters(), reference.segmenter.parameters()):
        if ours.requires_grad:
            assert ours.grad is not None and expected.grad is not None
            assert torch.equal(ours.grad, expected.grad)
