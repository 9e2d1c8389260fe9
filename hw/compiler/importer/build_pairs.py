"""Layers of two maps: sums, products, and the larger or smaller of each two numbers."""

import numpy as np
import torch

from golden.integer import SUM_WEIGHT_LIMIT, Gate, Sum
from golden.quantize import BIAS_LIMIT, sum_weights
from hw.compiler.importer.build_convolutions import CONTRACT
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import (
    UNPLACED,
    bounded,
    bounds,
    demand_bias,
    demand_only_moved,
    fixed,
    integers,
)


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
    "gate":    _gate,
    "larger":  _larger,
    "smaller": _smaller,
}
