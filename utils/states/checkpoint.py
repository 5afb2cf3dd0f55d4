"""Checkpoints: never half-written, compared with their checksums, and read without running code from them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from utils.states.foreign import identify, in_folder, is_safetensors, resave_line
from utils.system import distributed
from utils.system.errors import UserError, fault
from utils.system.files import temporary_name, write_atomically

FORMAT = "bafft"
_NOT_CONTENT = ("format", "version", "options")  # left out of a digest: the options name folders
State = dict[str, Any]
_kept: dict[tuple[Any, ...], Any] = {}  # at most one file's content, see `read`


class _Noting:
    """A file that remembers its own error, because torch replaces it with one that does not say what happened."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save(path: Path, state: State) -> None:
    """Write a training state (tensors and plain values). The file holds a checksum of every tensor, see `read`."""

    def write(file: IO[bytes]) -> None:
        noting = _Noting(file)
        try:
            torch.save({"format": FORMAT, "version": 2, **state}, cast(IO[bytes], noting))
        except RuntimeError as error:
            raise noting.error or OSError(f"torch says: {str(error).splitlines()[0]}") from error

    write_atomically(path, write, size=nbytes(state))


def save_for_all(path: Path, state: State) -> None:
    """`save` by the main process. The others wait for it, because one that ended would end it while it writes."""
    if distributed.is_main():
        save(path, state)
    distributed.barrier()


def nbytes(state: State) -> int:
    """About how many bytes a state takes in a file: the bytes of its tensors."""
    return sum(tensor.nbytes for _, tensor in _leaves(state) if isinstance(tensor, Tensor))


def read(path: str | Path, *, keep: bool = False) -> Any:
    """The content of a file of `torch.save` or safetensors, on the CPU, without running code from it: tensors, plain
    values and NumPy's numbers. Raises UserError for anything else, naming the file and what it is.

    A file of `torch.save` is a zip archive with a CRC-32 of every part, which torch writes but does not check. It is
    checked here: no separate file of checksums is needed, and files of other projects are covered too. If the file is
    damaged, the message names the newest good checkpoint beside it.

    keep: hold the content until the next call, which returns it without reading if the file has not changed.
    """
    path = Path(path)
    require_file(path)
    stat = path.stat()
    key = (path.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    kept = [_kept.pop(key)] if key in _kept else []
    _kept.clear()
    content = kept[0] if kept else _read(path)
    if keep:
        _kept[key] = content
    return content


def require_file(path: Path) -> None:
    """Raises UserError unless `path` is a regular file; for a folder, with the files in it that may be meant."""
    found = fault(path)
    if found:
        todo = in_folder(path) if path.is_dir() else ""
        raise UserError(f"{path}: {found}; expected a weight file saved by torch.save{todo}")


def _read(path: Path) -> Any:
    foreign = identify(path)
    if foreign:
        raise UserError(f"{path}: cannot be read as weights (it is {foreign.what}); {foreign.todo}")
    damage = _damage(path)
    if damage:
        again = "copy or download it again"
        raise UserError(f"{path}: cannot be read as weights (damaged: {damage}); {_instead_of(path, again)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about a strange file, in addition to the error that follows
            if is_safetensors(path) or path.suffix == ".safetensors":
                return safetensors.torch.load_file(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever error a damaged or hostile file causes, the file is to blame
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        todo = _instead_of(path)
        strange = re.search(r"GLOBAL (\S+)|but got <class '([^']+)'>", str(error))
        if strange:
            name = strange[1] or strange[2]
            reason = f"it holds {name}, which is not read for safety"
            module = name.partition(".")[0]
            place = "" if _imports(module) else f", where Python finds {name}"
            todo = f"if you trust it{place}, save its tensors with: {resave_line(path)}"
            if "is blocked" in str(error):
                todo = "its purpose is to run commands on your machine: do not use the file"
        elif "eights only load failed" in reason:
            reason = "it is no weight file, or holds more than tensors and plain values, which is not read for safety"
        raise UserError(f"{path}: cannot be read as weights ({reason}); {todo}") from error


def _imports(module: str) -> bool:
    """Whether there is a module with this name; it is not imported to find out."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of __main__ and of names that no module can have
        return False


def _numpy_types() -> Iterator[Any]:
    """The names in pickles of NumPy's numbers and numeric arrays, both those before NumPy 2 and those since."""
    yield from (np.ndarray, np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"] if code not in "OV"})
    for value in (np.float64(0), np.zeros(0)):
        rebuild = cast(Any, value.__reduce__())[0]
        yield rebuild

        def under_its_old_name(*arguments: Any, _rebuild: Any = rebuild) -> Any:
            return _rebuild(*arguments)

        under_its_old_name.__module__ = "numpy.core.multiarray"
        under_its_old_name.__name__ = under_its_old_name.__qualname__ = rebuild.__name__
        yield under_its_old_name


torch.serialization.add_safe_globals(list(_numpy_types()))


def _instead_of(path: Path, otherwise: str = "give a file saved by torch.save") -> str:
    sound = (other for other in numbered(path.parent) if other != path and not _damage(other))
    other = next(sound, None)
    return f"the newest good one beside it is {other}: give that" if other else otherwise


def _damage(path: Path) -> str | None:
    """What is wrong with the bytes of a file of `torch.save`; None if nothing is, or for another kind of file."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
        if not start.startswith(b"PK\x03\x04"):
            zeros = "it begins with zeros, as after an interrupted copy" if not any(start) else None
            return zeros if start else "an empty file, of 0 bytes"
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
            return f"wrong checksum of {part}" if part else None
    except Exception as error:  # zipfile has many, and says of an archive without its end that it is no zip file
        return f"cut short, or with a wrong table of contents; {error}"


def step_file(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.pth"


def numbered(folder: Path) -> list[Path]:
    """The checkpoints of `folder` that are named by their step, newest first."""
    return sorted((path for path in folder.glob("step_*.pth") if re.fullmatch(r"step_\d{8,}", path.stem)), reverse=True)


def keep_last(folder: Path, step: int, number: int) -> None:
    """Give last.pth, which is of `step`, a second name with its step. Keep it and the `number - 1` ones before it, and
    remove all others.

    Those of later steps are removed too, because the run has been resumed before them.
    """
    newest = step_file(folder, step)
    if number:
        _link(folder / "last.pth", newest)
    kept = [path for path in numbered(folder) if path <= newest][:number]
    for path in numbered(folder):
        if path not in kept:
            path.unlink(missing_ok=True)


def _link(path: Path, other: Path) -> None:
    """A second name for a file, or a copy if the file system does not support that."""
    temporary = temporary_name(other)
    try:
        os.link(path, temporary)
        os.replace(temporary, other)
    except OSError:
        with open(path, "rb") as content:
            write_atomically(other, lambda file: shutil.copyfileobj(content, file), path.stat().st_size)


def digest(state: Any) -> str:
    """The SHA-256, in hexadecimal, of the content of a state: tensors, counters and random states, not the options."""
    total = hashlib.sha256()
    for name, value in _leaves({key: part for key, part in state.items() if key not in _NOT_CONTENT}):
        total.update(name.encode())
        if isinstance(value, Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            total.update(repr(value).encode())
    return total.hexdigest()


def _leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and plain value of a nested state with its place, in a fixed order."""
    if isinstance(state, dict):
        parts: Iterator[tuple[Any, Any]] = iter(sorted(state.items(), key=lambda item: str(item[0])))
    elif isinstance(state, (list, tuple)):
        parts = enumerate(state)
    else:
        yield name, state
        return
    for key, part in parts:
        yield from _leaves(part, f"{name}/{key}")


def load(path: Path, method: str, architecture: dict[str, Any]) -> State:
    """A full training state of a method (by its name) for a network of `architecture`.

    Raises UserError if the file is not a checkpoint of this project, or one of another method or network.
    """
    state = read(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or "optimizer" not in state:
        raise UserError(f"{path}: no training state in it; --continue-train needs a checkpoint of the training scripts")
    state = _of_this_version(state)
    if state.get("method") != method:
        raise UserError(
            f"{path}: a checkpoint of {state.get('method')}, expected one of {method}; give that of {method}, "
            f"or the options that the run was started with, such as --method"
        )
    for key, value in architecture.items():
        found = (state.get("architecture") or {}).get(key)
        if found != value:
            raise UserError(
                f"{path}: its network has {key} {found}, expected {value}; give the options that it was trained with"
            )
    return state


def _of_this_version(state: State) -> State:
    """A copy of a training state; one of version 1 gets the names of version 2."""
    state = dict(state)
    if "stage" not in state:
        return state
    stage, memory = state.pop("stage"), state.pop("memory")
    networks: dict[str, State] = {}
    for name, value in state.pop("discriminators").items():
        network, _, rest = name.partition(".")
        networks.setdefault(network, {})[rest] = value
    method = "source_only" if state["options"].get("source_only") else stage
    given = {"input_size": state["options"].get("input_size_target")}
    return given | state | {"method": method, "networks": networks, "state": {"memory": memory} if memory else {}}


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
