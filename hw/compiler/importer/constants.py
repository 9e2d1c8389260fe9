"""Constants of a file, as the numbers that layers need."""

import numpy as np

from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.names import by
from hw.compiler.importer.values import Constant

OFFSETS  = {np.dtype(np.uint8): 0, np.dtype(np.int8): 128}
INTEGERS = ("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32")


def dequantised(whole, scale, zero_point, axis, facts):
    """A constant, with the integers that it is made of."""
    if facts.get("block_size"):
        raise Refusal("blocks of weights with scales of their own", "quantise per channel")
    if whole.dtype.name not in INTEGERS:
        raise Refusal(f"constants of type {whole.dtype.name}", "quantise them to int8")
    if not np.all(np.isfinite(scale.astype(np.float64))) or np.any(scale < 0):
        raise Refusal("scales that are negative, infinite or no numbers",
                      "quantise weights again; some have diverged")
    zero = np.zeros(1, whole.dtype) if zero_point is None else zero_point.real
    wide = whole.astype(np.int64)
    if max(scale.size, zero.size) > 1 and not (
            -whole.ndim <= axis < whole.ndim
            and {scale.size, zero.size} <= {1, whole.shape[axis]}):
        raise Refusal(f"{scale.size} scales and {zero.size} zero points for a constant of shape "
                      f"{by(whole.shape)}, axis {axis}", "quantise per channel")
    line = [1] * whole.ndim
    if scale.size > 1:
        line[axis] = -1
    centred = wide - zero.astype(np.int64).reshape(line if zero.size > 1 else ())
    real    = centred * scale.astype(np.float64).reshape(line if scale.size > 1 else ())
    return Constant(real.astype(np.float32), centred, np.atleast_1d(scale.astype(np.float32)),
                    axis % max(1, whole.ndim))


def weights_of(weight, *, axis):
    """Integers and scales of a convolution's weights."""
    if not isinstance(weight, Constant):
        raise Refusal("its weights depend on the frame", "use constant weights")
    if weight.whole is None:
        raise Refusal("its weights are floats", "quantise weights too, with DequantizeLinear "
                                                "before the operator")
    low, high = weight.whole.min(), weight.whole.max()
    if low < -128 or high > 127:
        raise Refusal(f"its weights less their zero point are {low}..{high}, beyond 8 bits and a "
                      "sign", "quantise weights symmetrically (quantize_static(..., extra_options="
                      "{'WeightSymmetric': True}))")
    if weight.scale.size > 1 and weight.axis != axis:
        raise Refusal(f"its weights have scales along axis {weight.axis}",
                      f"quantise weights per output channel, axis {axis}")
    return weight.whole, weight.scale


def numbers(values):
    """A constant as float64."""
    if values.dtype.kind in "OUSc":
        raise Refusal("a constant that is no number", "use numbers")
    return values.astype(np.float64)


def per_channel(values):
    """A constant as one number, or one for each channel."""
    values = numbers(values)
    if values.size == 1:
        return values.reshape(-1)[0]
    shape = values.shape[-3:]
    if len(shape) != 3 or shape[1:] != (1, 1) or values.size != shape[0]:
        raise Refusal(f"a constant of shape {by(values.shape)}",
                      "use one number, or one for each channel")
    return values.reshape(-1)


def demand_finite(*values):
    for value in values:
        if not np.all(np.isfinite(value)):
            raise Refusal("constants that are infinite or no numbers",
                          "train and export again; some weight has diverged")
