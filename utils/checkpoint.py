"""Files written whole or not at all, and checkpoints, read without running code from them."""

from __future__ import annotations

import json
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from utils.errors import UserError, fault

FORMAT = "bafft"
State = dict[str, Any]


def make_folder(folder: Path) -> None:
    """Create a folder and its parents. Raises UserError where a file is in the way or the place is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is in the way" if isinstance(error, (FileExistsError, NotADirectoryError)) else error.strerror
        raise UserError(f"{folder}: cannot be made a folder ({reason}); choose another one") from error


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into `folder` when the block ends well; after an error nothing is left of it,
    and files of before stay as they were."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as scratch:
            yield Path(scratch)
            for path in sorted(Path(scratch).iterdir()):
                os.replace(path, folder / path.name)
    except BaseException as error:
        with suppress(OSError):  # someone else may have put a file there meanwhile
            for path in new:
                path.rmdir()
        if isinstance(error, OSError):
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); make room or choose another one"
            ) from error
        raise


def write_atomically(path: Path, write: Callable[[IO[bytes]], None], *, sync: bool = True) -> None:
    """Have `write` fill a temporary file beside `path`, then rename it: `path` is the old file or the new one, whole.

    sync: wait until it would outlive a power cut, which takes long for thousands of small files.

    Raises UserError when the disk is full or the folder cannot be written; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error
    finally:
        with suppress(OSError):  # nothing to remove where even the folder could not be made
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"

    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def write_image(path: Path, image: Image.Image) -> None:
    """As PNG."""
    write_atomically(path, lambda file: image.save(file, "PNG"))


def save(path: Path, state: State) -> None:
    """Write a training state (tensors and plain values)."""

    def write(file: IO[bytes]) -> None:
        try:
            torch.save({"format": FORMAT, "version": 1, **state}, file)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"the disk may be full; torch says: {str(error).splitlines()[0]}") from error

    write_atomically(path, write)


def read(path: str | Path) -> Any:
    """Content of a file of `torch.save`, on the CPU. Raises UserError for anything that is not one, naming the file."""
    path = Path(path)
    found = fault(path)
    if found:
        raise UserError(f"{path}: {found}; expected a weight file saved by torch.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on a strange file, beside the error that follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes, it is the file that is wrong
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        if "eights only load failed" in reason:
            reason = "it is no weight file, or holds more than tensors and plain values, which is not read for safety"
        raise UserError(f"{path}: cannot be read as weights ({reason}); give a file saved by torch.save") from error


def load(path: Path, stage: str, architecture: dict[str, Any]) -> State:
    """A full training state of `stage` ("step1", "step2") for a network of `architecture`.

    Raises UserError when the file is no checkpoint of this project, or of another stage or network.
    """
    state = read(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or "optimizer" not in state:
        raise UserError(f"{path}: no training state in it; --continue-train wants a checkpoint of these scripts")
    if state.get("stage") != stage:
        raise UserError(
            f"{path}: a checkpoint of {state.get('stage')}, expected one of {stage}; give that stage's last.pth"
        )
    for key, value in architecture.items():
        found = (state.get("architecture") or {}).get(key)
        if found != value:
            raise UserError(
                f"{path}: its network has {key} {found}, expected {value}; give the options that it was trained with"
            )
    return dict(state)


def rng_state() -> State:
    """States of all random generators, in types that load safely."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the one in use
    }


def set_rng_state(state: State) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])
