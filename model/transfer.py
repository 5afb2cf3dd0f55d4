"""The one door from device to host inside a training iteration.

A copy to the host waits until the device has caught up, so each one costs an iteration its overlap. All of
them pass through `to_host`, which counts.
"""

from __future__ import annotations

import numpy as np
import torch

host_copies = 0


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """Copy `tensor` to the host as a NumPy array and count the copy in `host_copies`."""
    global host_copies
    host_copies += 1
    return tensor.detach().cpu().numpy()
