"""Finds a segmenter's tensors in a file with any wrappers and prefixes.

No names of wrappers or prefixes are known here. The prefix that is removed is the one under which most names of this
project's backbones are found, with the shapes of the given network. A classifier is recognised by its shapes: 3x3
convolutions with a bias on the last features, numbered from 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.networks.deeplab import BACKBONES, build_segmenter
from utils.system.errors import UserError

__all__ = ["CLASSIFIER", "Head", "Network", "counts", "find_network", "with_classifier"]

CLASSIFIER = "layer6."
START_WEIGHTS = "Scale."  # the prefix of the caffe file that the published runs start from
_START_CLASSES = 21  # of that file's classifier: Pascal VOC's 20 and background
_BETWEEN = "/"  # separates the keys of nested mappings
_LEVELS = 4  # of nested mappings
# If two networks fit equally, the one whose prefix says that it is an average or a copy of the other is left out.
_AVERAGE = re.compile(
    r"(?<![A-Za-z])(?:ema|teacher|mean|momentum|avg|averaged?|swa|shadow|encoder_k)(?![a-z])|EMA|Teacher|Momentum"
)
_BRANCH = re.compile(r"((?:.*[./])?)(\d+)((?:\.[A-Za-z_]\w*)*)\.weight")


class Head(NamedTuple):
    """A sum of 3x3 convolutions. weights: [C, D, 3, 3] each, biases: [C] each, in the order of their numbers; members:
    the names of all of them in the file."""

    name: str
    members: frozenset[str]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @property
    def classes(self) -> int:
        return len(self.biases[0])

    @property
    def inputs(self) -> int:
        return self.weights[0].shape[1]

    @property
    def form(self) -> tuple[int, int, int]:
        return self.classes, self.inputs, len(self.weights)


@dataclass(frozen=True)
class Network:
    """A network in a file.

    tensors: by their names without the prefix. prefix: what was removed; the keys of mappings have a slash after each.
    heads: possible classifiers, below the prefix or anywhere else in the file. beside: names of other tensors in the
    same mapping. copies: prefixes of equally fitting networks, which are left out. notes: what was done with the heads.
    """

    tensors: dict[str, Tensor]
    prefix: str = ""
    heads: tuple[Head, ...] = ()
    beside: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def wrapper(self) -> str:
        """The part of the prefix that consists of keys of mappings."""
        return self.prefix[: self.prefix.rfind(_BETWEEN) + 1]

    @property
    def place(self) -> str:
        """What was unwrapped and removed, in words; empty if nothing was."""
        keys, _, prefix = self.prefix.rpartition(_BETWEEN)
        return ", ".join(
            [f"unwrapped {keys}"] * bool(keys)
            + [f"prefix {prefix} stripped"] * bool(prefix)
            + [f"the copy under {copy} left out" for copy in self.copies]
        )


def counts(name: str) -> bool:
    """Whether a file must hold this tensor."""
    return not name.endswith("num_batches_tracked")


def find_network(content: Any, path: str | Path, shapes: Mapping[str, torch.Size] | None = None) -> Network:
    """The network in the content of a file that fits best, according to `shapes` (name to shape) if given.

    Raises:
        UserError: no tensors at all, or two networks that fit equally and whose prefixes do not show which one is
            meant.
    """
    flat = dict(_flatten(content))
    if not flat:
        raise UserError(f"{path}: holds no weights; expected a state dict saved by torch.save")
    prefix, copies = _prefix(flat, shapes or {}, path)
    network = Network({}, prefix, copies=copies)
    others = {name: tensor for name, tensor in flat.items() if not (copies and name.startswith(copies))}
    beside = []
    for full in list(others):
        name = full.removeprefix(prefix)
        if full.startswith(prefix) and _BETWEEN not in name:
            network.tensors[name] = others[full]
            if name in _backbone_names():
                del others[full]
        elif full.startswith(network.wrapper) and _BETWEEN not in full.removeprefix(network.wrapper):
            beside.append(full.removeprefix(network.wrapper))
    return replace(network, heads=_heads(others, prefix), beside=tuple(beside))


def with_classifier(network: Network, inputs: int, classes: int, *, needed: bool) -> Network:
    """The network with its classifier under the name `layer6`, whatever its name is in the file.

    A head on other features than the last ones (`inputs` channels) is not a classifier. Two heads on the last features
    predict their sum (CLAN), so that one classifier with their summed weights predicts the same. The classifier in the
    start weights (`Scale.`, or 21 classes if the network has another number) is for another task: it is not used,
    unless one is `needed`.
    """
    heads = [head for head in network.heads if head.inputs == inputs]
    if any(name.startswith(CLASSIFIER) for name in network.tensors):
        named = {head.name: head for head in heads}
        used = [named[name] for name in ("layer5.conv2d_list", "layer6.conv2d_list") if name in named]
        if len(used) < 2 or used[0].form != used[1].form:
            return network
    elif START_WEIGHTS in network.prefix:
        return network
    else:
        if not needed and classes != _START_CLASSES:
            heads = [head for head in heads if head.classes != _START_CLASSES]
        if any(head.classes == classes for head in heads):
            heads = [head for head in heads if head.classes == classes]
        own = [head for head in heads if head.members <= {network.prefix + name for name in network.tensors}]
        used = own or [head for head in heads if not _AVERAGE.search(head.name)] or heads
        if len({head.form for head in used}) != 1:
            return network
    names = " and ".join(head.name.removesuffix(".conv2d_list") for head in used)
    members = frozenset[str]().union(*(head.members for head in used))
    kept = {name: tensor for name, tensor in network.tensors.items() if network.prefix + name not in members}
    return replace(
        network,
        tensors=kept | _sum(used),
        beside=tuple(name for name in network.beside if network.wrapper + name not in members),
        notes=(
            f"classifier {names}{', whose predictions are summed, folded into' if used[1:] else ' read as'} layer6",
        ),
    )


def _sum(heads: list[Head]) -> dict[str, Tensor]:
    tensors = {}
    for branch in range(len(heads[0].weights)):
        for part, values in (
            ("weight", [h.weights[branch] for h in heads]),
            ("bias", [h.biases[branch] for h in heads]),
        ):
            total = values[0] if len(values) == 1 else torch.stack([value.float() for value in values]).sum(0)
            tensors[f"{CLASSIFIER}conv2d_list.{branch}.{part}"] = total
    return tensors


def _flatten(content: Any, above: str = "", level: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, (list, tuple)):  # tensors in it have no names
        content = {str(number): part for number, part in enumerate(content) if isinstance(part, Mapping)}
    if not isinstance(content, Mapping) or level > _LEVELS:
        return
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Tensor):
            if counts(key):
                yield above + key, value
        else:
            yield from _flatten(value, f"{above}{key}{_BETWEEN}", level + 1)


@lru_cache(maxsize=1)
def _backbone_names() -> frozenset[str]:
    with torch.random.fork_rng(devices=[]):
        networks = [build_segmenter(backbone, width=1 / 16) for backbone in BACKBONES]
    names = (name for network in networks for name in network.state_dict())
    return frozenset(name for name in names if counts(name) and not name.startswith(CLASSIFIER))


def _prefix(
    flat: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], path: str | Path
) -> tuple[str, tuple[str, ...]]:
    """The prefix of the names of the network that fits best, and the prefixes of its copies."""
    names: Counter[str] = Counter()
    fitting: Counter[str] = Counter()
    for full, tensor in flat.items():
        for place in [0] + [match.end() for match in re.finditer(r"[./]", full)]:
            name = full[place:]
            if name in _backbone_names():
                names[full[:place]] += 1
                fitting[full[:place]] += shapes.get(name) == tensor.shape
    if not names:  # no known names: the largest mapping
        return Counter(full[: full.rfind(_BETWEEN) + 1] for full in flat).most_common(1)[0][0], ()
    # Shapes decide only if they cover half of the network: single layers of another one may have the same shapes.
    fits = {prefix: (fitting[prefix] if fitting[prefix] * 2 > len(shapes) else 0, names[prefix]) for prefix in names}
    best = max(fits.values())
    rivals = [prefix for prefix, fit in fits.items() if fit == best]
    chosen = rivals
    if len(rivals) > 1:
        parts = zip(*(re.findall(r"[^./]*[./]", prefix) for prefix in rivals))
        shared = sum(len(same[0]) for same in takewhile(lambda part: len(set(part)) == 1, parts))
        chosen = [prefix for prefix in rivals if not _AVERAGE.search(prefix[shared:])]
    if len(chosen) != 1:
        places = ", ".join(prefix or "no prefix" for prefix in rivals)
        raise UserError(
            f"{path}: holds {len(rivals)} networks that fit equally ({places}); give a file with one of them"
        )
    return chosen[0], tuple(prefix for prefix in rivals if prefix != chosen[0])


def _heads(tensors: Mapping[str, Tensor], prefix: str) -> tuple[Head, ...]:
    """All sums of at least two 3x3 convolutions with a bias, numbered from 0, that have the same shape."""
    found: dict[tuple[str, str], dict[int, tuple[str, str]]] = {}
    for name, weight in tensors.items():
        match, bias = _BRANCH.fullmatch(name), f"{name.removesuffix('weight')}bias"
        is_branch = weight.dim() == 4 and weight.shape[2:] == (3, 3)
        if match and is_branch and bias in tensors and tensors[bias].shape == weight.shape[:1]:
            found.setdefault((match[1], match[3]), {})[int(match[2])] = (name, bias)
    heads = []
    for (stem, _), branches in found.items():
        names = [branches[number] for number in sorted(branches)]
        weights, biases = (tuple(tensors[pair[part]] for pair in names) for part in (0, 1))
        if len(names) > 1 and sorted(branches) == list(range(len(names))) and len({w.shape for w in weights}) == 1:
            members = frozenset(name for pair in names for name in pair)
            heads.append(Head(stem.removeprefix(prefix).rstrip("./"), members, weights, biases))
    return tuple(heads)
