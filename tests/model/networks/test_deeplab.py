"""The segmenter compared with a twin that reads its state dict and applies one function after the other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.networks.deeplab import BACKBONES, DeepLab, build_segmenter

State = dict[str, Tensor]


def fill(model: nn.Module) -> nn.Module:
    """Weights from a formula, so that they never depend on a version: sines, scaled so that signals keep their size."""
    for number, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 1.37 + number).view(tensor.shape)
        if tensor.dim() == 4:
            wave = wave * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", ".weight")):
            wave = 1 + 0.4 * wave
        else:
            wave = 0.2 * wave
        tensor.copy_(wave)
    return model


def small(backbone: str, classes: int = 5, **options: Any) -> DeepLab:
    return build_segmenter(backbone, classes, **{"width": 1 / 16, **options})


def waves(height: int, width: int) -> Tensor:
    """Two float64 images [2, 3, height, width] in -1..1."""
    return torch.sin(torch.arange(2 * 3 * height * width, dtype=torch.float64) * 0.731).view(2, 3, height, width)


# ---------------------------------------------------------------- the twin


def conv(state: State, x: Tensor, name: str, stride: int = 1, dilation: int = 1, groups: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, dilation, groups)


def norm(state: State, x: Tensor, name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def twin_resnet(state: State, x: Tensor, stride_style: str) -> Tensor:
    x = F.relu(norm(state, conv(state, x, "conv1", stride=2), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for layer, (first, dilation) in {1: (1, 1), 2: (2, 1), 3: (1, 2), 4: (1, 4)}.items():
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            name, stride = f"layer{layer}.{block}", first if block == 0 else 1
            if f"{name}.conv3.weight" in state:
                strides = (stride, 1) if stride_style == "caffe" else (1, stride)
                y = F.relu(norm(state, conv(state, x, f"{name}.conv1", strides[0]), f"{name}.bn1"))
                y = F.relu(norm(state, conv(state, y, f"{name}.conv2", strides[1], dilation), f"{name}.bn2"))
                y = norm(state, conv(state, y, f"{name}.conv3"), f"{name}.bn3")
            else:
                y = F.relu(norm(state, conv(state, x, f"{name}.conv1", stride, dilation), f"{name}.bn1"))
                y = norm(state, conv(state, y, f"{name}.conv2", 1, dilation), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in state:
                x = norm(state, conv(state, x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = F.relu(x + y)
            block += 1
    return x


def twin_vgg(state: State, x: Tensor) -> Tensor:
    for group in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        for index in group:
            x = F.relu(conv(state, x, f"features.{index}", dilation=2 if index >= 24 else 1))
        if group[0] < 17:
            x = F.max_pool2d(x, 2, 2)
    return x


def twin_mobilenet(state: State, x: Tensor, output_stride: int) -> Tensor:
    def layer(x: Tensor, name: str, **how: int) -> Tensor:
        return F.relu6(norm(state, conv(state, x, f"{name}.0", **how), f"{name}.1"))

    strides = {2: 2, 4: 2, 7: 2, 14: 2}  # by block; the others 1
    dilations = dict.fromkeys(range(1, 18), 1)
    for block in range(7, 18):
        if output_stride == 8:
            strides[block] = 1
            dilations[block] = 2 if block < 14 else 4
        elif block >= 14:
            strides[block] = 1
            dilations[block] = 2
    x = layer(x, "features.0", stride=2)
    for block in range(1, 18):
        name, y, stride, last = f"features.{block}.conv", x, strides.get(block, 1), 1
        if block > 1:
            y, last = layer(y, f"{name}.0"), 2
        groups = y.shape[1]
        y = layer(y, f"{name}.{last - 1}", stride=stride, dilation=dilations[block], groups=groups)
        y = norm(state, conv(state, y, f"{name}.{last}"), f"{name}.{last + 1}")
        x = x + y if stride == 1 and block not in (1, 7, 11, 14, 17) else y
    return x


def twin(model: DeepLab, x: Tensor) -> tuple[Tensor, Tensor]:
    state, options = model.state_dict(), model.architecture
    if options["backbone"] == "vgg16":
        features = twin_vgg(state, x)
    elif options["backbone"] == "mobilenet_v2":
        features = twin_mobilenet(state, x, options["output_stride"])
    else:
        features = twin_resnet(state, x, options["stride_style"])
    logits = torch.zeros(())
    for branch in range(options["aspp_branches"]):
        logits = logits + conv(state, features, f"layer6.conv2d_list.{branch}", dilation=6 * (branch + 1))
    return features, logits


CASES = [
    ({"backbone": "tiny"}, 0.149511970),
    ({"backbone": "resnet18", "aspp_branches": 4}, 0.259287113),
    ({"backbone": "resnet34"}, 0.564953975),
    ({"backbone": "resnet50"}, 0.450398636),
    ({"backbone": "resnet50", "stride_style": "torchvision"}, 0.452922426),
    ({"backbone": "resnet101"}, 1.196425971),
    ({"backbone": "vgg16", "aspp_branches": 4}, 0.107771533),
    ({"backbone": "mobilenet_v2"}, 0.316558751),
    ({"backbone": "mobilenet_v2", "output_stride": 16}, 0.209818094),
]


@pytest.mark.parametrize(("options", "expected"), CASES)
@torch.no_grad()
def test_forward_equals_the_twin_and_a_fixed_number(options: dict[str, Any], expected: float) -> None:
    model = small(**options)
    fill(model.double().eval())
    images = waves(77, 101)
    features, logits = model(images)
    twin_features, twin_logits = twin(model, images)
    torch.testing.assert_close(features, twin_features, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits, twin_logits, rtol=1e-9, atol=1e-9)
    assert features.std() > 1e-3  # the weights let the signal through
    assert logits.abs().mean().item() == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- shapes and layout


@pytest.mark.parametrize(
    ("backbone", "output_stride", "dim", "sizes"),
    [
        ("resnet101", 8, 2048, {(720, 1280): (91, 161), (512, 1024): (65, 129), (161, 321): (21, 41)}),
        ("resnet50", 8, 2048, {(180, 320): (23, 41), (1, 1): (1, 1)}),
        ("resnet34", 8, 512, {(720, 1280): (91, 161), (128, 256): (17, 33)}),
        ("resnet18", 8, 512, {(512, 1024): (65, 129)}),
        ("tiny", 8, 128, {(128, 256): (17, 33), (720, 1280): (91, 161)}),
        ("vgg16", 8, 512, {(720, 1280): (90, 160), (161, 321): (20, 40)}),
        ("mobilenet_v2", 8, 320, {(720, 1280): (90, 160), (161, 321): (21, 41)}),
        ("mobilenet_v2", 16, 320, {(720, 1280): (45, 80), (240, 320): (15, 20), (161, 321): (11, 21)}),
    ],
)
def test_sizes_at_full_width(backbone: str, output_stride: int, dim: int, sizes: dict[Any, Any]) -> None:
    with torch.device("meta"):  # only shapes are computed
        model = build_segmenter(backbone, 19, output_stride=output_stride)
        assert model.feature_dim == dim
        for size, expected in sizes.items():
            features, logits = model(torch.empty(2, 3, *size, dtype=torch.uint8))
            assert features.shape == (2, dim, *expected)
            assert logits.shape == (2, 19, *expected)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("style", ["caffe", "torchvision"])
def test_strides_and_dilations_of_every_block(backbone: str, style: str) -> None:
    model = small(backbone, stride_style=style)
    for number, (first, dilation) in {1: (1, 1), 2: (2, 1), 3: (1, 2), 4: (1, 4)}.items():
        for position, block in enumerate(model.get_submodule(f"layer{number}").children()):
            stride = first if position == 0 else 1
            if backbone == "resnet50":
                strides = [stride, 1, 1] if style == "caffe" else [1, stride, 1]
                dilations = [1, dilation, 1]
            else:
                strides, dilations = [stride, 1], [dilation, dilation]
            convs = [block.get_submodule(f"conv{k + 1}") for k in range(len(strides))]
            assert [conv.stride for conv in convs] == [(s, s) for s in strides]
            assert [conv.dilation for conv in convs] == [(d, d) for d in dilations]
            assert all(conv.padding == conv.dilation for conv in convs if conv.kernel_size == (3, 3))
            shortcuts = [m for name, m in block.named_modules() if name == "downsample.0"]
            assert [m.stride for m in shortcuts] == [(stride, stride)] * len(shortcuts)


def test_parameter_names() -> None:
    resnet = small("resnet50").state_dict()
    assert {name.split(".")[0] for name in resnet} == {
        *("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "layer6")
    }
    assert {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_mean"} <= resnet.keys()
    assert {"layer3.5.bn3.weight", "layer4.2.conv3.weight"} <= resnet.keys()
    assert "layer3.1.downsample.0.weight" not in resnet
    assert {f"layer6.conv2d_list.{i}.{p}" for i in range(4) for p in ("weight", "bias")} == {
        name for name in resnet if name.startswith("layer6")
    }
    vgg = {int(name.split(".")[1]) for name in small("vgg16").state_dict() if name.startswith("features")}
    assert vgg == {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}
    mobilenet = small("mobilenet_v2").state_dict()
    assert {
        "features.0.0.weight",
        "features.1.conv.0.0.weight",
        "features.1.conv.1.weight",
    } <= mobilenet.keys()
    assert {"features.17.conv.1.1.running_var", "features.17.conv.2.weight", "features.17.conv.3.bias"} <= {*mobilenet}
    assert not any(name.startswith("features.18") for name in mobilenet)


def test_number_of_parameters_at_full_width() -> None:
    def count(backbone: str) -> int:
        with torch.device("meta"):
            model = build_segmenter(backbone)
        return sum(p.numel() for n, p in model.named_parameters() if not n.startswith("layer6"))

    # torchvision's published totals without the classifiers (and without MobileNetV2's last 1x1 convolution)
    assert count("resnet18") == 11_689_512 - 513_000
    assert count("resnet34") == 21_797_672 - 513_000
    assert count("resnet50") == 25_557_032 - 2_049_000
    assert count("resnet101") == 44_549_160 - 2_049_000
    assert count("vgg16") == 138_357_544 - 123_642_856
    assert count("mobilenet_v2") == 3_504_872 - 1_281_000 - (320 * 1280 + 2 * 1280)


# ---------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("caffe", (30 - 104.00698793, 20 - 116.66876762, 10 - 122.67891434)),
        ("imagenet", ((10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225)),
    ],
)
def test_normalisation_by_hand(normalization: str, expected: tuple[float, ...]) -> None:
    model = small("tiny", normalization=normalization).eval()
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    by_hand = torch.tensor(expected).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    torch.testing.assert_close(model.normalise(image), by_hand, rtol=1e-6, atol=1e-5)
    for ours, theirs in zip(model(image), model(by_hand)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not any(name.startswith("input_") for name in model.state_dict())


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 4, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 8, dtype=torch.int64),
    ],
)
def test_strange_images_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        small("tiny")(images)


# ---------------------------------------------------------------- classifier


@pytest.mark.parametrize("branches", [2, 4])
def test_classify_equals_layer6_on_one_pixel(branches: int) -> None:
    model = small("tiny", aspp_branches=branches)
    fill(model)
    vectors = waves(16, 7).float().reshape(-1, model.feature_dim)
    by_map = model.layer6(vectors[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(model.classify(vectors), by_map, rtol=1e-5, atol=1e-6)
    weight, bias = torch.zeros(5, model.feature_dim), torch.zeros(5)
    for conv_ in model.layer6.convs()[:branches]:
        assert conv_.bias is not None
        weight, bias = weight + conv_.weight[:, :, 1, 1], bias + conv_.bias
    torch.testing.assert_close(model.classify(vectors), vectors @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_classify_keeps_full_precision_under_autocast() -> None:
    model = small("tiny")
    vectors = torch.randn(6, model.feature_dim)
    with torch.autocast("cpu", torch.bfloat16):
        inside = model.classify(vectors)
        halves = model.classify(vectors.bfloat16())
        assert model.layer6(vectors[:, :, None, None]).dtype == torch.bfloat16
    assert inside.dtype == halves.dtype == torch.float32
    assert torch.equal(inside, model.classify(vectors))


def test_classifier_starts_at_a_hundredth() -> None:
    torch.manual_seed(0)
    for layer in build_segmenter("tiny").layer6.convs():
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert abs(layer.weight.mean().item()) < 2e-4


def test_four_branches_add_the_two_further_ones() -> None:
    two, four = small("tiny"), small("tiny", aspp_branches=4)
    four.load_state_dict(two.state_dict())
    features = torch.randn(1, two.feature_dim, 30, 40)
    difference = sum(layer(features) for layer in two.layer6.convs()[2:])
    torch.testing.assert_close(four.layer6(features) - two.layer6(features), difference, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("branches", [2, 4])
def test_groups_hold_each_trainable_parameter_once(backbone: str, branches: int) -> None:
    model = small(backbone, aspp_branches=branches)
    body, head = model.parameter_groups()
    names = {id(p): name for name, p in model.named_parameters()}
    assert len({id(p) for p in body + head}) == len(body + head)
    assert {names[id(p)] for p in body + head} == {n for n, p in model.named_parameters() if p.requires_grad}
    assert {names[id(p)] for p in head} == {
        f"layer6.conv2d_list.{i}.{p}" for i in range(branches) for p in ("weight", "bias")
    }
    normalised = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {names[id(p)].rsplit(".", 1)[0] for p in body}.isdisjoint(normalised)
    assert len(normalised) == {"vgg16": 0, "tiny": 12, "resnet18": 20, "resnet34": 36}.get(backbone, len(normalised))


def test_one_step_moves_what_is_trainable_and_nothing_else() -> None:
    model = small("tiny").train()
    body, head = model.parameter_groups()
    optimiser = torch.optim.SGD([{"params": body}, {"params": head}], lr=0.1, weight_decay=0.1)
    before = copy.deepcopy(dict(model.named_parameters()))
    model(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))[1].square().sum().backward()
    optimiser.step()
    frozen = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert frozen == {
        name
        for name in before
        if "bn" in name or "downsample.1" in name or name.startswith(("layer6.conv2d_list.2", "layer6.conv2d_list.3"))
    }


def test_architecture_rebuilds_the_network() -> None:
    model = small("mobilenet_v2", 7, aspp_branches=4, output_stride=16, normalization="imagenet")
    assert model.architecture == {
        "backbone": "mobilenet_v2",
        "num_classes": 7,
        "aspp_branches": 4,
        "stride_style": "caffe",
        "output_stride": 16,
        "normalization": "imagenet",
        "width": 1 / 16,
    }
    again = build_segmenter(**model.architecture)
    again.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (1, 3, 33, 47), dtype=torch.uint8)
    assert torch.equal(again.eval()(images)[1], model.eval()(images)[1])
    assert "width" not in build_segmenter("tiny").architecture


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet152"}, "resnet152"),
        ({"backbone": "resnet18", "output_stride": 16}, "output_stride"),
        ({"backbone": "vgg16", "output_stride": 16}, "output_stride"),
        ({"backbone": "mobilenet_v2", "output_stride": 32}, "8 or 16"),
        ({"stride_style": "pytorch"}, "stride_style"),
        ({"normalization": "rgb"}, "normalization"),
        ({"aspp_branches": 3}, "aspp_branches"),
        ({"num_classes": 1}, "num_classes"),
        ({"backbone": "tiny", "width": 0}, "width"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_segmenter(**options)


# ---------------------------------------------------------------- torchvision, if it can be imported


@torch.no_grad()
def test_features_equal_torchvisions() -> None:
    try:
        from torchvision.models import resnet50
    except (ImportError, RuntimeError) as error:  # RuntimeError: its CUDA build next to a CPU build of torch
        pytest.skip(f"torchvision does not import: {error}")
    theirs = resnet50(replace_stride_with_dilation=[False, True, True]).double().eval()
    theirs.maxpool.ceil_mode = True
    for stage, dilation in ((theirs.layer3, 2), (theirs.layer4, 4)):  # torchvision does not dilate the first block
        stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)
    ours = build_segmenter("resnet50", 19, stride_style="torchvision", normalization="imagenet").double().eval()
    fill(ours)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("layer6")}, strict=False)
    x = waves(65, 97)
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        expected = stage(expected)
    torch.testing.assert_close(ours(x)[0], expected, rtol=1e-5, atol=1e-5)
