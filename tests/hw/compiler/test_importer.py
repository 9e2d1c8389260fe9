"""Networks through the door: our own come back as they were, others agree with ONNX Runtime."""

import contextlib
import io
import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from golden.arbitrary import arbitrary_graph, arbitrary_image
from golden.integer import Concat, Conv, Lookup, MaxPool, Sum, TransposedConv, Upsample
from golden.models import MODELS, load_graph
from golden.onnx_export import export
from hw.compiler.importer import import_onnx, judge
from hw.compiler.importer.place import placed
from hw.network import load_network
from sim.campaigns.fuzz import differences
from tests.golden.graphs import random_graph
from tests.hw.compiler.onnx_models import FRAME, Model


def noise(shape=FRAME, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed),
                         dtype=torch.uint8)


def agree(model, *, shape=FRAME):
    """Import a model and have ONNX Runtime check every layer; returns what was imported."""
    imported = import_onnx("small.onnx", model=model)
    verdicts = judge(imported, imported.frame(noise(shape)))
    assert verdicts
    for layer in verdicts:
        assert layer.steps <= 1, layer
    return imported


def kinds(imported):
    return [type(layer).__name__ for layer in imported.graph.layers]


# Our own files.

@pytest.mark.parametrize("model", MODELS)
def test_networks_come_back_identical(model):
    graph    = load_graph(model, 32, 4)
    imported = import_onnx("file.onnx", model=export(graph))
    assert differences(graph, imported.graph) == []
    # Figure 10 says the same without the names that our exporter writes.
    units = {layer.name: layer.unit for layer in placed(graph.layers, graph.outputs)[1:]}
    assert [layer.name for layer in graph.layers[1:] if layer.unit != units[layer.name]] == []


@pytest.mark.parametrize("model", MODELS)
def test_networks_are_judged(model):
    imported = import_onnx("file.onnx", model=export(load_graph(model, 32, 4)))
    verdicts = judge(imported, imported.frame(noise((3, 32, 32))))
    assert len(verdicts) >= len(imported.graph.layers) - 1 - sum(
        kind == "Add" for kind in kinds(imported))
    for layer in verdicts:
        assert layer.steps <= 1, layer


@pytest.mark.parametrize("seed", range(10))
def test_arbitrary_networks_come_back_identical(seed):
    graph    = arbitrary_graph(seed)
    imported = import_onnx("file.onnx", model=export(graph))
    assert differences(graph, imported.graph) == []
    for layer in judge(imported, arbitrary_image(graph, seed)):
        assert layer.steps <= 1, layer


def test_every_kind_comes_back_but_what_no_output_needs():
    graph    = random_graph(3)
    imported = import_onnx("file.onnx", model=export(graph))
    unread   = ("same", "odd", "dropped")
    needed   = replace(
        graph, layers=tuple(x for x in graph.layers if x.name not in unread),
        tensors={name: t for name, t in graph.tensors.items() if name not in unread})
    assert differences(needed, imported.graph) == []
    assert all(f"decoder/{name}" in imported.notes[-1] or f"encoder/{name}" in imported.notes[-1]
               for name in unread)


# ONNX Runtime's quantiser on exports of PyTorch.

class Gated(nn.Module):
    """One level of everything: batch normalisation, depthwise, a residual, a gate, upsampling."""

    def __init__(self, up):
        super().__init__()
        self.up    = up
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm  = nn.BatchNorm2d(6)
        self.down  = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.grow  = {"two": nn.ConvTranspose2d(8, 4, 2, 2),
                      "three": nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)}.get(up, nn.Conv2d(8, 4, 1))
        self.query, self.key = nn.Conv2d(8, 5, 1), nn.Conv2d(6, 5, 2, stride=2)
        self.psi, self.head  = nn.Conv2d(5, 1, 1), nn.Conv2d(10, 2, 1)
        self.norm.running_var.uniform_(0.5, 2)
        self.norm.weight.data.uniform_(-1, 1)

    def forward(self, x):
        skip = torch.relu(self.norm(self.first(x)))
        deep = torch.relu(self.down(skip))
        deep = F.relu6(deep + self.point(self.depth(deep)))
        alpha = torch.sigmoid(self.psi(torch.relu(self.query(deep) + self.key(skip))))
        alpha = F.interpolate(alpha, scale_factor=2, mode="nearest")
        up = self.grow(deep)
        if self.up in ("nearest", "bilinear"):
            up = F.interpolate(up, scale_factor=2, mode=self.up)
        return self.head(F.avg_pool2d(torch.cat([up, skip * alpha], 1), 2))


class Frames(CalibrationDataReader):
    def __init__(self, shape):
        random = np.random.default_rng(0)
        self.left = [random.random((1, *shape), np.float32) for _ in range(3)]

    def get_next(self):
        return {"image": self.left.pop()} if self.left else None


def quantised(network, folder, *, activations, weights, per_channel, dynamo=False, shape=FRAME):
    """The network as ONNX QDQ, by PyTorch's exporter and ONNX Runtime's quantiser."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.rand(1, *shape),), folder / "float.onnx",
                          input_names=["image"], output_names=["mask"],
                          opset_version=18 if dynamo else 17, dynamo=dynamo)
        quantize_static(folder / "float.onnx", folder / "qdq.onnx", Frames(shape),
                        quant_format=QuantFormat.QDQ, per_channel=per_channel,
                        activation_type=activations, weight_type=weights,
                        extra_options={"WeightSymmetric": True,
                                       "ActivationSymmetric": activations == QuantType.QInt8})
    return folder / "qdq.onnx"


U8, S8 = QuantType.QUInt8, QuantType.QInt8


@pytest.mark.parametrize(("up", "activations", "weights", "per_channel", "dynamo"), [
    ("two", U8, S8, True, False), ("three", S8, S8, False, False),
    ("nearest", U8, U8, False, False), ("bilinear", S8, S8, True, True)])
def test_quantised_exports_agree(tmp_path, up, activations, weights, per_channel, dynamo):
    torch.manual_seed(1)
    path = quantised(Gated(up), tmp_path, activations=activations, weights=weights,
                     per_channel=per_channel, dynamo=dynamo)
    graph, imported = load_network(str(path))
    for layer in judge(imported, imported.frame(noise())):
        assert layer.steps <= 1, layer
    gate = next(layer for layer in graph.layers if type(layer).__name__ == "Gate")
    assert gate.unit == "attention"
    assert graph.layer(graph.layer(gate.alpha).input).unit == "attention"
    assert graph.layers[1].unit == "encoder"
    assert graph.layer(graph.output).unit == "decoder"
    assert graph.tensors[graph.output].channels == 2
    assert {Conv, Sum, Lookup, Upsample, Concat} <= {type(layer) for layer in graph.layers}
    assert (TransposedConv in {type(x) for x in graph.layers}) == (up in ("two", "three"))


# Patterns, node by node.

@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_batch_normalisation_and_relu_are_folded(kind):
    small = Model(kind=kind)
    x = small.conv(small.image(), (5, 3, 3, 3), pads=[1, 0, 2, 1])
    x = small.node("BatchNormalization", x, *(np.float32([1, -0.5, 0.3, 0, 2]),
                                              np.float32([0.1, 0.2, -0.3, 0.7, 0])),
                   np.float32([0.1] * 5), np.float32([0.5, 1, 2, 1, 1]))
    x = small.quantised(small.node("Relu", x))
    imported = agree(small.output(x).model())
    assert kinds(imported) == ["Input", "Conv"]
    conv = imported.graph.layers[1]
    assert (conv.padding, conv.low) == ((1, 0, 2, 1), {np.uint8: 100, np.int8: 123}[kind])
    assert not conv.weight[3].any()


@pytest.mark.parametrize("clipped", [False, True])
def test_normalisation_after_relu_is_a_bound_for_each_channel(clipped):
    """With a gain below zero what was the least becomes the largest; with none, nothing is left."""
    small = Model()
    x = small.conv(small.image(), (5, 3, 3, 3), pads=[1, 1, 1, 1])
    x = small.node("Clip", x, np.float32(-0.5)) if clipped else small.node("Relu", x)
    x = small.node("BatchNormalization", x, *(np.float32([1, -0.5, 0.3, 0, -2]),
                                              np.float32([0.1, 0.2, -0.3, 0.7, 0])),
                   np.float32([0.1] * 5), np.float32([0.5, 1, 2, 1, 1]))
    imported = agree(small.output(small.quantised(x)).model())
    assert kinds(imported) == ["Input", "Conv"]
    conv = imported.graph.layers[1]
    assert (conv.low, conv.high) == (0, 255)
    gain_C = np.array([1, -0.5, 0.3, 0, -2]) / np.sqrt(np.array([0.5, 1, 2, 1, 1]) + 1e-5)
    least  = -0.5 if clipped else 0.0
    stored = np.rint(((least - 0.1) * gain_C + [0.1, 0.2, -0.3, 0.7, 0]) / 0.02) + 100
    assert conv.floor.tolist() == [stored[0], 0, stored[2], 0, 0]
    assert conv.ceiling.tolist() == [255, stored[1], 255, 255, stored[4]]


def test_larger_and_smaller_than_a_constant_per_channel():
    small = Model()
    x = small.conv(small.image(), (4, 3, 1, 1))
    x = small.node("Max", np.float32([-1, -9, 0.5, -9])[:, None, None], x)
    x = small.node("Min", x, np.float32([9, 0.25, 9, 9])[:, None, None])
    imported = agree(small.output(small.quantised(x)).model())
    conv = imported.graph.layers[1]
    assert kinds(imported) == ["Input", "Conv"]
    assert conv.floor.tolist() == [50, 0, 125, 0]
    assert conv.ceiling.tolist() == [255, 112, 255, 255]        # 112.5, to the even one


def test_a_constant_per_channel_is_folded():
    small = Model()
    x = small.conv(small.image(), (4, 3, 1, 1), bias=False)
    x = small.node("Mul", x, np.float32([1, 2, -1, 0.5])[:, None, None])
    x = small.node("Sub", small.node("Add", np.float32(0.25), x), np.float32([0.1]))
    x = small.node("Div", x, np.float32(0.5))
    imported = agree(small.output(small.quantised(x)).model())
    assert kinds(imported) == ["Input", "Conv"]


def test_normalisation_of_a_quantised_map_is_a_depthwise_convolution():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.node("BatchNormalization", x, *(np.float32([1, -0.5, 0.3, 2]),) * 3,
                   np.float32([0.5, 1, 2, 1]))
    imported = agree(small.output(small.quantised(small.node("Relu", x), 0.013, 30)).model())
    assert kinds(imported) == ["Input", "Conv", "Conv"]
    assert imported.graph.layers[2].groups == 4


def test_relu_between_its_own_grids_bounds_the_convolution():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.quantised(small.node("Relu", x))
    imported = agree(small.output(x).model())
    assert kinds(imported) == ["Input", "Conv"]
    assert imported.graph.layers[1].low == 100


def test_relu_on_another_grid_is_looked_up_where_that_is_free():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.quantised(small.node("Clip", x, np.float32(-0.5), np.float32(1.5)), 0.01, 90)
    imported = agree(small.output(x).model())
    assert kinds(imported) == ["Input", "Conv", "Lookup"]


def test_integer_clip_of_brevitas():
    small = Model(kind=np.int8)
    x = small.stored(small.conv(small.image(), (4, 3, 3, 3)), 0.02, 0)
    x = small.read(small.node("Clip", x, np.int8(-7), np.int8(7)), 0.02, 0)
    weight = small.node("QuantizeLinear", small.random.normal(0, 0.3, (4, 4, 1, 1)).astype(
        np.float32), np.float32(0.01), np.int8(0))
    weight = small.node("DequantizeLinear", small.node("Clip", weight, np.int8(-127), np.int8(127)),
                        np.float32(0.01), np.int8(0))
    x = small.quantised(small.conv(x, (4, 4, 1, 1), weights=weight))
    imported = agree(small.output(x).model())
    assert kinds(imported) == ["Input", "Conv", "Conv"]
    assert (imported.graph.layers[1].low, imported.graph.layers[1].high) == (121, 135)


@pytest.mark.parametrize("between", [False, True])
def test_zeros_around_a_map_are_padding_of_the_convolution(between):
    small = Model()
    x = small.node("Pad", small.image(), np.int64([0, 0, 1, 0, 0, 0, 2, 1]))
    if between:
        x = small.quantised(x, 1 / 255, 0)
    x = small.quantised(small.conv(x, (4, 3, 3, 3), pads=[1, 1, 0, 0]))
    imported = agree(small.output(x).model())
    assert imported.graph.layers[1].padding == (2, 1, 2, 1)


def test_operands_of_different_scales_are_brought_to_one():
    small = Model()
    a = small.quantised(small.conv(small.image(), (4, 3, 1, 1)), 0.02, 100)
    b = small.quantised(small.conv(small.image(), (2, 3, 1, 1)), 0.03, 50)
    c = small.conv(small.image(), (3, 3, 1, 1))             # not quantised by itself
    d = small.quantised(small.node("Concat", a, b, c, axis=1), 0.03, 50)
    imported = agree(small.output(d, a).model())
    joined = imported.graph.layer(imported.graph.output)
    assert joined.inputs[1] == imported.graph.layers[2].name
    assert imported.graph.layer(joined.inputs[0]).groups == 4
    assert len(imported.graph.outputs) == 2


@pytest.mark.parametrize(("scale", "zero"), [(0.02, 100), (0.015, 80), (0.03, 120)])
def test_moved_values_on_another_grid(scale, zero):
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    pooled = small.quantised(small.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
                             scale, zero)
    mean = small.quantised(small.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
                           scale, zero)
    doubled = small.quantised(small.node(
        "Resize", pooled, "", np.float32([1, 1, 2, 2]), mode="linear"), 0.02, 100)
    copied = small.quantised(small.node(
        "Resize", mean, "", "", np.int64([1, 4, 8, 12]), mode="nearest"), scale, zero)
    imported = agree(small.output(doubled, copied).model())
    assert {MaxPool, Upsample} <= {type(layer) for layer in imported.graph.layers}


def test_pooling_before_its_grid_is_known():
    small = Model()
    x = small.node("Relu", small.conv(small.image(), (4, 3, 3, 3), pads=[1, 1, 1, 1]))
    x = small.quantised(small.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    assert kinds(agree(small.output(x).model())) == ["Input", "Conv", "MaxPool"]


def test_what_was_only_moved_keeps_its_grid():
    """Brevitas writes no QuantizeLinear after what its QuantTensors pass through unchanged."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 3, 3), pads=[1] * 4))
    pooled = small.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    deep = small.quantised(small.conv(pooled, (4, 4, 1, 1)))
    grown = small.node("Resize", small.node("Concat", deep, pooled, axis=1), "",
                       np.float32([1, 1, 2, 2]), mode="nearest")
    imported = agree(small.output(small.quantised(small.conv(grown, (2, 8, 1, 1)))).model())
    assert kinds(imported) == ["Input", "Conv", "MaxPool", "Conv", "Concat", "Upsample", "Conv"]
    assert len(imported.stored) == 4


@pytest.mark.parametrize("again", [0, 1, 2])
def test_relu_of_one_reader_is_no_concern_of_the_others(again):
    """Also where the map, on the grid that it has, is quantised once more in between."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    before = x if again < 2 else small.quantised(x)
    bounded = small.quantised(small.node("Relu", small.quantised(x) if again == 1 else before))
    imported = agree(small.output(*(small.quantised(small.conv(y, (2, 4, 1, 1)))
                                    for y in (before, bounded))).model())
    assert imported.graph.layers[1].low == 0
    assert {100, 0} == {layer.low for layer in imported.graph.layers[1:]}


@pytest.mark.parametrize("bounded_first", [False, True])
def test_a_float_that_is_quantised_for_each_reader(bounded_first):
    """As ONNX Runtime's quantiser does with DedicatedQDQPair."""
    small = Model()
    x = small.conv(small.image(), (4, 3, 1, 1))
    readers = [lambda y: small.node("Relu", y), lambda y: small.conv(y, (4, 4, 1, 1)),
               lambda y: small.conv(small.node("Concat", y, y, axis=1), (4, 8, 1, 1))]
    if not bounded_first:
        readers.reverse()
    imported = agree(small.output(*(small.quantised(reader(small.quantised(x)))
                                    for reader in readers)).model())
    first = imported.graph.layers[1]
    assert first.low == 0
    assert len(imported.stored[first.name]) == 3


def test_a_frame_that_is_quantised_twice():
    small = Model()
    a = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    b = small.quantised(small.conv(small.quantised("image", 1 / 255, 0), (4, 3, 1, 1)))
    assert kinds(agree(small.output(a, b).model())) == ["Input", "Conv", "Conv"]


def test_bytes_come_in_as_they_are():
    small = Model()
    small.input_type = onnx.TensorProto.UINT8
    x = small.quantised(small.conv(small.read("image", 1 / 255, 0), (4, 3, 1, 1)))
    imported = agree(small.output(x).model())
    assert torch.equal(imported.frame(noise()), noise())
    assert imported.notes == ()


def test_a_frame_on_another_grid_is_looked_up_by_the_host():
    small = Model()
    x = small.quantised("image", 1 / 64, 128, name="image_q")
    x = small.quantised(small.conv(x, (4, 3, 1, 1)))
    imported = agree(small.output(x).model())
    assert imported.frame(torch.full(FRAME, 255, dtype=torch.uint8)).unique().tolist() == [192]
    assert imported.notes == (("input 'image' has scale 0.01562 and zero point 128: the host looks "
                              "up every byte of a picture"),)


def test_the_end_is_the_hosts():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)), name="logits")
    classes = small.node("ArgMax", small.node("Softmax", x, axis=1), axis=1)
    imported = import_onnx("small.onnx", model=small.output(classes).model())
    assert imported.hosted == (("logits_out", ("Softmax", "ArgMax")),)
    assert imported.notes == ("output 'logits_out': the host does Softmax and ArgMax",)


def test_rows_and_columns_that_the_file_leaves_open():
    small = Model()
    model = small.output(small.quantised(small.conv(small.image(), (4, 3, 1, 1)))).model()
    for x in (0, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[x].dim_param = f"d{x}"
    frame = import_onnx("small.onnx", model=model, size=16).graph.tensors["image"]
    assert (frame.height, frame.width) == (16, 16)
