"""Recognises files that are not weight files: what they are, in words, and what to do."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import NamedTuple

__all__ = ["Foreign", "identify", "in_folder", "is_safetensors", "resave_line"]

_WEIGHTS = (".pth", ".pt", ".pkl", ".ckpt", ".tar", ".bin", ".safetensors")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_TORCH_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # torch.save's own format before version 1.6
_TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # ends the index of a TensorFlow checkpoint
_BEGINNINGS = (
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
)
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_ENDINGS = {
    ".onnx": "an ONNX model",
    ".caffemodel": "a Caffe model",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".meta": "part of a TensorFlow checkpoint",
}
_SAVED_BY_TORCH = "give a file saved by torch.save"
_MEMBERS = 1000  # largest number of names that are read from an archive
_SHOWN = 3


class Foreign(NamedTuple):
    """what: the words for a file, such as "an HTML page". todo: what a user can do about it."""

    what: str
    todo: str


def identify(path: Path) -> Foreign | None:
    """What a regular file is; None if torch.save or safetensors may have written it, damaged or not."""
    with open(path, "rb") as file:
        start = file.read(4096)
        file.seek(max(0, path.stat().st_size - len(_TENSORFLOW)))
        end = file.read()
    if start.startswith(b"PK\x03\x04"):
        return _zip(path)
    if start.startswith(_TORCH_PICKLE) or not start or is_safetensors(path):
        return None
    if _PICKLE.match(start):
        return Foreign(
            "a pickle that was not written by torch.save and, for safety, is not read",
            f"if you trust it, save its tensors with: {resave_line(path, torch_format=False)}",
        )
    for beginning, what in _BEGINNINGS:
        if start.startswith(beginning):
            return Foreign(what, _SAVED_BY_TORCH)
    return _tar(path, start) or _tensorflow(path, end) or _text(start) or _by_name(path)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a JSON header and the header itself."""
    with open(path, "rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and 0 < length < path.stat().st_size


def resave_line(path: Path, *, torch_format: bool = True) -> str:
    """The command that reads a pickle with all its objects, running the code in it, and saves only the tensors."""
    load, tensor = "torch.load(sys.argv[1], 'cpu', weights_only=False)", "v if torch.is_tensor(v)"
    if not torch_format:
        load, tensor = "pickle.load(open(sys.argv[1], 'rb'))", "torch.as_tensor(v) if hasattr(v, 'shape')"
    return (
        f'python -c "import {"" if torch_format else "pickle, "}sys, torch; '
        "f = lambda v: v.state_dict() if hasattr(v, 'state_dict') else {k: f(w) for k, w in v.items()} "
        f'if isinstance(v, dict) else {tensor} else 0; torch.save(f({load}), sys.argv[2])" '
        f"{quote(str(path))} tensors.pth"
    )


def _zip(path: Path) -> Foreign | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises many kinds; the file is damaged, which is reported elsewhere
        return None
    folders = [name.partition("/")[2] for name in names]
    if "constants.pkl" in folders and any(name.startswith("code/") for name in folders):
        return Foreign(
            "a TorchScript archive, a program with its weights",
            'save its tensors with: python -c "import sys, torch; torch.save('
            f"torch.jit.load(sys.argv[1], 'cpu').state_dict(), sys.argv[2])\" {quote(str(path))} tensors.pth",
        )
    if "data.pkl" in folders:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return Foreign("an archive of NumPy arrays", _SAVED_BY_TORCH)
    return _archive("zip", names)


def _tar(path: Path, start: bytes) -> Foreign | None:
    compression = next((name for beginning, name in _COMPRESSED if start.startswith(beginning)), None)
    if compression or start[257:262] == b"ustar":
        try:
            with tarfile.open(path) as archive:
                return _archive("tar", [member.name for member in islice(archive, _MEMBERS)])
        except Exception:  # tarfile and the decompressors raise many kinds
            if not compression:
                return Foreign("a damaged tar archive", "download it again")
    if not compression:
        return None
    return Foreign(f"a file compressed with {compression}", "unpack it, and give what is inside")


def in_folder(path: Path) -> str:
    """What a folder holds and what to do about it, as the end of a message; empty if this is unknown."""
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return ""
    if {"data.pkl", "data"} <= set(names):
        folder, name = quote(str(path.resolve().parent)), quote(path.resolve().name)
        return f"; it is an unpacked one: pack it again: (cd {folder} && python -m zipfile -c {name}.pth {name})"
    weights = _weight_files(names)
    return f"; it holds {weights}: give that file" if weights else ""


def _weight_files(names: Iterable[str]) -> str:
    """The first names with the extension of a weight file; empty if there are none."""
    return _first([name for name in names if name.lower().endswith(_WEIGHTS)])


def _first(names: list[str]) -> str:
    return ", ".join(name[:60] for name in names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")


def _archive(kind: str, names: Iterable[str]) -> Foreign:
    files = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    weights = _weight_files(files)
    if weights:
        return Foreign(f"a {kind} archive with {weights} in it", "unpack it, and give the weight file inside")
    found = _first(files) or "nothing"
    return Foreign(f"a {kind} archive without a weight file; it holds {found}", _SAVED_BY_TORCH)


def _tensorflow(path: Path, end: bytes) -> Foreign | None:
    if end == _TENSORFLOW or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return Foreign("part of a TensorFlow checkpoint", _SAVED_BY_TORCH)
    return None


def _text(start: bytes) -> Foreign | None:
    text = start.decode("utf-8-sig", errors="replace").rstrip("�").strip()  # a character may be cut off at the end
    if not text or not all(sign.isprintable() or sign.isspace() for sign in text):
        return None
    again = "the server sent a page instead of the file: download it again, in a browser if it asks for something"
    if re.search(r"<!doctype html|<html", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>\s*([^<]*?)\s*</title>", text, re.IGNORECASE)
        titled = f" with the title '{' '.join(title[1].split())[:60]}'" if title else ""
        return Foreign(f"an HTML page{titled}", again)
    if text.startswith("version https://git-lfs"):
        size = re.search(r"^size (\d+)", text, re.MULTILINE)
        standing = f" that stands for {size[1]} bytes" if size else ""
        return Foreign(f"a Git LFS pointer{standing}", "fetch the file itself: run 'git lfs pull' in its repository")
    if "/annex/objects/" in text:
        return Foreign("a git-annex pointer", "fetch the file itself: run 'git annex get' in its repository")
    if re.match(r"outs:\s*\n- md5:", text):
        return Foreign("a DVC pointer", "fetch the file itself: run 'dvc pull' in its repository")
    if text.startswith("model_checkpoint_path"):
        return Foreign("the list of a TensorFlow checkpoint", _SAVED_BY_TORCH)
    kind = {"<": "XML", "{": "JSON"}.get(text[0], "text")
    todo = f"{_SAVED_BY_TORCH}, or download it again if a server sent this instead of the file"
    return Foreign(f"{kind} that begins with '{text.splitlines()[0][:50]}'", todo)


def _by_name(path: Path) -> Foreign | None:
    what = _ENDINGS.get(path.suffix.lower())
    return Foreign(f"{what}, by its name", _SAVED_BY_TORCH) if what else None
