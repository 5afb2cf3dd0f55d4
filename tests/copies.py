"""Records copies to the host."""

from __future__ import annotations

import pytest
from torch import Tensor

from utils.system.transfer import PendingCopy


def counted_copies(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A list to which every tensor is added that is copied to the host from now on."""
    copied: list[Tensor] = []
    copy = PendingCopy.__init__

    def noted(self: PendingCopy, tensor: Tensor) -> None:
        copied.append(tensor)
        copy(self, tensor)

    monkeypatch.setattr(PendingCopy, "__init__", noted)
    return copied
