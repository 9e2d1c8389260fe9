"""Convolutions, averages and rescaling as layers, with all that is folded into them."""

import math
from dataclasses import replace

import numpy as np
import torch

from golden.integer import Conv, Lookup, TransposedConv
from hw.compiler.importer.build_tables import entries, reals
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import (
    CONTRACT,
    UNIT_WEIGHT,
    UNPLACED,
    bounds,
    channel_bounds,
    demand_bias,
    fixed,
    integers,
)

STEADY   = 2.0**-10     # factor of a channel that only has an offset


def _conv(builder, value, grid, name):
    source, facts, of_channels = value.sources[0], value.facts, ()
    if value.by_channel:
        of_channels = channel_bounds(value, grid, len(facts["weight"]))
        value = replace(value, low=-math.inf, high=math.inf)
    weight, *rest = _convolution(builder, value, grid, facts["weight"])
    return builder.put(Conv(name, source.name, weight, *rest[:3], facts["stride"],
                            facts["padding"], *rest[3:], UNPLACED, facts["groups"], *of_channels),
                       grid)


def _transposed(builder, value, grid, name):
    source, facts = value.sources[0], value.facts
    weight, *rest = _convolution(builder, value, grid, facts["weight"].swapaxes(0, 1))
    return builder.put(TransposedConv(name, source.name, weight.swapaxes(0, 1).contiguous(),
                                      *rest[:3], facts["padding"], *rest[3:], UNPLACED), grid)


def _scaled(builder, value, grid, name):
    """The same values, perhaps with a gain and an offset per channel, on another grid."""
    source = value.sources[0]
    low, high = bounds(value, grid)
    if not value.affine:
        if source.grid == grid and builder.within(source.name, low, high):
            return source.name
        if source.grid == grid and builder.tighten(source.name, low, high):
            return source.name
        if builder.is_free(source.name):
            real = reals(source)
            return builder.put(Lookup(name, source.name, entries(real, value, grid), UNPLACED),
                               grid)
    channels = builder.tensors[source.name].channels
    weight = np.full((channels, 1, 1, 1), UNIT_WEIGHT)
    scaled = replace(value, facts={"scale": np.full(channels, 1 / UNIT_WEIGHT)})
    weight, *rest = _convolution(builder, scaled, grid, weight)
    return builder.put(Conv(name, source.name, weight, *rest[:3], 1, (0, 0, 0, 0), *rest[3:],
                            UNPLACED, channels), grid)


def _average(builder, value, grid, name):
    source, facts = value.sources[0], value.facts
    channels = builder.tensors[source.name].channels
    kernel   = facts["kernel"]
    # Half of what a pixel weighs, taken from the sum: halves round down, all else as before.
    each     = 2 if facts.get("halves_down") else 1
    less     = source.scale / (each * math.prod(kernel)) if each == 2 else 0
    averaged = replace(value, facts={"scale": np.full(channels, 1 / (each * math.prod(kernel)))},
                       offset=value.offset - less)
    weight, *rest = _convolution(builder, averaged, grid, np.full((channels, 1, *kernel), each))
    return builder.put(Conv(name, source.name, weight, *rest[:3], facts["stride"],
                            facts["padding"], *rest[3:], UNPLACED, channels), grid)


def _convolution(builder, value, grid, weight_OIKL):
    """Weight, bias, multiplier, shift and bounds, with everything behind it folded in."""
    source, outputs = value.sources[0], len(weight_OIKL)
    if builder.tensors[source.name].zero_point != source.zero_point:
        raise Refusal(f"{source.name!r} is read with another zero point than it is written "
                      "with", "use the same in DequantizeLinear and QuantizeLinear")
    gain_O  = np.broadcast_to(np.asarray(value.gain, np.float64), outputs)
    scale_O = np.float64(source.scale) * value.facts["scale"].astype(np.float64)
    factor_O = scale_O * np.abs(gain_O) / np.float64(grid[0])
    still_O  = factor_O == 0
    sign_O   = np.where(gain_O < 0, -1, 1)
    weight_OIKL = np.where(still_O[:, None, None, None], 0,
                           weight_OIKL.astype(np.int64) * sign_O[:, None, None, None])
    factor_O = np.where(still_O, STEADY, factor_O)
    exact_O  = np.broadcast_to(value.offset, outputs) / np.float64(grid[0]) / factor_O
    bias_O   = np.rint(exact_O)
    lost     = float(np.max(np.abs(bias_O - exact_O) * factor_O, initial=0))
    if lost > CONTRACT:
        raise Refusal(f"its bias falls between two steps of its sums, and {lost:.3g} steps of "
                      "its result are lost", "give its operand or its weights a smaller scale")
    bias_O   = bias_O + (0 if value.bias is None
                         else np.where(still_O, 0, sign_O * value.bias))
    demand_bias(bias_O)
    if weight_OIKL.min() < -128 or weight_OIKL.max() > 127:
        low, high = int(weight_OIKL.min()), int(weight_OIKL.max())
        raise Refusal(f"its weights are {low}..{high} where BatchNormalization or Mul turns "
                      "their sign, beyond 8 bits", "quantise weights to -127..127")
    _demand_sums(weight_OIKL, bias_O, source.zero_point)
    m_O, s_O = fixed(factor_O)
    return (integers(weight_OIKL, torch.int8), integers(bias_O, torch.int32), m_O, s_O,
            *bounds(value, grid))


def _demand_sums(weight_OIKL, bias_O, zero_point):
    """Whatever the pixels, no sum leaves int32."""
    weight_OT = weight_OIKL.reshape(len(weight_OIKL), -1).astype(np.int64)
    ends = np.stack([weight_OT * (pixel - zero_point) for pixel in (0, 255)])
    furthest = max(float(np.max(bias_O + ends.max(0).sum(1))),
                   -float(np.min(bias_O + ends.min(0).sum(1))))
    if furthest >= 1 << 31:
        raise Refusal(f"its sums reach {furthest:.3g}, beyond int32",
                      "quantise its weights with a larger scale")


KINDS = {
    "conv":       _conv,
    "transposed": _transposed,
    "scaled":     _scaled,
    "average":    _average,
}
