"""BatchNorm and the activation after it: two layers, or one with the package inplace-abn (as in the paper's code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SLOPE = 0.01


class FusedNorm(nn.BatchNorm2d):
    """BatchNorm and leaky ReLU (slope 0.01) in place: only their common result is kept for the backward pass.

    In everything else a BatchNorm2d: parameters, names, `track_running_stats`. It scales by |weight| + eps, so that a
    negative weight has another meaning than in a BatchNorm. It computes in float32, also under autocast.

    Raises:
        ValueError: the package is missing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        try:
            from inplace_abn.functions import inplace_abn
        except (ImportError, OSError, RuntimeError) as error:
            raise ValueError(
                f"norm is inplace-abn, and the package inplace-abn cannot be imported ({error}); `make test-optional` "
                f"builds it; --checkpoint-activations saves memory without it"
            ) from error
        self._function = inplace_abn

    def forward(self, input: Tensor) -> Tensor:
        """[B, channels, H, W]; a float32 input is overwritten with the result."""
        kept = not self.training or self.track_running_stats
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        with torch.autocast(input.device.type, enabled=False):
            return self._function(
                input.float(),
                self.weight,
                self.bias,
                self.running_mean if kept else None,
                self.running_var if kept else None,
                self.training,
                self.momentum,
                self.eps,
                "leaky_relu",
                _SLOPE,
            )


def norm_and_activation(norm: str, channels: int, activation: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The two layers after a convolution; with `inplace-abn`, the first one does everything and the second nothing."""
    if norm == "inplace-abn":
        return FusedNorm(channels), nn.Identity()
    return nn.BatchNorm2d(channels), activation
