"""High-resolution crops: where the windows lie, how context and detail are fused, and what the other code gets."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.networks.deeplab import DeepLab, build_segmenter
from model.networks.high_resolution import HighResolution, Window
from model.networks.upsampling import at_size, upsample
from tests.twins import high_resolution as twin

CLASSES = 3
SIDES = st.integers(17, 130)


def network() -> HighResolution:
    torch.manual_seed(0)
    found = build_segmenter("tiny", CLASSES, width=0.25, kind=HighResolution)
    assert isinstance(found, HighResolution)
    for name, value in found.named_parameters():
        if name.startswith(("layer6", "attention.2")):
            torch.nn.init.normal_(value, 0, 0.3)  # so that context, detail and attention differ
    return found.eval()


def pictures(height: int, width: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height + 1000 * width)
    return torch.randint(256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def ideal(monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    """A network whose logits are the image itself, sampled at the points of its map, from corner to corner."""

    def forward(self: DeepLab, images: Tensor) -> tuple[Tensor, Tensor]:
        size = tuple(-(-side // stride) for side in images.shape[2:])
        return images.new_zeros(len(images), self.feature_dim, *size), upsample(images, size)

    monkeypatch.setattr(DeepLab, "forward", forward)


def trusting(trust: float) -> HighResolution:
    """A network with the same attention everywhere."""
    found = network()
    torch.nn.init.zeros_(found.get_parameter("attention.2.weight"))
    torch.nn.init.constant_(found.get_parameter("attention.2.bias"), torch.logit(torch.tensor(trust)).item())
    return found


@pytest.mark.parametrize("size", [(48, 64), (37, 51), (17, 90)])
@torch.no_grad()
def test_the_fused_logits_are_those_of_the_twin(size: tuple[int, int]) -> None:
    model, images = network(), pictures(*size)
    plain = DeepLab.forward
    pixels = model.normalise(images)
    context = F.interpolate(F.pad(pixels, (0, size[1] % 2, 0, size[0] % 2), "replicate"), scale_factor=0.5, mode="area")
    features, logits = plain(model, context)
    height, width = logits.shape[2:]
    places = [
        (row, column) for row in (0, (height - 1) // 2, height - 1) for column in (0, (width - 1) // 2, width - 1)
    ]
    corners = [
        tuple(
            round(at * (side - length) / (points - 1) + 1e-9)
            for at, side, length, points in zip(place, size, context.shape[2:], (height, width))
        )
        for place in places
    ]
    windows = [pixels[:, :, top:, left:][:, :, : context.shape[2], : context.shape[3]] for top, left in corners]
    details = plain(model, torch.cat(windows))[1].chunk(len(places))
    found_features, found = model(images)
    assert torch.allclose(found_features, features, atol=1e-5)
    assert found.shape == (2, CLASSES, 2 * height - 1, 2 * width - 1)
    for number in range(2):
        attention = model.attention(features)[number]
        seen = [(detail[number], *place) for detail, place in zip(details, places, strict=True)]
        expected = torch.tensor(twin.fused(logits[number], attention, seen))
        assert float((found[number] - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@torch.no_grad()
def test_one_window_counts_inside_and_the_context_outside() -> None:
    model, images = network(), pictures(64, 96)
    features, logits = DeepLab.forward(model, model.context(images))  # 32x48 pixels: 5x7 points
    height, width = logits.shape[2:]
    for place, row, column in (((0.0, 0.0), 0, 0), ((0.5, 0.99), 2, 6), ((0.99, 0.3), 4, 2)):
        found_features, found, detail = model.with_detail(images, torch.tensor(place))
        assert torch.equal(features, found_features)
        assert detail.window == Window(row * 8, column * 8, 32, 48)
        window = images[:, :, row * 8 : row * 8 + 32, column * 8 : column * 8 + 48]
        assert torch.equal(detail.logits, DeepLab.forward(model, model.normalise(window))[1])
        for number in range(2):
            seen = [(detail.logits[number], row, column)]
            expected = torch.tensor(twin.fused(logits[number], model.attention(features)[number], seen))
            assert torch.allclose(found[number], expected, atol=1e-4)
        outside = torch.ones_like(found, dtype=torch.bool)
        outside[:, :, row : row + height, column : column + width] = False
        assert torch.equal(found[outside], upsample(logits, found.shape[2:])[outside])


@pytest.mark.parametrize("stride", [8, 16])
@given(height=SIDES, width=SIDES, place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_context_and_detail_show_the_same_place_within_a_pixel(
    stride: int, height: int, width: int, place: tuple[float, float]
) -> None:
    """Every pixel of the image holds its own row and column, and so must the fused logits, whatever the attention."""
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    one = torch.ones(height, width, dtype=torch.float64)
    image = torch.stack([rows[:, None] * one, columns * one, one])[None]
    for trust in (0.0, 1.0, 0.4):
        with pytest.MonkeyPatch.context() as patch:
            model = trusting(trust).double()
            ideal(patch, stride)
            found = [model(image)[1], model.with_detail(image, torch.tensor(place))[1]]
        for logits in found:
            error = (upsample(logits, (height, width)) - image)[0].abs().amax((1, 2))
            # A window begins at a whole pixel, up to half a pixel from its point, and its end may be off by as much.
            limit = torch.tensor([1.0, 1.0, 1e-9]) + 1e-9
            shortest = min(logits.shape[2:])
            assert shortest < 3 or bool((error <= limit).all()), (trust, error)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@given(height=SIDES, width=SIDES)
@torch.no_grad()
def test_a_constant_network_predicts_its_constant_everywhere(training: bool, height: int, width: int) -> None:
    model = network().train(training)
    for conv in model.layer6.convs():
        torch.nn.init.zeros_(conv.weight)
    constant = sum(conv.bias for conv in model.layer6.convs()[:2] if conv.bias is not None)
    assert isinstance(constant, Tensor)
    image = pictures(height, width, 1)
    for logits in (model(image)[1], model.with_detail(image, torch.tensor([0.3, 0.6]))[1]):
        assert torch.allclose(logits, constant[None, :, None, None].expand_as(logits), atol=1e-5)


@torch.no_grad()
def test_every_second_point_is_one_of_the_features() -> None:
    model, images = trusting(0.0), pictures(64, 96)
    features, logits = model(images)
    context = DeepLab.forward(model, model.context(images))[1]
    assert torch.allclose(at_size(logits, features.shape[2:]), context, atol=1e-5)
    assert torch.allclose(logits[:, :, ::2, ::2], context, atol=1e-5)
    assert at_size(context, context.shape[2:]) is context


@pytest.mark.parametrize("size", [(64, 96), (200, 96)])
@torch.no_grad()
def test_the_number_of_windows_does_not_grow_with_the_image(size: tuple[int, int]) -> None:
    model = network()
    seen: list[int] = []
    model.get_submodule("conv1").register_forward_hook(lambda module, args, output: seen.append(len(output)))
    model(pictures(*size))
    model.train()(pictures(*size))
    model.with_detail(pictures(*size), torch.zeros(2))
    assert seen == [2, 18, 2, 18, 2, 2]


def test_the_context_is_the_mean_of_two_by_two_pixels() -> None:
    model = network().double()
    image = torch.arange(15.0, dtype=torch.float64).view(1, 1, 3, 5).expand(1, 3, 3, 5)
    assert model.context(image)[0, 0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
    with pytest.raises(ValueError, match="expected"):
        model.context(image[0])


def test_it_has_the_interface_and_the_names_of_the_plain_network() -> None:
    model, plain = network(), build_segmenter("tiny", CLASSES, width=0.25)
    names, own = plain.state_dict().keys(), model.state_dict().keys()
    assert own - names == {f"attention.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    assert names <= own and model.architecture == plain.architecture | {"high_resolution_crops": True}
    backbone, heads = model.parameter_groups()
    assert {id(p) for p in model.attention.parameters()} < {id(p) for p in heads}
    assert len(backbone) == len(plain.parameter_groups()[0])
    copied = copy.deepcopy(model)
    assert torch.equal(copied(pictures(48, 48))[1], model(pictures(48, 48))[1])


def test_a_gradient_reaches_everything_that_is_trained() -> None:
    model = network().train()
    _, logits, detail = model.with_detail(pictures(64, 64), torch.tensor([0.4, 0.4]))
    (logits.square().sum() + detail.logits.square().sum()).backward()
    for group in model.parameter_groups():
        assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in group)


@torch.no_grad()
def test_under_autocast_the_fusion_is_exact() -> None:
    model, images = network(), pictures(64, 64)
    exact = model(images)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, logits = model(images)
    assert features.dtype == torch.bfloat16 and logits.dtype == torch.float32
    assert float((logits - exact).abs().max()) < 0.05 * float(exact.abs().max())
