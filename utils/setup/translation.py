"""What `restyle_source.py` needs, built from the resolved options: images without labels, CycleGAN, its generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset import READERS
from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES, ClassTable
from model.methods.cyclegan import CycleGAN
from model.networks.deeplab import DeepLab
from model.networks.translation import Generator
from utils.options.table import Options
from utils.prediction.pseudo_labels import fingerprint
from utils.prediction.restyling import RestyledFolder, write_restyled
from utils.setup import data_sets, networks
from utils.states import checkpoint
from utils.states.weights import describe_file
from utils.system import distributed, lock
from utils.system.errors import UserError
from utils.system.files import write_bytes
from utils.system.logs import logger
from utils.system.skipped import Skipped


def source_data(options: Options, *, augmented: bool = True) -> SegmentationDataset:
    """The source images; no label is read."""
    return data_sets.source_data(options, _table(options.source), labels=False, augmented=augmented)


def both_domains(options: Options) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The images of source and target."""
    return source_data(options), data_sets.target_data(options, _table(options.target))


def cyclegan(options: Options) -> CycleGAN:
    """CycleGAN with random weights, its networks placed."""
    several = distributed.size() > 1
    return CycleGAN(
        options,
        place=lambda network: networks.to_device(network, options),
        semantic=_semantic(options),
        gather=distributed.gather if several else None,
        rank=distributed.rank(),
    )


def trained(options: Options) -> checkpoint.State:
    """The checkpoint of `--restore-from`. Raises UserError if `restyle_source.py train` has not written it."""
    path = Path(options.restore_from)
    state = checkpoint.read(path)
    if not isinstance(state, dict) or state.get("method") != CycleGAN.name:
        found = state.get("method", "other weights") if isinstance(state, dict) else "no state"
        raise UserError(f"{path}: found {found}, expected a checkpoint of restyle_source.py train; give its last.pth")
    return state


def with_trained_size(options: Options, given: frozenset[str], state: checkpoint.State) -> Options:
    """The options of `apply`, with the input size that the generator was trained with, unless the user gives one."""
    size = state.get("options", {}).get("input_size")
    return networks.with_trained_size(options, given, "input_size", size and (size[0], size[1]), "restyling")


def generator(options: Options, state: checkpoint.State) -> Generator:
    """The generator that restyles source images as target images."""
    network = Generator(**state["state"]["generator"])
    network.load_state_dict(state["networks"]["to_target"])
    logger.info("generator of step %d from %s", state["step"], options.restore_from)
    return networks.to_device(network, options)


def restyle_all(options: Options, network: Generator, images: SegmentationDataset) -> None:
    """Write every source image, restyled, into `--out`, except those that a stopped run has written."""
    out, skipped = Path(options.out), Skipped()
    folder = RestyledFolder(out, images, _identity(options, network, images))
    with lock.held_for_all(out):
        with distributed.main_first():
            if distributed.is_main():
                folder.begin(overwrite=options.overwrite)
                _copy_list(options, images, out)
                skipped.list_in(out)
        numbers = folder.missing()
        there = len(folder.paths) - sum(distributed.objects(len(numbers)))
        if there:
            logger.info("%d of %d images exist already", there, len(folder.paths))
        written = write_restyled(
            network, folder, numbers, amp=options.amp, num_workers=options.num_workers, skipped=skipped
        )
        for reasons in distributed.objects(skipped.reasons):
            skipped.add(reasons)
        written = sum(distributed.objects(written))
    logger.info("%d images restyled, %d existed before, %d skipped", written, there, len(skipped.reasons))
    if not written + there:
        raise UserError(f"{images.root}: all images are bad, first {skipped.reasons[0]}; expected good ones")


def _identity(options: Options, network: Generator, images: SegmentationDataset) -> dict[str, Any]:
    """Everything that the restyled images depend on."""
    return {
        "generator": fingerprint(network),
        "source": str(images.root.resolve()),
        "input_size": list(options.input_size),
        "amp": options.amp,
    }


def _copy_list(options: Options, images: SegmentationDataset, out: Path) -> None:
    """Copy the list of `--data-list` if it is inside the data folder, so that the same option finds it."""
    found = data_sets.list_file(options, "data_list")
    if found is not None and found.is_file() and found.is_relative_to(images.root):
        write_bytes(out / found.relative_to(images.root), found.read_bytes())


def _semantic(options: Options) -> DeepLab | None:
    """The trained segmenter of `--semantic`."""
    if options.semantic is None:
        return None
    table = describe_file(options.semantic).classes or _table(options.source)
    wanted = replace(options, restore_from=options.semantic, continue_train=None)
    return networks.segmenter(wanted, frozenset(), table, needs_classifier=True)


def _table(reader: str) -> ClassTable:
    """The reader's class table, or any table for a reader without one, because no label is read."""
    return getattr(READERS[reader], "table", CITYSCAPES)
