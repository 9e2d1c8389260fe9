import re

import pytest
import torch
import torch.nn.functional as F

from golden import integer
from golden.errors import InputError
from golden.images import read_image
from golden.integer import Add, Concat, Conv, Gate, Input, IntegerGraph, Lookup, MaxPool, Tensor
from golden.models import load_graph, seeded
from golden.quantize import quantize


@pytest.fixture(scope="module")
def graph():
    images = [read_image(f"phantom:{seed}", 32) for seed in range(2)]
    return quantize(seeded("elec4848", 4), images)


def test_invariants_of_the_contract(graph):
    made = set()
    for layer in graph.layers:
        assert made.issuperset(layer.inputs)
        made.add(layer.name)
        out = graph.tensors[layer.name]
        inputs = [graph.tensors[name] for name in layer.inputs]
        assert 0 <= out.zero_point <= 255
        match layer:
            case Conv() | Gate():
                m = layer.multiplier.to(torch.int32)
                dead = (m == 0) & (layer.shift == 1)
                assert (dead | ((m.abs() >= 2**14) & (m.abs() < 2**15))).all()
                assert ((layer.shift >= 1) & (layer.shift <= 47)).all()
                assert (layer.bias.dtype, layer.multiplier.dtype, layer.shift.dtype) == (
                    torch.int32, torch.int16, torch.uint8)
                assert 0 <= layer.low <= layer.high <= 255
        match layer:
            case Conv():
                assert layer.weight.dtype == torch.int8
                assert layer.weight.min() >= -127
                assert (m >= 0).all()
                assert layer.unit in integer.UNITS
                reach = layer.weight.to(torch.int64).abs().sum((1, 2, 3)) * 510
                assert (reach + layer.bias.abs()).max() < 2**31
            case Concat():
                assert {(t.scale, t.zero_point) for t in inputs} == {(out.scale, out.zero_point)}
            case Add():
                assert {(t.scale, t.zero_point) for t in inputs} == {(out.scale, 0)}
            case Gate():
                assert [t.zero_point for t in inputs] == [0, 0]
                assert inputs[0].scale == 1 / 256
                assert layer.zero_point == out.zero_point
            case MaxPool():
                assert (inputs[0].scale, inputs[0].zero_point) == (out.scale, out.zero_point)


def test_names_of_every_tensor(graph):
    names = ["image"]
    for level in (1, 2, 3, 4):
        names += [f"e{level}a", f"c{level}", f"p{level}"]
    names += ["e5a", "encoding"]
    for i in (1, 2, 3, 4):
        names += [f"g{i}_normal", f"g{i}_down", f"g{i}_sum", f"g{i}_logit", f"alpha{i}",
                  f"gated{i}", f"d{i}_up", f"d{i}_concat", f"d{i}a", f"d{i}"]
    assert [layer.name for layer in graph.layers] == [*names, "logit", "mask"]


def test_seeded_weights_exercise_the_corners(graph):
    assert graph.layer("e2a").multiplier[0] == 0
    assert any((graph.layer(f"gated{i}").multiplier < 0).any() for i in (1, 2, 3, 4))
    assert any(graph.tensors[f"gated{i}"].zero_point > 0 for i in (1, 2, 3, 4))


def test_every_convolution_against_float64(graph):
    values = integer.run(graph, read_image("phantom:5", 32))
    for layer in graph.layers:
        if isinstance(layer, Conv):
            top, left, bottom, right = layer.padding
            x = values[layer.input].double() - graph.tensors[layer.input].zero_point
            acc = F.conv2d(F.pad(x, (left, right, top, bottom))[None], layer.weight.double(),
                           layer.bias.double(), stride=layer.stride)[0]
            m, s = (v.double()[:, None, None] for v in (layer.multiplier, layer.shift))
            y = torch.floor((acc * m + 2 ** (s - 1)) / 2 ** s) + graph.tensors[
                layer.name].zero_point
            assert torch.equal(y.clamp(layer.low, layer.high), values[layer.name].double())


def test_macs_per_layer():
    graph = load_graph(size=32, width=4)
    counts = integer.macs(graph)
    assert counts["e1a"] == 32 * 32 * 9 * 3 * 4
    assert counts["g4_down"] == 16 * 16 * 9 * 4 * 4
    assert counts["g4_logit"] == 16 * 16 * 4
    assert counts["logit"] == 32 * 32 * 4
    assert set(counts) == {x.name for x in graph.layers if isinstance(x, Conv)}


def test_resize_keeps_weights(graph):
    larger = integer.resize(graph, 64)
    assert larger.size == 64
    assert larger.layers is graph.layers
    assert integer.resize(larger, 32).tensors == graph.tensors
    values = integer.run(larger, read_image("phantom:5", 64))
    for name, value in values.items():
        t = larger.tensors[name]
        assert value.shape == (t.channels, t.height, t.width)
        assert value.dtype == (torch.int16 if name.endswith("_sum") else torch.uint8)


def test_save_and_load(graph, tmp_path):
    path = tmp_path / "a graph (1).safetensors"
    integer.save(graph, path, extra={"more": torch.tensor([4.5])})
    again, extra = integer.load(path)
    assert extra["more"].tolist() == [4.5]
    assert list(extra) == ["more"]
    assert again.tensors == graph.tensors
    assert (again.network, again.input, again.output) == ("elec4848", "image", "mask")
    assert again.equalisation.keys() == graph.equalisation.keys()
    assert again.layer("g1_down").padding == (0, 0, 1, 1)
    image = read_image("phantom:5", 32)
    values = integer.run(graph, image)
    assert all(torch.equal(values[name], value)
               for name, value in integer.run(again, image).items())


def test_float_mask(graph):
    values = {"mask": torch.tensor([[[0, 128, 255]]]).byte()}
    assert integer.float_mask(graph, values).tolist() == [[0.0, 0.5, 255 / 256]]


def test_frame_must_fit(graph):
    message = ("The frame must be uint8 of shape (3, 32, 32), not float32 of shape (3, 32, 32); "
               "golden.images.read_image makes one")
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        integer.run(graph, torch.zeros(3, 32, 32))
    message = ("The frame must be uint8 of shape (3, 32, 32), not uint8 of shape (1, 32, 32); "
               "golden.images.read_image makes one")
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        integer.run(graph, torch.zeros(1, 32, 32, dtype=torch.uint8))


def test_layers_must_be_in_order():
    tensors = {name: Tensor(name, 1, 2, 2, 1.0) for name in ("image", "mask")}
    lookup = Lookup("mask", "image", torch.zeros(256, dtype=torch.uint8), "decoder")
    with pytest.raises(ValueError, match="^Layer 'mask' reads 'image' before it is made$"):
        IntegerGraph("x", tensors, (lookup, Input("image")))
    with pytest.raises(ValueError, match=r"^Layers and tensors differ in \['mask'\]$"):
        IntegerGraph("x", tensors, (Input("image"),))
