"""Networks that were refused, crashed or came out wrong once, and now run bit-exact; with every
rewrite that a refusal recommends."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from golden.errors import InputError
from hw.compiler.importer import Refused, import_onnx, judge
from hw.compiler.importer.rewrites import FREEZE, REWRITES
from hw.config import REFERENCE, TINY
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import picture, runs

TWICE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
         "nearest_mode": "floor"}
HALF  = {"kernel_shape": [2, 2], "strides": [2, 2]}


def layer(small, x=None, channels=4, into=3, **how):
    return small.quantised(small.conv(x or small.image(), (channels, into, 1, 1), **how))


def up(small, x, grid=(0.02, None)):
    return small.quantised(small.node("Resize", x, "", np.float32([1, 1, 2, 2]), **TWICE), *grid)


def pool(small, x, grid=(0.02, None)):
    return small.quantised(small.node("MaxPool", x, **HALF), *grid)


def both(small, *parts):
    return small.quantised(small.node("Concat", *parts, axis=1))


def gate(small, grid=(1 / 256, 0)):
    alpha = small.quantised(small.node("Sigmoid", layer(small, channels=1)), *grid)
    return small.quantised(small.node("Mul", alpha, layer(small)))


SOURCES = {
    "concatenation": lambda small: both(small, layer(small), layer(small)),
    "gap": lambda small: both(small, layer(small, channels=3), layer(small, channels=5)),
    "gate": gate,
    "upsampling": lambda small: up(small, pool(small, layer(small))),
    "pooling": lambda small: pool(small, up(small, layer(small))),
    "gate and convolution": lambda small: both(small, gate(small), layer(small)),
    "upsampled gate": lambda small: up(small, pool(small, gate(small))),
}


@pytest.mark.parametrize("move", [pool, up])
@pytest.mark.parametrize("source", SOURCES)
def test_pooling_and_upsampling_of_what_is_only_moved(source, move):
    small = Model()
    x = move(small, SOURCES[source](small))
    channels = {"concatenation": 8, "gap": 8, "gate and convolution": 8}.get(source, 4)
    runs(small.output(x, layer(small, x, 2, channels)).model())


def test_resize_by_four_is_two_resizes():
    small = Model(frame=(3, 8, 8))
    runs(small.output(layer(small, up(small, up(small, layer(small))), 2, 4)).model())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kernel", [1, 3])
def test_rows_that_nobody_needs(source, kernel):
    """Behind a stride of 2 without padding; all tensors exist as a whole nevertheless."""
    small = Model()
    x = SOURCES[source](small)
    channels = {"concatenation": 8, "gap": 8, "gate and convolution": 8}.get(source, 4)
    x = small.quantised(small.conv(x, (4, channels, kernel, kernel), strides=[2, 2]))
    runs(small.output(layer(small, x, 2, 4)).model())


def test_rows_that_nobody_needs_of_a_whole_chain():
    small = Model()
    x = small.quantised(small.conv(layer(small), (4, 4, 3, 3), pads=[1, 1, 1, 1]))
    x = small.quantised(small.conv(x, (4, 4, 1, 1), strides=[2, 2]))
    x = small.quantised(small.conv(x, (4, 4, 1, 1), strides=[2, 2]))
    x = small.node("ConvTranspose", x, small.weights((4, 2, 2, 2), axis=1), strides=[2, 2])
    runs(small.output(small.quantised(x)).model())


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("also_read", [False, True])
def test_an_attention_map_that_is_upsampled_before_its_gate(channels, also_read):
    small = Model()
    alpha = layer(small, pool(small, layer(small)), channels, 4)
    alpha = up(small, small.quantised(small.node("Sigmoid", alpha), 1 / 256, 0), (1 / 256, 0))
    x = small.quantised(small.node("Mul", alpha, layer(small)))
    small.output(layer(small, x, 1, 4))
    if also_read:
        small.output(layer(small, alpha, 2, channels), alpha)
    runs(small.model())


@pytest.mark.parametrize("name", ["cat_stored", "cat_packed", "cat_alpha", "cat_packed_packed"])
def test_names_of_the_compilers_own_copies(name):
    small = Model()
    a = both(small, layer(small, channels=3), layer(small, channels=5))
    b = small.stored(small.node("Concat", layer(small, channels=5), layer(small, channels=3),
                                axis=1), name="cat")
    small.nodes[-1].output[0] = "cat"
    other = small.stored(small.conv(small.image(), (8, 3, 1, 1)))
    small.nodes[-1].output[0] = name
    x = small.quantised(small.node("Add", a, small.read("cat")))
    imported = runs(small.output(x, pool(small, small.read("cat")), small.read(name)).model())
    assert other
    assert b
    assert {"cat", f"{name}_"} <= set(imported.graph.tensors)


@pytest.mark.parametrize("name", ["mask", "c1", "d1", "alpha", "encoding"])
def test_names_of_our_own_networks_for_other_layers(name):
    from sim.counters import selectors
    from sim.report import _stages
    small = Model()
    x = small.stored(small.node("Add", layer(small, channels=1), layer(small, channels=1)))
    small.nodes[-1].output[0] = name
    imported = runs(small.output(small.read(name)).model())
    assert imported.graph.output == name
    from hw.compiler import compile_network
    program = compile_network(imported.graph, TINY)
    counted = dict.fromkeys(selectors(program.layers, 1), 7)
    assert _stages(program, counted) == ({} if name == "alpha" else {name: 7})
    assert x


@pytest.mark.parametrize("side", ["half", "double"])
def test_a_mask_of_another_size_than_the_frame(side):
    small = Model()
    x = layer(small, channels=1)
    imported = runs(small.output((pool if side == "half" else up)(small, x)).model())
    seen = picture(imported)
    assert imported.segment(seen).shape == (8, 12)
    made = "4 x 6" if side == "half" else "16 x 24"
    assert imported.notes[-1].endswith(f"is {made}: its mask is shown at the frame's 8 x 12")


def test_more_groups_than_an_instruction_holds():
    """1,280 channels of a 1x1 convolution are 320 groups of 4; one instruction holds 255."""
    small = Model(frame=(3, 8, 8))
    wide  = layer(small, channels=1280)
    runs(small.output(layer(small, wide, 1, 1280)).model(), replace(
        REFERENCE, name="reference"))


def test_a_field_that_is_too_small_is_refused_with_its_layer():
    from hw.compiler import CompileError, compile_network
    small = Model(frame=(3, 8, 8))
    wide  = layer(small, channels=1100)
    graph = import_onnx("small.onnx", model=small.output(layer(small, wide, 1, 1100)).model()).graph
    with pytest.raises(CompileError) as caught:
        compile_network(graph, replace(TINY, offchip_bytes=1 << 26, onchip_bytes=1 << 21))
    assert str(caught.value) == (
        "Layer 'quantizelinear4_out' has 138 vectors of channels in 'quantizelinear4_out', and an "
        "instruction holds up to 127; use a smaller frame or fewer channels")


def test_float16_frames_and_scales():
    small = Model(opset=19)
    small.input_type = TensorProto.FLOAT16
    model = small.output(layer(small)).model()
    for x in model.graph.initializer:
        if x.data_type == TensorProto.FLOAT:
            values = np.frombuffer(x.raw_data, np.float32).astype(np.float16)
            x.data_type, x.raw_data = TensorProto.FLOAT16, values.tobytes()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    runs(model)


def test_integers_whose_type_is_an_attribute():
    small = Model(opset=21)
    x = small.node("QuantizeLinear", small.conv(small.image(), (4, 3, 1, 1)), np.float32(0.02),
                   output_dtype=TensorProto.INT8)
    x = layer(small, small.node("DequantizeLinear", x, np.float32(0.02)), 2, 4)
    imported = runs(small.output(x).model())
    assert imported.graph.tensors[imported.graph.layers[1].name].zero_point == 128


@pytest.mark.parametrize("bound", ["Relu", "Clip"])
@pytest.mark.parametrize("move", ["MaxPool", "Resize", "Concat"])
def test_bounds_behind_a_move(bound, move):
    """The file has the tensor before them without."""
    small = Model()
    x = layer(small)
    x = {"MaxPool": lambda: small.node("MaxPool", x, **HALF),
         "Resize": lambda: small.node("Resize", x, "", np.float32([1, 1, 2, 2]), **TWICE),
         "Concat": lambda: small.node("Concat", x, layer(small), axis=1)}[move]()
    x = small.node("Relu", x) if bound == "Relu" else small.node("Clip", x, np.float32(-0.2),
                                                                 np.float32(0.4))
    runs(small.output(small.quantised(x)).model())


@pytest.mark.parametrize(("low", "high"), [(0.5, -0.5), (0.3, 0.3), (-0.4, 0.4), (-9, -8)])
@pytest.mark.parametrize("again", [None, (-0.2, 0.1), (0.6, 0.9)])
def test_clip_with_any_bounds(low, high, again):
    """With min above max, ONNX gives max everywhere; bounds may follow bounds."""
    small = Model()
    x = small.conv(small.image(), (4, 3, 1, 1))
    for bounds in filter(None, ((low, high), again)):
        x = small.node("Clip", x, *map(np.float32, bounds))
    y = small.node("Clip", layer(small), np.float32(low), np.float32(high))
    runs(small.output(small.quantised(x), small.quantised(y)).model())


def test_nothing_is_padded():
    for mode in ("constant", "reflect", "edge", "wrap"):
        small = Model(opset=19)
        x = small.node("Pad", layer(small), np.int64([0] * 8), mode=mode)
        runs(small.output(small.quantised(small.conv(x, (2, 4, 3, 3)))).model())


def test_padding_along_some_axes():
    small = Model(opset=18)
    x = small.node("Pad", layer(small), np.int64([2, 1, 0, 1]), "", np.int64([-1, 2]))
    runs(small.output(small.quantised(small.conv(x, (2, 4, 3, 3)))).model())


def test_shapes_behind_a_pad_that_is_computed():
    """ONNX's inference does not know them, the layers do."""
    small = Model(opset=17)
    sides = small.node("Slice", np.int64([[0, 0]] * 4), np.int64([-1]), np.int64([-(1 << 62)]),
                       np.int64([0]), np.int64([-1]))
    sides = small.node("Cast", small.node("Reshape", small.node("Transpose", sides, perm=[1, 0]),
                                          np.int64([-1])), to=7)
    x = layer(small, small.node("Pad", layer(small), sides), 4, 4)
    runs(small.output(up(small, pool(small, x))).model())


@pytest.mark.parametrize("start", [None, 1, -2])
def test_part_of_a_shape(start):
    small = Model(opset=17)
    x = layer(small)
    shape = small.node("Shape", x, **({} if start is None else {"start": start}))
    whole = small.node("ReduceSum", small.node("Cast", shape, to=1), keepdims=0)
    gain  = small.node("Div", np.float32(1), whole)
    runs(small.output(small.quantised(small.node("Mul", x, gain))).model())


def test_local_functions():
    small = Model()
    x = small.node("F", small.conv(small.image(), (4, 3, 1, 1)), domain="local")
    model = small.output(small.quantised(x)).model()
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.append(helper.make_function(
        "local", "F", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_opsetid("", 17)]))
    assert runs(model).graph.layers[1].low == 100


@pytest.mark.cosim
def test_all_of_it_in_hardware(tmp_path):
    """Pooling of a concatenation, upsampling twice, rows that nobody reads of a gate and of a
    convolution, an upsampled attention map, and a mask that a sum makes, smaller than the frame."""
    from sim import run
    small = Model(frame=(3, 16, 16))
    x     = layer(small)
    cat   = pool(small, both(small, x, layer(small, channels=3)))           # 7 x 8 x 8
    alpha = small.quantised(small.node("Sigmoid", layer(small, cat, 1, 7)), 1 / 256, 0)
    gated = small.quantised(small.node("Mul", up(small, alpha, (1 / 256, 0)), x))
    gated = small.quantised(small.conv(gated, (4, 4, 1, 1), strides=[2, 2]))
    grown = up(small, up(small, pool(small, layer(small, cat, 4, 7))))      # 4 x 16 x 16
    grown = small.quantised(small.conv(layer(small, grown, 4, 4), (4, 4, 1, 1), strides=[2, 2]))
    small.stored(small.node("Add", layer(small, gated, 1, 4), layer(small, grown, 1, 4)))
    small.nodes[-1].output[0] = "mask"
    path = tmp_path / "[b]all.onnx"
    path.write_bytes(small.output(small.read("mask")).model().SerializeToString())
    assert run.main(["--model", str(path), "--config", "tiny", "--taps", "1", "--out",
                     str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("count", [6, 16])
def test_pads_of_another_number_of_axes(count):
    small = Model()
    x = small.node("Pad", layer(small), np.int64([0] * count), name="odd")
    with pytest.raises(InputError):
        import_onnx("small.onnx", model=small.output(layer(small, x, 2, 4)).model())


def test_a_file_that_the_referee_does_not_run(monkeypatch):
    small = Model()
    imported = import_onnx("small.onnx", model=small.output(layer(small)).model())
    seen = picture(imported)

    def refuse(model):
        raise RuntimeError("[ONNXRuntimeError] : 9 :\nno kernel")
    monkeypatch.setattr(sys.modules["hw.compiler.importer.judge"], "session", refuse)
    line = ("ONNX Runtime does not run the file ([ONNXRuntimeError] : 9 : no kernel); change that, "
            "or leave its opinion out with REFEREE=0 (make check-model)")
    for ask in (lambda: imported.segment(seen), lambda: judge(imported, imported.frame(seen))):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value) == line


# Refused by name.

def reasons(model):
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=model)
    return caught.value.reasons


def test_second_outputs():
    small = Model()
    x = layer(small)
    small.nodes.append(helper.make_node("MaxPool", [x], ["pooled", "where"], "pool", **HALF))
    y = small.quantised(small.node("Mul", small.quantised("pooled"), small.node(
        "Cast", "where", to=1), name="product"))
    assert reasons(small.output(y).model()) == (
        ("node 'cast9' (Cast): it reads output 2 of MaxPool, which the engine does not make; leave "
         "it out"),)
    small = Model()
    small.nodes.append(helper.make_node("MaxPool", [layer(small)], ["pooled", "where"], "pool",
                                        **HALF))
    model = small.output(small.quantised("pooled"), "where").model()
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    assert reasons(model) == (("output 'where': output 2 of MaxPool, which the engine does not "
                               "make; leave it out"),)


def diverged(what, value):
    small = Model(opset=19)
    bias, scale, variance = np.zeros(4, np.float32), np.float32([0.01] * 4), np.ones(4, np.float32)
    {"bias": bias, "scale": scale, "variance": variance}[what][1] = value
    w = small.node("DequantizeLinear", np.ones((4, 3, 1, 1), np.int8), scale, np.zeros(4, np.int8),
                   axis=0, name="weights")
    x = small.node("Conv", small.image(), w, bias, name="conv")
    x = small.node("BatchNormalization", x, np.ones(4, np.float32), np.zeros(4, np.float32),
                   np.zeros(4, np.float32), variance, name="norm")
    return small.output(small.quantised(x)).model()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -2])
@pytest.mark.parametrize("what", ["bias", "scale", "variance"])
def test_numbers_that_are_none(what, value):
    if (what, value) in (("bias", -2),):
        runs(diverged(what, value))
        return
    if (what, value) == ("variance", np.inf):
        runs(diverged(what, value))             # a channel that is zero: ONNX Runtime agrees
        return
    reason, = reasons(diverged(what, value))
    assert reason.startswith({"bias": "node 'conv' (Conv): constants that are infinite",
                              "scale": "node 'weights' (DequantizeLinear): scales that are",
                              "variance": "node 'norm' (BatchNormalization): a variance of"}[what])


def test_weights_of_eight_bit_floats():
    small = Model(opset=19)
    small.constants.append(helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, (4, 3, 1, 1),
                                              [0.25] * 12))
    w = small.node("DequantizeLinear", "w", np.float32(0.2), name="weights")
    x = small.conv(small.image(), (4, 3, 1, 1), weights=w)
    reason, = reasons(small.output(small.quantised(x)).model())
    assert reason == ("node 'weights' (DequantizeLinear): constants of type float8_e4m3fn; "
                      "quantise them to int8")


# What refusals recommend.

def rewritten(operator, small, x):
    """What the rewrite of an operator makes of 4 channels."""
    relu, sigmoid = lambda: small.node("Relu", x), lambda: small.node("Sigmoid", x)

    def point():
        return small.conv(x, (4, 4, 1, 1))

    def norm():
        return small.node("BatchNormalization", point(),
                          *np.float32([[1] * 4, [0] * 4, [0] * 4, [1] * 4]))

    return {
        "train with Relu instead": relu,
        "train with Sigmoid instead": sigmoid,
        "use a 1x1 Conv": point,
        "use one Conv for each part": point,
        "use a Conv that picks the channels": point,
        "keep maps as N x C x H x W": lambda: small.node("Identity", x),
        "train with BatchNormalization instead": norm,
        FREEZE: norm,
        "export with channels first": lambda: small.node("Identity", x),
        "use ConvTranspose 2x2 with stride 2": lambda: small.node(
            "ConvTranspose", x, small.weights((4, 4, 2, 2), axis=1), strides=[2, 2]),
        "use Resize x2 or ConvTranspose 2x2 with stride 2": lambda: small.node(
            "Resize", x, "", np.float32([1, 1, 2, 2]), **TWICE),
        "export with opset 13 or newer, which has Resize": lambda: small.node(
            "Resize", x, "", np.float32([1, 1, 2, 2]), **TWICE),
    }[REWRITES[operator]]()


@pytest.mark.parametrize("operator", REWRITES)
def test_the_rewrite_of_an_operator_runs(operator):
    small = Model()
    runs(small.output(small.quantised(rewritten(operator, small, layer(small)))).model())
