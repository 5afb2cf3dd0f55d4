"""Readers of the data sets, by the name under which a preset asks for them."""

import utils.system.machine  # noqa: F401 - before torch

from dataset.acdc import ACDC
from dataset.aerial import Aerial
from dataset.base import SegmentationDataset
from dataset.camvid import CamVid
from dataset.cityscapes import Cityscapes
from dataset.foggy_cityscapes import FoggyCityscapes
from dataset.folder import Folder
from dataset.gta5 import GTA5
from dataset.synthia import Synthia

READERS: dict[str, type[SegmentationDataset]] = {
    "gta5": GTA5,
    "synthia": Synthia,
    "cityscapes": Cityscapes,
    "foggy_cityscapes": FoggyCityscapes,
    "acdc": ACDC,
    "camvid": CamVid,
    "aerial": Aerial,
    "folder": Folder,
}
