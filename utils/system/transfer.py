"""Copies from the device to the host (the CPU).

A copy to the host waits until the device has finished all its work. A `PendingCopy` waits only for work that the device
got before it, so that the device can continue with other work meanwhile.
"""

from __future__ import annotations

import numpy as np
import torch


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """Copy `tensor` to the host as a NumPy array."""
    return PendingCopy(tensor).wait()


class PendingCopy:
    """A copy of a tensor on its way to the host.

    `wait()` waits for work that the device got before the copy, not for later work.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        tensor = tensor.detach()
        self._event = torch.cuda.Event() if tensor.is_cuda else None
        if self._event is None:
            self._copy = tensor.cpu()
        else:
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copy.copy_(tensor, non_blocking=True)
            self._event.record()

    def wait(self) -> np.ndarray:
        """The values, as a NumPy array."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy.numpy()
