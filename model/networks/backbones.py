"""Backbones of DeepLab-v2: dilated ResNets, VGG-16 and MobileNetV2, under their published names.

A backbone is an ordered table of modules, applied one after the other, and the number of its output channels. The names
in the table become the top level of the segmenter's state dict, so that published files load name for name.
Convolutions start from He's normal distribution (our choice: networks without pretrained weights must be able to learn
too); the affine parameters of every BatchNorm are frozen, as released.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.networks.choices import BACKBONES, NORMS, STRIDE_STYLES
from model.networks.norm import norm_and_activation

Stages = tuple[dict[str, nn.Module], int]  # modules in order of application, channels of the last one


def scaled(channels: int, width: float) -> int:
    """The number of channels at a relative width, at least one."""
    return max(1, round(channels * width))


# ---------------------------------------------------------------- ResNet


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, both dilated, and a shortcut (ResNet-18, -34 and `tiny`)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, stride_style: str, norm: str) -> None:
        super().__init__()
        del stride_style  # a basic block has only one place for the stride
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1, self.act1 = norm_and_activation(norm, planes, nn.ReLU(inplace=True))
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, planes, H / stride, W / stride], not negative."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, dilated 3x3, 1x1 and a shortcut (ResNet-50 and -101).

    The first 1x1 (`caffe`) or the 3x3 (`torchvision`) has the stride. Names and shapes of the parameters are the same,
    but weights that were trained in one way do not fit the other.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, stride_style: str, norm: str) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_style == "caffe" else (1, stride)
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, first, bias=False)
        self.bn1, self.act1 = norm_and_activation(norm, planes, nn.ReLU(inplace=True))
        self.conv2 = nn.Conv2d(planes, planes, 3, second, padding=dilation, dilation=dilation, bias=False)
        self.bn2, self.act2 = norm_and_activation(norm, planes, nn.ReLU(inplace=True))
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 planes, H / stride, W / stride], not negative."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


_RESNETS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...], int]] = {
    # block, blocks of layer1..4, channels of the stem (layer k is 2^(k-1) times as wide)
    "tiny": (BasicBlock, (1, 1, 1, 1), 16),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 64),
}
_RESNET_STRIDES = (1, 2, 1, 1)
_RESNET_DILATIONS = (1, 1, 2, 4)


def resnet(backbone: str, *, stride_style: str, width: float, norm: str) -> Stages:
    """ResNet of output stride 8: every block of layer3 has dilation 2, every block of layer4 dilation 4.

    The max-pool rounds up (ceil_mode), so 720x1280 comes out as 91x161 and 512x1024 as 65x129.
    """
    block, depths, stem = _RESNETS[backbone]
    inputs = scaled(stem, width)
    bn1, relu = norm_and_activation(norm, inputs, nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, inputs, 7, stride=2, padding=3, bias=False),
        "bn1": bn1,
        "relu": relu,
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    }
    for k, (depth, stride, dilation) in enumerate(zip(depths, _RESNET_STRIDES, _RESNET_DILATIONS)):
        planes = scaled(stem * 2**k, width)
        blocks: list[nn.Module] = []
        for i in range(depth):
            blocks.append(block(inputs, planes, stride if i == 0 else 1, dilation, stride_style, norm))
            inputs = planes * block.expansion
        stages[f"layer{k + 1}"] = nn.Sequential(*blocks)
    return stages, inputs


# ---------------------------------------------------------------- VGG-16

_VGG16 = (  # channels and convolutions of a group, its dilation, whether the pooling after it is kept
    (64, 2, 1, True),
    (128, 2, 1, True),
    (256, 3, 1, True),
    (512, 3, 1, False),
    (512, 3, 2, False),
)


def vgg16(*, width: float) -> Stages:
    """The 13 convolutions of VGG-16 at output stride 8: no pooling after conv4_3 and conv5_3.

    The last group, conv5, is dilated by 2. An identity replaces a dropped pooling, so that the indices stay
    torchvision's (conv5 is `features.24`, `.26`, `.28`). Pooling rounds down: 720x1280 comes out as 90x160.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for channels, count, dilation, pooled in _VGG16:
        for _ in range(count):
            outputs = scaled(channels, width)
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation))
            layers.append(nn.ReLU(inplace=True))
            inputs = outputs
        layers.append(nn.MaxPool2d(2, stride=2) if pooled else nn.Identity())
    return {"features": nn.Sequential(*layers)}, inputs


# ---------------------------------------------------------------- MobileNetV2

_MOBILENET = (  # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise (strided or dilated), linear 1x1; shortcut where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_bn_relu6(inputs, hidden, 1, norm=norm)]
        layers.append(_conv_bn_relu6(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden, norm=norm))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride], either sign."""
        y = self.conv(x)
        return x + y if self.residual else y


def _conv_bn_relu6(
    inputs: int, outputs: int, kernel: int, *, norm: str, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, *norm_and_activation(norm, outputs, nn.ReLU6(inplace=True)))


def mobilenet_v2(*, output_stride: int, width: float, norm: str) -> Stages:
    """MobileNetV2 up to `features.17` (320 channels; the last layer is linear, so features may be negative).

    A stage that would raise the stride above `output_stride` keeps the resolution instead. Then **every** block of it
    and of the stages after it is dilated by 2 (after a second such stage by 4), including the first block, as in our
    ResNets (our choice; torchvision has no dilated MobileNetV2). The depthwise convolutions are the dilated ones.
    """
    inputs = scaled(32, width)
    layers: list[nn.Module] = [_conv_bn_relu6(3, inputs, 3, stride=2, norm=norm)]
    reached, dilation = 2, 1
    for expansion, channels, count, stride in _MOBILENET:
        if reached * stride > output_stride:
            stride, dilation = 1, dilation * stride
        reached *= stride
        outputs = scaled(channels, width)
        for i in range(count):
            layers.append(
                InvertedResidual(
                    inputs,
                    outputs,
                    expansion=expansion,
                    stride=stride if i == 0 else 1,
                    dilation=dilation,
                    norm=norm,
                )
            )
            inputs = outputs
    return {"features": nn.Sequential(*layers)}, inputs


# ---------------------------------------------------------------- the table of them all


def output_strides(backbone: str) -> tuple[int, ...]:
    """Output strides that a backbone can be built with, the specified one (8) first."""
    return (8, 16) if backbone == "mobilenet_v2" else (8,)


def build_backbone(
    backbone: str, *, stride_style: str, output_stride: int, width: float = 1.0, norm: str = "batchnorm"
) -> Stages:
    """The modules in order of application, initialised, with frozen BatchNorm affine parameters; and the number of
    output channels.

    Raises:
        ValueError: unknown backbone, stride style or norm, an output stride or norm that the backbone does not support,
            a width <= 0, a missing package.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone is {backbone!r}; choose one of {', '.join(BACKBONES)}")
    if stride_style not in STRIDE_STYLES:
        raise ValueError(f"stride_style is {stride_style!r}; choose one of {', '.join(STRIDE_STYLES)}")
    if output_stride not in output_strides(backbone):
        allowed = " or ".join(map(str, output_strides(backbone)))
        raise ValueError(f"output_stride is {output_stride}; {backbone} comes with {allowed}")
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; choose one of {', '.join(NORMS)}")
    if norm != "batchnorm" and backbone == "vgg16":
        raise ValueError(f"norm is {norm!r}; vgg16 has no normalisation: leave the option out")
    if width <= 0:
        raise ValueError(f"width is {width}; it must be above 0")
    if backbone in _RESNETS:
        stages, channels = resnet(backbone, stride_style=stride_style, width=width, norm=norm)
    elif backbone == "vgg16":
        stages, channels = vgg16(width=width)
    else:
        stages, channels = mobilenet_v2(output_stride=output_stride, width=width, norm=norm)
    for stage in stages.values():
        _initialise(stage)
    return stages, channels


def _initialise(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
