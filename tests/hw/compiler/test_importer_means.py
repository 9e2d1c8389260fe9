"""Means of whole maps and gates over channels (squeeze and excitation), without hardware of their
own. Each against ONNX Runtime, and on the machine."""

import numpy as np
import pytest

from golden.errors import InputError
from golden.integer import Gate
from hw.compiler.importer import import_onnx
from hw.compiler.importer.build_means import halved
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import runs
from tests.hw.compiler.test_importer_runs import layer

SIDES = [(4, 6), (7, 7), (1, 5), (8, 12), (14, 14), (13, 9), (14, 11), (2, 9), (28, 8)]


def mean(small, x, operator="GlobalAveragePool"):
    """The mean, within a step on the grid of what it is of."""
    if operator == "GlobalAveragePool":
        return small.quantised(small.node(operator, x))
    if small.opset < 18:
        return small.quantised(small.node("ReduceMean", x, axes=[2, 3], keepdims=1))
    return small.quantised(small.node("ReduceMean", x, np.int64([-1, -2]), keepdims=1))


def excited(small, x, squeezed, channels, into=2):
    """Factors for each channel."""
    hidden = small.quantised(small.node("Relu", small.conv(squeezed, (into, channels, 1, 1))))
    made   = small.quantised(small.conv(hidden, (channels, into, 1, 1)), 0.03)
    return small.quantised(small.node("Sigmoid", made), 1 / 256, 0)


def gated(small, x, channels=4, operator="GlobalAveragePool", turned=False):
    factors = excited(small, x, mean(small, x, operator), channels)
    return small.quantised(small.node("Mul", *((factors, x) if turned else (x, factors))))


@pytest.mark.parametrize("frame", SIDES)
@pytest.mark.parametrize("turned", [False, True])
def test_gates_over_channels(frame, turned):
    small = Model(frame=(3, *frame))
    x = gated(small, layer(small), turned=turned)
    imported = runs(small.output(layer(small, x, 1, 4)).model())
    assert sum(isinstance(each, Gate) for each in imported.graph.layers) == 1


@pytest.mark.parametrize(("opset", "kind"), [(17, np.uint8), (18, np.int8)])
def test_means_by_another_name(opset, kind):
    small = Model(opset=opset, kind=kind)
    x = gated(small, layer(small, channels=12), 12, "ReduceMean")
    runs(small.output(layer(small, x, 1, 12)).model())


def test_means_of_channels_and_of_pixels():
    """What CBAM's gates read, and a gate of one channel for each row and column."""
    small = Model()
    x = layer(small)
    squeezed = small.quantised(small.node("ReduceMean", x, axes=[1], keepdims=1))
    alpha = small.quantised(small.node("Sigmoid", small.quantised(small.conv(
        squeezed, (1, 1, 7, 7), pads=[3] * 4), 0.03)), 1 / 256, 0)
    x = gated(small, small.quantised(small.node("Mul", alpha, x)))
    runs(small.output(layer(small, x, 1, 4), mean(small, x)).model())


@pytest.mark.parametrize("frame", SIDES)
def test_one_pixel_added_everywhere(frame):
    small = Model(frame=(3, *frame))
    x = layer(small)
    a = small.quantised(small.node("Add", mean(small, x), x))
    b = small.quantised(small.node("Sub", x, mean(small, x)))
    runs(small.output(layer(small, a, 1, 4), layer(small, b, 1, 4)).model())


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_one_pixel_resized(mode):
    """The pooled branch of DeepLab."""
    small = Model()
    x = layer(small)
    pooled = small.quantised(small.conv(mean(small, x), (4, 4, 1, 1)))
    pooled = small.node("Resize", pooled, "", "", np.int64([1, 4, 8, 12]), mode=mode)
    x = small.quantised(small.node("Concat", x, small.quantised(pooled), axis=1))
    runs(small.output(layer(small, x, 1, 8)).model())


@pytest.mark.parametrize("how", [
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"}])
def test_one_pixel_doubled(how):
    """In whatever way, even in those that no larger map is doubled in."""
    small = Model(frame=(3, 1, 1))
    x = small.node("Resize", layer(small), "", np.float32([1, 1, 2, 2]), **how)
    runs(small.output(layer(small, small.quantised(x), 1, 4)).model())


def test_a_mean_of_more_pixels_than_one_convolution_takes_without_loss():
    """On the grid of its operand half a step is lost in one halving, 3/4 in two; more is refused,
    and the rewrite that is named runs."""
    def averaged(scale, sides, halvings=0):
        small = Model(frame=(3, sides, sides))
        x = layer(small)
        for _ in range(halvings):
            x = small.quantised(small.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
                                scale)
        return small.output(small.quantised(small.node("GlobalAveragePool", x, name="odd"),
                                            scale)).model()

    runs(averaged(0.02, 28))
    runs(averaged(0.001, 7))
    for scale, sides, lost in ((0.02, 56, 1.25), (0.005, 14, 2)):
        with pytest.raises(InputError) as caught:
            import_onnx("small.onnx", model=averaged(scale, sides))
        assert str(caught.value) == (
            f"small.onnx: node 'odd' (GlobalAveragePool): of {sides}x{sides} pixels, on the grid "
            f"of its operand, {lost} steps of the result are lost; average in steps of 2x2 before, "
            "each with a QuantizeLinear of its own (make quantise does so with a float file)")
        runs(averaged(scale, sides, sides // 14))


@pytest.mark.parametrize("frame", [*SIDES, (1, 1), (3, 1)])
@pytest.mark.parametrize("operator", ["GlobalMaxPool", "ReduceMax"])
def test_the_largest_of_a_map(frame, operator):
    small = Model(frame=(3, *frame))
    x = layer(small)
    facts = {"axes": [2, 3]} if operator == "ReduceMax" else {}
    y = small.quantised(small.node(operator, x, **facts))
    z = small.node("Mul", x, small.quantised(small.node("Sigmoid", y), 1 / 256, 0))
    runs(small.output(layer(small, small.quantised(z), 1, 4), y).model())


@pytest.mark.parametrize(("axes", "keep", "what"), [
    ([2], 1, "2"), ([1, 2, 3], 1, "1x2x3"), ([2, 3], 0, "2x3, and drops them")])
def test_means_over_other_axes(axes, keep, what):
    small = Model()
    x = small.node("ReduceMean", layer(small), axes=axes, keepdims=keep, name="odd")
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=small.output(small.quantised(x)).model())
    assert str(caught.value) == (
        f"small.onnx: node 'odd' (ReduceMean): it is over axes {what}; take means over rows and "
        "columns (axes 2 and 3) or channels (axis 1), with keepdims=1")


@pytest.mark.parametrize("sides", [(8, 8), (9, 7), (1, 33), (57, 130)])
def test_halving_keeps_the_mean(sides):
    """With zeros behind odd sides, and the factor that makes up for them."""
    real = np.random.default_rng(0).random(sides)
    made = real
    stages, factor = halved(list(sides))
    for kernel, behind in stages:
        made = np.pad(made, [(0, more) for more in behind])
        rows = -(-(made.shape[0] - kernel[0] + 1) // 2)
        made = np.array([[made[2 * y:2 * y + kernel[0], 2 * x:2 * x + kernel[1]].mean()
                          for x in range(-(-(made.shape[1] - kernel[1] + 1) // 2))]
                         for y in range(rows)])
    assert max(made.shape) <= 7
    assert made.mean() * factor == pytest.approx(real.mean())


@pytest.mark.cosim
def test_gates_over_channels_in_hardware(tmp_path):
    from sim import run
    small = Model(frame=(3, 16, 16))
    x = gated(small, layer(small, channels=12), 12)
    x = small.quantised(small.conv(x, (8, 12, 3, 3), strides=[2, 2], pads=[1] * 4))
    x = gated(small, small.quantised(small.node("Add", x, mean(small, x))), 8)
    x = small.quantised(small.node("Sub", x, small.quantised(small.node("GlobalMaxPool", x))))
    x = small.quantised(small.node("PRelu", x, np.linspace(-1, 1, 8, dtype=np.float32).reshape(
        8, 1, 1)))
    x = small.quantised(small.node("Slice", x, *map(np.int64, ([1, 2], [-2, 7], [2, 3]))))
    small.stored(small.conv(x, (1, 8, 1, 1)))
    small.nodes[-1].output[0] = "mask"
    path = tmp_path / "means.onnx"
    path.write_bytes(small.output(small.read("mask")).model().SerializeToString())
    assert run.main(["--model", str(path), "--config", "tiny", "--taps", "1", "--out",
                     str(tmp_path / "run")]) == 0
