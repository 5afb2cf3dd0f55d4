"""The one door from device to host inside a training iteration.

A copy to the host waits until the device has caught up, so each one costs an iteration its overlap. All of
them pass through here, and are counted.
"""

from __future__ import annotations

import numpy as np
import torch

host_copies = 0


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """Copy `tensor` to the host as a NumPy array and count the copy in `host_copies`."""
    return Sending(tensor).arrived()


class Sending:
    """A copy of a tensor on its way to the host, counted in `host_copies`.

    `arrived()` waits for what the device was given before the copy, not for what it was given since.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        global host_copies
        host_copies += 1
        tensor = tensor.detach()
        self._event = torch.cuda.Event() if tensor.is_cuda else None
        if self._event is None:
            self._copy = tensor.cpu()
        else:
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copy.copy_(tensor, non_blocking=True)
            self._event.record()

    def arrived(self) -> np.ndarray:
        if self._event is not None:
            self._event.synchronize()
        return self._copy.numpy()
