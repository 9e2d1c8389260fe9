"""Rows and columns that are interpolated, on the machine as the interpreter has it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from golden import arithmetic, integer
from golden.arbitrary import arbitrary_image
from golden.integer import Interpolate
from golden.quantize import fixed_point
from hw.compiler import CompileError, compile_network
from hw.compiler.importer import Refused, import_onnx
from hw.config import TINY
from hw.disasm import disassemble
from hw.isa import Engine
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import runs
from tests.hw.compiler.test_compile import assert_tensors, execute


def scaled(size, *ways, channels=20, unit="decoder"):
    """A network of a convolution, then each of ``ways`` (axis, length, place) in turn."""
    one     = fixed_point(torch.full((channels,), 0.004, dtype=torch.float64))
    weight  = torch.arange(channels * 3).reshape(channels, 3, 1, 1).remainder(255) - 127
    layers  = [integer.Input("image"), integer.Conv(
        "made", "image", weight.to(torch.int8), torch.zeros(channels, dtype=torch.int32), *one, 1,
        (0, 0, 0, 0), 0, 255, "encoder")]
    shape   = channels, *size
    tensors = {"image": integer.Tensor("image", 3, *size, 1 / 255),
               "made": integer.Tensor("made", *shape, 0.01, 77)}
    for axis, length, place in ways:
        parts  = arithmetic.lines(shape[1 + integer.AXES.index(axis)], length, place)[2]
        factor = fixed_point(torch.tensor([1 / parts], dtype=torch.float64))
        layer  = Interpolate(f"{axis}{len(layers)}", layers[-1].name, axis, length, place, *factor,
                             0, 255, unit)
        shape  = integer.output_shape(layer, shape)
        tensors[layer.name] = integer.Tensor(layer.name, *shape, 0.01, 77)
        layers.append(layer)
    return integer.IntegerGraph("scaled", tensors, tuple(layers), output=layers[-1].name)


WIDE   = replace(TINY, onchip_bytes=1 << 20, decoder=replace(
    TINY.decoder, row_words=4096, weight_words=4096))
NARROW = replace(WIDE, decoder=replace(WIDE.decoder, weight_words=128))


@pytest.mark.parametrize(("config", "size", "ways"), [
    (TINY, (4, 5), [("columns", 10, "align_corners"), ("rows", 8, "align_corners")]),
    (TINY, (6, 7), [("rows", 5, "half_pixel"), ("columns", 3, "asymmetric")]),
    (TINY, (1, 1), [("columns", 4, "align_corners"), ("rows", 3, "half_pixel")]),
    (WIDE, (2, 70), [("columns", 140, "align_corners")]),       # several taps of a weight
    (WIDE, (3, 60), [("columns", 437, "align_corners")]),       # more of them than CONV names
    (WIDE, (90, 2), [("rows", 300, "align_corners")]),
    (NARROW, (4, 10), [("columns", 20, "align_corners")]),      # not all vectors at a time
], ids=["twice", "less", "pixel", "three-taps", "five-taps", "rows", "vectors"])
@pytest.mark.parametrize("seed", range(2))
def test_every_tensor_in_any_order(config, size, ways, seed):
    graph   = scaled(size, *ways)
    frame   = arbitrary_image(graph, seed)
    program = compile_network(graph, config)
    machine, _ = execute(program, config, [frame], seed=seed)
    assert_tensors(program, machine, integer.run(graph, frame))


def test_a_column_is_a_convolution_of_its_own_and_a_row_one_for_each_vector():
    graph   = scaled((4, 5), ("columns", 10, "align_corners"), ("rows", 8, "align_corners"))
    program = compile_network(graph, TINY)
    start   = program.program_base
    lines   = disassemble(program.image[start:start + program.program_bytes],
                          engines=[Engine.DECODER_CONV])
    found   = Counter(line.split("layer ")[1].split()[0] for line in lines if " conv " in line)
    ids     = {layer.name: str(layer.id) for layer in program.layers}
    assert found == {ids["columns2"]: 4 * 10, ids["rows3"]: 8 * 3}


def test_what_does_not_fit_is_refused():
    with pytest.raises(CompileError, match=(
            "^Layer 'columns2' makes 891 columns of 2, whose weights of 890 in all take kernels of "
            "8 rows; the units run up to 7; use a smaller map, or sides with a larger common "
            "divisor$")):
        compile_network(scaled((1, 2), ("columns", 891, "align_corners")), TINY)
    with pytest.raises(CompileError, match=(
            "^Layer 'rows2' interpolates with 150 weight words, and the decoder has 128; use a "
            "smaller map, or SET=decoder.weight_words=150$")):
        compile_network(scaled((2, 3), ("rows", 76, "align_corners")), NARROW)


# From a file.

def resized(sizes, *, grid=(0.02, 100), behind=(), of=None, frame=(3, 6, 10), **how):
    """A model that resizes a map of 4 channels linearly, by factors or to sizes."""
    small = Model(frame=frame)
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = of(small, x) if of else x
    how   = {"mode": "linear", **how}
    sides = [float, int][isinstance(sizes[0], int)]
    inputs = ([""] * 2 + [np.int64([1, 4, *sizes])] if sides is int else
              ["", np.float32([1, 1, *sizes])])
    x = small.node("Resize", x, *inputs, name="odd", **how)
    for operator in behind:
        x = small.node(operator, x)
    return small.output(small.quantised(x, *grid)).model()


CORNERS = {"coordinate_transformation_mode": "align_corners"}


@pytest.mark.parametrize(("sizes", "how"), [
    ((2.0, 2.0), CORNERS),
    ((12, 20), CORNERS),
    ((4.0, 4.0), CORNERS),
    ((4.0, 4.0), {}),
    ((13, 31), CORNERS),
    ((13, 31), {}),
    ((4, 5), {"coordinate_transformation_mode": "half_pixel_symmetric"}),
    ((9, 20), {"coordinate_transformation_mode": "pytorch_half_pixel"}),
    ((2.0, 2.0), {"coordinate_transformation_mode": "asymmetric"}),
    ((1.0, 2.0), CORNERS),
    ((3.0, 1.0), {}),
    ((6, 10), CORNERS),
    ((12, 20), {**CORNERS, "grid": (0.03, 90)}),
    ((12, 20), {**CORNERS, "grid": (0.011, 120)}),
    ((12, 20), {**CORNERS, "behind": ["Relu"]}),
    ((6, 10), {**CORNERS, "of": lambda small, x: small.node("MaxPool", x, kernel_shape=[2, 2],
                                                            strides=[2, 2])}),
])
def test_resized_linearly(sizes, how):
    runs(resized(sizes, **how))


def test_a_result_on_a_much_finer_grid_is_refused_and_the_same_scale_runs():
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=resized((12, 20), grid=(0.01, 100), **CORNERS))
    reason, = caught.value.reasons
    assert reason == ("node 'odd' (Resize): on the grid of its operand, 1 steps of the result are "
                      "lost; give operand and result the same scale")
    runs(resized((12, 20), grid=(0.02, 100), **CORNERS))
    runs(resized((12, 10), grid=(0.01, 100), **CORNERS))        # one axis, rounded once
