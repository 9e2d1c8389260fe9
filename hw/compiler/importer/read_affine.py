"""What is folded into the operator before: factors, offsets and bounds."""

import math
from dataclasses import replace

import numpy as np

from hw.compiler.importer.build_tables import function
from hw.compiler.importer.constants import demand_finite, numbers
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.names import clean
from hw.compiler.importer.values import Constant, Real, Result, Stored


def _normalised(reader, node, facts, value, *parts):
    if not all(isinstance(part, Constant) for part in parts):
        raise Refusal("its parameters depend on the frame", "export in evaluation mode")
    if facts.get("training_mode"):
        raise Refusal("it is in training mode", "export in evaluation mode")
    weight, bias, mean, variance = (numbers(part.real) for part in parts)
    widened = variance + facts.get("epsilon", 1e-5)
    if not np.all(widened > 0):
        raise Refusal(f"a variance of {variance.min():g}", "train it again, or leave it out")
    gain = weight / np.sqrt(widened)
    return [affine(reader, node, value, gain, bias - mean * gain)]


def _relu(reader, node, facts, value):
    return [within(reader, node, value, 0.0, math.inf)]


def _clip(reader, node, facts, value, low=None, high=None):
    if not all(x is None or isinstance(x, Constant) for x in (low, high)):
        raise Refusal("its bounds depend on the frame", "use constant bounds")
    if any(x is not None and x.real.size != 1 for x in (low, high)):
        raise Refusal("its bounds are not one number each", "use one number")
    low, high = (default if x is None else float(x.real.reshape(-1)[0]) for x, default
                 in ((low, -math.inf), (high, math.inf)))
    if isinstance(value, Stored):
        # Brevitas: bounds of fewer levels, on the integers.
        t = reader.builder.tensors[value.name]
        real = Real(value.name, np.float32(t.scale), t.zero_point)
        reals = [t.scale * (x + value.offset - t.zero_point) for x in (low, high)]
        reader.builder.made.clear()
        name = reader.builder.settle(within(reader, node, real, *reals), real.grid,
                                     reader.builder.fresh(clean(node.output[0])))
        reader.place(name, (node.output[0], value.offset))
        return [Stored(name, value.offset)]
    return [within(reader, node, value, low, high)]


def within(reader, node, value, low, high):
    """``value`` between bounds: numbers or, of a convolution, one of each channel."""
    value = reader.float_(value, node)
    if isinstance(value, Real):
        value = Result("scaled", clean(node.output[0]), node, (value,))
    low, high = (np.minimum(np.maximum(x, low), high) for x in (value.low, value.high))
    if np.any(np.isnan(low) | np.isnan(high) | (low == math.inf) | (high == -math.inf)):
        raise Refusal("its bounds are not numbers", "use finite bounds")
    return replace(value, name=clean(node.output[0]), low=low, high=high)


def affine(reader, node, value, gain, offset):
    """``gain * value + offset``, one number for each channel or for all."""
    demand_finite(gain, offset)
    value = reader.float_(value, node)
    if max(np.size(gain), np.size(offset)) > 1 and isinstance(value, Result):
        value = value.facts.get("otherwise", value)
    if isinstance(value, Real):
        value = Result("scaled", clean(node.output[0]), node, (value,))
    if value.bounded and (found := function(value)):
        value = Result("function", value.name, value.node, found[:1], {"made": found[1]})
    if value.bounded and value.kind != "conv" and max(np.size(gain), np.size(offset)) > 1:
        raise Refusal("it scales or moves the channels of what Relu or Clip bounded, with no "
                      "QuantizeLinear between", "put QuantizeLinear and DequantizeLinear after "
                                                "Relu or Clip, or this before it")
    low, high = value.low, value.high
    if value.bounded:
        still = np.equal(gain, 0)
        ends  = [np.where(still, free, bound * np.where(still, 1, gain) + offset)
                 for bound, free in ((low, -math.inf), (high, math.inf))]
        low, high = (np.where(np.less(gain, 0), a, b)[()] for a, b in (ends[::-1], ends))
    return replace(value, name=clean(node.output[0]), gain=value.gain * gain,
                   offset=value.offset * gain + offset, low=low, high=high)


OPERATORS = {
    "BatchNormalization": _normalised,
    "Relu":               _relu,
    "Clip":               _clip,
}
