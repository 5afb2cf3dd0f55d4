"""Random changes: image and label stay aligned to the pixel, and each change does what it should."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from dataset import GTA5
from dataset.augment import PAD_COLOUR, Augment
from dataset.classes import IGNORE, ClassTable
from tests.dataset.test_base import write

# Images that encode where each pixel comes from: red is 2 x, green is 2 y, and the label is x or y.

WIDTH, HEIGHT = 96, 64
BORDER = 12  # pixels of the file next to its border, where bicubic weights are cut off; 8 suffice for a factor of 4


class Coordinates(GTA5):
    table = ClassTable("places", ("a",) * WIDTH, ((0, 0, 0),) * WIDTH, tuple(range(WIDTH)), (), {})
    id_map = np.arange(256, dtype=np.uint8)


@pytest.fixture
def coordinates(tmp_path):
    """Two files with the same image; the label of the first is x, of the second y."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    for name, label in (("00001.png", x), ("00002.png", y)):
        write(tmp_path, name, np.stack([2 * x, 2 * y, np.full_like(x, 128)], axis=2), label)
    return tmp_path


def assert_aligned(image: torch.Tensor, label: torch.Tensor, axis: int) -> int:
    """Check that every labelled pixel comes from where its colour says; returns how many were checked.

    In a resized image the colour is exact to a quarter of a pixel of the file; the nearest label is up to half off.
    """
    side = (WIDTH, HEIGHT)[axis]
    judged = (label >= BORDER) & (label < side - BORDER)
    off = image[axis][judged] / 2.0 - label[judged]
    assert off.abs().max() <= 0.76
    return int(judged.sum())


@pytest.mark.parametrize("size", [None, (96, 64), (48, 32), (120, 90)])
@pytest.mark.parametrize(("mirror", "scale"), [(True, False), (False, True), (True, True), (False, False)])
def test_image_and_label_stay_aligned(coordinates, mirror, scale, size):
    dataset = Coordinates(coordinates, size=size, augment=Augment(mirror=mirror, scale=scale), seed=3)
    width, height = size or (WIDTH, HEIGHT)
    for draw, axis in itertools.product(range(12), (0, 1)):
        sample = dataset[axis, draw]
        assert sample["image"].shape == (3, height, width)
        assert sample["label"].shape == (height, width)
        judged = assert_aligned(sample["image"], sample["label"], axis)
        assert judged > 0.1 * width * height
        padded = sample["label"] == IGNORE
        colours = sample["image"].permute(1, 2, 0)[padded]
        assert (colours == torch.tensor(PAD_COLOUR, dtype=torch.uint8)).all()
        assert scale or not padded.any()


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (0, -1), (-1, 0)])
def test_one_pixel_out_of_place_would_be_noticed(coordinates, shift):
    dataset = Coordinates(coordinates, augment=Augment(mirror=True, scale=True))
    for draw in range(12):
        axis = 0 if shift[1] else 1
        sample = dataset[axis, draw]
        with pytest.raises(AssertionError):
            assert_aligned(sample["image"].roll(shift, (1, 2)), sample["label"], axis)


def test_scaling_invents_no_class(tmp_path):
    label = np.random.default_rng(0).choice(np.array([3, 90], np.uint8), (HEIGHT, WIDTH))
    write(tmp_path, "00001.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8), label)
    dataset = Coordinates(tmp_path, size=(50, 40), augment=Augment(scale=True))
    assert {int(i) for draw in range(8) for i in dataset[0, draw]["label"].unique()} == {3, 90, IGNORE}


def test_mirror_is_exact_and_fair(coordinates):
    plain = Coordinates(coordinates)[0]
    dataset = Coordinates(coordinates, augment=Augment(mirror=True), seed=1)
    flips = 0
    for draw in range(200):
        sample = dataset[0, draw]
        flipped = torch.equal(sample["label"], plain["label"].flip(1))
        same = torch.equal(sample["label"], plain["label"])
        assert flipped != same
        assert torch.equal(sample["image"], plain["image"].flip(2) if flipped else plain["image"])
        flips += flipped
    assert 75 <= flips <= 125


def test_scale_spans_its_range(coordinates):
    dataset = Coordinates(coordinates, augment=Augment(scale=True), seed=1)
    shares, corners = [], set()
    for draw in range(120):
        label = dataset[0, draw]["label"]
        valid = label != IGNORE
        shares.append(valid.float().mean().item())
        if shares[-1] < 1:
            rows, columns = valid.any(1).nonzero(), valid.any(0).nonzero()
            assert valid.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            corners.add((int(rows[0]), int(columns[0])))
    # Half of the factors shrink the image; the smallest leave a quarter of the area; the place varies.
    assert 40 <= sum(share < 1 for share in shares) <= 80
    assert 0.25 <= min(shares) < 0.3
    assert len(corners) > 30


def test_jitter_changes_colours_only(coordinates):
    plain = Coordinates(coordinates)[0]
    dataset = Coordinates(coordinates, augment=Augment(jitter=True))
    means = []
    for draw in range(40):
        sample = dataset[0, draw]
        assert torch.equal(sample["label"], plain["label"])
        means.append(sample["image"].float().mean().item() / plain["image"].float().mean().item())
    assert min(means) < 0.7 and max(means) > 1.3


def test_jitter_leaves_the_geometry_of_a_draw(coordinates):
    both = Coordinates(coordinates, augment=Augment(mirror=True, scale=True, jitter=True))
    geometry = Coordinates(coordinates, augment=Augment(mirror=True, scale=True))
    for draw in range(10):
        assert torch.equal(both[0, draw]["label"], geometry[0, draw]["label"])


@pytest.mark.parametrize("flags", list(itertools.product((False, True), repeat=3)), ids=str)
def test_a_sample_by_hand(tmp_path, flags):
    """Resize once from the size of the file, crop, jitter, pad, mirror: each step is repeated with Pillow."""
    rng = np.random.default_rng(0)
    pixels, ids = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8), rng.integers(0, 96, (24, 40), dtype=np.uint8)
    write(tmp_path, "00001.png", pixels, ids)
    dataset = Coordinates(tmp_path, size=(30, 20), augment=Augment(*flags), seed=4)
    mirror, scale, jitter = flags
    for number in range(8):
        rng = np.random.default_rng([4, number])
        flip, factor = rng.random() < 0.5, rng.uniform(0.5, 1.5)
        place, amounts = rng.random(2), rng.uniform(0.5, 1.5, 3)
        image, label = Image.fromarray(pixels), Image.fromarray(ids)
        size = (round(30 * factor), round(20 * factor)) if scale else (30, 20)
        corner = round(place[0] * (30 - size[0])), round(place[1] * (20 - size[1]))
        image = image.resize(size, Image.Resampling.BICUBIC)
        if size[0] > 30:
            image, image_corner = image.crop((-corner[0], -corner[1], 30 - corner[0], 20 - corner[1])), (0, 0)
        else:
            image_corner = corner
        for enhancer, amount in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), amounts):
            image = enhancer(image).enhance(amount) if jitter else image
        windows = Image.new("RGB", (30, 20), PAD_COLOUR), Image.new("L", (30, 20), IGNORE)
        windows[0].paste(image, image_corner)
        windows[1].paste(label.resize(size, Image.Resampling.NEAREST), corner)
        expected = [np.asarray(window)[:, :: -1 if flip and mirror else 1] for window in windows]
        sample = dataset[0, number]
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), expected[0])
        assert np.array_equal(sample["label"].numpy(), expected[1])


def test_every_sample_is_cropped_at_a_place_of_its_own(coordinates):
    """At the size of the files, red is twice the column and green twice the row: a crop tells where it comes from."""
    whole = Coordinates(coordinates)[0]["image"]
    dataset = Coordinates(coordinates, augment=Augment(crop=(30, 20)))
    places = set()
    for draw in range(40):
        image, label = dataset[0, draw]["image"], dataset[0, draw]["label"]
        left, top = int(image[0, 0, 0]) // 2, int(image[1, 0, 0]) // 2
        assert torch.equal(image, whole[:, top : top + 20, left : left + 30])
        assert torch.equal(label, torch.arange(left, left + 30, dtype=torch.uint8).expand(20, 30))
        places.add((left, top))
    lefts, tops = zip(*places, strict=True)
    assert len(places) > 30 and max(lefts) > 50 and max(tops) > 35


def test_a_crop_is_cut_from_the_scaled_image(tmp_path):
    """A crop of 30x20 of images read at 60x40: what `size` 60x40 shows, cut, or padded where the scaled image is
    smaller than the crop."""
    rng = np.random.default_rng(0)
    pixels, ids = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8), rng.integers(0, 96, (24, 40), dtype=np.uint8)
    write(tmp_path, "00001.png", pixels, ids)
    dataset = Coordinates(tmp_path, size=(44, 40), augment=Augment(scale=True, crop=(30, 20)), seed=4)
    padded = 0
    for number in range(12):
        rng = np.random.default_rng([4, number])
        rng.random()
        factor, place = rng.uniform(0.5, 1.5), rng.random(2)
        size = round(44 * factor), round(40 * factor)
        left, top = round(place[0] * (30 - size[0])), round(place[1] * (20 - size[1]))
        window = Image.new("L", (30, 20), IGNORE)
        window.paste(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST), (left, top))
        label = dataset[0, number]["label"].numpy()
        assert np.array_equal(label, np.asarray(window))
        padded += bool((label == IGNORE).any())
    assert 0 < padded < 12


def test_a_draw_is_repeatable_and_seeded(coordinates):
    everything = Augment(mirror=True, scale=True, jitter=True)
    one, two = (Coordinates(coordinates, augment=everything, seed=5) for _ in range(2))
    other = Coordinates(coordinates, augment=everything, seed=6)
    one[0, 3]
    for draw in (7, 8):
        assert torch.equal(one[0, draw]["image"], two[0, draw]["image"])
        assert not torch.equal(one[0, draw]["image"], other[0, draw]["image"])
    assert not torch.equal(one[0, 7]["image"], one[0, 8]["image"])
    assert torch.equal(one[0]["image"], one[0, 0]["image"])
