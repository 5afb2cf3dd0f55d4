"""Check each file, and print the SHA-256 of its content, the method that wrote it and the step.

Examples:
  python -m utils.states snapshots/builtin/step1/last.pth
  python -m utils.states snapshots/builtin/step1/*.pth
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

from collections.abc import Sequence

from utils.options import config, parsing
from utils.system.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    parser = parsing.parser(__doc__, prog="python -m utils.states")
    parser.add_argument("files", metavar="FILE", nargs="+", help="a checkpoint, or weights that torch.save has written")
    files = parser.parse_args(argv).files
    from utils.states import checkpoint  # torch is imported once the command line is read

    for name in files:
        state = checkpoint.read(name)
        if not isinstance(state, dict):
            raise UserError(f"{name}: no state in it; expected a checkpoint")
        kind = state.get("method", state.get("stage", "weights"))
        print(f"{checkpoint.digest(state)}  {kind}  step {state.get('step', '-')}  {name}")


if __name__ == "__main__":
    config.run(main)
