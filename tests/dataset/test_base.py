"""What all readers share: lists, checks, resizing, augmentation and the sampler."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader

from dataset import GTA5
from dataset.base import PAD_COLOUR, Augment, EndlessSampler
from dataset.classes import CITYSCAPES, IGNORE, ClassTable
from dataset.reading import read_image, read_list
from utils.errors import UserError

ROAD, CAR, UNLABELLED = 7, 26, 0


def write(root: Path, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
    for folder, data in (("images", image), ("labels", label)):
        if data is not None:
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(data).save(root / folder / name)


@pytest.fixture
def root(tmp_path):
    """Three 8x4 images of one colour each; left half road, right half car, one unlabelled pixel."""
    for number in (1, 2, 3):
        label = np.full((4, 8), ROAD, np.uint8)
        label[:, 4:] = CAR
        label[0, 0] = UNLABELLED
        write(tmp_path, f"0000{number}.png", np.full((4, 8, 3), (10 * number, 100, 200), np.uint8), label)
    return tmp_path


def write_list(root: Path, *lines: str, end: str = "\n") -> Path:
    path = root / "list.txt"
    path.write_bytes(end.join(lines).encode())
    return path


# Lists.


def test_list_order_blank_lines_and_crlf(root):
    path = write_list(root, "\ufeff00003.png", "", "  ", "00001.png ", "", end="\r\n")
    assert read_list(path) == ["00003.png", "00001.png"]
    assert GTA5(root, path).names == ["00003.png", "00001.png"]
    assert GTA5(root).names == ["00001.png", "00002.png", "00003.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", " "], "list.txt: the list is empty"),
        (["00001.png", "", "00001.png"], "list.txt, line 3: '00001.png' is in line 1 too"),
        (["/etc/00001.png"], "list.txt, line 1: '/etc/00001.png'"),
        (["00001.png", "a/../00002.png"], "list.txt, line 2"),
    ],
)
def test_list_refuses(root, lines, message):
    with pytest.raises(UserError, match=message):
        GTA5(root, write_list(root, *lines))


def test_list_missing_or_binary(root):
    with pytest.raises(UserError, match=r"none\.txt: unreadable list"):
        GTA5(root, root / "none.txt")
    with pytest.raises(UserError, match=r"00001\.png: unreadable list"):
        GTA5(root, root / "images" / "00001.png")


# Files.


def test_missing_folder_and_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: data folder not found; expected images/00001\.png and"):
        GTA5(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{tmp_path}: no images of split 'train' found"):
        GTA5(tmp_path)


def test_missing_image(root):
    path = write_list(root, "00001.png", "00008.png", "00009.png")
    with pytest.raises(UserError, match=r"images/00008\.png: image not found \(2 of 3 missing\).*remove its"):
        GTA5(root, path)


def test_missing_label_unless_unlabelled(root):
    (root / "labels" / "00002.png").unlink()
    with pytest.raises(UserError, match=r"labels/00002\.png: label not found \(1 of 3 missing\)"):
        GTA5(root)
    (root / "labels" / "00001.png").write_bytes(b"never read")
    sample = GTA5(root, labels=False)[0]
    assert set(sample) == {"image", "name", "size"}


def test_two_names_of_one_key(root):
    pixels = np.zeros((2, 2, 3), np.uint8)
    (root / "images" / "a").mkdir()
    Image.fromarray(pixels).save(root / "images" / "a" / "00001.png")
    with pytest.raises(UserError, match=r"00001\.png and a/00001\.png have the same file name"):
        GTA5(root, labels=False)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_corrupt_file(tmp_path, kind, damage):
    noise = np.random.default_rng(0).integers(0, 34, (40, 40, 3), dtype=np.uint8)
    write(tmp_path, "00001.png", noise, noise[:, :, 0].copy())
    path = tmp_path / kind / "00001.png"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    broken = {"empty": b"", "text": b"x" * 99, "truncated": data[:middle], "flipped": flipped}
    path.write_bytes(broken[damage])
    with pytest.raises(UserError, match=rf"{kind}/00001\.png: corrupt or unreadable {kind[:-1]} .*remove it"):
        GTA5(tmp_path)[0]


def test_truncated_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"a\.jpg: corrupt or unreadable image"):
        read_image(path)


def test_error_names_the_file_across_a_loader_process(root):
    (root / "images" / "00001.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"images/00001\.png: corrupt"):
        next(iter(DataLoader(GTA5(root), num_workers=1)))


def test_label_of_another_size(root):
    Image.fromarray(np.full((4, 6), ROAD, np.uint8)).save(root / "labels" / "00001.png")
    with pytest.raises(UserError, match=r"labels/00001\.png: label of 6x4.*images/00001\.png has 8x4"):
        GTA5(root, size=(4, 2))[0]


def test_label_with_colours(root):
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(root / "labels" / "00001.png")
    with pytest.raises(UserError, match=r"labels/00001\.png: label of mode RGB; expected a grey or palette"):
        GTA5(root)[0]


# Samples.


def test_sample_at_native_size(root):
    sample = GTA5(root)[1]
    assert (sample["name"], sample["size"]) == ("00002.png", (8, 4))
    assert sample["image"].dtype == sample["label"].dtype == torch.uint8
    assert sample["image"].shape == (3, 4, 8) and sample["image"].is_contiguous()
    assert sample["image"][:, 3, 7].tolist() == [20, 100, 200]
    assert sample["label"].tolist() == [[IGNORE, 0, 0, 0, 13, 13, 13, 13]] + 3 * [[0] * 4 + [13] * 4]


def test_sizes(root):
    sample = GTA5(root, size=(4, 2))[0]
    assert sample["image"].shape == (3, 2, 4)
    assert sample["size"] == (8, 4)
    # Pillow's nearest takes pixel floor((i + 0.5) * 2): the unlabelled one falls out.
    assert sample["label"].tolist() == [[0, 0, 13, 13]] * 2
    native = GTA5(root, size=(4, 2), label_size="native")[0]
    assert native["image"].shape == (3, 2, 4)
    assert native["label"].shape == (4, 8)
    assert native["label"][0, 0] == IGNORE


def test_image_resized_bicubic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    write(tmp_path, "00001.png", pixels, None)
    image = GTA5(tmp_path, size=(7, 4), labels=False)[0]["image"]
    expected = np.asarray(Image.fromarray(pixels).resize((7, 4), Image.Resampling.BICUBIC))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_class_count_and_ignore_label(root):
    label = GTA5(root, table=CITYSCAPES.first(13), ignore_label=99)[0]["label"]
    assert label.tolist() == [[99, 0, 0, 0] + [99] * 4] + 3 * [[0] * 4 + [99] * 4]
    with pytest.raises(UserError, match="ignore label: 18"):
        GTA5(root, ignore_label=18)


def test_label_ids_of_the_table_come_before_the_data_sets_own(root):
    table = replace(CITYSCAPES.first(2), label_ids={CAR: 1})
    assert GTA5(root, table=table)[0]["label"].unique().tolist() == [1, IGNORE]
    label = GTA5.load_label(root / "labels" / "00001.png", 7, table)
    assert np.unique(label).tolist() == [1, 7]


def test_bad_arguments(root):
    with pytest.raises(UserError, match="image size"):
        GTA5(root, size=(0, 4))
    for arguments in (
        {"label_size": "big"},
        {"label_size": "native", "augment": Augment(mirror=True)},
        {"pseudo_label_dir": root, "labels": False},
    ):
        with pytest.raises(ValueError):
            GTA5(root, **arguments)


# Pseudo-labels.


def pseudo_labels(root: Path, value: int) -> Path:
    folder = root / "pseudo"
    folder.mkdir()
    for number in (1, 2, 3):
        Image.fromarray(np.array([[number, 255], [18, value]], np.uint8)).save(folder / f"0000{number}.png")
    return folder


def test_pseudo_labels_are_train_ids_of_any_size(root):
    (root / "labels" / "00002.png").unlink()
    sample = GTA5(root, size=(4, 2), pseudo_label_dir=pseudo_labels(root, 5))[1]
    assert sample["label"].tolist() == [[2, 2, 255, 255], [18, 18, 5, 5]]


def test_pseudo_labels_refuse(root):
    with pytest.raises(UserError, match="pseudo: no such folder"):
        GTA5(root, pseudo_label_dir=root / "pseudo")
    folder = pseudo_labels(root, 19)
    with pytest.raises(UserError, match=r"pseudo/00001\.png: pseudo-label with id 19"):
        GTA5(root, pseudo_label_dir=folder)[0]
    (folder / "00003.png").unlink()
    with pytest.raises(UserError, match=r"pseudo/00003\.png: pseudo-label not found .*generate"):
        GTA5(root, pseudo_label_dir=folder)


# Augmentation, on images that say where each pixel comes from: red = 2 x, green = 2 y, and the label x, or y.

WIDTH, HEIGHT = 96, 64
BORDER = 12  # pixels of the file next to its border, where bicubic weights are cut off; enough for a factor of 4


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
    """Every labelled pixel comes from where its colour says; returns how many were judged.

    A resized image says the place to a quarter of a pixel of the file; nearest is up to half a pixel off.
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
    # Half of the factors shrink; the smallest leave a quarter of the area; the place varies.
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
    """Jitter at the size of the file, one resize from there, crop or pad, mirror: each step with Pillow."""
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
        for enhancer, amount in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), amounts):
            image = enhancer(image).enhance(amount) if jitter else image
        size = (round(30 * factor), round(20 * factor)) if scale else (30, 20)
        corner = round(place[0] * (30 - size[0])), round(place[1] * (20 - size[1]))
        windows = Image.new("RGB", (30, 20), PAD_COLOUR), Image.new("L", (30, 20), IGNORE)
        windows[0].paste(image.resize(size, Image.Resampling.BICUBIC), corner)
        windows[1].paste(label.resize(size, Image.Resampling.NEAREST), corner)
        expected = [np.asarray(window)[:, :: -1 if flip and mirror else 1] for window in windows]
        sample = dataset[0, number]
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), expected[0])
        assert np.array_equal(sample["label"].numpy(), expected[1])


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


# Sampler.


def drawn(sampler: EndlessSampler, batches: int) -> list[tuple[int, int]]:
    return list(itertools.chain.from_iterable(itertools.islice(sampler, batches)))


def test_sampler_is_balanced_and_numbers_its_samples():
    samples = drawn(EndlessSampler(7, 3, seed=0), 14)
    assert [draw for _, draw in samples] == list(range(42))
    epochs = [[index for index, _ in samples[start : start + 7]] for start in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs[2] == np.random.default_rng([0, 2]).permutation(7).tolist()
    assert samples != drawn(EndlessSampler(7, 3, seed=1), 14)


@pytest.mark.parametrize("batches", [0, 1, 2, 7, 9])
def test_sampler_resumes_exactly(batches):
    whole = drawn(EndlessSampler(5, 2, seed=4), 20)
    assert drawn(EndlessSampler(5, 2, seed=4, start=2 * batches), 20 - batches) == whole[2 * batches :]


def test_sampler_batches_larger_than_the_data():
    batch = next(iter(EndlessSampler(2, 5, seed=0)))
    assert sorted(index for index, _ in batch[:4]) == [0, 0, 1, 1]
    for arguments in ((0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, -1)):
        with pytest.raises(ValueError):
            EndlessSampler(*arguments)


def test_samplers_of_several_processes_share_the_batches_of_one():
    alone = list(itertools.islice(EndlessSampler(7, 6, seed=3, start=6), 5))
    parts = [itertools.islice(EndlessSampler(7, 2, seed=3, start=6, rank=rank, size=3), 5) for rank in range(3)]
    assert [list(itertools.chain(*shares)) for shares in zip(*parts)] == alone
    with pytest.raises(ValueError, match="process 3 of 3"):
        EndlessSampler(7, 2, seed=3, rank=3, size=3)


def test_sampler_in_a_loader(root):
    dataset = GTA5(root, size=(8, 4), augment=Augment(mirror=True, jitter=True), seed=2)
    loader = DataLoader(dataset, batch_sampler=EndlessSampler(len(dataset), 2, seed=2))
    batches = list(itertools.islice(loader, 3))
    resumed = next(iter(DataLoader(dataset, batch_sampler=EndlessSampler(len(dataset), 2, seed=2, start=4))))
    assert batches[2]["image"].shape == (2, 3, 4, 8)
    assert torch.equal(batches[2]["image"], resumed["image"])
    assert batches[2]["name"] == resumed["name"]
