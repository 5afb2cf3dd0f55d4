"""Check all data of a task before training: files, pairs, sizes, label ids, and splits that overlap.

The data options are those of the training scripts. The exit code is 0 if nothing is wrong, 1 if something is wrong, and
2 for bad options. With --skip-bad-images, the images that training would leave out are only counted. Every file is read
once, by --num-workers processes.

Examples:
  python -m dataset.check                                      # GTA5 and Cityscapes in data/
  python -m dataset.check --preset synthia_to_cityscapes --data-dir /disk/synthia
  python -m dataset.check --preset own_images --source folder:data/day --target folder:data/dusk --classes classes.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.options import config
from utils.system.errors import UserError, printable


def main(argv: Sequence[str] | None = None) -> None:
    options, _, _ = config.parse("check", argv, description=__doc__)
    from dataset.check.report import Part, check  # torch is imported once the command line is read
    from utils.setup import data_sets

    classes = data_sets.class_table(options, training=True)
    parts: list[Part] = []
    wrong: list[str] = []
    notes: list[str] = []
    for title, labels in (("source", "all"), ("target", "none"), ("scored", "some")):
        try:
            if title == "source":
                data = data_sets.source_data(options, classes, check=False)
            elif title == "target":
                data = data_sets.target_data(options, classes, check=False)
            else:
                data = data_sets.test_data(options, classes, labels=None, check=False)
        except UserError as error:
            unscored = title == "scored" and options.data_list_target_test is None
            (notes if unscored else wrong).append(f"{title}: {error}")
        else:
            if title == "scored" and options.target != "folder" and data.labelled_names():
                labels = "all"
            parts.append(Part(title, data, labels))
    report = check(parts, options.num_workers)
    for line in report.table:
        print(line)
    print()
    for line in notes + report.notes:
        print(f"note   {printable(line)}")
    wrong += report.wrong
    for line in wrong:
        print(f"wrong  {printable(line)}")
    print(f"{len(wrong)} thing{'' if len(wrong) == 1 else 's'} wrong" if wrong else "nothing wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    config.run(main)
