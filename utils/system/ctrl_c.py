"""Ctrl-C while a script still imports what it needs: one line and exit code 130, no traceback.

Every script imports this before all others, through `utils.system.machine`. The process ends at once, because an
exception in the middle of an import may be swallowed, or become another one. `utils.options.config.run` then handles
the signals of the script itself (`utils.system.interrupt`). A user's program that imports this project keeps Python's
own handling.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

SCRIPTS = (
    *("train_step1.py", "Generate_Pseudo_Label.py", "train_step2.py", "evaluate_cityscapes.py", "compute_iou.py"),
    *("predict.py", "export_onnx.py", "prepare_aerial.py", "restyle_source.py", "demo.py"),
)
"""The scripts of the project's own folder, in which users may put theirs."""
_FOLDERS = ("utils", "dataset")


def of_the_project() -> bool:
    """Whether the program that runs is a script of the project, and no other program that imports it."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None:  # `python -m utils.report` imports the packages around that module before it is known
        return sys.argv[:1] == ["-m"]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    name = os.path.relpath(os.path.realpath(path), root)
    return name in SCRIPTS or name.split(os.sep)[0] in _FOLDERS


def _end(*_: object) -> None:
    os.write(2, b"SIGINT: stopped\n")
    os._exit(130)


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _end()
    sys.__excepthook__(kind, error, trace)


def _listen() -> None:
    before, sys.excepthook = sys.excepthook, _end_quietly
    import signal  # takes some milliseconds, in which Ctrl-C raises KeyboardInterrupt

    # A signal that is ignored stays so: a shell ignores Ctrl-C for what it runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    sys.excepthook = before


if of_the_project():
    _listen()
