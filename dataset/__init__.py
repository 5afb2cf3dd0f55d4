"""Readers of the data sets, by the names that presets use.

Their modules, and torch with them, are imported only when a reader is used: a command line needs only the names.
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset.acdc import ACDC as ACDC
    from dataset.aerial import Aerial as Aerial
    from dataset.base import SegmentationDataset as SegmentationDataset
    from dataset.camvid import CamVid as CamVid
    from dataset.cityscapes import Cityscapes as Cityscapes
    from dataset.foggy_cityscapes import FoggyCityscapes as FoggyCityscapes
    from dataset.folder import Folder as Folder
    from dataset.gta5 import GTA5 as GTA5
    from dataset.synthia import Synthia as Synthia

_CLASSES = {
    "gta5": "GTA5",
    "synthia": "Synthia",
    "cityscapes": "Cityscapes",
    "foggy_cityscapes": "FoggyCityscapes",
    "acdc": "ACDC",
    "camvid": "CamVid",
    "aerial": "Aerial",
    "folder": "Folder",
}
"""The class of every reader; its module has the name of the reader."""


class _Readers(Mapping[str, "type[SegmentationDataset]"]):
    """The readers; each is imported when it is first used."""

    def __getitem__(self, name: str) -> type[SegmentationDataset]:
        attribute = _CLASSES[name]
        reader: type[SegmentationDataset] = getattr(import_module(f"dataset.{name}"), attribute)
        return reader

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


READERS: Mapping[str, type[SegmentationDataset]] = _Readers()


def __getattr__(name: str) -> Any:
    """The class of a reader as an attribute of the package."""
    module = next((module for module, reader in _CLASSES.items() if reader == name), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dataset.{module}"), name)
