"""Means of whole maps, their largest, and one pixel as a whole map: for gates over channels."""

from dataclasses import replace

import numpy as np

from golden.integer import Upsample
from golden.places import COMMAND
from hw.compiler.importer.build_moves import largest, shift
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import (
    CONTRACT,
    LARGEST_KERNEL,
    UNPLACED,
    bounded,
    copying,
    demand_only_moved,
)
from hw.compiler.importer.values import Real, Result


def halved(sides):
    """How averages of 2x2 make a map of at most 7x7 of one of ``sides``: of each the kernel and the
    zeros behind the map, (rows, columns); and the factor that makes up for these zeros."""
    stages, factor = [], 1.0
    while max(sides) > LARGEST_KERNEL:
        kernel = [min(side, 2) for side in sides]
        behind = [side % 2 if side > 1 else 0 for side in sides]
        for side, more in zip(sides, behind, strict=True):
            factor *= (side + more) / side
        sides  = [-(-side // 2) for side in sides]
        stages.append((tuple(kernel), tuple(behind)))
    return stages, factor


def _mean(builder, value, grid, name):
    """Of up to 7x7 pixels one depthwise convolution, rounded once. Of more, averages of 2x2 before
    it, each of them rounded on the operand's grid: halves up in the first, down in the second, and
    so on, so that what is lost does not add up."""
    source = value.sources[0]
    t = builder.tensors[source.name]
    stages, factor = halved([t.height, t.width])
    up, down = -(-len(stages) // 2), len(stages) // 2
    lost = max(up / 2 + down / 4, down / 2 + up / 4) * factor * np.max(np.abs(value.gain)) * (
        source.scale / grid[0])
    if lost > CONTRACT:
        raise Refusal(f"of {t.height}x{t.width} pixels, on the grid of its operand, {lost:.3g} "
                      "steps of the result are lost", MEAN)
    for index, (kernel, behind) in enumerate(stages):
        part = Result("average", value.name, value.node, (source,), {
            "kernel": kernel, "stride": 2, "padding": (0, 0, *behind), "halves_down": index % 2})
        source = Real(builder.settle(part, source.grid, builder.fresh(f"{name}_halved")),
                      *source.grid)
    t = builder.tensors[source.name]
    return builder.settle(replace(
        value, kind="average", sources=(source,), gain=value.gain * factor,
        facts={"kernel": (t.height, t.width), "stride": 1, "padding": (0,) * 4}), grid, name)


def _spread(builder, value, grid, name):
    demand_only_moved(value)
    source = bounded(value.sources[0], value)
    inner  = builder.settle(source, grid, builder.part_name(source, name))
    return _grown(builder, inner, np.array(value.facts["shape"][1:]), grid, name)


def _top(builder, value, grid, name):
    """The largest of a map: of windows of 2x2, and of 3x3 along sides that are odd, until one pixel
    is left. A side of one pixel is doubled before."""
    demand_only_moved(value)
    source = bounded(value.sources[0], value)
    inner  = builder.settle(source, grid, builder.part_name(source, name))
    while True:
        t     = builder.tensors[inner]
        sides = np.array((t.height, t.width))
        if max(sides) == 1:
            return inner
        last  = max(sides) <= 3
        if min(sides) == 1:
            kernel  = 1 + (sides == 1)
            around  = kernel - 1
            doubled = copying(builder.fresh(f"{name}_doubled"), inner,
                              np.ones((t.channels, 1, *kernel), np.int64),
                              padding=(*around, *around), groups=t.channels)
            inner, sides = builder.put(doubled, grid), sides + around
        shifts = [[shift(side, start, side - side % 2) for start in range(1 + side % 2)]
                  for side in map(int, sides)]
        inner = largest(builder, inner, shifts, grid,
                        name if last else builder.fresh(f"{name}_part"))


def _grown(builder, inner, sides, grid, name):
    """A map of one pixel at every row and column: a convolution that meets it under each of its
    weights in turn, then upsampling; of odd sides the last one is taken off again."""
    channels = builder.tensors[inner].channels
    if max(sides) <= LARGEST_KERNEL:
        around = sides - 1
        return builder.put(copying(name, inner, np.ones((channels, 1, *sides), np.int64),
                                   padding=(*around, *around), groups=channels), grid)
    inner = _grown(builder, inner, -(-sides // 2), grid, builder.fresh(f"{name}_part"))
    odd   = sides % 2
    grown = builder.fresh(f"{name}_grown") if any(odd) else name
    grown = builder.put(Upsample(grown, inner, UNPLACED), grid)
    if not any(odd):
        return grown
    weight = np.zeros((channels, 1, *(odd + 1)), np.int64)
    weight[:, :, 0, 0] = 1
    return builder.put(copying(name, grown, weight, groups=channels), grid)


MEAN = ("average in steps of 2x2 before, each with a QuantizeLinear of its own ("
        f"{COMMAND} quantise does so with a float file)")
KINDS = {
    "mean":   _mean,
    "spread": _spread,
    "top":    _top,
}
