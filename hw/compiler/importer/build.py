"""Floats that wait for their grid become layers of the integer graph."""

import itertools
import math
from dataclasses import replace

import numpy as np

from golden.integer import Add, Conv, Input, Tensor, output_shape
from hw.compiler.importer import (
    build_convolutions,
    build_means,
    build_moves,
    build_pairs,
    build_tables,
    build_unrounded,
)
from hw.compiler.importer.check import LARGEST_MEMORY
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import UNPLACED, within_unit
from hw.compiler.importer.values import Real, Result

MOVES = ("pool", "window", "larger", "smaller", "nearest", "concat", "crop", "pick", "spread",
         "top")
KINDS = {
    **build_convolutions.KINDS,
    **build_means.KINDS,
    **build_moves.KINDS,
    **build_pairs.KINDS,
    **build_tables.KINDS,
    **build_unrounded.KINDS,
}
"""Kind of a result -> function of the builder, the result, its grid and name, to the name of the
tensor that holds it."""


class Builder:
    """The graph as far as it is made. ``sole`` tells whether a tensor has but one reader."""

    def __init__(self, sole):
        self.tensors, self.layers, self.settled = {}, {}, {}
        self.sole  = sole
        self._counts = {}       # name that was taken -> where to look for a free number after it
        self.units = set()      # tensors that are within 0..1 as what makes them is, a sigmoid say
        self.tightened = []     # tensors that got bounds after they were made
        self.made = set()       # tensors whose layer is new, or another, since somebody cleared it

    def frame(self, name, shape, grid):
        """The input layer."""
        self.put(Input(name), grid, shape=shape)
        return name

    def settle(self, value, grid, name):
        """Name of the tensor that holds a float on a grid; a layer makes it, ``name`` if new."""
        key = id(value), grid
        if key not in self.settled:
            if isinstance(value, Real):
                value = Result("scaled", name, None, (value,))
            # The value is kept so that no other object can get its id.
            try:
                self.settled[key] = KINDS[value.kind](self, value, grid, name), value
            except Refusal as refusal:
                refusal.node = refusal.node or value.node
                raise
            if within_unit(*self._range(value)):
                self.units.add(self.settled[key][0])
        return self.settled[key][0]

    def _range(self, value):
        """Between which numbers a float lies, whatever the frame: known of what a sigmoid or
        bounds make, and of what only moves, averages or multiplies that."""
        if isinstance(value, Real):
            return (0.0, 1.0) if value.name in self.units else (-math.inf, math.inf)
        ranges = [self._range(source) for source in value.sources]
        low, high = min(x for x, _ in ranges), max(x for _, x in ranges)
        match value.kind:
            case "sigmoid":
                low, high = 0.0, 1.0
            case "function":
                low, high = float(value.facts["made"].min()), float(value.facts["made"].max())
            case "unrounded":
                made = value.facts["of"](np.linspace(-64, 64, 1 << 12))
                low, high = float(np.min(made)), float(np.max(made))
            case "gate" | "sum" if low < 0 or high > 1 or value.facts.get("subtracted"):
                low, high = -math.inf, math.inf
            case "sum":
                low, high = 0.0, 2.0
            case "conv" | "transposed":
                low, high = -math.inf, math.inf
        if value.affine and math.isfinite(low) and value.bias is None:
            ends = [np.asarray(value.gain) * x + value.offset for x in (low, high)]
            low, high = float(np.min(ends)), float(np.max(ends))
        elif value.affine:
            low, high = -math.inf, math.inf
        return tuple(min(max(x, np.min(value.low)), np.max(value.high)) for x in (low, high))

    def kept(self, value):
        """A float that needs no QuantizeLinear, as its values were only moved and lie on the grid
        that they had; None of any other."""
        grid = _kept_grid(value)
        return grid and Real(self.settle(value, grid, self.fresh(value.name)), *grid)

    def exact_sum(self, value):
        """A sum that goes to a dense convolution as it is, without a grid of its own; None of any
        other float."""
        if value.kind != "sum" or value.affine or value.bounded or value.facts.get("subtracted"):
            return None
        a, b = value.sources
        if a.grid != b.grid or a.zero_point:
            return None
        key = id(value), None
        if key not in self.settled:
            made = Add(self.fresh(value.name), a.name, b.name, UNPLACED)
            self.settled[key] = self.put(made, a.grid), value
        return Real(self.settled[key][0], *a.grid)

    def fresh(self, name):
        """``name``, or if it is taken with a number after it."""
        if name not in self.tensors:
            return name
        self._counts[name] = next(count for count in itertools.count(self._counts.get(name, 2))
                                  if f"{name}_{count}" not in self.tensors)
        return f"{name}_{self._counts[name]}"

    def part_name(self, value, name=None):
        """Name of an operand that needs a layer of its own."""
        name = value.name if isinstance(value, Result) and value.kind != "scaled" else (
            f"{value.sources[0].name if isinstance(value, Result) else value.name}_rescaled")
        return self.fresh(name)

    def within(self, name, low, high):
        """Whether bounds say nothing new about a tensor."""
        made = self.layers[name]
        return (low <= getattr(made, "low", 0)) and (high >= getattr(made, "high", 255))

    def tighten(self, name, low, high):
        """Bound the layer that makes a tensor, if it can be and nobody else sees it."""
        made = self.layers[name]
        if not hasattr(made, "low") or not self.sole(name):
            return False
        bounds = (min(max(x, low), high) for x in (made.low, made.high))
        self.layers[name] = replace(made, **dict(zip(("low", "high"), bounds, strict=True)))
        self.tightened.append(name)
        self.made.add(name)
        return True

    def is_free(self, name):
        """Whether a table costs nothing: the unit looks up what it has just convolved."""
        made = self.layers[name]
        return isinstance(made, Conv) and made.groups == 1 and self.sole(name)

    def put(self, layer, grid, *, shape=None):
        shape = shape or output_shape(layer, *(
            (t.channels, t.height, t.width) for t in map(self.tensors.get, layer.inputs)))
        if math.prod(shape) > LARGEST_MEMORY:
            raise Refusal(f"its result of {'x'.join(map(str, shape))} has more bytes than any "
                          f"machine's memory, {LARGEST_MEMORY:,}", "use a smaller frame or fewer "
                          "channels")
        self.tensors[layer.name] = Tensor(layer.name, *shape, float(grid[0]), int(grid[1]))
        self.layers[layer.name]  = layer
        self.made.add(layer.name)
        return layer.name


def _kept_grid(value):
    """The grid on which a float still lies, as it was only moved; else None."""
    if isinstance(value, Real):
        return value.grid
    if value.kind not in MOVES or value.affine or value.bounded:
        return None
    grids = {_kept_grid(source) for source in value.sources}
    return grids.pop() if len(grids) == 1 else None
