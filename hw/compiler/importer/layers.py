"""What making any layer needs: bounds, fixed-point factors, bytes."""

from dataclasses import replace

import numpy as np
import torch

from golden.integer import Conv
from golden.quantize import fixed_point
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.values import Real, Result

UNPLACED = "encoder"        # until :mod:`hw.compiler.importer.place` knows the whole graph
CONTRACT = 0.98             # steps by which a fold may change a result before it is rounded
LARGEST_KERNEL = 7          # rows and columns
UNIT_WEIGHT = 64            # of a depthwise 1x1 convolution that only moves between grids
SIGMOID  = (1 / 256, 0)     # the grid of the contract's own tables


def bounds(value, grid):
    """Bounds of the stored bytes."""
    if value.by_channel:
        raise Refusal("it has a bound for each channel, which only convolutions can have",
                      "bound all channels alike, or right behind the Conv")
    low, high = (int(_stored(bound, grid)) for bound in (value.low, value.high))
    return low, max(low, high)


def channel_bounds(value, grid, outputs):
    """Bounds of the stored bytes of each channel, as a convolution has them."""
    floor_O, ceiling_O = (np.broadcast_to(_stored(bound, grid), outputs).copy()
                          for bound in (value.low, value.high))
    if ((floor_O > 0) & (ceiling_O < 255)).any():
        raise Refusal("a channel is bounded from below and from above by numbers of its own",
                      "bound it on one side, or all channels alike")
    return integers(floor_O, torch.uint8), integers(ceiling_O, torch.uint8)


def _stored(bound, grid):
    return np.clip(np.rint(np.float32(bound) / grid[0]) + grid[1], 0, 255)


def bounded(source, value):
    """A source with the bounds of what comes after it."""
    if not value.bounded:
        return source
    if isinstance(source, Real):
        source = Result("scaled", value.name, value.node, (source,))
    return replace(source, **dict(zip(("low", "high"), (
        np.clip(x, value.low, value.high) for x in (source.low, source.high)), strict=True)))


def fixed(factor):
    """Factors as multipliers and shifts."""
    try:
        return fixed_point(torch.from_numpy(np.ascontiguousarray(factor, np.float64)))
    except ValueError as error:
        raise Refusal(f"{str(error)[0].lower()}{str(error)[1:]}",
                      "give its result a larger scale") from None


def demand_only_moved(value):
    if value.affine:
        raise Refusal(f"its operand {value.name!r} is scaled or moved before it is quantised",
                      f"quantise the result of {value.node.op_type}")


def demand_bias(bias_C):
    if bias_C.size and np.abs(bias_C).max() >= 1 << 31:
        raise Refusal(f"its bias of {np.abs(bias_C).max():.3g} steps exceeds int32",
                      "quantise its weights with a larger scale")


def integers(values, kind):
    return torch.from_numpy(np.ascontiguousarray(values)).to(kind)


def within_unit(low, high):
    """Whether numbers are in 0..1, less than a step of a table of probabilities beyond."""
    return -SIGMOID[0] < low and high < 1 + SIGMOID[0]


def copying(name, source, weight, *, stride=1, padding=(0,) * 4, groups=1):
    """A convolution whose weights are 0 and 1, so that it moves bytes."""
    m_O, s_O = fixed(np.ones(len(weight)))
    bias_O   = torch.zeros(len(weight), dtype=torch.int32)
    padding  = tuple(int(side) for side in padding)
    return Conv(name, source, integers(weight, torch.int8), bias_O, m_O, s_O, stride, padding, 0,
                255, UNPLACED, groups)
