"""The segmenter: DeepLab-v2, a dilated backbone and the parallel dilated classifier `layer6`.

`build_segmenter("resnet101", num_classes=19)` returns a module that maps uint8 RGB images, as the data sets give them,
to features and logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.networks.activations import recomputed
from model.networks.backbones import Stages, build_backbone, output_strides
from model.networks.choices import BACKBONES, NORMALIZATIONS, STRIDE_STYLES

__all__ = [
    "ASPP",
    "BACKBONES",
    "NORMALIZATIONS",
    "STRIDE_STYLES",
    "DeepLab",
    "build_segmenter",
    "output_strides",
]

_DILATIONS = (6, 12, 18, 24)

INPUTS: dict[str, dict[str, Any]] = {
    # (image in this channel order, divided by `scale`, minus mean) / std
    "caffe": {
        "order": "BGR",
        "scale": 1.0,
        "mean": (104.00698793, 116.66876762, 122.67891434),
        "std": (1.0, 1.0, 1.0),
    },
    "imagenet": {
        "order": "RGB",
        "scale": 255.0,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
}


class ASPP(nn.Module):
    """Sum of the first `branches` of four 3x3 convolutions, dilation = padding = 6, 12, 18, 24, with bias.

    All four exist, so that every published checkpoint fits. The code of AdaptSegNet, SIM and this paper uses two
    (released: a misplaced return); DeepLab-v2 and ADVENT use four. An unused branch has `requires_grad` False: it gets
    neither weight decay nor an optimiser state, and is saved as it was loaded.
    """

    def __init__(self, inputs: int, num_classes: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(inputs, num_classes, 3, padding=dilation, dilation=dilation) for dilation in _DILATIONS
        )
        for number, conv in enumerate(self.convs()):
            nn.init.normal_(conv.weight, 0.0, 0.01)
            conv.requires_grad_(number < branches)

    def convs(self) -> list[nn.Conv2d]:
        """All four convolutions, in use or not."""
        return [conv for conv in self.conv2d_list if isinstance(conv, nn.Conv2d)]

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> logits [B, C, h, w]."""
        first, *others = self.convs()[: self.branches]
        logits = first(features)
        for conv in others:
            logits = logits + conv(features)
        return logits

    def linear(self, vectors: Tensor) -> Tensor:
        """Logits [N, C] of vectors [N, D], each treated as a 1x1 map, on which only the centre taps see the input."""
        used = self.convs()[: self.branches]
        weight = torch.stack([conv.weight[:, :, 1, 1] for conv in used]).sum(0)
        bias = torch.stack([conv.bias for conv in used if conv.bias is not None]).sum(0)
        return F.linear(vectors.to(weight.dtype), weight, bias)


class DeepLab(nn.Module):
    """Backbone, then `layer6`; built by :func:`build_segmenter`.

    Attributes:
        feature_dim: channels D of the features.
        architecture: plain values that rebuild the network, `build_segmenter(**architecture)`, for checkpoints.
        layer6: the classifier.
        checkpoint_activations: keep only the inputs of the backbone's blocks for the backward pass, which computes the
            rest again: less memory, a third more time. Gradients and running statistics are the same.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, stages: Stages, architecture: dict[str, Any]) -> None:
        super().__init__()
        modules, self.feature_dim = stages
        self.architecture = dict(architecture)
        # The stages are at the top level, as in the published parameter names.
        self._stage_names = tuple(modules)
        self.checkpoint_activations = False
        for name, module in modules.items():
            self.add_module(name, module)
        self.layer6 = ASPP(self.feature_dim, architecture["num_classes"], architecture["aspp_branches"])
        normalization = INPUTS[architecture["normalization"]]
        self._bgr = normalization["order"] == "BGR"
        scale = normalization["scale"]
        # The scale is folded into both, so that one subtraction and one division are enough. They are not in the state
        # dict, which holds only what published files hold.
        for buffer in ("mean", "std"):
            values = torch.tensor([scale * value for value in normalization[buffer]]).view(1, 3, 1, 1)
            self.register_buffer(f"input_{buffer}", values, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB images [B, 3, H, W] normalised for the weights: BGR minus mean, or RGB by mean and std."""
        pixels = images.to(self.input_mean.dtype)
        if self._bgr:
            pixels = pixels.flip(1)
        return (pixels - self.input_mean) / self.input_std

    def prepared(self, images: Tensor) -> Tensor:
        """Images as `forward` takes them, normalised. Raises ValueError for another shape or type."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}; expected [B, 3, H, W]")
        if images.dtype == torch.uint8:
            return self.normalise(images)
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; expected uint8 RGB, or floating and normalised")
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of a batch.

        Args:
            images: [B, 3, H, W]; uint8 RGB is normalised here, floating-point images must be normalised already.

        Returns:
            features [B, D, h, w] (the output of the backbone's last stage, after its ReLU if it has one) and logits
            [B, C, h, w]; h, w are about 1 / output stride of H, W. Under autocast both have its precision.

        Raises:
            ValueError: images of another shape or type.
        """
        features = self.prepared(images)
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            for part in self._parts():
                features = recomputed(part, features)
        else:
            for name in self._stage_names:
                features = getattr(self, name)(features)
        return features, self.layer6(features)

    def _parts(self) -> list[nn.Sequential]:
        """The backbone as blocks in order of application; other layers are grouped up to the next pooling."""
        stages = [getattr(self, name) for name in self._stage_names]
        layers = [layer for stage in stages for layer in (stage if isinstance(stage, nn.Sequential) else [stage])]
        parts: list[list[nn.Module]] = [[]]
        for layer in layers:
            parts[-1].append(layer)
            if len(list(layer.children())) or isinstance(layer, nn.MaxPool2d):
                parts.append([])
        return [nn.Sequential(*part) for part in parts if part]

    def classify(self, vectors: Tensor) -> Tensor:
        """The classifier's logits [N, C] for single feature vectors [N, D], as one linear map.

        Equals `layer6` on 1x1 maps, where only the centre taps of the used branches see the input (padding = dilation).
        Computed in the parameters' precision (float32) even under autocast, because the acceptance test compares
        logits.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return self.layer6.linear(vectors)

    @property
    def heads(self) -> list[nn.Module]:
        """What is learnt anew on the backbone's features, at the classifier's rate."""
        return [self.layer6]

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trainable parameters of the backbone and of the heads, each exactly once.

        (Released: the generator yields most backbone weights two to four times; see `--backbone-lr-mult`.)
        """
        heads = [p for head in self.heads for p in head.parameters()]
        in_heads = {id(p) for p in heads}
        backbone = [p for p in self.parameters() if p.requires_grad and id(p) not in in_heads]
        return backbone, [p for p in heads if p.requires_grad]


def build_segmenter(
    backbone: str = "resnet101",
    num_classes: int = 19,
    *,
    aspp_branches: int = 2,
    stride_style: str = "caffe",
    output_stride: int = 8,
    normalization: str = "caffe",
    width: float = 1.0,
    norm: str = "batchnorm",
    kind: type[DeepLab] = DeepLab,
) -> DeepLab:
    """A new segmenter with random weights.

    Args:
        backbone: one of `BACKBONES`; `tiny` is a ResNet of four basic blocks, for tests and small data.
        num_classes: C, at least 2.
        aspp_branches: branches of `layer6` that are summed, 2 (released) or 4.
        stride_style: which convolution of a bottleneck has the stride, `caffe` (first 1x1) or `torchvision` (3x3).
        output_stride: 8; for `mobilenet_v2` also 16.
        normalization: the input that the weights expect, `caffe` (BGR, 0..255, minus mean) or `imagenet` (RGB, mean,
            std).
        width: factor on the number of channels; only tests use others than 1.
        norm: `batchnorm`, or `inplace-abn` for BatchNorm and leaky ReLU in one layer, which needs the package.
        kind: the class to build: `DeepLab`, or `HighResolution` for high-resolution crops.

    Raises:
        ValueError: a value outside of these.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; it must be at least 2")
    if aspp_branches not in (2, 4):
        raise ValueError(f"aspp_branches is {aspp_branches}; choose 2 or 4")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization is {normalization!r}; choose one of {', '.join(NORMALIZATIONS)}")
    architecture: dict[str, Any] = {
        "backbone": backbone,
        "num_classes": num_classes,
        "aspp_branches": aspp_branches,
        "stride_style": stride_style,
        "output_stride": output_stride,
        "normalization": normalization,
    }
    if width != 1.0:
        architecture["width"] = width
    if norm != "batchnorm":
        architecture["norm"] = norm
    stages = build_backbone(backbone, stride_style=stride_style, output_stride=output_stride, width=width, norm=norm)
    return kind(stages, architecture)
