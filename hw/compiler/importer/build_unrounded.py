"""Activations right behind a convolution, with no grid between: the convolution is made on several.

On one grid of 256 steps a sigmoid's operand is too coarse where the sigmoid is steep. So the range
in which the result changes is cut into windows, each of which the convolution fills with its own
256 steps, clamped at both ends. In every window a table tells by how much the result is more than
at the window's beginning; their sum is the result.
"""

from dataclasses import replace

import numpy as np
import torch

from golden.integer import Lookup, Sum
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import CONTRACT, UNPLACED, bounds, fixed, integers

MOST_WINDOWS = 4
BEHIND   = ("conv", "transposed", "average", "gate")    # kinds of results that can be made again
FURTHEST = 1 << 20          # of an operand that makes any difference
SPACING = 1.01              # of the operands among which the ends of that range are sought
STEPS   = 255


def _unrounded(builder, value, grid, name):
    inner = value.facts["inner"]

    def exact(real):
        made = np.float64(value.gain) * value.facts["of"](real) + np.float64(value.offset)
        return np.clip(np.clip(made, value.low, value.high) / np.float64(grid[0]) + grid[1],
                       *bounds(value, grid))

    if np.size(value.gain) > 1 or np.size(value.offset) > 1 or value.bias is not None:
        raise Refusal(f"its operand {value.name!r} has another factor or offset for each channel, "
                      "and a table is the same for all", _rewrite(inner))
    low, high = _changing(exact)
    for count in range(1, MOST_WINDOWS + 1):
        width = (high - low) / count
        begin = low + width * np.arange(count)
        real  = begin[:, None] + width / STEPS * np.arange(STEPS + 1)
        around = [np.abs(exact(real + side * width / STEPS / 2) - exact(real)) for side in (-1, 1)]
        lost  = float(np.max(around))
        if lost <= CONTRACT:
            break
    else:
        raise Refusal(f"its operand {inner.name!r} has no QuantizeLinear, and on "
                      f"{MOST_WINDOWS} grids {lost:.3g} steps of the result are lost",
                      _rewrite(inner))
    made = None
    for index in range(count):
        part = replace(inner, offset=inner.offset - begin[index])
        part = builder.settle(part, (np.float32(width / STEPS), 0),
                              builder.fresh(f"{inner.name}_window"))
        stored = np.rint(exact(real[index]))
        more   = stored - (stored[0] if index else grid[1])
        zero   = grid[1] if not index else int(-more.min())
        last   = index == count - 1
        table  = Lookup(builder.fresh(name if count == 1 else f"{name}_part"), part,
                        integers(more + zero, torch.uint8), UNPLACED)
        part   = builder.put(table, (grid[0], zero))
        made   = part if made is None else builder.put(Sum(
            name if last else builder.fresh(f"{name}_parts"), made, part, 1, 1,
            *fixed(np.ones(1)), 0, 255, UNPLACED), grid)
    return made


def _changing(exact):
    """Between which operands the result, in steps, is not what it is beyond them."""
    count = int(np.log(FURTHEST / SPACING**-2000) / np.log(SPACING))
    ahead = FURTHEST * SPACING ** -np.arange(count, dtype=np.float64)
    ends  = []
    for side in (-ahead, ahead):
        made  = exact(side)
        moved = np.flatnonzero(np.abs(made - made[0]) > 1 / 4)
        ends.append(side[max(0, moved[0] - 1)] if moved.size else side[-1])
    return ends


def _rewrite(inner):
    return f"quantise the result of {inner.node.op_type}"


KINDS = {"unrounded": _unrounded}
