"""Operators that run as something else: activations as tables, and convolutions of other kinds as
convolutions with zeros. Each against ONNX Runtime, and on the machine."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from golden.errors import InputError
from golden.integer import Conv, Gate, Lookup, TransposedConv
from hw.compiler import compile_network
from hw.compiler.importer import import_onnx
from hw.config import TINY
from hw.disasm import disassemble
from hw.isa import Engine
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import runs

HALF = {"kernel_shape": [2, 2], "strides": [2, 2]}


def layer(small, x=None, channels=4, into=3, **how):
    return small.quantised(small.conv(x or small.image(), (channels, into, 1, 1), **how))


def run(make, **how):
    """What is imported of the model whose last float ``make`` makes."""
    small = Model(**how)
    return runs(small.output(small.quantised(make(small))).model())


def kinds(imported):
    return [type(each).__name__ for each in imported.graph.layers]


TABLE = ["Input", "Conv", "Lookup"]


@pytest.mark.parametrize("operator", [
    "Abs", "Celu", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Neg",
    "Reciprocal", "Selu", "Sign", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"])
def test_activations_are_tables(operator):
    assert kinds(run(lambda small: small.node(operator, layer(small)), opset=20)) == TABLE


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("slope", [np.float32(0.2), np.full((4, 1, 1), 0.2, np.float32)])
def test_leaky_activations(kind, slope):
    assert kinds(run(lambda small: small.node("PRelu", layer(small), slope), kind=kind)) == TABLE
    assert kinds(run(lambda small: small.node("LeakyRelu", layer(small), alpha=0.2),
                     kind=kind)) == TABLE


def silu(small, x):
    return small.node("Mul", x, small.node("Sigmoid", x))


def silu_in_steps(small, x):
    return small.node("Mul", small.quantised(small.node("Sigmoid", x), 1 / 256, 0), x)


def gelu(small, x):
    whole = small.node("Erf", small.node("Div", x, np.float32(2**0.5)))
    whole = small.node("Mul", x, small.node("Add", whole, np.float32(1)))
    return small.node("Mul", whole, np.float32(0.5))


def hard_swish(small, x):
    bounded = small.node("Clip", small.node("Add", x, np.float32(3)), np.float32(0), np.float32(6))
    return small.node("Mul", x, small.node("Div", bounded, np.float32(6)))


def tanh_gelu(small, x):
    cube  = small.node("Mul", small.node("Pow", x, np.float32(3)), np.float32(0.044715))
    inner = small.node("Mul", small.node("Add", x, cube), np.float32(0.79788))
    inner = small.node("Add", small.node("Tanh", inner), np.float32(1))
    return small.node("Mul", small.node("Mul", x, np.float32(0.5)), inner)


def bounded(small, x):
    return small.node("Min", small.node("Max", x, np.float32(-0.3)), np.float32(0.4))


@pytest.mark.parametrize("made", [silu, silu_in_steps, gelu, hard_swish, tanh_gelu, bounded])
def test_activations_in_parts_are_one_table(made):
    assert kinds(run(lambda small: made(small, layer(small)))) == TABLE


@pytest.mark.parametrize("after", ["Relu", "Clip", "MaxPool", "Mul"])
def test_what_follows_an_activation(after):
    more = {"Relu": [], "Clip": [np.float32(0), np.float32(0.2)], "MaxPool": [],
            "Mul": [np.float32(-1.5)]}[after]
    how  = HALF if after == "MaxPool" else {}
    imported = run(lambda small: small.node(after, small.node("LeakyRelu", layer(small)), *more,
                                            **how))
    assert kinds(imported)[:3] == TABLE


def test_an_activation_in_steps_with_gains_for_each_channel():
    """A table is the same for all channels, a product is not."""
    gains = np.float32([1, -2, 0.5, 1]).reshape(1, 4, 1, 1)
    imported = run(lambda small: small.node("Mul", silu_in_steps(small, layer(small)), gains))
    assert kinds(imported) == ["Input", "Conv", "Lookup", "Gate"]


def test_a_table_behind_a_table_of_what_others_read():
    small = Model()
    x = layer(small)
    y = small.quantised(small.node("Tanh", x))
    z = small.quantised(small.node("Add", small.node("Elu", y), x))        # of x alone
    imported = runs(small.output(layer(small, z, 2, 4), layer(small, y, 2, 4), x).model())
    assert isinstance(imported.graph.layers[3], Lookup)
    assert [each.input for each in imported.graph.layers if isinstance(each, Lookup)] == [
        "quantizelinear4_out"] * 2


@pytest.mark.parametrize(("groups", "outputs", "inputs"), [(2, 4, 2), (2, 8, 2), (4, 8, 1)])
def test_grouped_convolutions_are_dense_with_zeros(groups, outputs, inputs):
    imported = run(lambda small: small.conv(layer(small), (outputs, inputs, 3, 3), group=groups,
                                            pads=[1] * 4))
    assert imported.notes[-1] == (f"'conv7' has {groups} groups: it runs as a dense convolution "
                                  "with zeros, and counts as one")
    weight = imported.graph.layers[-1].weight
    assert tuple(weight.shape) == (outputs, 4, 3, 3)
    assert int((weight != 0).any(-1).any(-1).sum()) == outputs * inputs


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("dilations", "stride"), [([2, 2], 1), ([3, 3], 1), ([3, 1], 1),
                                                   ([1, 2], 2)])
def test_dilated_convolutions_are_wide_with_zeros(groups, dilations, stride):
    pads = [*dilations, *dilations]
    imported = run(lambda small: small.conv(
        layer(small), (4, 4 // groups, 3, 3), group=groups, dilations=dilations, pads=pads,
        strides=[stride] * 2), frame=(3, 16, 12))
    conv = imported.graph.layers[-1]
    assert isinstance(conv, Conv)
    assert conv.weight.shape[2:] == (2 * dilations[0] + 1, 2 * dilations[1] + 1)
    wide = f"{2 * dilations[0] + 1}x{2 * dilations[1] + 1}"
    assert f"it runs, and counts, as a kernel of {wide} with zeros" in imported.notes[0]


def test_kernel_rows_of_zeros_take_no_steps():
    """A dilation costs columns alone: three of five rows are read."""
    small = Model(frame=(3, 16, 12))
    x = small.conv(layer(small), (4, 4, 3, 3), pads=[2] * 4, dilations=[2, 2])
    program = compile_network(runs(small.output(small.quantised(x)).model()).graph, TINY)
    lines   = disassemble(program.image, at=program.program_base, engines=[Engine.ENCODER_CONV])
    layers  = [line for line in lines if line[7:].startswith("layer ")]
    assert ["kernel_h=3" in line and "kernel_w=5" in line for line in layers] == [False, True]


@pytest.mark.parametrize("how", [
    {"kernel_shape": [3, 3], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1},
    {"kernel_shape": [5, 2], "strides": [2, 2]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 4], "strides": [2, 2], "ceil_mode": 1}])
def test_average_pools_are_depthwise(how):
    imported = run(lambda small: small.node("AveragePool", layer(small), **how))
    assert imported.graph.layers[-1].groups == 4


@pytest.mark.parametrize(("kernel", "pads"), [(4, [1] * 4), (4, [0] * 4), (4, [2, 0, 0, 3])])
def test_transposed_kernels_of_four(kernel, pads):
    imported = run(lambda small: small.node(
        "ConvTranspose", layer(small), small.weights((4, 5, kernel, kernel), axis=1),
        strides=[2, 2], pads=pads))
    assert isinstance(imported.graph.layers[-1], TransposedConv)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    imported = run(lambda small: small.node("DepthToSpace", layer(small, channels=8), blocksize=2,
                                            mode=mode))
    assert imported.graph.tensors[imported.graph.output].channels == 2


def test_differences():
    imported = run(lambda small: small.node("Sub", layer(small), layer(small)))
    assert imported.graph.layers[-1].weight_b < 0


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_the_larger_or_smaller_of_two_maps(operator, kind):
    imported = run(lambda small: small.node(operator, layer(small), layer(small)), kind=kind)
    assert kinds(imported) == ["Input", "Conv", "Conv", "Sum", "Sum"]
    other = Model()
    x = other.quantised(other.node(operator, layer(other), layer(other)), 0.03, 77)
    runs(other.output(x).model())


def test_the_larger_of_two_maps_that_is_not_quantised():
    small = Model()
    larger = small.node("Max", layer(small), layer(small))
    runs(small.output(layer(small, larger, 2, 4)).model())


def window(small, pads, *, bounded=True, **how):
    x = small.conv(small.image(), (4, 3, 1, 1))
    x = small.quantised(small.node("Relu", x) if bounded else x)
    return small.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=pads, **how)


@pytest.mark.parametrize("rounded_up", [0, 1])
@pytest.mark.parametrize("pads", [[1] * 4, [0] * 4, [0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1]])
@pytest.mark.parametrize("frame", [(3, 8, 5), (3, 7, 6), (3, 3, 4), (3, 10, 9)])
def test_windows_of_three_by_three(frame, pads, rounded_up):
    """A 3x3 maximum is that of four 2x2 ones; ONNX Runtime says of what pixels."""
    run(lambda small: window(small, pads, ceil_mode=rounded_up), frame=frame)


def test_windows_of_numbers_below_zero():
    """They need no Relu before them where nothing is padded."""
    run(lambda small: window(small, [0] * 4, bounded=False))


def test_padded_like_the_frame():
    run(lambda small: small.node(
        "MaxPool", small.quantised(small.node("Relu", small.conv(small.image(), (4, 3, 1, 1)))),
        kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"))


@pytest.mark.cosim
def test_a_stem_in_hardware(tmp_path):
    """As a ResNet or an EfficientNet begins, with dilation, groups and what nobody had before."""
    from sim import run as command
    small = Model(frame=(3, 16, 16))
    x = small.quantised(window(small, [1] * 4))
    y = small.quantised(silu(small, small.quantised(small.conv(
        x, (4, 4, 3, 3), pads=[2] * 4, dilations=[2, 2]))))
    y = small.quantised(small.node("Max", y, small.quantised(small.node(
        "Sub", x, small.quantised(small.conv(y, (4, 2, 3, 3), pads=[1] * 4, group=2))))))
    small.stored(small.node("ConvTranspose", y, small.weights((4, 1, 4, 4), axis=1),
                            strides=[2, 2], pads=[1] * 4))
    small.nodes[-1].output[0] = "mask"
    path = tmp_path / "stem.onnx"
    path.write_bytes(small.output(small.read("mask")).model().SerializeToString())
    assert command.main(["--model", str(path), "--config", "tiny", "--taps", "1", "--out",
                         str(tmp_path / "run")]) == 0


def test_two_tables_of_one_unit():
    """A unit holds one table, so layers with different ones must not pass rows to each other."""
    small = Model(frame=(3, 16, 12))
    x = small.quantised(small.node("LeakyRelu", layer(small), alpha=0.2))
    x = small.quantised(small.node("Tanh", layer(small, x, 4, 4)))
    x = small.quantised(small.node("Elu", layer(small, x, 4, 4)))
    runs(small.output(layer(small, x, 1, 4)).model())


def test_a_window_that_is_larger_than_its_map():
    small = Model(frame=(3, 2, 8))
    model = small.output(small.quantised(window(small, [0] * 4))).model()
    with pytest.raises(InputError):
        import_onnx("small.onnx", model=model)


FAR = {
    "columns": ([1, 4], (3, 3), (8, 12)), "rows": ([4, 1], (3, 3), (8, 12)),
    "both": ([4, 4], (3, 3), (8, 12)), "two moves": ([9, 8], (3, 3), (12, 12)),
    "one row left": ([12, 4], (3, 3), (8, 12)), "one pixel left": ([24, 36], (3, 3), (8, 12)),
    "with zeros in columns": ([4, 3], (3, 3), (8, 12)), "even": ([5, 1], (2, 3), (8, 12)),
    "a corner": ([7, 11], (3, 3), (8, 12))}


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_dilation_beyond_a_reach_of_seven(far, groups):
    """Weights that meet no pixel are left out; what the others read is moved beforehand."""
    dilations, kernel, frame = FAR[far]
    reach = [(k - 1) * x for k, x in zip(kernel, dilations, strict=True)]
    pads  = [*(x // 2 for x in reach), *(x - x // 2 for x in reach)]
    imported = run(lambda small: small.conv(
        layer(small), (4, 4 // groups, *kernel), group=groups, dilations=dilations, pads=pads),
        frame=(3, *frame))
    assert all(max(each.weight.shape[2:]) <= 7 for each in imported.graph.layers
               if isinstance(each, Conv))


# Slopes for each channel.

@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("slopes", [(0.1, 0.25, 0, 0.5), (-0.3, 0.25, 1.5, 0), (-1, -0.5, -2, 0)])
def test_slopes_for_each_channel(kind, slopes):
    imported = run(lambda small: small.node("PRelu", layer(small), np.float32(slopes).reshape(
        4, 1, 1)), kind=kind)
    assert kinds(imported) == ["Input", "Conv", "Conv", "Conv", "Conv", "Sum"]


def test_slopes_between_which_somebody_else_reads():
    small = Model()
    x = layer(small)
    y = small.quantised(small.node("PRelu", x, np.float32([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1)))
    runs(small.output(small.quantised(small.node("Relu", y)), x).model())


def test_slopes_of_which_too_little_is_left():
    def sloped(small, slope, scale=0.005):
        x = small.node("PRelu", layer(small), np.float32(slope).reshape(-1, 1, 1), name="odd")
        return small.output(small.quantised(x, scale)).model()
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=sloped(Model(), [0.1, 0.2, 0.3, 0.9]))
    assert str(caught.value) == (
        "small.onnx: node 'odd' (PRelu): slopes up to 0.9, one for each channel, cost 1.81 steps "
        "of its result; use the same slope for all channels")
    runs(sloped(Model(), [0.9]))
    with pytest.raises(InputError, match="3 slopes for 4 channels; give one for each channel, or"):
        import_onnx("small.onnx", model=sloped(Model(), [0.1, 0.2, 0.3]))


# Parts of maps.

PARTS = {
    "a frame's crop": ([1, 2], [-1, -3], [2, 3]),
    "first rows": ([0], [3], [2]),
    "last columns": ([-4], [1 << 62], [3]),
    "far from both ends": ([4, 9], [6, 10], [2, 3]),
    "one pixel": ([7, 11], [8, 12], [-2, -1]),
    "every second": ([0, 0], [8, 12], [2, 3], [2, 2]),
    "every second, from the second on": ([1, 1], [8, 12], [2, 3], [2, 2]),
    "every second, of some": ([0, 9], [3, 12], [2, 3], [2, 2]),
    "some channels": ([1], [3], [1]),
    "every second channel": ([0], [4], [1], [2]),
    "all": ([0], [4], [1]),
    "channels, rows and columns": ([2, 1, 1], [4, 7, 9], [1, 2, 3]),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("quantised", [False, True])
def test_parts_of_a_map(part, quantised):
    small = Model()
    x = small.node("Slice", layer(small), *map(np.int64, PARTS[part]))
    x = small.quantised(x) if quantised else x
    channels = {"some": 2, "ever": 4, "chan": 2}.get(part[:4], 4) if "channel" in part else 4
    channels = 2 if part == "every second channel" else channels
    runs(small.output(layer(small, x, 2, channels)).model())


def test_the_rest_of_odd_frames():
    """What a decoder takes off an upsampled map, so that it fits the skip of an odd frame."""
    small = Model(frame=(3, 9, 13))
    x = layer(small)
    y = small.quantised(small.conv(x, (4, 4, 3, 3), strides=[2, 2], pads=[1] * 4))
    y = small.quantised(small.node("Resize", y, "", np.float32([1, 1, 2, 2]), mode="nearest",
                                   coordinate_transformation_mode="asymmetric",
                                   nearest_mode="floor"))
    y = small.node("Slice", y, np.int64([0, 0]), np.int64([9, 13]), np.int64([2, 3]))
    y = small.quantised(small.node("Concat", x, y, axis=1))
    runs(small.output(layer(small, y, 1, 8)).model())


@pytest.mark.parametrize("given", [{"axis": 1}, {"axis": -3}])
def test_splits(given):
    small = Model(opset=13)
    small.nodes.append(helper.make_node(
        "Split", [layer(small, channels=5), small.constant(np.int64([2, 3]))], ["a", "b"], **given))
    runs(small.output(layer(small, "b", 2, 3), layer(small, small.quantised("a", 0.03), 2,
                                                     2)).model())


@pytest.mark.parametrize(("arguments", "message"), [
    (([0], [8], [2], [2]), "steps of 2x1; take every row and column, or every second of both"),
    (([0, 0], [8, 12], [2, 3], [3, 3]),
     "steps of 3x3; take every row and column, or every second of both"),
    (([-1], [-9], [2], [-1]),
     "it takes 1x4x8x12 of 1x4x8x12, or backwards; take some channels, rows and columns, in order"),
])
def test_parts_that_are_refused(arguments, message):
    small = Model()
    x = small.node("Slice", layer(small), *map(np.int64, arguments), name="odd")
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=small.output(small.quantised(x)).model())
    assert str(caught.value) == f"small.onnx: node 'odd' (Slice): {message}"


# What changes nothing.

@pytest.mark.parametrize("to", ["FLOAT", "FLOAT16", "DOUBLE"])
def test_casts_inside_a_network(to):
    small = Model(opset=19)
    kind = getattr(TensorProto, to)
    x = small.node("Cast", small.node("Cast", layer(small), to=kind), to=1)
    runs(small.output(layer(small, x, 2, 4)).model())


@pytest.mark.parametrize("way", ["Dropout", "Identity", "Cast"])
def test_two_readers_behind_what_changes_nothing(way):
    """Bounds of the one are not the other's."""
    small = Model()
    x = layer(small)
    x = small.node("Cast", x, to=1) if way == "Cast" else small.node(way, x)
    runs(small.output(small.quantised(small.node("Relu", x)), layer(small, x, 2, 4)).model())


# Activations right behind a convolution, without QuantizeLinear between (Brevitas).

UNROUNDED = {
    "Sigmoid": (1 / 256, 0, {}, 2), "Tanh": (1 / 128, 128, {}, 2), "Erf": (1 / 128, 128, {}, 2),
    "HardSigmoid": (1 / 255, 0, {}, 1), "LeakyRelu": (0.01, 20, {"alpha": 0.1}, 1),
    "HardSwish": (0.01, 20, {}, 2), "Gelu": (0.01, 20, {}, 2), "Elu": (0.01, 90, {}, 1)}


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("operator", UNROUNDED)
def test_activations_of_what_has_no_grid(operator, kind):
    scale, zero, facts, windows = UNROUNDED[operator]
    small = Model(opset=20, kind=kind)
    x = small.node(operator, small.conv(small.image(), (4, 3, 1, 1)), **facts)
    x = small.quantised(x, scale, zero - (128 if kind is np.int8 else 0))
    imported = runs(small.output(x).model())
    assert kinds(imported) == ["Input", *["Conv", "Lookup"] * windows, *["Sum"] * (windows - 1)]


def test_a_gate_of_what_has_no_grid():
    """Brevitas' attention networks: a bare sigmoid behind the convolution to one channel, of a
    sum; with a constant and bounds behind another."""
    small = Model()
    x = layer(small)
    y = small.quantised(small.node("Relu", small.node("Add", x, layer(small))))
    alpha = small.quantised(small.node("Sigmoid", small.conv(y, (1, 4, 1, 1))), 1 / 256, 0)
    gated = small.node("Mul", alpha, x)
    z = small.node("Clip", small.node("Mul", small.node("Tanh", small.conv(
        small.quantised(gated), (4, 4, 3, 3), pads=[1] * 4)), np.float32(0.7)), np.float32(-0.5),
        np.float32(0.4))
    imported = runs(small.output(layer(small, small.quantised(z, 0.004, 128), 1, 4), alpha).model())
    assert any(isinstance(each, Gate) for each in imported.graph.layers)


def test_a_mask_of_what_has_no_grid():
    """It is taken for the probability that it is."""
    small = Model()
    x = small.quantised(small.node("Sigmoid", small.conv(small.image(), (1, 3, 1, 1))), 1 / 256, 0)
    assert runs(small.output(x).model()).ending.squashed
