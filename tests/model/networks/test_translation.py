"""The networks of CycleGAN: their layers, the sizes of all maps, and the receptive field of a score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.networks.translation import Generator, PatchDiscriminator, blocks_for, to_pixels, to_range


def maps(network: nn.Module, images: Tensor) -> list[tuple[int, ...]]:
    """The shape [C, H, W] after every convolution."""
    sizes: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    network(images)
    return sizes


@pytest.mark.parametrize(("blocks", "size"), [(9, (256, 256)), (6, (128, 256))])
def test_generator_sizes(blocks: int, size: tuple[int, int]) -> None:
    height, width = size
    small = (256, height // 4, width // 4)
    half = (128, height // 2, width // 2)
    with torch.device("meta"):
        found = maps(Generator(blocks), torch.empty(1, 3, *size))
    assert found == [(64, *size), half, small, *[small] * (2 * blocks), half, (64, *size), (3, *size)]


def test_discriminator_sizes() -> None:
    with torch.device("meta"):
        found = maps(PatchDiscriminator(), torch.empty(1, 3, 256, 256))
    assert found == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 31, 31), (1, 30, 30)]


def test_numbers_of_parameters_are_those_of_the_published_networks() -> None:
    """The numbers of parameters are 11.378 and 2.765 million, as the published code prints them."""
    with torch.device("meta"):
        networks = Generator(9), PatchDiscriminator()
    assert [sum(p.numel() for p in n.parameters()) for n in networks] == [11_378_179, 2_764_737]


def layers(network: nn.Module) -> list[str]:
    names = {nn.ReflectionPad2d: "pad", nn.InstanceNorm2d: "norm", nn.ReLU: "relu", nn.LeakyReLU: "leaky"}
    names |= {nn.Conv2d: "conv", nn.ConvTranspose2d: "up", nn.Tanh: "tanh"}
    return [names[type(m)] for m in network.modules() if type(m) in names]


def test_generator_layers() -> None:
    block = ["pad", "conv", "norm", "relu", "pad", "conv", "norm"]
    normed = ["norm", "relu"]
    assert layers(Generator(2, 0.1)) == [
        *("pad", "conv", *normed, "conv", *normed, "conv", *normed),
        *block * 2,
        *("up", *normed, "up", *normed, "pad", "conv", "tanh"),
    ]


def test_discriminator_layers() -> None:
    normed = ["conv", "norm", "leaky"]
    assert layers(PatchDiscriminator(0.1)) == ["conv", "leaky", *normed * 3, "conv"]


def test_instance_norm_is_without_parameters_and_statistics() -> None:
    for network in (Generator(1, 0.1), PatchDiscriminator(0.1)):
        norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
        assert norms and not any(m.affine or m.track_running_stats for m in norms)


def test_a_score_sees_seventy_by_seventy_pixels() -> None:
    """Measured by the gradient of one score; instance norm, which sees the whole image, is removed."""
    network = PatchDiscriminator(0.1)
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.register_forward_hook(lambda _, inputs, __: inputs[0])
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0)
    images = torch.ones(1, 3, 160, 176, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images)[0, 0, 9, 10], images)
    rows, columns = (gradient[0, 0].sum(side).nonzero().flatten() for side in (1, 0))
    assert len(rows) == len(columns) == 70
    assert rows[-1] - rows[0] == columns[-1] - columns[0] == 69
    assert bool((gradient != 0).sum() == 3 * 70 * 70)


@pytest.mark.parametrize(("size", "expected"), [((32, 32), (2, 2)), ((70, 95), (6, 9)), ((128, 256), (14, 30))])
def test_discriminator_takes_other_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert PatchDiscriminator()(torch.empty(2, 3, *size)).shape == (2, 1, *expected)


@pytest.mark.parametrize("size", [(8, 8), (33, 46), (19, 64), (32, 35)])
def test_generator_keeps_any_size(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size) * 2 - 1
    result = Generator(1, 0.05)(images)
    assert result.shape == images.shape and result.abs().max() <= 1


def test_sides_that_are_no_multiple_of_four_are_extended_by_reflection() -> None:
    torch.manual_seed(0)
    generator, images = Generator(1, 0.1), torch.rand(1, 3, 18, 31)
    rows, columns = [*range(18), 16, 15], [*range(31), 29]
    assert torch.equal(generator(images), generator(images[:, :, rows][..., columns])[..., :18, :31])


@pytest.mark.parametrize(("network", "size"), [(Generator(1, 0.05), (7, 32)), (PatchDiscriminator(0.05), (31, 64))])
def test_too_small_images_are_refused(network: nn.Module, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"images of {size[1]}x{size[0]} pixels"):
        network(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(("size", "blocks"), [((256, 256), 9), ((512, 256), 9), ((256, 128), 6), ((255, 300), 6)])
def test_number_of_blocks(size: tuple[int, int], blocks: int) -> None:
    assert blocks_for(size) == blocks


def test_weights_are_drawn_with_a_deviation_of_two_hundredths() -> None:
    torch.manual_seed(0)
    for network in (Generator(2, 0.5), PatchDiscriminator(0.5)):
        weights = torch.cat([p.flatten() for name, p in network.named_parameters() if name.endswith("weight")])
        biases = torch.cat([p.flatten() for name, p in network.named_parameters() if name.endswith("bias")])
        assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 1e-4
        assert not biases.any()


def test_ranges() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert to_range(pixels)[[0, 255]].tolist() == [-1, 1]
    assert torch.equal(to_pixels(to_range(pixels)).round().to(torch.uint8), pixels)
