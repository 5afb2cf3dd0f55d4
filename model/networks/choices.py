"""The names of what can be chosen about networks. Torch is not imported, so that a command line is read quickly."""

from __future__ import annotations

BACKBONES = ("tiny", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "mobilenet_v2")
STRIDE_STYLES = ("caffe", "torchvision")
"""Which convolution of a ResNet bottleneck has the stride: the first 1x1 one, or the 3x3 one."""
NORMALIZATIONS = ("caffe", "imagenet")
"""Of the input: BGR, 0 to 255, minus the mean; or RGB, 0 to 1, minus the mean, divided by the standard deviation."""
NORMS = ("batchnorm", "inplace-abn")
BN_MODES = ("shared", "source", "target", "frozen")
"""shared: every pass uses the statistics of its batch, and both domains update the running ones (as published). source,
target: the same, but only that domain updates the running ones (`target` is our choice: evaluation and pseudo-labels
then use the statistics of the domain that they are for). frozen: the running statistics are used and do not change."""
