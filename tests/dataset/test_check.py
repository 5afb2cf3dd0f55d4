"""`python -m dataset.check`, and the checks at the start of a run: every kind of fault, put into good data."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dataset as package
from dataset import GTA5, Cityscapes, Folder
from dataset.check import __main__ as script
from dataset.check import examine
from dataset.check.quick import distortion, quick_check, void_alone
from dataset.check.report import Part, check
from dataset.reading import check_image, read_image
from dataset.tables import parse_classes
from tests.messages import says
from utils.options import config
from utils.system.errors import UserError

CLASSES = """
classes:
  - {name: ground, id: 10, kind: stuff}
  - {name: cow, id: 20, kind: thing}
  - {name: wall, id: 30, kind: stuff}
ignore: [7]
"""
OWN = ("--preset", "own_images", "--source", "folder:game", "--target", "folder:camera", "--classes", "classes.yaml")
IDS = np.array([[10, 10, 10, 20], [30, 30, 7, 255]], np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 4, 3), dtype=np.uint8)


@pytest.fixture
def good(tmp_path, monkeypatch) -> Path:
    """Four labelled images in game/, three without labels in camera/, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        write(Path(f"game/images/{i}.png"), picture(i))
        write(Path(f"game/labels/{i}.png"), IDS)
    for i in range(3):
        write(Path(f"camera/images/{i}.jpg"), picture(100 + i))
    Path("classes.yaml").write_text(CLASSES)
    return tmp_path


def run(capsys, *arguments: str) -> tuple[object, list[str], str]:
    """Exit code, lines of standard output, and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: script.main([*OWN, "--num-workers", "0", *arguments]))
    out, err = capsys.readouterr()
    return ended.value.code, out.splitlines(), err


def test_good_data(good, capsys):
    code, lines, err = run(capsys)
    assert (code, err, lines[-1]) == (0, "", "nothing wrong")
    cells = [line.split() for line in lines]
    assert ["images", "4", "3", "3"] in cells
    assert ["sizes", "4x2", "4x2", "4x2"] in cells
    assert ["ground", "10", "37.50", "%"] in cells and ["wall", "30", "25.00", "%"] in cells
    assert ["left", "out", "25.00", "%"] in cells and ["outside", "the", "table", "0.00", "%"] in cells
    notes = [line for line in lines if line.startswith("note")]
    assert len(notes) == 1 and says(notes[0], "scored: 3 images ... no label")


def delete(name: str) -> Callable[[], object]:
    return lambda: Path(name).unlink()


def cut(name: str) -> Callable[[], object]:
    return lambda: Path(name).write_bytes(Path(name).read_bytes()[:40])


def put(name: str, pixels: np.ndarray) -> Callable[[], object]:
    return lambda: write(Path(name), pixels)


def copy(name: str, to: str) -> Callable[[], None]:
    def change() -> None:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(to).write_bytes(Path(name).read_bytes())

    return change


OTHER_ID = np.array([[10, 20, 30, 30], [30, 30, 12, 12]], np.uint8)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (delete("game/labels/2.png"), "source: 1 of 4 images ... no label; ... game/labels/2.png"),
        (delete("game/images/2.png"), "source: 1 of 4 labels ... no image in game/images: game/labels/2.png"),
        (put("game/labels/deep/9.png", IDS), "source: 1 of 5 labels ... no image in game/images: game/labels/deep"),
        (cut("game/images/1.png"), "source: 1 of 4 images ... game/images/1.png: corrupt"),
        (cut("camera/images/1.jpg"), "target: 1 of 3 images ... camera/images/1.jpg: corrupt"),
        (cut("game/labels/0.png"), "source: 1 of 4 labels ... game/labels/0.png: corrupt"),
        (put("game/labels/0.png", picture(0)), "source: 1 of 4 labels ... game/labels/0.png: label of mode"),
        (put("game/labels/0.png", IDS[:1]), "source: 1 of 4 pairs ... size: game/labels/0.png: ... 4x1"),
        (put("game/labels/3.png", OTHER_ID), "source: label id 12 ... classes: 6.25 % ... 1 labels, ... game"),
        (lambda: [put(f"game/labels/{i}.png", np.full((2, 4), 10, np.uint8))() for i in range(4)],
         "source: classes in the labels: ground; ... two"),
        (copy("game/images/0.png", "camera/images/x.png"),
         "1 of 4 target images ... source images ... content: camera/images/x.png is game/images/0.png"),
        (copy("camera/images/1.jpg", "camera/images/copy.jpg"), None),  # twice in one set is no fault
        (lambda: Path("camera/val.txt").write_text("9.jpg\n"), "scored: 1 of 1 images ... missing: camera/images/9"),
        (delete("classes.yaml"), None),
    ],
)  # fmt: skip
def test_each_fault_is_named(good, capsys, spoil, said):
    spoil()
    code, lines, err = run(capsys)
    if not Path("classes.yaml").exists():
        assert (code, err.count("\n")) == (2, 1) and "classes.yaml: cannot be read" in err
    elif said is None:
        assert code == 0
    else:
        assert code == 1
        wrong = [line for line in lines if line.startswith("wrong  ")]
        assert any(says(line, said) for line in wrong), wrong


def test_names_that_are_no_text_are_shown_in_one_line(good, capsys):
    Path("game/images/0.png").write_bytes(b"")
    for kind in ("images", "labels"):
        Path(f"game/{kind}/0.png").rename(f"game/{kind}/x\n\udcff.png")
    Path("game/labels/3.png").rename("game/labels/y\n.png")
    code, lines, _ = run(capsys)
    wrong = [line for line in lines if line.startswith("wrong  ")]
    assert code == 1 and lines[-1] == f"{len(wrong)} things wrong"
    for said in (r"game/images/x\n\udcff.png: corrupt", r"no image in game/images: game/labels/y\n.png"):
        assert any(says(line, said) for line in wrong), lines
    fault = examine.examine((Path("game/images/x\n\udcff.png"), None)).fault
    assert fault is not None and fault.startswith(r"game/images/x\n\udcff.png: ")


def test_files_of_kinds_that_are_not_read_are_noted(good, capsys):
    copy("game/images/0.png", "game/images/deep/9.webp")()
    copy("game/images/0.png", "camera/images/9.BMP")()
    Path("game/images/notes.txt").write_text("")
    copy("camera/images/0.jpg", "game/labels/9.jpg")()
    code, lines, _ = run(capsys)
    assert code == 0
    assert any(says(line, "note   source: files ... not read: 2, first game/images/deep/9.webp") for line in lines)
    assert any(says(line, "note   target: files ... not read: 1, first camera/images/9.BMP") for line in lines)
    Path("game/labels/2.png").rename("game/labels/2.jpg")
    code, lines, _ = run(capsys)
    assert code == 1
    assert any(says(line, "wrong  source: 1 of 4 images ... no label; ... game/labels/2.png (2.jpg") for line in lines)


def test_skip_bad_images_counts_what_it_leaves_out(good, capsys):
    cut("game/images/1.png")()
    cut("game/labels/1.png")()
    put("game/labels/0.png", IDS[:1])()
    delete("game/labels/2.png")()
    cut("camera/images/1.jpg")()
    assert run(capsys)[0] == 1
    code, lines, _ = run(capsys, "--skip-bad-images")
    assert (code, lines[-1]) == (0, "nothing wrong")
    for line in (
        "note   source: --skip-bad-images ... 3 of 4 images",
        "note   target: --skip-bad-images ... 1 of 3 images",
        "note   source: 1 of 4 images ... no label; ... game/labels/2.png",
    ):
        assert any(says(found, line) for found in lines)
    cut("game/images/3.png")()
    code, lines, _ = run(capsys, "--skip-bad-images")
    assert code == 1
    assert any(says(line, "wrong  source: 1 of 4 images ... no label; ... game/labels/2.png") for line in lines)
    assert not any("source: --skip-bad-images" in line for line in lines)


def write_gta5(root: Path, ids: np.ndarray) -> tuple[str, ...]:
    """Four pairs with labels of `ids`, and one image of Cityscapes; returns the options that name both."""
    for i in range(4):
        write(root / f"game/images/0000{i}.png", picture(i))
        write(root / f"game/labels/0000{i}.png", ids)
    write(root / "Cityscapes/leftImg8bit/train/a/a_leftImg8bit.png", picture(100))
    return "--data-dir", str(root / "game"), "--data-dir-target", str(root / "Cityscapes"), "--num-workers", "0"


def checked(capsys, *arguments: str) -> tuple[object, list[str]]:
    with pytest.raises(SystemExit) as ended:
        script.main(arguments)
    return ended.value.code, capsys.readouterr().out.splitlines()


LABEL_IDS = np.array([[7, 8, 11, 23], [26, 4, 0, 0]], np.uint8)
AS_TRAIN_IDS = np.array([[0, 1, 2, 10], [13, 255, 255, 8]], np.uint8)


@pytest.mark.parametrize("classes", [[], ["--num-classes", "13"]])
def test_train_ids_in_the_place_of_label_ids(tmp_path, capsys, classes):
    said = "only ids 0 to 18, ... 17 of 19 classes ... absent, ... train ids"
    folders = write_gta5(tmp_path, LABEL_IDS)
    assert checked(capsys, *folders, *classes)[0] == 0
    assert quick_check(GTA5(tmp_path / "game")) == []
    write_gta5(tmp_path, AS_TRAIN_IDS)
    code, lines = checked(capsys, *folders, *classes)
    assert code == 1 and any(says(line, f"wrong  source: ... {said}") for line in lines)
    assert says(quick_check(GTA5(tmp_path / "game"))[0], said)


def test_train_id_files_of_other_projects_beside_the_labels_are_no_labels(tmp_path, capsys):
    folders = write_gta5(tmp_path, LABEL_IDS)
    for i in range(4):
        write(tmp_path / f"game/labels/0000{i}_labelTrainIds.png", AS_TRAIN_IDS)
    assert checked(capsys, *folders)[0] == 0
    assert sorted(GTA5.ground_truth(tmp_path / "game/labels")) == [f"0000{i}" for i in range(4)]


def test_scored_labels_of_ignored_pixels_alone_are_a_note(tmp_path, capsys):
    folders = write_gta5(tmp_path, LABEL_IDS)
    write(tmp_path / "Cityscapes/leftImg8bit/test/b/b_leftImg8bit.png", picture(101))
    label = tmp_path / "Cityscapes/gtFine/test/b/b_gtFine_labelIds.png"
    for ids, code in ((np.array([[0, 1, 2, 3], [0, 0, 0, 0]], np.uint8), 0), (LABEL_IDS * 0 + 7, 1)):
        write(label, ids)
        found, lines = checked(capsys, *folders, "--set", "test")
        assert found == code
        assert any(says(line, "note   scored: ... only ignored pixels, ... no scores") for line in lines) == (code == 0)
        assert void_alone(Cityscapes(tmp_path / "Cityscapes", split="test")) == (code == 0)
    assert not void_alone(Cityscapes(tmp_path / "Cityscapes", labels=None))


def test_known_pairs_of_two_sizes_of_gta5_are_a_note(tmp_path, capsys):
    folders = write_gta5(tmp_path, LABEL_IDS)
    for name in ("15188", "17705"):
        write(tmp_path / f"game/images/{name}.png", picture(int(name)))
        write(tmp_path / f"game/labels/{name}.png", LABEL_IDS[:, 1:])
    (tmp_path / "game/list.txt").write_text("00001.png\n15188.png\n")
    note = "note   source: left out 15188.png, 17705.png, ... another size"
    code, lines = checked(capsys, *folders)
    assert code == 0 and any(says(line, note) for line in lines)
    code, lines = checked(capsys, *folders, "--data-list", "list.txt")
    assert code == 1 and not any("note   source: left out" in line for line in lines)


def test_scored_images_are_either_all_or_none_of_the_target(good, capsys):
    write(Path("camera/labels/0.png"), IDS)
    code, lines, _ = run(capsys)
    assert code == 0
    assert any(says(line, "note   3 of 3 scored images ... target images") for line in lines)
    assert any(says(line, "note   scored: 2 images ... no label; ... 1 others") for line in lines)
    Path("camera/train.txt").write_text("0.jpg\n1.jpg\n")
    code, lines, _ = run(capsys)
    assert code == 1
    assert any(
        says(line, "2 of 3 scored images ... target images ... by name: camera/images/0.jpg is") for line in lines
    )


def test_a_target_of_images_without_a_folder_of_their_own_is_fine(good, capsys):
    for i in range(2):
        write(Path(f"flat/{i}.png"), picture(200 + i))
    code, lines, _ = run(capsys, "--target", "folder:flat")
    assert code == 0 and ["images", "4", "2", "2"] in [line.split() for line in lines]
    assert not any("passed over" in line for line in lines)


def test_a_single_image_as_target_leaves_the_folder_around_it_alone(good, capsys):
    write(Path("around/0.png"), picture(200))
    copy("around/0.png", "around/old.webp")()
    Path("around/loop").symlink_to(".")
    code, lines, err = run(capsys, "--target", "folder:around/0.png")
    assert (code, err) == (0, "") and ["images", "4", "1", "1"] in [line.split() for line in lines]
    assert not any("formats" in line or "loop" in line for line in lines)
    single = Folder("around/0.png", table=Cityscapes.table, labels=None)
    assert quick_check(single) == []


def test_the_same_image_trained_on_and_scored(good, capsys):
    copy("game/images/3.png", "camera/images/other.png")()
    for name in ("other", "2"):
        write(Path(f"camera/labels/{name}.png"), IDS)
    Path("camera/train.txt").write_text("0.jpg\n")
    Path("camera/val.txt").write_text("other.png\n2.jpg\n")
    code, lines, _ = run(capsys)
    assert code == 1
    wrong = [line for line in lines if line.startswith("wrong")]
    assert len(wrong) == 1
    assert says(wrong[0], "1 of 2 scored images ... source images ... content: camera/images/other.png is ... 3.png;")


def test_a_missing_folder_is_wrong_and_the_other_parts_are_still_checked(good, capsys):
    code, lines, _ = run(capsys, "--data-list", "none.txt")
    assert code == 1
    assert any(line.startswith("wrong  source: none.txt: unreadable list") for line in lines)
    assert any(line.split() == ["images", "3", "3"] for line in lines)


@pytest.mark.parametrize(
    "arguments", [["--num-steps", "3"], ["--source", "mars"], ["--num-classes", "9"], ["--ignore-label", "1"], ["more"]]
)
def test_bad_usage(good, capsys, arguments):
    code, lines, err = run(capsys, *arguments)
    assert (code, lines, err.count("\n")) == (2, [], 1)


def test_the_built_in_benchmark_is_fine_and_processes_change_nothing(benchmark_root, capsys):
    folders = [
        "--data-dir",
        str(benchmark_root / "gta5_deeplab"),
        "--data-dir-target",
        str(benchmark_root / "Cityscapes"),
    ]
    printed = []
    for workers in ("0", "2"):
        with pytest.raises(SystemExit) as ended:
            script.main(["--preset", "builtin", *folders, "--num-workers", workers])
        assert ended.value.code == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_many_unknown_ids_share_a_line(good):
    table = parse_classes({"classes": [{"name": n, "kind": "stuff"} for n in "ab"]}, "x")
    for i, ids in enumerate(([5, 6, 0, 0], [7, 8, 1, 1], [0, 0, 1, 1], [0, 0, 1, 8])):
        write(Path(f"game/labels/{i}.png"), np.array([ids] * 2, np.uint8))
    report = check([Part("source", Folder("game", table=table, check=False), "all")])
    [line] = report.wrong
    assert says(line, "source: 4 label ids (5, 6, 7, 8) are not ... 31.25 % ... in 3 labels, first game/labels/0.png;")


def test_what_is_counted(good):
    table = parse_classes({"classes": [{"name": n, "kind": "stuff"} for n in "ab"]}, "x")
    for i, ids in enumerate(([[0, 0, 0, 1]] * 2, [[1, 1, 1, 255]] * 2, [[5, 0, 0, 0]] * 2, [[0, 0, 0, 0]] * 2)):
        write(Path(f"game/labels/{i}.png"), np.array(ids, np.uint8))
    report = check([Part("source", Folder("game", table=table, check=False), "all")])
    assert len(report.wrong) == 1
    assert says(report.wrong[0], "source: label id 5 ... classes: 6.25 % ... 1 labels, ... game/labels/2.png;")
    assert [line.split() for line in report.table[-4:]] == [
        ["a", "0", "62.50", "%"],
        ["b", "1", "25.00", "%"],
        ["left", "out", "6.25", "%"],
        ["outside", "the", "table", "6.25", "%"],
    ]


def test_ids_of_a_label_larger_than_exact_counts_are_counted_in_strips(monkeypatch):
    label = np.random.default_rng(0).integers(0, 256, (37, 5), dtype=np.uint8)
    monkeypatch.setattr(examine, "_EXACT", 21)
    assert examine.id_counts(label).tolist() == np.bincount(label.ravel(), minlength=256).tolist()


# What a run checks first.


def folder(**arguments) -> Folder:
    table = parse_classes({"classes": [{"name": n, "kind": "stuff"} for n in "ab"]}, "x")
    return Folder("game", table=table, **arguments)


def test_quick_check_names_odd_ids_and_strays(good):
    for i in range(4):
        write(Path(f"game/labels/{i}.png"), np.array([[0, 1, 9, 255]] * 2, np.uint8))
    write(Path("game/labels/more.png"), IDS)
    odd, stray = quick_check(folder())
    assert says(odd, "label ids 9 ... ignored (25 % ... 4 labels)")
    assert says(stray, "labels without an image in game/images: 1, first game/labels/more.png")
    assert quick_check(folder(labels=False)) == []


def test_quick_check_refuses_labels_of_another_table(good):
    with pytest.raises(
        UserError, match=r"game/labels/0\.png: none of the label ids 7, 10, 20, 30, 255 .* belongs to a class"
    ):
        quick_check(folder())


def test_quick_check_leaves_unreadable_labels_to_the_reader(good):
    for i in range(4):
        Path(f"game/labels/{i}.png").write_text("no image")
    assert quick_check(folder()) == []


def test_the_data_package_imports_no_networks_and_no_options():
    for path in Path(package.__file__).parent.rglob("*.py"):
        if path.name == "__main__.py":  # scripts
            continue
        nodes = ast.walk(ast.parse(path.read_text()))
        found = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        refused = [name for name in found if name.startswith(("model", "utils.options", "utils.setup"))]
        assert refused == [], path


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_the_quick_look_at_an_image_agrees_with_reading_it(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    write(whole, np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    assert check_image(whole) == read_image(whole).size == (60, 40)
    content = whole.read_bytes()
    for part in (0.02, 0.5, 0.9):
        path = tmp_path / f"part.{suffix}"
        path.write_bytes(content[: int(part * len(content))])
        for look in (check_image, read_image):
            with pytest.raises(UserError, match=rf"part\.{suffix}: corrupt or unreadable image"):
                look(path)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((96, 64), None),
        ((110, 64), None),  # 15 %
        ((64, 96), "96x64 by 125 %; ... swapped, ... 96,64"),
        ((64, 64), "96x64 by 50 %; 80,56"),
        (None, None),
    ],
)
def test_an_input_size_of_another_shape_is_told(benchmark_root, size, expected):
    images = Cityscapes(benchmark_root / "Cityscapes", size=size)
    found = distortion(images)
    assert found is None if expected is None else found is not None and says(found, expected)
