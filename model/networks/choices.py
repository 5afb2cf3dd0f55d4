"""What can be chosen about networks, by name; torch is not imported, so that a command line is read quickly."""

from __future__ import annotations

BACKBONES = ("tiny", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "mobilenet_v2")
STRIDE_STYLES = ("caffe", "torchvision")
"""Where a ResNet bottleneck strides: in its first 1x1 convolution, or in the 3x3 one."""
NORMALIZATIONS = ("caffe", "imagenet")
"""Of the input: BGR, 0 to 255, minus the mean; or RGB by mean and standard deviation."""
NORMS = ("batchnorm", "inplace-abn")
BN_MODES = ("shared", "source", "target", "frozen")
"""shared: train mode, running statistics fed by both domains (as published). source, target: every pass uses its
batch's statistics, only that domain's batches feed the running ones (`target` is our choice: evaluation and
pseudo-labels then see the statistics of the domain they are for). frozen: running statistics used and fixed."""
