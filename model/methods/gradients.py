"""How strong each term is: the norm of its gradient on the backbone (`--log-gradients`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_SCALE = 1024.0
"""Keeps small gradients above the smallest number of float16; a power of two, so that no other value changes."""


class GradientShares:
    """Measures the gradients of weighted terms in every `every`-th step, without changing the training state.

    parameters: of the backbone. every: number of steps from one measurement to the next, 0 for none.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], every: int) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.every = every
        self._due = False
        self._source: Tensor | None = None

    def start(self, step: int) -> None:
        """To be called before the first pass of a step."""
        self._due = self.every > 0 and step % self.every == 0

    def measure(self, name: str, weighted: Tensor, losses: dict[str, Tensor]) -> None:
        """If the step is due, add "grad_NAME" to the `losses`.

        weighted: the term times its weight, before its backward pass. "seg", which comes first, gives the norm of its
        gradient; every other term gives its norm as a share of that of "seg", or 0 if "seg" has no gradient, because no
        source pixel has a label.
        """
        if not self._due:
            return
        with torch.autocast(weighted.device.type, enabled=False):
            found = torch.autograd.grad(_SCALE * weighted, self.parameters, retain_graph=True, allow_unused=True)
            norms = [torch.linalg.vector_norm(gradient.float()) for gradient in found if gradient is not None]
            norm = torch.linalg.vector_norm(torch.stack(norms)) / _SCALE if norms else weighted.detach() * 0
        if name == "seg":
            self._source = norm
        elif self._source is not None:
            norm = (norm / self._source).where(self._source > 0, 0.0)
        losses[f"grad_{name}"] = norm
