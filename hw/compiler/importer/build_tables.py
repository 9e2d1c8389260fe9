"""Functions of one byte: what is made of each of its 256 values, and the layer that looks it up."""

import numpy as np
import torch

from golden.integer import Lookup
from golden.quantize import sigmoid_table
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import SIGMOID, UNPLACED, bounds, integers, within_unit
from hw.compiler.importer.values import Real

SIGMOID_ERROR = 1.5     # steps between a table and the sigmoid that it is taken for
FUNCTIONS = ("scaled", "sigmoid", "function")       # of the bytes of one tensor


def put_table(builder, layer, grid):
    """A table as the file has it; if it is a sigmoid's, or one of probabilities, so is its
    result."""
    source = builder.tensors[layer.input]
    builder.put(layer, grid)
    real = reals(Real(layer.input, np.float32(source.scale), source.zero_point))
    made = grid[0] * (layer.table.numpy().astype(np.float32) - grid[1])
    near = np.abs(made - 1 / (1 + np.exp(-real.astype(np.float64)))).max() <= (
        SIGMOID_ERROR * max(grid[0], SIGMOID[0]))
    if near or (layer.input in builder.units and within_unit(made.min(), made.max())):
        builder.units.add(layer.name)


def function(value):
    """A float as a function of one tensor: that :class:`Real`, and what is made of each of its
    256 bytes, float32; None of any other float."""
    if isinstance(value, Real):
        return None if any(value.pads) else (value, reals(value))
    if (value.kind not in FUNCTIONS or value.bias is not None
            or max(np.size(value.gain), np.size(value.offset)) > 1):
        return None
    real = reals(value.sources[0])
    if value.kind == "sigmoid":
        real = np.float32(1) / (np.float32(1) + np.exp(-real))
    elif value.kind == "function":
        real = value.facts["made"]
    made = np.float32(value.gain) * real + np.float32(value.offset)
    return value.sources[0], np.clip(made, np.float32(value.low), np.float32(value.high))


def functions(builder, *values):
    """Floats as functions of the same tensor, as far back as tables lead: that tensor, and what
    is made of its bytes for each; None if there is no such tensor."""
    found = [function(value) for value in values]
    if None in found:
        return None
    shared = _shared(builder, [source.name for source, _ in found])
    if shared is None:
        return None
    t = builder.tensors[shared]
    return (Real(shared, np.float32(t.scale), t.zero_point),
            *(_of(builder, shared, source.name, made) for source, made in found))


def _shared(builder, names):
    """The nearest tensor from which tables lead to all of ``names``; None if there is none. Looks
    back no further than it has to: networks may be one long chain of tables."""
    ways = [dict.fromkeys([name]) for name in names]
    ends = list(names)
    while True:
        common = next((name for name in ends if all(name in way for way in ways)), None)
        if common is not None or not any(ends):
            return common
        for index, name in enumerate(ends):
            layer = builder.layers[name] if name else None
            ends[index] = layer.input if isinstance(layer, Lookup) else None
            if ends[index]:
                ways[index][ends[index]] = None


def _of(builder, source, name, made):
    """What is made of the bytes of ``source``, of what is made of those of ``name``."""
    while name != source:
        layer = builder.layers[name]
        made, name = made[layer.table.numpy()], layer.input
    return made


def _sigmoid(builder, value, grid, name):
    source = value.sources[0]
    if (float(grid[0]), grid[1]) == SIGMOID and not (value.affine or value.bounded):
        table = sigmoid_table(float(source.scale), source.zero_point)
        return builder.put(Lookup(name, source.name, table, UNPLACED), grid)
    return _function(builder, value, grid, name)


def _function(builder, value, grid, name):
    found = function(value)
    if found is None:
        raise Refusal(f"its operand {value.name!r} has another factor or offset for each "
                      "channel, and a table is the same for all",
                      f"quantise the result of {value.node.op_type}")
    source, made = found
    return builder.put(Lookup(name, source.name, entries(made, value, grid), UNPLACED), grid)


def reals(source):
    """What each of the 256 bytes stands for, in float32."""
    return source.scale * (np.arange(256, dtype=np.float32) - np.float32(source.zero_point))


def entries(real, value, grid):
    """256 float32 on a grid, halves to even, within the bounds."""
    stored = np.rint(real.astype(np.float32) / np.float32(grid[0])) + grid[1]
    return integers(np.clip(stored, *bounds(value, grid)), torch.uint8)


KINDS = {
    "sigmoid":  _sigmoid,
    "function": _function,
}
