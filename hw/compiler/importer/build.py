"""Floats that wait for their grid become layers of the integer graph."""

import itertools
import math
from dataclasses import replace

import numpy as np
import torch

from golden.integer import (
    SUM_WEIGHT_LIMIT,
    Add,
    Concat,
    Conv,
    Gate,
    Input,
    Lookup,
    MaxPool,
    Sum,
    Tensor,
    TransposedConv,
    Upsample,
    output_shape,
)
from golden.quantize import BIAS_LIMIT, fixed_point, sigmoid_table, sum_weights
from hw.compiler.importer.check import LARGEST_MEMORY
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.values import Real, Result

UNPLACED = "encoder"        # until :mod:`hw.compiler.importer.place` knows the whole graph
UNIT_WEIGHT = 64            # of a depthwise 1x1 convolution that only moves between grids
STEADY = 2.0**-10           # factor of a channel that only has an offset
CONTRACT = 0.98             # steps by which a fold may change a result before it is rounded
SIGMOID = (1 / 256, 0)      # the grid of the contract's own tables
SIGMOID_ERROR = 1.5         # steps between a table and the sigmoid that it is taken for
MOVES    = ("pool", "window", "larger", "smaller", "nearest", "concat")
FUNCTIONS = ("scaled", "sigmoid", "function")       # of the bytes of one tensor
SIXTEENTHS = 16             # of a step: what linear upsampling makes


class Builder:
    """The graph as far as it is made. ``sole`` tells whether a tensor has but one reader."""

    def __init__(self, sole):
        self.tensors, self.layers, self.settled = {}, {}, {}
        self.sole  = sole
        self.units = set()      # tensors that are within 0..1 as what makes them is, a sigmoid say
        self.tightened = []     # tensors that got bounds after they were made

    def frame(self, name, shape, grid):
        """The input layer."""
        self._put(Input(name), grid, shape=shape)
        return name

    def table(self, layer, grid):
        """A table as the file has it; if it is a sigmoid's, or one of probabilities, so is its
        result."""
        source = self.tensors[layer.input]
        self._put(layer, grid)
        real = _reals(Real(layer.input, np.float32(source.scale), source.zero_point))
        made = grid[0] * (layer.table.numpy().astype(np.float32) - grid[1])
        near = np.abs(made - 1 / (1 + np.exp(-real.astype(np.float64)))).max() <= (
            SIGMOID_ERROR * max(grid[0], SIGMOID[0]))
        if near or (layer.input in self.units and _within_unit(made.min(), made.max())):
            self.units.add(layer.name)

    def settle(self, value, grid, name):
        """Name of the tensor that holds a float on a grid; a layer makes it, ``name`` if new."""
        key = id(value), grid
        if key not in self.settled:
            if isinstance(value, Real):
                value = Result("scaled", name, None, (value,))
            # The value is kept so that no other object can get its id.
            try:
                self.settled[key] = getattr(self, f"_{value.kind}")(value, grid, name), value
            except Refusal as refusal:
                refusal.node = refusal.node or value.node
                raise
            if _within_unit(*self._range(value)):
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
        return tuple(min(max(x, value.low), value.high) for x in (low, high))

    def kept(self, value):
        """A float that needs no QuantizeLinear, as its values were only moved and lie on the grid
        that they had; None of any other."""
        grid = _kept_grid(value)
        return grid and Real(self.settle(value, grid, self.fresh(value.name)), *grid)

    def function(self, value):
        """A float as a function of one tensor: that :class:`Real`, and what is made of each of its
        256 bytes, float32; None of any other float."""
        if isinstance(value, Real):
            return None if any(value.pads) else (value, _reals(value))
        if (value.kind not in FUNCTIONS or value.bias is not None
                or max(np.size(value.gain), np.size(value.offset)) > 1):
            return None
        real = _reals(value.sources[0])
        if value.kind == "sigmoid":
            real = np.float32(1) / (np.float32(1) + np.exp(-real))
        elif value.kind == "function":
            real = value.facts["made"]
        made = np.float32(value.gain) * real + np.float32(value.offset)
        return value.sources[0], np.clip(made, np.float32(value.low), np.float32(value.high))

    def functions(self, *values):
        """Floats as functions of the same tensor, as far back as tables lead: that tensor, and what
        is made of its bytes for each; None if there is no such tensor."""
        found = [self.function(value) for value in values]
        if None in found:
            return None
        ways = [dict(self._way(*each)) for each in found]
        for source in ways[0]:
            if all(source in way for way in ways):
                t = self.tensors[source]
                return (Real(source, np.float32(t.scale), t.zero_point),
                        *(way[source] for way in ways))
        return None

    def _way(self, source, made):
        """Names of the tensors of which a float is a function, from the last to the first, and what
        is made of each one's bytes."""
        yield source.name, made
        layer = self.layers[source.name]
        while isinstance(layer, Lookup):
            made = made[layer.table.numpy()]
            yield layer.input, made
            layer = self.layers[layer.input]

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
            self.settled[key] = self._put(made, a.grid), value
        return Real(self.settled[key][0], *a.grid)

    def fresh(self, name):
        """``name``, or if it is taken with a number after it."""
        candidates = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(2)))
        return next(x for x in candidates if x not in self.tensors)

    # Kinds of results.

    def _conv(self, value, grid, name):
        source, facts = value.sources[0], value.facts
        weight, *rest = self._convolution(value, grid, facts["weight"])
        return self._put(Conv(name, source.name, weight, *rest[:3], facts["stride"],
                              facts["padding"], *rest[3:], UNPLACED, facts["groups"]), grid)

    def _transposed(self, value, grid, name):
        source, facts = value.sources[0], value.facts
        weight, *rest = self._convolution(value, grid, facts["weight"].swapaxes(0, 1))
        return self._put(TransposedConv(name, source.name, weight.swapaxes(0, 1).contiguous(),
                                        *rest[:3], facts["padding"], *rest[3:], UNPLACED), grid)

    def _scaled(self, value, grid, name):
        """The same values, perhaps with a gain and an offset per channel, on another grid."""
        source = value.sources[0]
        low, high = _bounds(value, grid)
        if not value.affine:
            if source.grid == grid and self._within(source.name, low, high):
                return source.name
            if source.grid == grid and self._tightened(source.name, low, high):
                return source.name
            if self._is_free(source.name):
                real = _reals(source)
                return self._put(Lookup(name, source.name, _table(real, value, grid), UNPLACED),
                                 grid)
        channels = self.tensors[source.name].channels
        weight = np.full((channels, 1, 1, 1), UNIT_WEIGHT)
        scaled = replace(value, facts={"scale": np.full(channels, 1 / UNIT_WEIGHT)})
        weight, *rest = self._convolution(scaled, grid, weight)
        return self._put(Conv(name, source.name, weight, *rest[:3], 1, (0, 0, 0, 0), *rest[3:],
                              UNPLACED, channels), grid)

    def _average(self, value, grid, name):
        source, facts = value.sources[0], value.facts
        channels = self.tensors[source.name].channels
        kernel   = facts["kernel"]
        averaged = replace(value, facts={"scale": np.full(channels, 1 / math.prod(kernel))})
        weight, *rest = self._convolution(averaged, grid, np.ones((channels, 1, *kernel)))
        return self._put(Conv(name, source.name, weight, *rest[:3], facts["stride"],
                              facts["padding"], *rest[3:], UNPLACED, channels), grid)

    def _pool(self, value, grid, name):
        return self._moved(value, grid, name, lambda source: MaxPool(name, source, UNPLACED))

    def _nearest(self, value, grid, name):
        return self._moved(value, grid, name, lambda source: Upsample(name, source, UNPLACED))

    def _linear(self, value, grid, name):
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
            return self._put(Upsample(name, source.name, UNPLACED, "linear"), grid)
        if source.scale > grid[0] and not value.affine:
            inner  = self.settle(replace(value, kind="scaled"), grid,
                                 self.fresh(f"{name}_rescaled"))
            return self._put(Upsample(name, inner, UNPLACED, "linear"), grid)
        inner = self._put(Upsample(self.fresh(f"{name}_upsampled"), source.name, UNPLACED,
                                   "linear"), source.grid)
        return self.settle(replace(value, kind="scaled", sources=(Real(inner, *source.grid),)),
                           grid, name)

    def _concat(self, value, grid, name):
        if value.affine:
            raise Refusal(f"its operand {value.name!r} is a concatenation without QuantizeLinear",
                          "quantise the concatenation, or scale its operands")
        parts = []
        for source in value.sources:
            source = _bounded(source, value)
            parts.append(self.settle(source, grid, self._part_name(source)))
        return self._put(Concat(name, tuple(parts), UNPLACED), grid)

    def _sum(self, value, grid, name):
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
        m_1, s_1 = _fixed(np.array([unit / np.float64(grid[0])]))
        return self._put(Sum(name, a.name, b.name, *weights, m_1, s_1, *_bounds(value, grid),
                             UNPLACED), grid)

    def _larger(self, value, grid, name):
        """Of each two numbers the larger: ``a + max(b - a, 0)``, exact on bytes of one grid."""
        return self._either(value, grid, name, sign=1)

    def _smaller(self, value, grid, name):
        """``a - max(a - b, 0)``."""
        return self._either(value, grid, name, sign=-1)

    def _either(self, value, grid, name, *, sign):
        _demand_only_moved(value)
        a, b = (self.settle(_bounded(source, value), grid, self._part_name(source))
                for source in value.sources)
        return self._one_of(a, b, grid, name, sign)

    def _one_of(self, a, b, grid, name, sign=1):
        one    = _fixed(np.ones(1))
        first, second = (b, a) if sign > 0 else (a, b)
        beyond = self._put(Sum(self.fresh(f"{name}_beyond"), first, second, 1, -1, *one, 0, 255,
                               UNPLACED), (grid[0], 0))
        return self._put(Sum(name, a, beyond, 1, sign, *one, 0, 255, UNPLACED), grid)

    def _window(self, value, grid, name):
        """The largest of each 3x3 window, two rows and columns apart: of the four 2x2 windows in
        it. Of the map moved by a row, a column or both, these are those of a 2x2 pooling."""
        _demand_only_moved(value)
        source = _bounded(value.sources[0], value)
        inner  = self.settle(source, grid, self._part_name(source, name))
        if any(value.facts["pads"]) and self._least(inner) < grid[1]:
            raise Refusal("it pads numbers that may be below zero",
                          "put Relu before it, or use 2x2 with stride 2 and no pads")
        pooled = [self._put(MaxPool(self.fresh(f"{name}_window"), self._shifted(
                      inner, shift, grid, name), UNPLACED), grid)
                  for shift in itertools.product(*value.facts["shifts"])]
        for last in (False, False, True):
            made   = name if last else self.fresh(f"{name}_larger")
            pooled = [*pooled[2:], self._one_of(*pooled[:2], grid, made)]
        return pooled[0]

    def _shifted(self, inner, shift, grid, name):
        """The map from another row and column on: a depthwise convolution that only moves."""
        kernel, index, before, after = zip(*shift, strict=True)
        if kernel == (1, 1):
            return inner
        channels = self.tensors[inner].channels
        weight   = np.zeros((channels, 1, *kernel), np.int64)
        weight[:, :, *index] = 1
        padding  = (*before, *after)
        m_C, s_C = _fixed(np.ones(channels))
        return self._put(Conv(
            self.fresh(f"{name}_shifted"), inner, _integers(weight, torch.int8),
            torch.zeros(channels, dtype=torch.int32), m_C, s_C, 1, padding, 0, 255, UNPLACED,
            channels), grid)

    def _least(self, name):
        """The least byte that a tensor may hold."""
        layer = self.layers[name]
        if isinstance(layer, Lookup):
            return int(layer.table.min())
        if isinstance(layer, MaxPool | Upsample | Concat):
            return min(self._least(source) for source in layer.inputs)
        return getattr(layer, "low", 0)

    def _gate(self, value, grid, name):
        alpha, skip = value.sources
        channels = self.tensors[skip.name].channels
        unit   = np.float64(alpha.scale) * np.float64(skip.scale)
        gain_C = np.broadcast_to(np.asarray(value.gain, np.float64), channels)
        factor_C = gain_C * unit / np.float64(grid[0])
        steps_C  = np.broadcast_to(value.offset, channels) / np.float64(grid[0])
        # A gain so small that the offset overflows its own steps is raised: less than 1/50 step.
        floor_C  = np.abs(steps_C) / BIAS_LIMIT
        factor_C = np.where(np.abs(factor_C) < floor_C, floor_C, factor_C)
        m_C, s_C = _fixed(factor_C)
        bias_C   = np.rint(steps_C / np.where(factor_C == 0, 1, factor_C))
        bias_C   = bias_C + (0 if value.bias is None else value.bias)
        _demand_bias(bias_C)
        low, high = _bounds(value, grid)
        return self._put(Gate(name, alpha.name, skip.name, _integers(bias_C, torch.int32), m_C,
                              s_C, grid[1], low, high, UNPLACED), grid)

    def _sigmoid(self, value, grid, name):
        source = value.sources[0]
        if (float(grid[0]), grid[1]) == SIGMOID and not (value.affine or value.bounded):
            table = sigmoid_table(float(source.scale), source.zero_point)
            return self._put(Lookup(name, source.name, table, UNPLACED), grid)
        return self._function(value, grid, name)

    def _function(self, value, grid, name):
        found = self.function(value)
        if found is None:
            raise Refusal(f"its operand {value.name!r} has another factor or offset for each "
                          "channel, and a table is the same for all",
                          f"quantise the result of {value.node.op_type}")
        source, made = found
        return self._put(Lookup(name, source.name, _table(made, value, grid), UNPLACED), grid)

    # What they share.

    def _convolution(self, value, grid, weight_OIKL):
        """Weight, bias, multiplier, shift and bounds, with everything behind it folded in."""
        source, outputs = value.sources[0], len(weight_OIKL)
        if self.tensors[source.name].zero_point != source.zero_point:
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
        _demand_bias(bias_O)
        if weight_OIKL.min() < -128 or weight_OIKL.max() > 127:
            low, high = int(weight_OIKL.min()), int(weight_OIKL.max())
            raise Refusal(f"its weights are {low}..{high} where BatchNormalization or Mul turns "
                          "their sign, beyond 8 bits", "quantise weights to -127..127")
        _demand_sums(weight_OIKL, bias_O, source.zero_point)
        m_O, s_O = _fixed(factor_O)
        return (_integers(weight_OIKL, torch.int8), _integers(bias_O, torch.int32), m_O, s_O,
                *_bounds(value, grid))

    def _moved(self, value, grid, name, layer):
        """A layer that only moves values: they are brought to the grid before it."""
        _demand_only_moved(value)
        source = _bounded(value.sources[0], value)
        inner  = self.settle(source, grid, self._part_name(source, name))
        return self._put(layer(inner), grid)

    def _part_name(self, value, name=None):
        """Name of an operand that needs a layer of its own."""
        name = value.name if isinstance(value, Result) and value.kind != "scaled" else (
            f"{value.sources[0].name if isinstance(value, Result) else value.name}_rescaled")
        return self.fresh(name)

    def _within(self, name, low, high):
        """Whether bounds say nothing new about a tensor."""
        made = self.layers[name]
        return (low <= getattr(made, "low", 0)) and (high >= getattr(made, "high", 255))

    def _tightened(self, name, low, high):
        """Bound the layer that makes a tensor, if it can be and nobody else sees it."""
        made = self.layers[name]
        if not hasattr(made, "low") or not self.sole(name):
            return False
        bounds = (min(max(x, low), high) for x in (made.low, made.high))
        self.layers[name] = replace(made, **dict(zip(("low", "high"), bounds, strict=True)))
        self.tightened.append(name)
        return True

    def _is_free(self, name):
        """Whether a table costs nothing: the unit looks up what it has just convolved."""
        made = self.layers[name]
        return isinstance(made, Conv) and made.groups == 1 and self.sole(name)

    def _put(self, layer, grid, *, shape=None):
        shape = shape or output_shape(layer, *(
            (t.channels, t.height, t.width) for t in map(self.tensors.get, layer.inputs)))
        if math.prod(shape) > LARGEST_MEMORY:
            raise Refusal(f"its result of {'x'.join(map(str, shape))} has more bytes than any "
                          f"machine's memory, {LARGEST_MEMORY:,}", "use a smaller frame or fewer "
                          "channels")
        self.tensors[layer.name] = Tensor(layer.name, *shape, float(grid[0]), int(grid[1]))
        self.layers[layer.name]  = layer
        return layer.name


def _within_unit(low, high):
    """Whether numbers are in 0..1, less than a step of a table of probabilities beyond."""
    return -SIGMOID[0] < low and high < 1 + SIGMOID[0]


def _kept_grid(value):
    """The grid on which a float still lies, as it was only moved; else None."""
    if isinstance(value, Real):
        return value.grid
    if value.kind not in MOVES or value.affine or value.bounded:
        return None
    grids = {_kept_grid(source) for source in value.sources}
    return grids.pop() if len(grids) == 1 else None


def _bounded(source, value):
    """A source with the bounds of what comes after it."""
    if not value.bounded:
        return source
    if isinstance(source, Real):
        source = Result("scaled", value.name, value.node, (source,))
    return replace(source, **dict(zip(("low", "high"), (
        min(max(x, value.low), value.high) for x in (source.low, source.high)), strict=True)))


def _bounds(value, grid):
    """Bounds of the stored bytes."""
    low, high = (int(np.clip(np.rint(np.float32(bound) / grid[0]) + grid[1], 0, 255))
                 for bound in (value.low, value.high))
    return low, max(low, high)


def _reals(source):
    """What each of the 256 bytes stands for, in float32."""
    return source.scale * (np.arange(256, dtype=np.float32) - np.float32(source.zero_point))


def _table(real, value, grid):
    """256 float32 on a grid, halves to even, within the bounds."""
    stored = np.rint(real.astype(np.float32) / np.float32(grid[0])) + grid[1]
    return _integers(np.clip(stored, *_bounds(value, grid)), torch.uint8)


def _fixed(factor):
    try:
        return fixed_point(torch.from_numpy(np.ascontiguousarray(factor, np.float64)))
    except ValueError as error:
        raise Refusal(f"{str(error)[0].lower()}{str(error)[1:]}",
                      "give its result a larger scale") from None


def _demand_only_moved(value):
    if value.affine:
        raise Refusal(f"its operand {value.name!r} is scaled or moved before it is quantised",
                      f"quantise the result of {value.node.op_type}")


def _demand_bias(bias_C):
    if bias_C.size and np.abs(bias_C).max() >= 1 << 31:
        raise Refusal(f"its bias of {np.abs(bias_C).max():.3g} steps exceeds int32",
                      "quantise its weights with a larger scale")


def _demand_sums(weight_OIKL, bias_O, zero_point):
    """Whatever the pixels, no sum leaves int32."""
    weight_OT = weight_OIKL.reshape(len(weight_OIKL), -1).astype(np.int64)
    ends = np.stack([weight_OT * (pixel - zero_point) for pixel in (0, 255)])
    furthest = max(float(np.max(bias_O + ends.max(0).sum(1))),
                   -float(np.min(bias_O + ends.min(0).sum(1))))
    if furthest >= 1 << 31:
        raise Refusal(f"its sums reach {furthest:.3g}, beyond int32",
                      "quantise its weights with a larger scale")


def _integers(values, kind):
    return torch.from_numpy(np.ascontiguousarray(values)).to(kind)
