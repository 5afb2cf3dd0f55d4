"""What the training scripts share: everything from the options to a trained network."""

from __future__ import annotations

from utils.system.machine import set_up

from utils.options.table import Options
from utils.setup import data_sets, early, networks
from utils.system import distributed, logs
from utils.training.run import train
from utils.training.trainer import Data, Trainer


def run(script: str, options: Options, given: frozenset[str]) -> None:
    """Run the stage of a training script, "step1" or "step2", with its options and the names that the user gave."""
    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    early.refuse(options, script)
    classes = data_sets.class_table(options, training=True)
    kind = networks.method_class(options, script)
    source, target = data_sets.source_data(options, classes), None
    if kind.uses_target:
        target = data_sets.target_data(options, classes, pseudo_labels=kind.uses_target_labels(options))
    data = Data(source, target, data_sets.test_data_if_any(options, given, classes))
    data_sets.check_files(options, data.skipped, data.source, data.target, data.test)
    if target is not None and options.label_free_images:
        data.unlabelled = data_sets.target_data(options, classes, augmented=False, check=False)
    data.source_pixels = data_sets.source_pixels(options, data.source, script)
    segmenter = networks.segmenter(options, given, classes, needs_classifier=script != "step1")
    options = networks.with_architecture(options, segmenter)
    method = networks.method(options, script, segmenter, classes, data.source_pixels)
    train(Trainer(options, method, data), script)
