"""Layers of two maps: sums, products, and the larger or smaller of each two numbers."""

from dataclasses import replace

import numpy as np
import torch

from golden.folding import BIAS_LIMIT
from golden.integer import SUM_WEIGHT_LIMIT, Gate, Sum
from golden.quantize import sum_weights
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import (
    CONTRACT,
    UNPLACED,
    bounded,
    bounds,
    copying,
    demand_bias,
    demand_only_moved,
    fixed,
    integers,
)
from hw.compiler.importer.values import Real, Result

SHARES = 64             # of a step: what the grid of a slope's part is a multiple of


def _sum(builder, value, grid, name):
    a, b = value.sources
    if value.bias is not None or np.any(value.offset != 0) or np.size(value.gain) != 1 or (
            np.any(value.gain <= 0)):
        raise Refusal(f"its operand {value.name!r} is a sum that is scaled or moved before it "
                      "is quantised", "do that in a convolution before or after the sum")
    gain = float(np.ravel(value.gain)[0])
    scale_a, scale_b = (np.float64(x.scale) * gain for x in (a, b))
    weights = sum_weights(scale_a, scale_b)
    unit    = scale_a / weights[0] if scale_a > scale_b else scale_b / weights[1]
    error   = 255 * max(abs(scale - weight * unit) for scale, weight
                        in zip((scale_a, scale_b), weights, strict=True)) / grid[0]
    if error > CONTRACT:
        raise Refusal(f"the scales of its operands, {scale_a:.3g} and {scale_b:.3g}, have no "
                      f"ratio of integers up to {SUM_WEIGHT_LIMIT} within one step",
                      "bring both to similar scales by a QuantizeLinear before it")
    if value.facts.get("subtracted"):
        weights = weights[0], -weights[1]
    m_1, s_1 = fixed(np.array([unit / np.float64(grid[0])]))
    return builder.put(Sum(name, a.name, b.name, *weights, m_1, s_1, *bounds(value, grid),
                           UNPLACED), grid)


def _prelu(builder, value, grid, name):
    """``max(x, 0) + slope * min(x, 0)``, of which one is zero. The slope's part is on a grid of its
    own, whose steps are sixty-fourths of the operand's, so that the sum is exact."""
    demand_only_moved(value)
    source, = value.sources
    slope_C = value.facts["slope"]
    zero    = source.zero_point
    part    = np.ceil(SHARES * np.abs(slope_C).max()) / SHARES, zero
    if slope_C.min() < 0:
        part = np.ceil(SHARES * part[0] * max(zero, 1) / 127) / SHARES, 128
    scale   = np.float32(source.scale * part[0])
    if scale / 2 > CONTRACT * grid[0]:
        raise Refusal(f"slopes up to {np.abs(slope_C).max():.3g}, one for each channel, cost "
                      f"{scale / 2 / grid[0]:.3g} steps of its result",
                      "use the same slope for all channels")
    above  = replace(copying(builder.fresh(f"{name}_above"), source.name, np.ones(
        (len(slope_C), 1, 1, 1), np.int64), groups=len(slope_C)), low=zero)
    below  = replace(above, name=builder.fresh(f"{name}_below"), low=0, high=zero)
    above, below = (Real(builder.put(each, source.grid), *source.grid) for each in (above, below))
    below  = Result("scaled", value.name, value.node, (below,), gain=slope_C)
    below  = builder.settle(below, (scale, part[1]), builder.fresh(f"{name}_sloped"))
    return builder.settle(replace(value, kind="sum", facts={}, sources=(
        above, Real(below, scale, part[1]))), grid, name)


def _gate(builder, value, grid, name):
    alpha, skip = value.sources
    channels = builder.tensors[skip.name].channels
    unit   = np.float64(alpha.scale) * np.float64(skip.scale)
    gain_C = np.broadcast_to(np.asarray(value.gain, np.float64), channels)
    factor_C = gain_C * unit / np.float64(grid[0])
    steps_C  = np.broadcast_to(value.offset, channels) / np.float64(grid[0])
    # A gain so small that the offset overflows its own steps is raised: less than 1/50 step.
    floor_C  = np.abs(steps_C) / BIAS_LIMIT
    factor_C = np.where(np.abs(factor_C) < floor_C, floor_C, factor_C)
    m_C, s_C = fixed(factor_C)
    bias_C   = np.rint(steps_C / np.where(factor_C == 0, 1, factor_C))
    bias_C   = bias_C + (0 if value.bias is None else value.bias)
    demand_bias(bias_C)
    low, high = bounds(value, grid)
    return builder.put(Gate(name, alpha.name, skip.name, integers(bias_C, torch.int32), m_C,
                            s_C, grid[1], low, high, UNPLACED), grid)


def _larger(builder, value, grid, name):
    """Of each two numbers the larger: ``a + max(b - a, 0)``, exact on bytes of one grid."""
    return _either(builder, value, grid, name, sign=1)


def _smaller(builder, value, grid, name):
    """``a - max(a - b, 0)``."""
    return _either(builder, value, grid, name, sign=-1)


def _either(builder, value, grid, name, *, sign):
    demand_only_moved(value)
    a, b = (builder.settle(bounded(source, value), grid, builder.part_name(source))
            for source in value.sources)
    return one_of(builder, a, b, grid, name, sign)


def one_of(builder, a, b, grid, name, sign=1):
    one    = fixed(np.ones(1))
    first, second = (b, a) if sign > 0 else (a, b)
    beyond = builder.put(Sum(builder.fresh(f"{name}_beyond"), first, second, 1, -1, *one, 0, 255,
                             UNPLACED), (grid[0], 0))
    return builder.put(Sum(name, a, beyond, 1, sign, *one, 0, 255, UNPLACED), grid)


KINDS = {
    "sum":     _sum,
    "prelu":   _prelu,
    "gate":    _gate,
    "larger":  _larger,
    "smaller": _smaller,
}
