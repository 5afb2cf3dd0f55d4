"""The source memory: what the classes of the labelled domain look like in feature space.

For each class there is a ring buffer: of centroids of whole images for stuff, of single instances for things. Only
source pixels that the segmenter predicts correctly are used, and only means that its own classifier recognises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.terms.borders import visible
from model.terms.regions import MAX_INSTANCES, ClassSplit, LabelMaps, pool_regions

Classify = Callable[[Tensor], Tensor]
Gather = Callable[[list[Tensor]], list[Tensor]]


class RingBuffers:
    """One ring buffer of `size` float32 vectors for each of `number` classes, all of them in one tensor.

    entries: [number, size, D]; count: [number] int64, writes since the start. A buffer is ready once it has
    wrapped, that is after more than `size` writes (as released).
    """

    def __init__(self, number: int, size: int, feature_dim: int, device: torch.device | str = "cpu") -> None:
        # There is one slot more, the last one: rejected vectors are written there, so that no write waits for the
        # device. The others stay contiguous; otherwise, the search for the nearest slot would copy all of them.
        self._slots = torch.zeros(number * size + 1, feature_dim, device=device)
        self.count = torch.zeros(number, dtype=torch.int64, device=device)
        self.size = size
        self._shape = (number, size, feature_dim)

    @property
    def entries(self) -> Tensor:
        return self._slots[:-1].view(self._shape)

    @property
    def ready(self) -> Tensor:
        """[number] bool."""
        return self.count > self.size

    def mean(self) -> Tensor:
        """[number, D]: the mean of each buffer; meaningful if the buffer is ready."""
        return self.entries.mean(1)

    @torch.no_grad()
    def write(self, vectors: Tensor, accepted: Tensor) -> None:
        """Append to every buffer those of its `vectors` [number, M, D] that are `accepted` [number, M], in order."""
        rank = accepted.cumsum(1) - 1
        total = accepted.sum(1)
        # If there are more vectors than slots, only the last ones survive, as if they were written one by one.
        survives = accepted & (rank >= (total - self.size)[:, None])
        first = self.size * torch.arange(len(total), device=total.device)[:, None]
        slot = torch.where(survives, first + (self.count[:, None] + rank) % self.size, len(self._slots) - 1)
        self._slots[slot] = vectors.detach().to(self._slots.dtype)
        self.count += total

    def state_dict(self) -> dict[str, Tensor]:
        return {"entries": self.entries.clone(), "count": self.count.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError if the shapes differ (another class table, `--num-prototype` or backbone)."""
        if state["entries"].shape != self.entries.shape:
            raise ValueError(f"memory of shape {tuple(state['entries'].shape)}, expected {tuple(self.entries.shape)}")
        self.entries.copy_(state["entries"])
        self.count.copy_(state["count"])


class SourceMemory:
    """Ring buffers of `num_prototype` centroids per stuff class and `10 * num_prototype` instances per thing class.

    gather: for several processes, whose memories must be equal: tensors [N, M, ...] of this process -> those of all
    processes as [N, M', ...], in a fixed order.
    """

    def __init__(
        self,
        split: ClassSplit,
        feature_dim: int,
        num_prototype: int = 50,
        device: torch.device | str = "cpu",
        gather: Gather | None = None,
    ) -> None:
        self.split = split
        self.gather = gather
        self.num_prototype = num_prototype
        # Index tensors are on the device: indexing with a Python list would copy it there, and wait, every time.
        self.stuff_ids = torch.tensor(split.stuff, dtype=torch.int64, device=device)
        self.thing_ids = torch.tensor(split.things, dtype=torch.int64, device=device)
        self.stuff = RingBuffers(len(split.stuff), num_prototype, feature_dim, device)
        self.things = RingBuffers(len(split.things), MAX_INSTANCES * num_prototype, feature_dim, device)

    @torch.no_grad()
    def update(self, features: Tensor, correct: LabelMaps, classify: Classify) -> None:
        """Write the centroids and instances of a source batch into the memory, image by image.

        features: [B, D, h, w]; correct: those of `correct_labels`; classify: means [N, D] -> logits [N, C].
        """
        images = pool_regions(features, correct, self.split)
        stuff = torch.stack([image.centroids[self.stuff_ids] for image in images], 1)
        present = torch.stack([image.present[self.stuff_ids] for image in images], 1)
        things = torch.cat([image.instances for image in images], 1)
        is_instance = torch.cat([image.is_instance for image in images], 1)
        stuff_accepted = present & recognised(stuff, self.stuff_ids, classify)
        things_accepted = is_instance & recognised(things, self.thing_ids, classify)
        if self.gather is not None:
            # Every process sends the same number of slots, even if its images hold fewer instances.
            missing = len(images) * MAX_INSTANCES - things.shape[1]
            things, things_accepted = F.pad(things, (0, 0, 0, missing)), F.pad(things_accepted, (0, missing))
            own = [stuff, stuff_accepted, things, things_accepted]
            stuff, stuff_accepted, things, things_accepted = self.gather(own)
        self.stuff.write(stuff, stuff_accepted)
        self.things.write(things, things_accepted)

    def centroids(self) -> tuple[Tensor, Tensor]:
        """Source centroid of every class of the table: ([C, D] mean of its buffer, [C] bool is ready)."""
        ids = torch.cat([self.stuff_ids, self.thing_ids])
        feature_dim = self.stuff.entries.shape[2]
        means = torch.zeros(self.split.num_classes, feature_dim, device=self.stuff.count.device)
        ready = torch.zeros(self.split.num_classes, dtype=torch.bool, device=means.device)
        means[ids] = torch.cat([self.stuff.mean(), self.things.mean()])
        ready[ids] = torch.cat([self.stuff.ready, self.things.ready])
        return means, ready

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        return {"stuff": self.stuff.state_dict(), "things": self.things.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.stuff.load_state_dict(state["stuff"])
        self.things.load_state_dict(state["things"])


def correct_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels [B, H, W] at feature size [B, h, w], 255 where the prediction argmax(logits [B, C, h, w]) differs."""
    small = resized_labels(labels, logits.shape[2:])
    return small.where(small == logits.argmax(1), 255)


def predicted_labels(logits: Tensor, images: Tensor) -> Tensor:
    """The predictions argmax(logits [B, C, h, w]), 255 in the border of shrunk images [B, 3, H, W] (our choice)."""
    shown = resized_labels(visible(images)[:, 0], logits.shape[2:])
    return logits.argmax(1).where(shown > 0, 255)


def resized_labels(labels: Tensor, size: torch.Size) -> Tensor:
    """Labels [B, H, W] at feature size, int64 [B, h, w] (nearest, as `F.interpolate` rounds)."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest")[:, 0].long()


def recognised(vectors: Tensor, ids: Tensor, classify: Classify) -> Tensor:
    """Acceptance test: whether the classifier assigns the means [N, M, D] of class `ids[n]` to that class; [N, M]
    bool."""
    with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
        logits = classify(vectors.detach().flatten(0, 1)).unflatten(0, vectors.shape[:2])
        # A mean that has overflowed would spoil the memory for good, and argmax may still give its class.
        return (logits.argmax(2) == ids[:, None]) & logits.isfinite().all(2)
