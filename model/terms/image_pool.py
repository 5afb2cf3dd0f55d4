"""The pool of restyled images that a discriminator of CycleGAN learns from (Shrivastava et al., CVPR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

POOL_SIZE = 50  # Zhu et al., section 7.1


class ImagePool:
    """Keeps the first `size` images; afterwards each new one is, with probability 1/2, swapped with a random old one.

    size: at least 0; 0 returns every image as it is. All images have the same shape [3, H, W].
    """

    def __init__(self, size: int = POOL_SIZE) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the discriminator gets instead of `images` [B, 3, H, W]: detached, in float32, in their order.

        generator: on the CPU; it draws two numbers per image, whether they are used or not.
        """
        chances = torch.rand(len(images), generator=generator).tolist()
        places = torch.randint(max(self.size, 1), (len(images),), generator=generator).tolist()
        answers = []
        for image, chance, place in zip(images.detach().float().clone(), chances, places, strict=True):
            if len(self.images) < self.size:
                self.images.append(image)
            elif self.size and chance < 0.5:
                self.images[place], image = image, self.images[place]
            answers.append(image)
        return torch.stack(answers)

    def state(self) -> Tensor:
        """[number of images, 3, H, W] float32, in the pool's order; [0] if it is empty."""
        return torch.stack(self.images) if self.images else torch.zeros(0)

    def load(self, state: Tensor, device: torch.device | str) -> None:
        """Restore what `state` returned. Raises ValueError if it holds more images than the pool can."""
        if len(state) > self.size:
            raise ValueError(f"a pool of {len(state)} images, expected at most {self.size}")
        self.images = list(state.to(device, copy=True))
