"""CycleGAN (Zhu et al., ICCV 2017): two generators learn to restyle each domain as the other, from unpaired images.

One iteration:
    generators:     least-squares adversarial losses + cycle + identity (+ CyCADA's semantic loss) -> backward
    discriminators: real images against restyled ones from a pool                                -> backward
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.methods.base import Backward, Batch, Losses, Method, Step
from model.networks.deeplab import DeepLab
from model.networks.translation import Generator, PatchDiscriminator, blocks_for, to_pixels, to_range
from model.terms.image_pool import ImagePool
from model.terms.memory import Gather
from model.terms.translation import discriminator_loss, distance, generator_loss, semantic_loss

BETAS = (0.5, 0.999)
"""Of Adam (Zhu et al., published code)."""


class CycleGAN(Method):
    """Generators "to_target" and "to_source", and for each domain the discriminator "real_target" or "real_source".

    options: `crop` (width, height), `generator_width`, `discriminator_width`, `learning_rate` of the generators,
    `learning_rate_D`, `num_steps`, `lambda_cycle`, `lambda_identity`, `lambda_semantic`. place: moves networks to their
    device. semantic: a trained segmenter on that device, for CyCADA's loss; it is frozen here and is not saved. gather,
    rank: for several processes, each of which has its own pools.
    """

    name = "cyclegan"

    def __init__(
        self,
        options: Any,
        place: Callable[[nn.Module], nn.Module] = lambda network: network,
        semantic: DeepLab | None = None,
        gather: Gather | None = None,
        rank: int = 0,
    ) -> None:
        self.options = options  # instead of that of the base class, which needs a segmenter
        blocks = blocks_for(options.crop)
        self.to_target, self.to_source = (Generator(blocks, options.generator_width) for _ in range(2))
        self.real_target, self.real_source = (PatchDiscriminator(options.discriminator_width) for _ in range(2))
        self.semantic = semantic
        if semantic is not None:
            semantic.eval().requires_grad_(False)
        self.gather, self.rank = gather, rank
        self.pools = {"target": ImagePool(), "source": ImagePool()}
        generators: dict[str, nn.Module] = {"to_target": self.to_target, "to_source": self.to_source}
        judges: dict[str, nn.Module] = {"real_target": self.real_target, "real_source": self.real_source}
        self.networks = nn.ModuleDict(generators | judges)
        for network in self.networks.values():
            place(network)
        self.optimizers = {
            "generator": _adam(generators.values(), options.learning_rate),
            "discriminator": _adam(judges.values(), options.learning_rate_D),
        }

    def set_training_mode(self) -> None:
        self.networks.train()

    def rate(self, step: int) -> float:
        """1 over the first half of the steps, then linear to 0 (Zhu et al., section 4)."""
        return min(1.0, 2 * (1 - step / self.options.num_steps))

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        """See `Method.iteration`. Labels are not used; the images have the size of `crop`."""
        assert target is not None
        options, generator = self.options, step.generator()
        source_images, target_images = (to_range(batch["image"]) for batch in (source, target))
        as_target, as_source = self.to_target(source_images), self.to_source(target_images)
        losses = {
            "adv_target": generator_loss(self.real_target(as_target)),
            "adv_source": generator_loss(self.real_source(as_source)),
            "cycle": distance(self.to_source(as_target), source_images)
            + distance(self.to_target(as_source), target_images),
        }
        total = losses["adv_target"] + losses["adv_source"] + options.lambda_cycle * losses["cycle"]
        if options.lambda_identity:
            losses["identity"] = distance(self.to_target(target_images), target_images) + distance(
                self.to_source(source_images), source_images
            )
            total = total + options.lambda_identity * losses["identity"]
        if self.semantic is not None:
            losses["semantic"] = self._semantic(source_images, as_target) + self._semantic(target_images, as_source)
            total = total + options.lambda_semantic * losses["semantic"]
        backward(total, "generator")

        for domain, judge, real, restyled in (
            ("target", self.real_target, target_images, as_target),
            ("source", self.real_source, source_images, as_source),
        ):
            old = self.pools[domain].query(restyled, generator)
            losses[f"D_{domain}"] = discriminator_loss(judge(real), judge(old))
            backward(losses[f"D_{domain}"], "discriminator")
        return {name: loss.detach() for name, loss in losses.items()}

    def averaged(self) -> list[Tensor]:
        return []

    def state_dict(self) -> dict[str, Any]:
        """The shape of the generators, and the pools [processes, images, 3, H, W] of all processes."""
        shape = {"blocks": blocks_for(self.options.crop), "width": self.options.generator_width}
        pools = {domain: pool.state()[None] for domain, pool in self.pools.items()}
        if self.gather is not None:
            pools = {domain: self.gather([pool[None]])[0][0] for domain, pool in pools.items()}
        return {"generator": shape, "pools": pools}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Method.load_state_dict`. A process that the saved run did not have takes the pools of another one: all
        processes must have pools of one size, to be saved as one tensor."""
        width, height = self.options.crop
        device = next(self.networks.parameters()).device
        for domain, pool in self.pools.items():
            saved = state["pools"][domain]
            if saved.numel() and saved.shape[2:] != (3, height, width):
                found = f"{saved.shape[-1]}x{saved.shape[-2]}"
                raise ValueError(f"a pool of images of {found} pixels, expected {width}x{height}")
            pool.load(saved[self.rank % len(saved)], device)

    def panels(self, source: Batch, target: Batch | None, step: Step) -> dict[str, Tensor]:
        """The first image of each domain and how it is restyled."""
        assert target is not None
        images = {"source": to_range(source["image"][:1]), "target": to_range(target["image"][:1])}
        images["source as target"] = self.to_target(images["source"])
        images["target as source"] = self.to_source(images["target"])
        return {name: to_pixels(image[0]).round().to(torch.uint8) for name, image in images.items()}

    def _semantic(self, before: Tensor, after: Tensor) -> Tensor:
        assert self.semantic is not None
        with torch.no_grad():
            _, seen = self.semantic(self.semantic.normalise(to_pixels(before)))
        _, logits = self.semantic(self.semantic.normalise(to_pixels(after)))
        return semantic_loss(seen, logits)


def _adam(networks: Iterable[nn.Module], rate: float) -> torch.optim.Optimizer:
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return torch.optim.Adam([{"params": parameters, "base_lr": rate}], lr=rate, betas=BETAS, fused=True)
