"""Restyling of source images: colour space against OpenCV, both forms by hand and against the twins, the share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from model.terms.borders import BORDER_COLOUR, visible
from model.terms.image_level import ImageLevel, fda, lab, lab_to_rgb, rgb_to_lab
from tests.twins import image_level as twin


def images(seed: int, count: int, height: int, width: int, low: int = 0, high: int = 256) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, 3, height, width), generator=g, dtype=torch.uint8)


def constant(*colour: int, height: int = 8, width: int = 12) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, height, width)


def pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


# ---------------------------------------------------------------- colour space


def test_lab_by_hand() -> None:
    white, grey, red = (rgb_to_lab(constant(*colour))[0, :, 0, 0] for colour in ((255,) * 3, (119,) * 3, (255, 0, 0)))
    torch.testing.assert_close(white, torch.tensor([100.0, 0.0, 0.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(grey, torch.tensor([50.034, 0.0, 0.0]), rtol=0, atol=1e-3)
    torch.testing.assert_close(red, torch.tensor([53.24, 80.09, 67.20]), rtol=0, atol=0.01)


def test_colour_space_is_that_of_opencv() -> None:
    batch = images(0, 1, 64, 64)
    wanted = cv2.cvtColor(pixels(batch[0]).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    np.testing.assert_allclose(
        pixels(rgb_to_lab(batch)[0]), wanted, rtol=0, atol=0.5
    )  # OpenCV rounds to 15 bits on the way


def test_there_and_back_is_the_identity_for_all_greys_and_corners() -> None:
    greys = torch.arange(256, dtype=torch.uint8).expand(3, 256)
    corners = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 3).T
    batch = torch.cat([greys, corners, images(1, 1, 1, 5000)[0, :, 0]], 1)[None, :, None]
    assert torch.equal(lab_to_rgb(rgb_to_lab(batch)).round().to(torch.uint8), batch)


# ---------------------------------------------------------------- lab


def test_lab_makes_the_moments_those_of_the_target() -> None:
    source, target = images(0, 2, 20, 30, 90, 130), images(1, 2, 16, 24, 100, 160)  # far from the limits of sRGB
    for ours, wanted in zip(rgb_to_lab(lab(source, target)), rgb_to_lab(target)):
        torch.testing.assert_close(ours.mean((1, 2)), wanted.mean((1, 2)), rtol=0, atol=0.01)
        torch.testing.assert_close(ours.std((1, 2), False), wanted.std((1, 2), False), rtol=0, atol=0.01)


def test_lab_of_a_constant_image_is_the_mean_colour_of_the_target() -> None:
    result = lab(constant(10, 200, 40), constant(90, 60, 120))
    torch.testing.assert_close(result, constant(90, 60, 120).float(), rtol=0, atol=0.05)
    varied = images(2, 1, 16, 16)
    result = rgb_to_lab(lab(constant(10, 200, 40), varied))
    wanted = rgb_to_lab(varied).mean((2, 3), keepdim=True)
    torch.testing.assert_close(result, wanted.expand_as(result), rtol=0, atol=0.1)


def test_lab_of_two_greys_by_hand() -> None:
    """Lightness values 20 and 60 get the mean 70 and the deviation 10 of 60 and 80: they become 60 and 80."""
    source, target = (
        lab_to_rgb(torch.tensor([[[low, high]], [[0.0, 0.0]], [[0.0, 0.0]]])[None])
        for low, high in ((20.0, 60.0), (60.0, 80.0))
    )
    torch.testing.assert_close(lab(source, target), target, rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", ["lab", "fda"])
def test_the_style_of_the_image_itself_changes_nothing(kind: str) -> None:
    batch = images(3, 2, 33, 47)
    result = lab(batch, batch) if kind == "lab" else fda(batch, batch, 0.1)
    assert torch.equal(result.round().to(torch.uint8), batch)


@pytest.mark.parametrize(("size", "size_t"), [((9, 14), (12, 7)), ((16, 16), (16, 16)), ((1, 5), (3, 1))])
@pytest.mark.parametrize("high", [256, 40])
def test_lab_equals_the_twin(size: tuple[int, int], size_t: tuple[int, int], high: int) -> None:
    source, target = images(4, 2, *size), images(5, 2, *size_t, high=high)
    for number, result in enumerate(lab(source, target)):
        np.testing.assert_allclose(pixels(result), twin.lab(pixels(source[number]), pixels(target[number])), atol=0.02)


# ---------------------------------------------------------------- fda


def test_fda_with_a_window_of_one_moves_the_mean_alone() -> None:
    """With b = 0 only the amplitude at frequency zero is taken over, which is the sum of the pixels."""
    source, target = images(6, 1, 20, 24, 100, 120), images(7, 1, 20, 24, 150, 170)
    wanted = source + target.float().mean((2, 3), keepdim=True) - source.float().mean((2, 3), keepdim=True)
    torch.testing.assert_close(fda(source, target, 0.01), wanted, rtol=0, atol=0.01)


def test_fda_takes_the_amplitude_of_a_wave_and_keeps_its_phase() -> None:
    """A wave of frequency 1 gets the target's amplitude where the window reaches it; one of frequency 3 does not."""
    x = torch.arange(32) * 2 * torch.pi / 32
    slow, fast, shifted = (wave.expand(1, 3, 20, 32) for wave in (x.cos(), (3 * x).cos(), (x + 1).cos()))
    source, target = 128 + 20 * slow + 10 * fast, 100 + 50 * shifted
    torch.testing.assert_close(fda(source, target, 0.1), 100 + 50 * slow + 10 * fast, rtol=0, atol=1e-3)  # b = 2
    torch.testing.assert_close(fda(source, target, 0.01), 100 + 20 * slow + 10 * fast, rtol=0, atol=1e-3)  # b = 0


@pytest.mark.parametrize(("height", "width"), [(24, 36), (25, 37), (24, 37), (25, 36)])
@pytest.mark.parametrize("beta", [0.0, 0.05, 0.3, 0.499])
@pytest.mark.parametrize("size_t", [None, (50, 31), (12, 80)])
def test_fda_equals_the_twin(height: int, width: int, beta: float, size_t: tuple[int, int] | None) -> None:
    source, target = images(8, 2, height, width), images(9, 2, *(size_t or (height, width)))
    for number, result in enumerate(fda(source, target, beta)):
        wanted = twin.fda(pixels(source[number]), pixels(target[number]), beta)
        np.testing.assert_allclose(pixels(result), wanted, atol=0.01)


def test_results_are_within_the_range_of_an_image() -> None:
    source, target = images(10, 3, 24, 24), images(11, 3, 24, 24, 200, 256)
    for result in (lab(source, target), fda(source, target, 0.1)):
        assert result.dtype == torch.float32 and result.min() >= 0 and result.max() <= 255


def test_mixed_precision_changes_nothing() -> None:
    source, target = images(12, 2, 24, 24), images(13, 2, 30, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = lab(source, target), fda(source, target, 0.1)
    assert torch.equal(results[0], lab(source, target)) and torch.equal(results[1], fda(source, target, 0.1))


# ---------------------------------------------------------------- borders


def padded(image: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
    """Images [B, 3, H, W] with a border, as `--random-scale` makes it."""
    height, width = image.shape[2:]
    colour = torch.tensor(BORDER_COLOUR, dtype=image.dtype)[None, :, None, None]
    result = colour.repeat(len(image), 1, top + height + bottom, left + width + right)
    result[:, :, top : top + height, left : left + width] = image
    return result


@pytest.mark.parametrize("kind", ["lab", "fda"])
def test_borders_stay_and_give_no_style(kind: str) -> None:
    """`lab` of padded images is that of the images; `fda` with a window of one moves the mean to the target's."""
    source, target = images(20, 2, 14, 18, 90, 130), images(21, 2, 16, 24, 100, 160)
    pair = padded(source, 3, 0, 5, 8), padded(target, 0, 4, 2, 2)
    if kind == "lab":
        result, wanted = lab(*pair), lab(source, target)
    else:
        means = (image.float().mean((2, 3), keepdim=True) for image in (target, source))
        result, wanted = fda(*pair, 0.01), source + next(means) - next(means)
    torch.testing.assert_close(result, padded(wanted, 3, 0, 5, 8), rtol=0, atol=0.02)
    assert torch.equal(result[:, :, 14:], pair[0][:, :, 14:].float())


def test_both_equal_the_twins_on_images_with_borders() -> None:
    source, target = padded(images(22, 2, 12, 15), 4, 2, 0, 9), padded(images(23, 2, 10, 17), 0, 6, 3, 1)
    source[1, :, :3, :4] = 7  # another box in the second image
    assert not visible(source)[0, 0, 0, 0] and visible(source)[1, 0, 0, 0]
    for ours, wanted in ((lab(source, target), twin.lab), (fda(source, target, 0.2), lambda a, b: twin.fda(a, b, 0.2))):
        for number, result in enumerate(ours):
            expected = wanted(pixels(source[number]), pixels(target[number]))
            np.testing.assert_allclose(pixels(result), expected, atol=0.02)


# ---------------------------------------------------------------- share


def level(kind: str, share: float, seed: int, source: Tensor, target: Tensor) -> Tensor:
    return ImageLevel(kind, share, 0.1)(source, target, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["lab", "fda"])
def test_each_image_is_restyled_by_an_image_of_the_target_or_left(kind: str) -> None:
    source, target = images(14, 6, 16, 20), images(15, 3, 24, 18, high=120)
    result = level(kind, 0.5, 4, source, target)
    assert result.dtype == torch.uint8 and result.shape == source.shape
    styles = ImageLevel(kind, 0.5).styles(6, 3, torch.Generator().manual_seed(4))
    assert None in styles and len({*styles} - {None}) > 1
    for number, style in enumerate(styles):
        wanted = source[number]
        if style is not None:
            pair = source[number][None], target[style][None]
            wanted = (lab(*pair) if kind == "lab" else fda(*pair, 0.1))[0].round().to(torch.uint8)
        assert torch.equal(result[number], wanted)


def test_share_is_a_probability_and_does_not_move_the_styles() -> None:
    styles = {
        share: ImageLevel("lab", share).styles(4000, 7, torch.Generator().manual_seed(0)) for share in (0, 0.3, 1)
    }
    assert styles[0] == [None] * 4000 and {*styles[1]} == {*range(7)}
    chosen = [number for number, style in enumerate(styles[0.3]) if style is not None]
    assert len(chosen) / 4000 == pytest.approx(0.3, abs=0.03)
    assert [styles[0.3][number] for number in chosen] == [styles[1][number] for number in chosen]


def test_none_draws_nothing_and_leaves_the_batch() -> None:
    source, target = images(16, 3, 16, 16), images(17, 2, 16, 16)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert ImageLevel()(source, target, generator) is source and torch.equal(generator.get_state(), before)
    assert level("lab", 0.0, 0, source, target) is source


def test_the_same_seed_gives_the_same_batch() -> None:
    source, target = images(18, 4, 16, 16), images(19, 4, 16, 16)
    assert torch.equal(level("fda", 0.5, 5, source, target), level("fda", 0.5, 5, source, target))
    assert not torch.equal(level("fda", 0.5, 5, source, target), level("fda", 0.5, 6, source, target))


def test_the_inputs_stay_as_they_are() -> None:
    source, target = images(20, 2, 16, 16), images(21, 2, 16, 16)
    before = source.clone(), target.clone()
    for kind in ("lab", "fda"):
        level(kind, 1.0, 0, source, target)
    assert torch.equal(source, before[0]) and torch.equal(target, before[1])


@pytest.mark.parametrize(
    "settings", [{"kind": "cyclegan"}, {"share": 1.1}, {"share": -0.1}, {"share": float("nan")}, {"beta": 0.5}]
)
def test_bad_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ImageLevel(**settings)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        lab(images(0, 2, 4, 4), images(0, 1, 4, 4))
    with pytest.raises(ValueError, match="target has shape"):
        fda(images(0, 2, 4, 4), images(0, 2, 4, 4)[:, :1], 0.1)
