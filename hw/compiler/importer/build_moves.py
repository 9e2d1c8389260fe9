"""Layers that move values or choose among them: these are brought to the result's grid before."""

import itertools
from dataclasses import replace

import numpy as np

from golden.arithmetic import lines
from golden.integer import Concat, Interpolate, Lookup, MaxPool, Upsample
from hw.compiler.importer.build_pairs import one_of
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import (
    CONTRACT,
    LARGEST_KERNEL,
    UNPLACED,
    bounded,
    bounds,
    copying,
    demand_only_moved,
    fixed,
)
from hw.compiler.importer.values import Real

SIXTEENTHS = 16         # of a step: what linear upsampling makes


def _pool(builder, value, grid, name):
    return _moved(builder, value, grid, name, lambda source: MaxPool(name, source, UNPLACED))


def _nearest(builder, value, grid, name):
    return _moved(builder, value, grid, name, lambda source: Upsample(name, source, UNPLACED))


def _linear(builder, value, grid, name):
    """Rounded on the finer of both grids: then both roundings together are within a step.

    Results are sixteenths of a step, and halves round up. Less than a sixteenth added before
    says just that, as :mod:`golden.onnx_export` does, and is dropped.
    """
    source, = value.sources
    if (value.bias is None and np.all(np.equal(value.gain, 1))
            and np.all((0 <= np.asarray(value.offset))
                       & (np.asarray(value.offset) < source.scale / SIXTEENTHS))):
        value = replace(value, offset=0.0)
    if source.grid == grid and not (value.affine or value.bounded):
        return builder.put(Upsample(name, source.name, UNPLACED, "linear"), grid)
    if source.scale > grid[0] and not value.affine:
        inner  = builder.settle(replace(value, kind="scaled"), grid,
                                builder.fresh(f"{name}_rescaled"))
        return builder.put(Upsample(name, inner, UNPLACED, "linear"), grid)
    inner = builder.put(Upsample(builder.fresh(f"{name}_upsampled"), source.name, UNPLACED,
                                 "linear"), source.grid)
    return builder.settle(replace(value, kind="scaled", sources=(Real(inner, *source.grid),)),
                          grid, name)


def _interpolated(builder, value, grid, name):
    """Columns, then rows, each rounded. Both roundings together are within a step of the result if
    one of columns, which is on the operand's grid, is less than half of two."""
    demand_only_moved(value)
    source, = value.sources
    t, (_, *made) = builder.tensors[source.name], value.facts["shape"]
    ways = [(axis, length, before) for axis, length, before
            in (("columns", made[1], t.width), ("rows", made[0], t.height)) if length != before]
    if len(ways) > 1 and source.scale / 2 > CONTRACT * grid[0]:
        raise Refusal(f"on the grid of its operand, {source.scale / 2 / grid[0]:.3g} steps of the "
                      "result are lost", "give operand and result the same scale")
    if not ways:
        return builder.settle(replace(value, kind="scaled"), grid, name)
    inner = source.name
    for axis, length, before in ways:
        last   = axis == ways[-1][0]
        onto   = grid if last else source.grid
        parts  = lines(before, length, value.facts["place"])[2]
        m, s   = fixed(np.array([np.float64(source.scale) / (parts * np.float64(onto[0]))]))
        limits = bounds(value, grid) if last else (0, 255)
        inner  = builder.put(Interpolate(
            name if last else builder.fresh(f"{name}_columns"), inner, axis, length,
            value.facts["place"], m, s, *limits, UNPLACED), onto)
    return inner


def _concat(builder, value, grid, name):
    if value.affine:
        raise Refusal(f"its operand {value.name!r} is a concatenation without QuantizeLinear",
                      "quantise the concatenation, or scale its operands")
    parts = []
    for source in value.sources:
        source = bounded(source, value)
        parts.append(builder.settle(source, grid, builder.part_name(source)))
    return builder.put(Concat(name, tuple(parts), UNPLACED), grid)


def _window(builder, value, grid, name):
    """The largest of each 3x3 window, two rows and columns apart: of the four 2x2 windows in
    it. Of the map moved by a row, a column or both, these are those of a 2x2 pooling."""
    demand_only_moved(value)
    source = bounded(value.sources[0], value)
    inner  = builder.settle(source, grid, builder.part_name(source, name))
    if any(value.facts["pads"]) and _least(builder, inner) < grid[1]:
        raise Refusal("it pads numbers that may be below zero",
                      "put Relu before it, or use 2x2 with stride 2 and no pads")
    return largest(builder, inner, value.facts["shifts"], grid, name)


def largest(builder, inner, shifts, grid, name):
    """Of 2x2 windows of a map moved by each shift of rows and of columns the largest."""
    shifts = list(itertools.product(*shifts))
    pooled = [builder.put(MaxPool(
        name if len(shifts) == 1 else builder.fresh(f"{name}_window"),
        _shifted(builder, inner, ways, grid, name), UNPLACED), grid) for ways in shifts]
    while len(pooled) > 1:
        made   = name if len(pooled) == 2 else builder.fresh(f"{name}_larger")
        pooled = [*pooled[2:], one_of(builder, *pooled[:2], grid, made)]
    return pooled[0]


def shift(side, start, wanted):
    """How a convolution with one weight that is not zero moves a side, so that it begins at
    ``start`` and 2x2 windows find ``wanted`` pixels, and not two more: its kernel, where in it the
    weight is, and pads before and after. The smallest such kernel."""
    return next((kernel, index, before, after) for kernel in (1, 2, 3)
                for index, before, after in np.ndindex(kernel, kernel, kernel)
                if index - before == start
                and side + before + after - kernel + 1 - wanted in (0, 1))


def _shifted(builder, inner, ways, grid, name):
    """The map from another row and column on: a depthwise convolution that only moves."""
    kernel, index, before, after = zip(*ways, strict=True)
    if kernel == (1, 1):
        return inner
    channels = builder.tensors[inner].channels
    weight   = np.zeros((channels, 1, *kernel), np.int64)
    weight[:, :, *index] = 1
    padding  = (*before, *after)
    return builder.put(copying(builder.fresh(f"{name}_shifted"), inner, weight,
                                padding=padding, groups=channels), grid)


def _pick(builder, value, grid, name):
    """Some channels of a map: a convolution of 1x1 that only moves."""
    return _moved(builder, value, grid, name, lambda source: copying(
        name, source, np.eye(builder.tensors[source].channels, dtype=np.int64)[
            value.facts["channels"], :, None, None]))


def _crop(builder, value, grid, name):
    """Some rows and columns of a map, in steps of a convolution that only moves: each takes away
    as many as its kernel has more than one."""
    demand_only_moved(value)
    source = bounded(value.sources[0], value)
    inner  = builder.settle(source, grid, builder.part_name(source, name))
    first, stride = np.array(value.facts["first"]), value.facts["stride"]
    made = np.array(value.facts["shape"][1:])
    while True:
        t    = builder.tensors[inner]
        size = np.array((t.height, t.width))
        ends = size - first - stride * (made - 1) - 1           # more behind the last one taken
        ahead  = np.minimum(first, LARGEST_KERNEL - 1)
        behind = np.minimum(ends, LARGEST_KERNEL - 1 - ahead)
        last   = np.array_equal(first, ahead) and np.all(ends - behind < stride)
        kernel = ahead + behind + 1
        weight = np.zeros((t.channels, 1, *kernel), np.int64)
        weight[:, :, *ahead] = 1
        named  = name if last else builder.fresh(f"{name}_cropped")
        inner  = builder.put(copying(named, inner, weight, stride=stride if last else 1,
                                      groups=t.channels), grid)
        if last:
            return inner
        first = first - ahead


def _least(builder, name):
    """The least byte that a tensor may hold."""
    layer = builder.layers[name]
    if isinstance(layer, Lookup):
        return int(layer.table.min())
    if isinstance(layer, MaxPool | Upsample | Concat):
        return min(_least(builder, source) for source in layer.inputs)
    return getattr(layer, "low", 0)


def _moved(builder, value, grid, name, layer):
    """A layer that only moves values: they are brought to the grid before it."""
    demand_only_moved(value)
    source = bounded(value.sources[0], value)
    inner  = builder.settle(source, grid, builder.part_name(source, name))
    return builder.put(layer(inner), grid)


KINDS = {
    "pool":    _pool,
    "nearest": _nearest,
    "linear":  _linear,
    "interpolated": _interpolated,
    "concat":  _concat,
    "window":  _window,
    "pick":    _pick,
    "crop":    _crop,
}
