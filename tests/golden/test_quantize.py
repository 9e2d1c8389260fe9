import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden import models
from golden.classes import class_mask
from golden.errors import InputError
from golden.folding import channel_factors
from golden.images import read_image
from golden.integer import float_mask, run
from golden.metrics import binary, iou, pixel_agreement
from golden.models import MODELS, load_float, save_trained, seeded
from golden.plan import plan
from golden.quantize import fixed_point, quantize, sigmoid_table, sum_weights


def test_fixed_point_normalises():
    m, s = fixed_point(torch.tensor([1.0, 0.5, -0.75, 2.0**-33, 0.0, 2.0**-34]))
    assert m.tolist() == [1 << 14, 1 << 14, -(3 << 13), 1 << 14, 0, 0]
    assert s.tolist() == [14, 15, 15, 47, 1, 1]


def test_fixed_point_carries_into_the_exponent():
    # 1 - 2**-17 has the mantissa 32767.75, which rounds to 2**15: one more than int16 holds.
    m, s = fixed_point(torch.tensor([1 - 2.0**-17], dtype=torch.float64))
    assert (m.item(), s.item()) == (1 << 14, 14)


def test_fixed_point_is_within_half_a_step():
    factors = torch.logspace(-9, 3, 1000, dtype=torch.float64)
    m, s = fixed_point(factors)
    assert ((m * 2.0 ** -s.double() / factors - 1).abs() <= 2.0**-15).all()


def test_fixed_point_refuses_large_factors():
    with pytest.raises(ValueError, match=r"^Factor 16384 is 2\*\*14 or more$"):
        fixed_point(torch.tensor([16384.0]))


def test_sigmoid_table():
    table = sigmoid_table(0.05, 128)
    assert table.dtype == torch.uint8
    assert table[128] == 128
    assert table[148] == math.floor(256 / (1 + math.exp(-1)) + 0.5)
    assert (table[1:] >= table[:-1]).all()
    assert sigmoid_table(1.0, 128)[255] == 255


@pytest.mark.parametrize(("size", "width"), [(64, 8), (48, 3)])
def test_integer_follows_float(size, width):
    network = seeded("elec4848", width)
    graph = quantize(network, [read_image(f"phantom:{seed}", size) for seed in range(4)])
    image = read_image("phantom:11", size)
    probability = network.segment(image)
    mask = float_mask(graph, run(graph, image))
    assert pixel_agreement(binary(probability), binary(mask)) > 0.93
    assert iou(binary(probability), binary(mask)) > 0.85
    assert (probability - mask).abs().mean() < 0.05


@pytest.mark.parametrize(("scales", "weights"), [
    ((0.5, 0.5), (1, 1)),
    ((0.02, 0.03), (2, 3)),
    ((0.03, 0.02), (3, 2)),
    ((1 / 381, 1.0), (1, 381)),
    ((1e-9, 1.0), (1, 381)),
    ((1.0, 1e-9), (381, 1)),
])
def test_sum_weights(scales, weights):
    assert sum_weights(*scales) == weights


def test_sum_weights_are_the_best_pair():
    ratio = math.pi / 4
    pairs = [Fraction(a, b) for b in range(1, 382) for a in range(1, 382)]
    assert Fraction(*sum_weights(ratio, 1.0)) == min(pairs, key=lambda pair: abs(pair - ratio))


def real_operation(step, inputs):
    """What the float network's step makes of float inputs, by PyTorch's own operations."""
    match step.kind:
        case "conv":
            top, left, bottom, right = step.padding
            y = F.conv2d(F.pad(inputs[0], (left, right, top, bottom)), step.conv.weight,
                         step.conv.bias, stride=step.conv.stride, groups=step.conv.groups)
        case "transposed":
            y = step.conv(inputs[0])
        case "add":
            y = inputs[0] + inputs[1]
        case "gate":
            alpha, skip = inputs
            y = F.interpolate(alpha, scale_factor=skip.shape[2] // alpha.shape[2]) * skip
        case "sigmoid":
            y = torch.sigmoid(inputs[0])
        case "max_pool":
            y = F.max_pool2d(inputs[0], 2)
        case "upsample":
            y = F.interpolate(inputs[0], scale_factor=2,
                              mode="nearest" if step.mode == "nearest" else "bilinear")
        case "concat":
            y = torch.cat(inputs, 1)
        case "classes":
            y = class_mask(inputs[0])
    y = F.relu(y) if step.relu_first else y
    y = y if step.norm is None else step.norm(y)
    return F.relu(y) if step.relu and not step.relu_first else y


@pytest.mark.parametrize(("model", "equalise"), [*((model, False) for model in MODELS),
                                                 ("elec4848", True), ("attunet-ct", True)])
@torch.no_grad()
def test_every_layer_is_the_float_operation_rounded(model, equalise, tmp_path, monkeypatch):
    """Given the same inputs and weights on the int8 grid: within half a step, hardly more.

    The excess comes from rounded biases, multipliers and sums of weights.
    """
    network, image = seeded(model, 4), read_image("phantom:11", 32)
    graph = quantize(network, [read_image(f"phantom:{seed}", 32) for seed in range(3)],
                     equalise=equalise)
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    save_trained(models.weights_path(model, 4), graph, network)
    steps = plan(load_float(model, size=32, width=4).double())
    values, real = run(graph, image), {}
    for step in steps:
        t, k_C = graph.tensors[step.name], channel_factors(graph, step.name)[:, None, None]
        stored = values[step.name].double()
        real[step.name] = (t.scale * (stored - t.zero_point) / k_C)[None]
        if step.kind == "input":
            continue
        y = real_operation(step, [real[name] for name in step.inputs])[0]
        expected = y * k_C / t.scale + t.zero_point
        if values[step.name].dtype == torch.uint8:
            expected = expected.clamp(0, 255)
        assert (expected - stored).abs().max() < 0.6, step.name


KINDS = {
    "elec4848": {"Conv": 31, "Lookup": 5, "MaxPool": 4, "Upsample": 4, "Concat": 4, "Add": 4,
                 "Gate": 4},
    "elec4848-ds": {"Conv": 31 + 26, "Lookup": 5, "MaxPool": 4, "Upsample": 4, "Concat": 4,
                    "Add": 4, "Gate": 4},
    "elec4848-ds-published": {"Conv": 31 + 26 - 5, "Lookup": 5, "MaxPool": 4, "Upsample": 4,
                              "Concat": 4, "Add": 4, "Gate": 4},
    "unet-busi": {"Conv": 19, "TransposedConv": 4, "Lookup": 1, "MaxPool": 4, "Concat": 4},
    "attunet-nuclei": {"Conv": 24, "Lookup": 4, "MaxPool": 3, "Upsample": 3, "Concat": 3,
                       "Sum": 3, "Gate": 3},
    "attunet-ct": {"Conv": 31, "Lookup": 5, "MaxPool": 4, "Upsample": 4, "Concat": 4, "Add": 4,
                   "Gate": 4},
    "elec4848-classes": {"Conv": 31 + 2, "Lookup": 5, "MaxPool": 4, "Upsample": 4, "Concat": 4,
                         "Add": 4, "Gate": 4},
}


@pytest.mark.parametrize("model", MODELS)
def test_kinds_of_layers(model):
    graph = models.load_graph(model, size=32, width=4)
    assert Counter(type(layer).__name__ for layer in graph.layers) == {"Input": 1, **KINDS[model]}
    assert graph.network == model
    depthwise = [x.name for x in graph.layers if getattr(x, "groups", 1) > 1]
    assert depthwise == [x.name for x in graph.layers if x.name.endswith("_dw")]
    if model == "attunet-nuclei":
        assert {graph.layer(f"d{i}_up").mode for i in (1, 2, 3)} == {"linear"}


# Of the quantiser that knew elec4848 only: scale, zero point, and sum of int8 weights.
PINNED = {
    "c1": (0.00181224, 0, 505),
    "e2a": (0.00227159, 0, -1207),
    "c4": (0.0027638, 0, 6922),
    "encoding": (0.00264559, 64, 9705),
    "g1_normal": (0.00234396, 0, -1905),
    "g1_down": (0.00234396, 0, 1205),
    "g1_sum": (0.00234396, 0, None),
    "g1_logit": (0.00941125, 106, -88),
    "gated1": (0.00264559, 64, None),
    "d1_concat": (0.00264559, 64, None),
    "d1a": (0.00143767, 0, -29),
    "d1": (0.0024275, 80, -6111),
    "gated2": (0.0024275, 80, None),
    "d3": (0.00244041, 80, -969),
    "gated4": (0.00244041, 80, None),
    "d4a": (0.00100602, 0, 382),
    "d4": (0.000785527, 0, 422),
    "logit": (0.0492326, 123, -20),
    "mask": (0.00390625, 0, None),
}


def test_elec4848_is_as_it_was():
    graph = quantize(seeded("elec4848", 4), [read_image(f"phantom:{s}", 32) for s in range(2)])
    for name, (scale, zero_point, total) in PINNED.items():
        t = graph.tensors[name]
        assert (t.scale, t.zero_point) == (pytest.approx(scale, rel=1e-4), zero_point), name
        if total is not None:
            weight = graph.layer(name).weight
            assert abs(int(weight.sum()) - total) <= max(2, weight.numel() // 1000), name


def test_gate_folds_batch_normalisation():
    network = seeded("elec4848", 4)
    image = read_image("phantom:2", 32)
    graph = quantize(network, [image])
    values = run(graph, image)
    for i, skip in enumerate(("c4", "c3", "c2", "c1"), 1):
        norm, t = network.gates[i - 1].norm, graph.tensors[f"gated{i}"]
        alpha = values[f"alpha{i}"].repeat_interleave(2, 1).repeat_interleave(2, 2) / 256
        product = alpha * values[skip] * graph.tensors[skip].scale
        product /= channel_factors(graph, skip)[:, None, None].to(torch.float32)
        with torch.no_grad():
            exact = norm(product[None])[0] * graph.equalisation[t.name][:, None, None]
        stored = (exact / t.scale + t.zero_point).clamp(0, 255)
        assert (stored - values[t.name]).abs().max() < 0.51


def test_frames_do_not_change_the_network():
    network = seeded("elec4848", 2)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    quantize(network, [read_image("phantom:0", 16)])
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())


def test_calibration_needs_frames_of_one_shape():
    network = seeded("elec4848", 1)
    with pytest.raises(InputError, match="^There are no frames to calibrate with; quantisation "
                                         "needs at least one$"):
        quantize(network, [])
    with pytest.raises(InputError, match=r"^Frames to calibrate with differ in shape, \(3, 16, "
                                         r"16\) and \(3, 32, 32\); golden.images.read_image "
                                         r"makes them of one size$"):
        quantize(network, [read_image("phantom:0", size) for size in (16, 32)])
    for frame in (torch.zeros(3, 16, 16), torch.zeros(1, 16, 16).byte()):
        kind, channels = str(frame.dtype).removeprefix("torch."), len(frame)
        with pytest.raises(InputError, match=rf"^A frame to calibrate with must be uint8 of shape "
                                             rf"\(3, H, W\), not {kind} of shape "
                                             rf"\({channels}, 16, 16\); golden.images.read_image "
                                             "makes one$"):
            quantize(network, [frame])


class Small(nn.Module):
    """A frame, a gate of it, and whatever ``tail`` makes of both."""

    name, classes = "small", ()

    def __init__(self, tail):
        super().__init__()
        torch.manual_seed(1)
        self.tail = tail
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.learn = nn.Conv2d(4, 1, 1)
        self.final = nn.Conv2d(4, 1, 1)
        self.six = nn.Conv2d(6, 1, 1)
        self.wide = nn.Conv2d(8, 1, 1)

    def unit_of(self, tensor):
        return "encoder"

    def trace(self, frame):
        t = {"image": frame}
        t["x"] = F.relu(self.body(frame))
        t["alpha_logit"] = self.learn(t["x"])
        t["alpha"] = torch.sigmoid(t["alpha_logit"])
        t["gated"] = t["alpha"] * t["x"]
        self.tail(self, t)
        t["mask"] = torch.sigmoid(t["logit"])
        return t


def small(tail, **options):
    images = [read_image(f"phantom:{seed}", 16) for seed in range(2)]
    return quantize(Small(tail), images, **options)


def test_channels_are_equalised_only_where_all_that_read_them_can_take_it_back():
    def convolution(net, t):
        t["logit"] = net.final(t["gated"])

    def total(net, t):
        t["total"] = t["gated"] + t["x"]
        t["logit"] = net.final(t["total"])

    def both(net, t):
        t["concat"] = torch.cat([t["x"], t["gated"]], 1)
        t["pool"] = F.max_pool2d(t["concat"], 2)
        t["logit"] = net.wide(t["pool"])

    assert small(convolution, equalise=True).equalisation.keys() == {"x", "gated"}
    assert small(convolution).equalisation.keys() == {"gated"}
    assert small(total, equalise=True).equalisation == {}
    for equalise, names in ((True, {"x", "gated"}), (False, {"gated"})):
        graph = small(both, equalise=equalise)
        assert graph.equalisation.keys() == names
        factors = channel_factors(graph, "pool")
        assert torch.equal(factors[:4], graph.equalisation.get("x", torch.ones(4)).double())
        assert torch.equal(factors[4:], graph.equalisation["gated"].double())
        assert len({(graph.tensors[n].scale, graph.tensors[n].zero_point)
                    for n in ("x", "gated", "concat", "pool")}) == 1


def test_a_channel_that_is_nearly_dead_gets_no_factor_beyond_the_multiplier():
    def tail(net, t):
        t["logit"] = net.final(t["gated"])

    network = Small(tail)
    with torch.no_grad():
        network.body.weight[1] = 0
        network.body.bias[1] = 1e-11
    graph = quantize(network, [read_image("phantom:0", 16)])
    m, s = graph.layer("gated").multiplier, graph.layer("gated").shift
    assert int(m[1]) / 2**int(s[1]) == pytest.approx(16000, rel=1e-4)
    assert graph.equalisation["gated"][1] > 1e6 * graph.equalisation["gated"][0]


def test_frames_and_sigmoids_cannot_be_joined():
    def tail(net, t):
        t["joined"] = torch.cat([t["image"], t["alpha"]], 1)
        t["logit"] = net.final(t["joined"])

    with pytest.raises(InputError, match="^Tensors image, alpha, joined of network 'small' share "
                                         "one scale, but a frame and a sigmoid among them have "
                                         "different ones$"):
        small(tail)


def test_frames_can_be_joined_with_gates():
    def tail(net, t):
        t["thin"] = t["alpha"] * t["image"]
        t["joined"] = torch.cat([t["image"], t["thin"]], 1)
        t["logit"] = net.six(t["joined"])

    graph = small(tail)
    assert {graph.tensors[name].scale for name in ("image", "thin", "joined")} == {1 / 255}


def test_frames_need_not_be_square():
    network = Small(lambda net, t: t.update(logit=net.final(t["gated"])))
    image = read_image("phantom:0", 16)[:, :10]
    graph = quantize(network, [image])
    mask = float_mask(graph, run(graph, image))
    assert mask.shape == (10, 16)
    with torch.no_grad():
        expected = network.trace(image[None] / 255)["mask"][0, 0]
    assert (mask - expected).abs().max() < 0.02
