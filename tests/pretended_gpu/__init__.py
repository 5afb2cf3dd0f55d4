"""A GPU for machines without one: tensors say that they are on it, and compute on the CPU.

Mixed devices are refused, except in indexing. The waits that tensors.py lists cause a warning if
`torch.cuda.set_sync_debug_mode` asks for it. A non-blocking copy to the host holds garbage until one waits for it.
Autocast casts as on a GPU. Speed, memory and CUDA's own kernels cannot be pretended.
Used as a plugin of pytest (plugin.py), in a process that loads what `build` makes before PyTorch.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch


def build(folder: Path) -> Path:
    """Compile backend.cpp; returns the library for LD_PRELOAD."""
    source, made = Path(__file__).with_name("backend.cpp"), folder / "backend.so"
    installed = Path(torch.__file__).parent
    libraries = [f"-L{installed / 'lib'}", f"-Wl,-rpath,{installed / 'lib'}", "-lc10", "-ltorch_cpu"]
    options = ["-std=c++20", "-shared", "-fPIC", f"-I{installed / 'include'}"]
    subprocess.run(["c++", *options, str(source), "-o", str(made), *libraries], check=True)
    return made
