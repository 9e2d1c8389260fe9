import json
import re

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from golden import arithmetic, graph_file, integer
from golden.errors import InputError
from golden.images import read_image
from golden.integer import (
    Add,
    Concat,
    Conv,
    Gate,
    Input,
    IntegerGraph,
    Interpolate,
    Lookup,
    MaxPool,
    Sum,
    Tensor,
    TransposedConv,
    Upsample,
)
from golden.models import MODELS, load_graph, seeded
from golden.quantize import quantize


@pytest.fixture(scope="module")
def graph():
    images = [read_image(f"phantom:{seed}", 32) for seed in range(2)]
    return quantize(seeded("elec4848", 4), images)


@pytest.mark.parametrize("model", MODELS)
def test_invariants_of_the_contract(model):
    graph = load_graph(model, size=32, width=4)
    for layer in graph.layers:
        out = graph.tensors[layer.name]
        inputs = [graph.tensors[name] for name in layer.inputs]
        assert 0 <= out.zero_point <= 255
        if not isinstance(layer, Input):
            assert integer.output_shape(layer, *((t.channels, t.height, t.width) for t in inputs)
                                        ) == (out.channels, out.height, out.width)
            assert layer.unit in integer.UNITS
        match layer:
            case Conv() | TransposedConv() | Gate() | Sum():
                m = layer.multiplier.to(torch.int32)
                dead = (m == 0) & (layer.shift == 1)
                assert (dead | ((m.abs() >= 2**14) & (m.abs() < 2**15))).all()
                assert isinstance(layer, Gate) or (m >= 0).all()
                assert ((layer.shift >= 1) & (layer.shift <= 47)).all()
                assert (layer.multiplier.dtype, layer.shift.dtype) == (torch.int16, torch.uint8)
                assert 0 <= layer.low <= layer.high <= 255
        match layer:
            case Conv() | TransposedConv() | Gate():
                assert layer.bias.dtype == torch.int32
        match layer:
            case Conv() | TransposedConv():
                assert layer.weight.dtype == torch.int8
                assert layer.weight.min() >= -127
                weight = layer.weight.to(torch.int64).abs()
                reach = weight.sum((1, 2, 3) if isinstance(layer, Conv) else (0, 2, 3)) * 510
                assert (reach + layer.bias.abs()).max() < 2**31
            case Concat() | MaxPool() | Upsample():
                assert {(t.scale, t.zero_point) for t in inputs} == {(out.scale, out.zero_point)}
            case Add():
                assert {(t.scale, t.zero_point) for t in inputs} == {(out.scale, 0)}
            case Gate():
                assert inputs[0].scale == 1 / 256
                assert layer.zero_point == out.zero_point
            case Lookup():
                assert (out.scale, out.zero_point) == (1 / 256, 0)


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
    graph_file.save(graph, path, extra={"more": torch.tensor([4.5])})
    again, extra = graph_file.load(path)
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


def multipliers(*values):
    """``m`` and ``s`` of each value, which is ``m * 2**-s`` with a power of two."""
    return {"multiplier": torch.tensor([m for m, _ in values], dtype=torch.int16),
            "shift": torch.tensor([s for _, s in values], dtype=torch.uint8)}


def zoo():
    """A graph of every kind of layer, on frames of 8 rows and 12 columns."""
    generator = torch.Generator().manual_seed(1)
    one, bounds = 1 << 14, {"low": 0, "high": 255, "unit": "encoder"}

    def weight(*shape):
        return torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)

    def bias(channels):
        return torch.randint(-500, 500, (channels,), generator=generator, dtype=torch.int32)

    tensors, layers = {}, []

    def put(layer, shape, zero_point=0):
        layers.append(layer)
        tensors[layer.name] = Tensor(layer.name, *shape, 0.5, zero_point)

    put(Input("image"), (3, 8, 12), 128)
    put(Conv("dense", "image", weight(4, 3, 3, 3), bias(4), **multipliers(*[(one, 22)] * 4),
             stride=1, padding=(1, 1, 1, 1), **bounds), (4, 8, 12), 40)
    put(Conv("depthwise", "dense", weight(4, 1, 3, 3), bias(4), **multipliers(*[(one, 21)] * 4),
             stride=2, padding=(0, 0, 1, 1), groups=4, **bounds), (4, 4, 6), 40)
    put(Conv("bounded", "dense", weight(4, 1, 3, 3), bias(4), **multipliers(*[(one, 21)] * 4),
             stride=1, padding=(1, 1, 1, 1), groups=4, **bounds,
             floor=torch.tensor([0, 90, 0, 0], dtype=torch.uint8),
             ceiling=torch.tensor([255, 255, 30, 0], dtype=torch.uint8)), (4, 8, 12), 40)
    put(MaxPool("pool", "dense", "encoder"), (4, 4, 6), 40)
    put(Sum("sum", "depthwise", "pool", 381, 7, **multipliers((one, 22)), **bounds), (4, 4, 6), 9)
    put(TransposedConv("larger", "sum", weight(4, 2, 3, 3), bias(2), **multipliers(
        *[(one, 20)] * 2), padding=(1, 1, 0, 0), **bounds), (2, 8, 12), 100)
    put(Upsample("smooth", "sum", "decoder", "linear"), (4, 8, 12), 9)
    put(Upsample("blocks", "sum", "decoder"), (4, 8, 12), 9)
    put(Interpolate("wide", "smooth", "columns", 31, "align_corners", **multipliers((one, 19)),
                    **bounds), (4, 8, 31), 77)
    put(Concat("both", ("smooth", "blocks"), "decoder"), (8, 8, 12), 9)
    put(Lookup("table", "sum", torch.arange(255, -1, -1).byte(), "attention"), (4, 4, 6), 5)
    put(Gate("gated", "table", "smooth", bias(4), **multipliers((one, 22), (-one, 21), (0, 1),
                                                                (one, 20)),
             zero_point=77, **bounds), (4, 8, 12), 77)
    put(Add("exact", "larger", "larger", "attention"), (2, 8, 12))
    put(Conv("mask", "gated", weight(1, 4, 1, 1), bias(1), **multipliers((one, 20)), stride=1,
             padding=(0, 0, 0, 0), **bounds), (1, 8, 12), 128)
    return IntegerGraph("zoo", tensors, tuple(layers), outputs=("mask", "both", "exact"))


def frame_of(graph):
    t = graph.tensors[graph.input]
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (t.channels, t.height, t.width), generator=generator,
                         dtype=torch.uint8)


def test_every_kind_runs_with_its_zero_points():
    graph = zoo()
    values = integer.run(graph, frame_of(graph))
    for name, value in values.items():
        t = graph.tensors[name]
        assert value.shape == (t.channels, t.height, t.width), name
        assert value.dtype == (torch.int16 if name == "exact" else torch.uint8)
        assert len(value.unique()) > 8, name
    total = arithmetic.weighted_sum(values["depthwise"], values["pool"], weights=(381, 7),
                                    zero_points=(40, 40))
    assert torch.equal(values["sum"].int(), (9 + ((total + 128) >> 8)).clamp(0, 255))
    inner = graph.layer("depthwise")
    padded = F.pad(values["dense"].double() - 40, (0, 1, 0, 1))
    acc = F.conv2d(padded[None], inner.weight.double(), inner.bias.double(), stride=2,
                   groups=4)[0].long()
    assert torch.equal(values["depthwise"].long(), (40 + ((acc + 64) >> 7)).clamp(0, 255))
    outer = graph.layer("larger")
    acc = F.conv_transpose2d((values["sum"].double() - 9)[None], outer.weight.double(),
                             outer.bias.double(), stride=2, padding=1, output_padding=1)[0].long()
    assert torch.equal(values["larger"].long(), (100 + ((acc + 32) >> 6)).clamp(0, 255))
    alpha = values["table"].repeat_interleave(2, 1).repeat_interleave(2, 2).long() - 5
    acc = alpha * (values["smooth"].long() - 9) + graph.layer("gated").bias[:, None, None]
    assert torch.equal(values["gated"][1].long(), (77 + ((-acc[1] + 64) >> 7)).clamp(0, 255))
    assert (values["gated"][2] == 77).all()
    acc = 30 * F.interpolate((values["smooth"].double() - 9)[None], (8, 31), mode="bilinear",
                             align_corners=True)[0]
    assert torch.equal(values["wide"].long(), (77 + ((acc.round().long() + 16) >> 5)).clamp(0, 255))


def test_outputs_default_to_the_mask():
    assert zoo().outputs == ("mask", "both", "exact")
    tensors = {name: Tensor(name, 1, 2, 2, 1.0) for name in ("image", "mask")}
    lookup = Lookup("mask", "image", torch.zeros(256, dtype=torch.uint8), "decoder")
    layers = (Input("image"), lookup)
    assert IntegerGraph("x", tensors, layers).outputs == ("mask",)
    for outputs in (("image",), ("mask", "nothing")):
        message = f"Outputs {outputs} must be tensors, 'mask' among them"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            IntegerGraph("x", tensors, layers, outputs=outputs)


def test_macs_of_every_kind():
    assert integer.macs(zoo()) == {
        "dense": 4 * 3 * 9 * 8 * 12, "depthwise": 4 * 9 * 4 * 6, "bounded": 4 * 9 * 8 * 12,
        "larger": 4 * 2 * 9 * 4 * 6, "mask": 4 * 8 * 12}


def test_resize_to_frames_that_are_not_square():
    graph = integer.resize(zoo(), 6, 20)
    assert graph.layers is not zoo().layers
    values = integer.run(graph, frame_of(graph))
    for name, value in values.items():
        t = graph.tensors[name]
        assert value.shape == (t.channels, t.height, t.width), name
    assert values["mask"].shape == (1, 6, 20)
    message = "Frame size must be a positive multiple of 2, not 7; try 8"
    with pytest.raises(InputError, match=f"^{message}$"):
        integer.resize(graph, 6, 7)
    with pytest.raises(InputError, match="^Frame size must be a positive multiple of 2, not 0; "
                                         "try 2$"):
        integer.resize(graph, 0)


@pytest.mark.parametrize(("name", "shapes"), [
    ("dense", [(4, 8, 12)]),
    ("dense", [(3, 0, 12)]),
    ("depthwise", [(3, 8, 12)]),
    ("pool", [(4, 1, 12)]),
    ("sum", [(4, 4, 6), (4, 4, 7)]),
    ("larger", [(3, 4, 6)]),
    ("both", [(4, 8, 12), (4, 8, 11)]),
    ("gated", [(2, 4, 6), (4, 8, 12)]),
    ("gated", [(4, 4, 6), (4, 9, 12)]),
    ("exact", [(2, 8, 12), (1, 8, 12)]),
])
def test_shapes_that_do_not_fit(name, shapes):
    layer = zoo().layer(name)
    seen = " and ".join("x".join(map(str, shape)) for shape in shapes)
    message = f"{type(layer).__name__} {name!r} does not fit inputs of shape {seen}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        integer.output_shape(layer, *shapes)


FACTOR = torch.zeros(1), torch.zeros(1)


def conv(*, weight=(1, 1, 3, 3), stride=1, padding=(0, 0, 0, 0), groups=1):
    return Conv("c", "x", torch.zeros(weight, dtype=torch.int8), torch.zeros(1), torch.zeros(1),
                torch.zeros(1), stride, padding, 0, 255, "encoder", groups)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: conv(weight=(1, 1, 8, 1)),
     "Conv 'c': kernels are 1..7 rows and columns, not 8x1"),
    (lambda: conv(stride=3), "Conv 'c': strides are 1 or 2, not 3"),
    (lambda: conv(padding=(0, 0, 3, 0)),
     "Conv 'c': padding is less than the 3x3 kernel, not (0, 0, 3, 0)"),
    (lambda: conv(weight=(4, 2, 3, 3), groups=2),
     "Conv 'c': groups are 1 or, depthwise, the channels, not 2 with weights of 4x2 channels"),
    (lambda: TransposedConv("t", "x", torch.zeros(1, 1, 5, 2), *[torch.zeros(1)] * 3,
                            (0, 0, 0, 0), 0, 255, "decoder"),
     "TransposedConv 't': kernels are 2 to 4 rows and columns, not 5x2"),
    (lambda: TransposedConv("t", "x", torch.zeros(1, 1, 2, 2), *[torch.zeros(1)] * 3,
                            (0, 2, 0, 0), 0, 255, "decoder"),
     "TransposedConv 't': padding is less than the 2x2 kernel, not (0, 2, 0, 0)"),
    (lambda: Upsample("u", "x", "decoder", "cubic"),
     "Upsample 'u': modes are nearest, linear, not 'cubic'"),
    (lambda: Interpolate("i", "x", "channels", 2, "asymmetric", *FACTOR, 0, 255, "decoder"),
     "Interpolate 'i': axes are rows and columns, not 'channels'"),
    (lambda: Interpolate("i", "x", "rows", 2, "corners", *FACTOR, 0, 255, "decoder"),
     "Interpolate 'i': places are half_pixel, align_corners, asymmetric, not 'corners'"),
    (lambda: Interpolate("i", "x", "rows", 0, "asymmetric", *FACTOR, 0, 255, "decoder"),
     "Interpolate 'i': lengths are positive, not 0"),
    (lambda: Sum("s", "x", "y", 1, 382, torch.zeros(1), torch.zeros(1), 0, 255, "decoder"),
     "Sum 's': weights are 1..381, the second with either sign, not 382"),
    (lambda: Sum("s", "x", "y", -1, 1, torch.zeros(1), torch.zeros(1), 0, 255, "decoder"),
     "Sum 's': weights are 1..381, the second with either sign, not -1"),
    (lambda: Sum("s", "x", "y", 1, 0, torch.zeros(1), torch.zeros(1), 0, 255, "decoder"),
     "Sum 's': weights are 1..381, the second with either sign, not 0"),
    (lambda: Sum("s", "x", "y", 0, 1, torch.zeros(1), torch.zeros(1), 0, 255, "decoder"),
     "Sum 's': weights are 1..381, the second with either sign, not 0"),
])
def test_layers_outside_the_contract(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_every_kind_survives_saving(tmp_path):
    graph = zoo()
    graph_file.save(graph, tmp_path / "zoo.safetensors")
    again, extra = graph_file.load(tmp_path / "zoo.safetensors")
    assert (extra, again.outputs) == ({}, graph.outputs)
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in graph.layers]
    for name in ("depthwise", "larger", "sum", "smooth"):
        for key, value in vars(graph.layer(name)).items():
            other = getattr(again.layer(name), key)
            assert torch.equal(other, value) if isinstance(value, torch.Tensor) else (
                other == value), (name, key)
    values = integer.run(graph, frame_of(graph))
    assert all(torch.equal(values[name], value)
               for name, value in integer.run(again, frame_of(graph)).items())


def test_files_from_before_a_field_get_its_default(graph, tmp_path):
    path = tmp_path / "old.safetensors"
    graph_file.save(graph, path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["attune"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    del header["outputs"]
    for record in header["layers"]:
        record.pop("groups", None), record.pop("mode", None)
    save_file(arrays, path, {"attune": json.dumps(header)})
    again, _ = graph_file.load(path)
    assert again.outputs == ("mask",)
    assert again.layer("e1a").groups == 1
    assert again.layer("d1_up").mode == "nearest"


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
