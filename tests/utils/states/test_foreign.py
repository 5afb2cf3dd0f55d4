"""Files that are not weight files: each kind is named in one line, with what to do."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import shlex
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from utils.states import checkpoint
from utils.states.foreign import identify
from utils.states.weights import load_weights
from utils.system.errors import UserError

from .test_weights import holds, small, state_of

PAGE = "<!DOCTYPE html>\n<html lang=en><head><title>\n Virus scan\n warning </title></head><body>caf\xe9</body></html>"
TORCH = io.BytesIO()
torch.save({"a": torch.zeros(3)}, TORCH)


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return file.getvalue()


def tarred(mode: Any, **members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


KINDS: list[tuple[str, bytes, str, str]] = [
    ("x.pth", PAGE.encode(), "an HTML page with the title 'Virus scan warning'", "download it again"),
    ("x.pth", PAGE.encode("latin-1"), "an HTML page with the title 'Virus scan warning'", "download it again"),
    ("x.pth", b"\xef\xbb\xbf\n <HTML>sign in</HTML>", "an HTML page", "download it again"),
    ("x.safetensors", PAGE.encode(), "an HTML page", "download it again"),
    ("x.pth", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML that begins", "download it again"),
    ("x.pth", b'{"error": "not found"}', "JSON that begins with '{\"error", "download it again"),
    ("x.pth", b"404: Not Found", "text that begins with '404: Not Found'", "download it again"),
    ("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d4d\nsize 12345\n", "a Git LFS pointer that "
     "stands for 12345 bytes", "git lfs pull"),
    ("x.pth", b"../../.git/annex/objects/ab/cd/SHA256E-s5--12.pth/SHA256E-s5--12.pth", "git-annex", "git annex get"),
    ("x.pth", b"outs:\n- md5: abc\n  path: x.pth\n", "a DVC pointer", "dvc pull"),
    ("x.pth", zipped(a__GTA5_pth=TORCH.getvalue(), readme_txt=b""), "a zip archive with a/GTA5.pth in it", "unpack it"),
    ("x.zip", zipped(a_pth=b"", b_ckpt=b"", c_pth=b"", d_pth=b""), "with a.pth, b.ckpt, c.pth, ... in it", "unpack it"),
    ("x.pth", zipped(readme_txt=b""), "a zip archive without a weight file; it holds readme.txt", "torch.save"),
    ("x.pth", npz(), "an archive of NumPy arrays", "torch.save"),
    ("x.pth", tarred("w", GTA5_pth=b"1"), "a tar archive with GTA5.pth in it", "unpack it"),
    ("x.tar", tarred("w:gz", m__best_pth_tar=b"1"), "a tar archive with m/best.pth.tar in it", "unpack it"),
    ("x.tar", tarred("w:xz", a_txt=b"1"), "a tar archive without a weight file; it holds a.txt", "torch.save"),
    ("x.pth.gz", gzip.compress(TORCH.getvalue()), "a file compressed with gzip", "unpack it"),
    ("x.pth", b"7z\xbc\xaf\x27\x1c" + bytes(20), "a file compressed with 7z", "unpack it"),
    ("x.pth", b"Rar!\x1a\x07\x01\x00" + bytes(20), "a file compressed with RAR", "unpack it"),
    ("x.pth", b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG image", "torch.save"),
    ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file", "torch.save"),
    ("x.ckpt.index", bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "part of a TensorFlow checkpoint", "torch.save"),
    ("x.ckpt.data-00000-of-00001", bytes(range(40)), "part of a TensorFlow checkpoint", "torch.save"),
    ("checkpoint", b'model_checkpoint_path: "x.ckpt"\n', "the list of a TensorFlow checkpoint", "torch.save"),
    ("x.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model, by its name", "torch.save"),
    ("x.pkl", pickle.dumps({"a": np.zeros(3)}), "a pickle that was not written by torch.save", "pickle.load"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "what", "todo"), KINDS, ids=[what for _, _, what, _ in KINDS])
def test_what_is_no_weight_file_is_named_for_what_it_is(name, content, what, todo, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "as weights (it is " in said
    assert what in said and todo in said.partition(what)[2] and "\n" not in said


def test_what_torch_and_safetensors_write_is_left_to_them(tmp_path):
    for name, how in (("new.pth", {}), ("old.pth", {"_use_new_zipfile_serialization": False})):
        torch.save({"a": torch.zeros(3)}, tmp_path / name, **how)
        assert identify(tmp_path / name) is None
    whole = (tmp_path / "new.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])  # the reader itself says that it is damaged
    assert identify(tmp_path / "cut.pth") is None
    (tmp_path / "empty.pth").touch()
    assert identify(tmp_path / "empty.pth") is None


def test_a_folder_with_a_weight_file_in_it_names_that(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"is a folder; .* torch\.save$"):
        checkpoint.read(tmp_path)
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(UserError, match=r"is a folder; .* model\.ckpt: give that file$"):
        checkpoint.read(tmp_path)


def test_an_unpacked_weight_file_is_packed_by_the_line(tmp_path):
    content = {"state": {"a": torch.arange(5.0)}}
    torch.save(content, tmp_path / "my net.pth")
    with zipfile.ZipFile(tmp_path / "my net.pth") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "my net.pth").unlink()
    with pytest.raises(UserError, match=r"is a folder; .* pack it again: ") as caught:
        checkpoint.read(tmp_path / "my net")
    command = str(caught.value).partition("pack it again: ")[2]
    subprocess.run(command.replace("python", shlex.quote(sys.executable), 1), shell=True, check=True)
    assert torch.equal(checkpoint.read(tmp_path / "my net.pth")["state"]["a"], content["state"]["a"])


# ---------------------------------------------------------------- pickles with foreign objects


class Scripted(nn.Module):
    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.inner = small()
        self.inner.load_state_dict(state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def foreign(kind: str, state: dict[str, Any], path: Path) -> str:
    """Writes such a file; returns what the message names."""
    if kind == "beside":
        torch.save({"args": argparse.Namespace(lr=1e-3), "state_dict": state}, path)
        return "holds argparse.Namespace"
    if kind == "old format":
        torch.save({"where": Path("a"), "net": state}, path, _use_new_zipfile_serialization=False)
        return "holds pathlib"
    if kind == "module":
        model = small()
        model.load_state_dict(state)
        torch.save({"epoch": 3, "model": nn.Sequential(model)}, path)
        return "holds torch.nn.modules"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state": state, "best": np.float32(0.5)}))
        return "a pickle that was not written by torch.save"
    torch.jit.trace(Scripted(state), torch.zeros(1)).save(str(path))  # type: ignore[no-untyped-call]
    return "a TorchScript archive"


@pytest.mark.parametrize("kind", ["beside", "old format", "module", "pickle", "torchscript"])
@pytest.mark.filterwarnings("ignore")  # torch.jit warns that it is deprecated
def test_the_one_line_saves_the_tensors_of_a_file_with_foreign_objects(kind, tmp_path):
    path = tmp_path / "it's $HOME.pth"
    state = state_of(small())
    named = foreign(kind, state, path)
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and named in said.partition("as weights (it ")[2] and "\n" not in said
    command = said.partition("save its tensors with: ")[2]
    assert command.startswith("python ")
    root = Path(__file__).parents[3]  # the classes of the pickled module are found there
    shell = f"cd {shlex.quote(str(tmp_path))} && {shlex.quote(sys.executable)} {command.removeprefix('python ')}"
    subprocess.run(shell, shell=True, check=True, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"})
    model = small()
    report = load_weights(model, tmp_path / "tensors.pth")
    assert len(report.matched) == 68 and holds(model, state)


@pytest.mark.parametrize(("module", "place"), [("argparse", "it, save"), ("somewhere_else", "it, where Python finds ")])
def test_a_class_that_this_python_lacks_is_named_before_the_one_line(module, place, tmp_path, monkeypatch):
    kind = type("Settings", (), {"__module__": "somewhere_else"})
    monkeypatch.setitem(sys.modules, "somewhere_else", types.SimpleNamespace(Settings=kind))
    value = kind() if module == "somewhere_else" else argparse.Namespace()
    torch.save({"hyper_parameters": value, "state_dict": state_of(small())}, tmp_path / "x.ckpt")
    monkeypatch.delitem(sys.modules, "somewhere_else")
    with pytest.raises(
        UserError, match=rf"it holds {module}\.\w+, which is not read for safety\); if you trust {place}"
    ):
        checkpoint.read(tmp_path / "x.ckpt")


def test_numbers_and_arrays_of_numpy_are_no_foreign_objects(tmp_path):
    content: dict[str, Any] = {
        "best": np.float64(0.4),
        "seen": np.int64(3),
        "done": np.bool_(True),
        "name": np.str_("x"),
        "iou": np.arange(6.0).reshape(2, 3),
        "kind": np.dtype("uint8"),
    }
    torch.save({**content, "state": {"a": torch.ones(2)}}, tmp_path / "x.pth")
    found = checkpoint.read(tmp_path / "x.pth")
    assert torch.equal(found.pop("state")["a"], torch.ones(2))
    assert np.array_equal(found.pop("iou"), content.pop("iou"))
    assert found == content
    # NumPy 1 had another name for the module that rebuilds arrays, of the same length except for the underscore.
    with zipfile.ZipFile(tmp_path / "x.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core", b"numpy.core"))
    assert checkpoint.read(tmp_path / "old.pth")["best"] == 0.4


def test_objects_inside_an_array_are_foreign_still(tmp_path):
    torch.save({"a": np.array([argparse.Namespace()], dtype=object)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: .*it holds numpy\S+ObjectDType,.*; if you trust it"):
        checkpoint.read(tmp_path / "x.pth")


def test_a_file_made_to_run_commands_is_not_offered_to_be_read_anyway(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Evil()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"holds \S+\.system,.*: do not use the file$"):
        checkpoint.read(tmp_path / "x.pth")


@pytest.mark.parametrize(("size", "said"), [(0, "an empty file, of 0 bytes"), (9000, "it begins with zeros")])
def test_a_file_without_content_is_called_so(size, said, tmp_path):
    (tmp_path / "x.pth").write_bytes(bytes(size))
    with pytest.raises(UserError, match=rf"x\.pth: .* as weights \(damaged: {said}"):
        checkpoint.read(tmp_path / "x.pth")


def test_a_broken_header_of_safetensors_is_refused(tmp_path):
    head = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 400]}}).encode()
    for name, content in (
        ("short.safetensors", len(head).to_bytes(8, "little") + head + bytes(12)),
        ("cut.safetensors", len(head).to_bytes(8, "little") + head[:9]),
        ("x.pth", len(head).to_bytes(8, "little") + head + bytes(12)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: .* as weights \(.+\); give a file"):
            checkpoint.read(tmp_path / name)
