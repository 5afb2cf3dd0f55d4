"""`--method plus`: an iteration composed by hand, the teacher, the statistics, and the terms that use the teacher."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.methods.base import Batch, Step
from model.methods.plus import Plus
from model.networks.batchnorm import evaluating
from model.networks.deeplab import DeepLab, build_segmenter
from model.networks.high_resolution import HighResolution
from model.networks.upsampling import upsample
from model.terms.borders import BORDER_COLOUR
from model.terms.contrast import pixel_contrast
from model.terms.feature_distance import feature_distance
from model.terms.masking import hide_blocks
from model.terms.mixing import class_mix
from model.terms.strong_augmentation import strong_augmentation
from tests.methods import method_of
from tests.twins.cases import assert_value, blobs, split_of
from utils.options import config

CLASSES = 5
STEP = Step(5, 11)
OPTIONS: dict[str, Any] = {
    **{"method": "plus", "pseudo_selection": "image", "pseudo_threshold": 0.3, "strong_blur": 0.6, "mask_block": 8},
    **{"lambda_pseudo": 0.0, "lambda_masked": 1.0},
}
ALONE: dict[str, Any] = {"lambda_mix": 0.0, "lambda_masked": 0.0}


def plus(*, imagenet: DeepLab | None = None, **options: Any) -> Plus:
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", CLASSES)
    for conv in segmenter.layer6.convs():
        conv.weight.data *= 20  # so that some predictions are confident
    method = method_of(segmenter, split_of(CLASSES), Plus, imagenet=imagenet, **{**OPTIONS, **options})
    assert isinstance(method, Plus)
    method.set_training_mode()
    return method


def batches() -> tuple[Batch, Batch]:
    g = torch.Generator().manual_seed(1)
    source, target = (
        torch.randint(256, (2, 3, *size), generator=g, dtype=torch.uint8) for size in ((40, 56), (33, 48))
    )
    labels = torch.stack([blobs(g, CLASSES, 40, 56) for _ in range(2)]).to(torch.uint8)
    labels[:, :3] = 255
    labels[1, 24:, 8:] = 1  # a thing that covers whole patches
    return {"image": source, "label": labels}, {"image": target}


def gradients(method: Plus, step: Step = STEP, target: Batch | None = None) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of one iteration, and the gradients of the segmenter's parameters."""
    source, own = batches()
    method.segmenter.zero_grad()
    losses = method.iteration(source, target or own, lambda loss, _: loss.backward(), step)
    return losses, [p.grad.clone() for p in method.segmenter.parameters() if p.grad is not None]


def assert_equal_iteration(
    losses: dict[str, Tensor], found: list[Tensor], values: dict[str, Tensor], student: DeepLab
) -> None:
    """Check that these are all losses, and that the student has these gradients."""
    assert losses.keys() == values.keys()
    for name, value in values.items():
        assert_value(losses[name], value)
    expected = [p.grad for p in student.parameters() if p.grad is not None]
    scale = max(float(g.abs().max()) for g in expected)
    for ours, wanted in zip(found, expected, strict=True):
        assert float((ours - wanted).abs().max()) <= 1e-4 * scale


def test_an_iteration_is_the_sum_that_the_specification_says() -> None:
    method = plus(lambda_pseudo=0.9, lambda_mix=0.7, lambda_masked=0.4, pseudo_borders=(0.1, 0.2))
    losses, found = gradients(method)
    source, target = batches()

    student, teacher = copy.deepcopy(method.segmenter), copy.deepcopy(method.teacher)
    generator = torch.Generator().manual_seed(11)
    confidence, labels = upsample(teacher(target["image"])[1], (33, 48)).softmax(1).max(1)
    quality = (confidence > 0.3).float().mean((1, 2))
    assert quality.min() > 0 and quality.max() < 1
    labels[:, :3] = labels[:, 26:] = 255
    mixed = class_mix(source["image"], source["label"], target["image"], labels.byte(), CLASSES, generator)
    assert 0.1 < mixed.pasted.float().mean() < 0.9
    changed = strong_augmentation(mixed.image, 0.2, 0.6, generator)
    hidden = hide_blocks(strong_augmentation(target["image"], 0.2, 0.6, generator), 8, 0.7, generator)

    def each(images: Tensor, label: Tensor) -> Tensor:
        up = upsample(student(images)[1], label.shape[1:])
        return F.cross_entropy(up, label.long(), ignore_index=255, reduction="none")

    student.zero_grad()
    own = each(source["image"], source["label"])
    seg = torch.stack([o.sum() / (label != 255).sum() for o, label in zip(own, source["label"])]).mean()
    plain = each(target["image"], labels).sum((1, 2)) / (labels != 255).sum((1, 2))
    pseudo = (quality * plain).mean()
    weight = torch.where(mixed.pasted, 1.0, quality[:, None, None])
    mix = (each(changed, mixed.label) * weight).sum() / mixed.label.numel()
    masked = (each(hidden, labels) * quality[:, None, None]).sum() / labels.numel()
    (seg + 0.9 * pseudo + 0.7 * mix + 0.4 * masked).backward()

    values = {"seg": seg, "pseudo": pseudo, "mix": mix, "masked": masked, "sure": quality.mean()}
    assert_equal_iteration(losses, found, values, student)


def test_the_same_seed_gives_the_same_iteration_whatever_else_is_random() -> None:
    first, _ = gradients(plus())
    method = plus()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, _ = gradients(method)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other, _ = gradients(plus(), Step(5, 12))
    assert other["mix"] != first["mix"] and other["masked"] != first["masked"] and other["seg"] == first["seg"]


def test_the_teacher_follows_the_student_and_gets_no_gradient() -> None:
    method = plus(ema=0.9)
    gradients(method)
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    for step in range(3):
        with torch.no_grad():
            method.segmenter.get_parameter("conv1.weight").fill_(step + 1.0)
        method.after_step(step)
    # 1; then 1/2 of 2; then 1/3 of 3
    assert method.teacher.get_parameter("conv1.weight").unique().tolist() == pytest.approx([2.0])
    method.after_step(10_000)
    assert method.teacher.get_parameter("conv1.weight").unique().tolist() == pytest.approx([0.9 * 2 + 0.1 * 3])


@pytest.mark.parametrize(
    ("bn", "fed_by"), [("shared", ["source", "target"]), ("source", ["source"]), ("target", ["target"]), ("frozen", [])]
)
@pytest.mark.parametrize("pseudo", [0.0, 1.0])
def test_plain_images_feed_the_running_statistics(bn: str, fed_by: list[str], pseudo: float) -> None:
    method = plus(bn=bn, lambda_pseudo=pseudo)
    method.segmenter.train(bn != "frozen")
    before = {name: value.clone() for name, value in method.teacher.named_buffers()}
    running = dict(method.segmenter.named_buffers())["bn1.running_mean"]
    source, target = batches()
    expected = running.clone()
    for domain, batch in (("source", source), ("target", target)):
        if domain in fed_by:
            own = method.segmenter.get_submodule("conv1")(method.segmenter.normalise(batch["image"]))
            expected = expected.lerp(own.mean((0, 2, 3)).detach(), 0.1)
    gradients(method)
    torch.testing.assert_close(running, expected)
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.named_buffers())


def test_without_class_mixing_the_target_is_only_augmented() -> None:
    method = plus(class_mixing=False, strong_jitter=0.0, strong_blur=0.0, lambda_masked=0.0)
    losses, _ = gradients(method)
    _, target = batches()
    guidance = method._ask_teacher(target["image"])
    logits = method.segmenter(target["image"])[1]
    each = F.cross_entropy(upsample(logits, (33, 48)), guidance.labels.long(), reduction="none")
    assert_value(losses["mix"], (each * guidance.quality[:, None, None]).mean())


def test_the_surer_half_of_each_class_is_learnt_from_plain_and_mixed_images() -> None:
    method = plus(
        pseudo_selection="class",
        lambda_pseudo=0.5,
        lambda_masked=0.0,
        class_mixing=False,
        strong_jitter=0.0,
        strong_blur=0.0,
    )
    losses, _ = gradients(method)
    _, target = batches()
    confidence, labels = upsample(method.teacher(target["image"])[1], (33, 48)).softmax(1).max(1)
    sure = confidence >= method.thresholds.limits()[labels]
    assert 0.4 < sure.float().mean() < 0.7 and method.thresholds.counts.sum() == labels.numel()
    logits = method.segmenter(target["image"])[1]
    each = F.cross_entropy(upsample(logits, (33, 48)), labels.where(sure, 255), reduction="none", ignore_index=255)
    assert_value(losses["mix"], each.mean(), 1e-4)
    per_image = [own.sum() / known.sum() for own, known in zip(each, sure)]
    assert_value(losses["pseudo"], torch.stack(per_image).mean(), 1e-4)
    assert_value(losses["sure"], sure.float().mean())
    other = plus(pseudo_selection="class")
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.thresholds.counts, method.thresholds.counts)
    assert any(value is method.thresholds.counts for value in method.averaged())


@pytest.mark.parametrize("selection", ["class", "image"])
def test_the_border_of_a_shrunk_target_is_not_learnt(selection: str) -> None:
    method = plus(pseudo_selection=selection)
    _, target = batches()
    image = target["image"]
    image[:, :, 20:] = torch.tensor(BORDER_COLOUR, dtype=torch.uint8)[:, None, None]
    guidance = method._ask_teacher(image)
    assert (guidance.labels[:, 20:] == 255).all() and not guidance.sure[:, 20:].any()
    assert (guidance.labels[:, :20] != 255).any() and guidance.quality.max() > 0
    assert method.thresholds.counts.sum() == (2 * 20 * 48 if selection == "class" else 0)


def test_masks_of_stage_1_are_learnt_from_the_plain_image_beside_the_teacher() -> None:
    method = plus(lambda_pseudo=0.5, **ALONE)
    _, target = batches()
    target["label"] = torch.full((2, 33, 48), 3, dtype=torch.uint8)
    losses, _ = gradients(method, target=target)
    logits = method.segmenter(target["image"])[1]
    assert losses.keys() == {"seg", "pseudo", "sure"}
    assert_value(losses["pseudo"], F.cross_entropy(upsample(logits, (33, 48)), target["label"].long()), 1e-4)
    given = plus(lambda_pseudo=0.5, ssl_target_dir="masks")
    assert given.uses_target_labels(given.options) and not method.uses_target_labels(method.options)


def test_a_teacher_whose_labels_no_loss_uses_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    method = plus(lambda_pseudo=0.5, lambda_masked=0.0, ssl_target_dir="masks")
    monkeypatch.setattr(method, "_ask_teacher", lambda *_, **__: pytest.fail("asked"))
    _, target = batches()
    target["label"] = torch.full((2, 33, 48), 3, dtype=torch.uint8)
    losses, _ = gradients(method, target=target)
    assert losses.keys() == {"seg", "pseudo", "mix"}
    assert "teacher_classes" not in method.counts() and "teacher_classes" not in method.totals()
    assert plus(lambda_pseudo=0.5, lambda_masked=1.0, ssl_target_dir="masks").asks_teacher


def test_masks_of_stage_1_are_the_labels_of_the_mixed_target_and_count_fully() -> None:
    method = plus(lambda_pseudo=0.5, class_mixing=False, strong_jitter=0.0, strong_blur=0.0, lambda_masked=0.0)
    _, target = batches()
    target["label"] = torch.full((2, 33, 48), 3, dtype=torch.uint8)
    target["label"][:, :11] = 255
    losses, _ = gradients(method, target=target)
    assert_value(losses["mix"], losses["pseudo"] * 2 / 3, 1e-4)  # means over all pixels and over labelled ones


def test_adversarial_terms_act_on_the_plain_target() -> None:
    method = plus(lambda_adv_target=0.1, lambda_adv_feat=0.1, **ALONE)
    losses, _ = gradients(method)
    assert losses.keys() == {"seg", "adv_target", "adv_feat", "D_output", "D_feature", "sure"}
    assert set(method.networks) == {"segmenter", "output", "feature", "teacher"}
    assert set(plus().networks) == {"segmenter", "teacher"}


def test_category_terms_see_the_labels_of_the_mixed_images(monkeypatch: pytest.MonkeyPatch) -> None:
    method = plus(lambda_adv_cls=1.0, lambda_adv_ins=1.0, lambda_adv_cate=1.0, num_prototype=1)
    seen: list[Tensor] = []
    view = Plus._view

    def noted(self: Plus, batch: Batch, *others: Any) -> Any:
        made = view(self, batch, *others)
        if made.predicted is not None:
            small = F.interpolate(batch["label"][:, None].float(), size=made.features.shape[2:], mode="nearest")
            assert torch.equal(small[:, 0].long(), made.predicted.labels)
            seen.append(batch["label"])
        return made

    monkeypatch.setattr(Plus, "_view", noted)
    first, _ = gradients(method, Step(0, 1))
    assert "adv_cate" not in first and not seen  # the first step only fills the memory
    losses, _ = gradients(method)
    assert {"adv_cls", "adv_ins", "adv_cate"} < losses.keys() and len(seen) == 1
    assert not method.active(method.terms)  # the plain target gives no gradient


def test_contrast_takes_the_pasted_and_the_sure_pixels() -> None:
    method = plus(
        lambda_adv_cate=0.3, isia="contrast", num_prototype=1, lambda_masked=0.0, strong_jitter=0.0, strong_blur=0.0
    )
    assert method.memory is not None
    method.memory.stuff._slots.copy_(torch.rand(method.memory.stuff._slots.shape))
    method.memory.things._slots.copy_(torch.rand(method.memory.things._slots.shape))
    method.memory.stuff.count += 5
    method.memory.things.count += 50
    _, target = batches()
    source, _ = batches()
    guidance = method._ask_teacher(target["image"])
    step = Step(5, 11)
    mixed = method._mix(source, target, guidance.labels, step.generator())
    losses, _ = gradients(method, step)
    sure = mixed.pasted | guidance.sure
    assert 0 < (~sure).float().mean() < 1
    features = method.segmenter(mixed.image)[0]
    labels = mixed.label.where(sure, 255)[:, None].float()
    small = F.interpolate(labels, size=features.shape[2:], mode="nearest")[:, 0].long()
    assert_value(losses["adv_cate"], pixel_contrast(features, small, *method.memory.centroids()), 1e-4)


def test_what_the_teacher_sees_is_counted_and_saved() -> None:
    method = plus()
    gradients(method)
    assert method.seen.sum() == pytest.approx(0.1) and len(method.seen) == CLASSES
    other = plus()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.seen, method.seen)
    assert int(method.counts()["teacher_classes"]) == int((method.seen > 1e-4).sum()) > 1
    assert any(value is method.seen for value in method.averaged())


def test_panels_show_what_the_student_learns_from() -> None:
    method = plus()
    source, target = batches()
    with torch.no_grad():
        panels = method.panels(source, target, Step(0, 3))
    assert panels["class mixing/image"].shape == panels["target batch/image"].shape == (3, 33, 48)
    assert panels["class mixing/label"].shape == panels["target batch/teacher"].shape == (33, 48)


def test_a_collapsed_teacher_is_named() -> None:
    method = plus()
    names = [f"class{c}" for c in range(CLASSES)]
    gradients(method)
    assert method.warnings(names) == []
    method.seen.zero_()[2] = 0.1
    (line,) = method.warnings(names)
    assert "collapsed" in line and "class2" in line
    method.seen[0] = 0.01
    assert method.warnings(names) == []


def test_the_feature_distance_pulls_things_of_the_source_to_the_frozen_network() -> None:
    torch.manual_seed(3)
    frozen = build_segmenter("tiny", CLASSES).requires_grad_(False).eval()
    plain = plus(**ALONE)
    method = plus(lambda_imagenet=0.2, imagenet_weights="some.pth", imagenet=frozen, **ALONE)
    source, _ = batches()
    losses, found = gradients(method)
    _, without = gradients(plain)
    student = copy.deepcopy(plain.segmenter)
    student.zero_grad()
    expected = feature_distance(student(source["image"])[0], frozen(source["image"])[0], source["label"], (1, 3))
    assert_value(losses["imagenet"], expected, 1e-4)
    (0.2 * expected).backward()
    backbone = [p.grad for name, p in student.named_parameters() if p.grad is not None]
    scale = max(float(g.abs().max()) for g in backbone)
    assert scale > 0
    for ours, other, wanted in zip(found, without, backbone):
        assert float((ours - other - wanted).abs().max()) < 2e-3 * max(scale, float(ours.abs().max()))
    assert "imagenet" not in method.networks


# ---------------------------------------------------------------- pictures


@torch.no_grad()
def test_the_panels_show_the_labels_that_the_pass_learnt() -> None:
    method = plus(pseudo_selection="class", lambda_pseudo=1.0, **ALONE)
    source, target = batches()
    learnt = method._ask_teacher(target["image"], learn=False)
    with evaluating(method.networks):
        panels = method.panels(source, target, STEP)
    assert torch.equal(panels["target batch/teacher"], learnt.labels[0])
    assert method.teacher.training


@torch.no_grad()
def test_the_pictures_of_one_process_do_not_wait_for_synchronised_batchnorm(monkeypatch: pytest.MonkeyPatch) -> None:
    method = plus(sync_bn=True)
    for network in method.networks.values():
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    source, target = batches()
    with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
        method.teacher(target["image"])  # in train mode, it begins to synchronise
    with evaluating(method.networks):
        assert "target batch/teacher" in method.panels(source, target, STEP)


@torch.no_grad()
@pytest.mark.parametrize("masked", [0.0, 1.0])
def test_the_panels_show_masks_that_were_made_before_in_place_of_the_teachers_labels(masked: float) -> None:
    method = plus(lambda_pseudo=0.5, lambda_masked=masked, ssl_target_dir="masks")
    source, target = batches()
    target["label"] = torch.full((2, 33, 48), 3, dtype=torch.uint8)
    panels = method.panels(source, target, STEP)
    pasted = class_mix(
        *(source["image"], source["label"], target["image"], target["label"], CLASSES), STEP.generator()
    ).pasted[0]
    assert (panels["class mixing/label"][~pasted] == 3).all()
    assert torch.equal(panels["target batch/pseudo-label"], target["label"][0])
    assert ("target batch/teacher" in panels) == (masked > 0)


# ---------------------------------------------------------------- high-resolution crops


def with_crops(**options: Any) -> Plus:
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", CLASSES, kind=HighResolution)
    for conv in segmenter.layer6.convs():
        conv.weight.data *= 20
    method = method_of(segmenter, split_of(CLASSES), Plus, **{**OPTIONS, "high_resolution_crops": True, **options})
    assert isinstance(method, Plus)
    method.set_training_mode()
    return method


def test_an_iteration_with_high_resolution_crops_is_the_sum_that_the_specification_says() -> None:
    method = with_crops(lambda_mix=0.7, lambda_masked=0.4, lambda_detail=0.3)
    losses, found = gradients(method)
    source, target = batches()

    student, teacher = copy.deepcopy(method.segmenter), copy.deepcopy(method.teacher)
    assert isinstance(student, HighResolution) and isinstance(teacher, HighResolution)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        confidence, labels = upsample(teacher(target["image"])[1], (33, 48)).softmax(1).max(1)
    quality = (confidence > 0.3).float().mean((1, 2))
    mixed = class_mix(source["image"], source["label"], target["image"], labels.byte(), CLASSES, generator)
    changed = strong_augmentation(mixed.image, 0.2, 0.6, generator)
    student.zero_grad()

    def each(images: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        _, logits, detail = student.with_detail(images, torch.rand(2, generator=generator))
        total = logits.new_zeros(())
        top, left, height, width = detail.window
        for share, maps, rows, columns in (
            (1.0, logits, slice(None), slice(None)),
            (0.3, detail.logits, slice(top, top + height), slice(left, left + width)),
        ):
            own = label[:, rows, columns]
            up = upsample(maps, own.shape[1:])
            pixels = F.cross_entropy(up, own.long(), ignore_index=255, reduction="none")
            if weight is None:  # cross-entropy of the source: the mean over an image's labelled pixels
                means = [one.sum() / (valid != 255).sum() for one, valid in zip(pixels, own, strict=True)]
                total = total + share * torch.stack(means).mean()
            else:
                total = total + share * (pixels * weight[:, rows, columns]).mean()
        return total

    seg = each(source["image"], source["label"], None)
    torch.rand(2, generator=generator)  # in place of the plain target's crop, which no term needs here
    mix = each(changed, mixed.label, torch.where(mixed.pasted, 1.0, quality[:, None, None]))
    hidden = hide_blocks(strong_augmentation(target["image"], 0.2, 0.6, generator), 8, 0.7, generator)
    masked = each(hidden, labels, quality[:, None, None].expand(labels.shape))
    (seg + 0.7 * mix + 0.4 * masked).backward()

    assert_equal_iteration(losses, found, {"seg": seg, "mix": mix, "masked": masked, "sure": quality.mean()}, student)


def test_the_place_of_the_crop_is_drawn_from_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Tensor] = []
    look = HighResolution.with_detail

    def noted(self: HighResolution, images: Tensor, place: Tensor) -> Any:
        places.append(place)
        return look(self, images, place)

    monkeypatch.setattr(HighResolution, "with_detail", noted)
    method = with_crops(lambda_adv_target=0.1)
    gradients(method)
    assert len(places) == 4 and len({tuple(place.tolist()) for place in places}) == 4  # source, target, mixed, masked
    gradients(with_crops(lambda_adv_target=0.1))
    assert all(torch.equal(*pair) for pair in zip(places[:4], places[4:], strict=True))
    gradients(method, Step(6, 12))
    assert not any(torch.equal(*pair) for pair in zip(places[:4], places[8:], strict=True))


def test_with_crops_memory_and_category_terms_use_the_features_of_the_context() -> None:
    method = with_crops(lambda_adv_cls=1.0, lambda_adv_ins=1.0, lambda_adv_cate=1.0, isia="contrast", num_prototype=1)
    gradients(method, Step(0, 1))
    losses, _ = gradients(method)
    assert {"adv_cls", "adv_ins", "adv_cate"} < losses.keys()
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert method.memory is not None and int(method.memory.stuff.count.sum()) > 0


def test_with_crops_the_feature_distance_is_one_of_contexts() -> None:
    torch.manual_seed(3)
    frozen = build_segmenter("tiny", CLASSES).requires_grad_(False).eval()
    method = with_crops(**ALONE)
    plain = copy.deepcopy(method.segmenter)
    method.options = config.resolve("step2", {**OPTIONS, "lambda_imagenet": 0.2, "imagenet_weights": "some.pth"})
    method.imagenet = frozen
    losses, _ = gradients(method)
    source, _ = batches()
    assert isinstance(plain, HighResolution)
    context = plain.context(source["image"])
    expected = feature_distance(DeepLab.forward(plain, context)[0], frozen(context)[0], source["label"], (1, 3))
    assert float(expected.detach()) > 0
    assert_value(losses["imagenet"], expected, 1e-4)


def test_the_frozen_network_normalises_the_context_by_itself() -> None:
    """It may expect another input than the student, whose context is normalised for the student."""
    frozen = build_segmenter("tiny", CLASSES, normalization="imagenet").requires_grad_(False).eval()
    method = with_crops(lambda_imagenet=0.2, imagenet_weights="some.pth", lambda_mix=0.0, lambda_masked=0.0)
    method.imagenet = frozen
    source, _ = batches()
    losses, _ = gradients(method)
    half = F.avg_pool2d(frozen.normalise(source["image"]), 2, ceil_mode=True, count_include_pad=False)
    assert isinstance(method.segmenter, HighResolution)
    features = method.segmenter.with_detail(source["image"], torch.rand(2, generator=STEP.generator()))[0]
    assert_value(losses["imagenet"], feature_distance(features, frozen(half)[0], source["label"], (1, 3)), 1e-4)
