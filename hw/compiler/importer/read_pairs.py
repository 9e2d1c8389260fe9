"""Operators on two maps, or on a map and a constant."""

import math
from dataclasses import replace

import numpy as np

from golden.integer import Lookup, Upsample
from hw.compiler.importer.constants import per_channel
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.names import by, clean
from hw.compiler.importer.read_affine import affine, within
from hw.compiler.importer.read_convolutions import SAME_SCALE
from hw.compiler.importer.read_means import spread
from hw.compiler.importer.read_tables import pointwise
from hw.compiler.importer.values import Constant, Real, Result


def _add(reader, node, facts, a, b):
    if isinstance(a, Constant):
        a, b = b, a
    if isinstance(b, Constant):
        return [_moved(reader, node, a, b)]
    return [_of_two(reader, "sum", node, a, b)]


def _sub(reader, node, facts, a, b):
    if isinstance(b, Constant):
        return [affine(reader, node, a, 1.0, -per_channel(b.real))]
    if isinstance(a, Constant):
        return [affine(reader, node, b, -1.0, per_channel(a.real))]
    return [_of_two(reader, "sum", node, a, b, subtracted=True)]


def _max(reader, node, facts, *values):
    return _one_of(reader, node, facts, "larger", *values)


def _min(reader, node, facts, *values):
    return _one_of(reader, node, facts, "smaller", *values)


def _one_of(reader, node, facts, kind, *values):
    maps = [value for value in values if not isinstance(value, Constant)]
    if len(maps) == 1:
        bound = next((value for value in values if isinstance(value, Constant)), None)
        if len(values) == 2 and isinstance(maps[0], Result) and maps[0].kind == "conv":
            bound_C = per_channel(bound.real)
            return [within(reader, node, maps[0], *((bound_C, math.inf) if kind == "larger"
                                                    else (-math.inf, bound_C)))]
        return pointwise(reader, node, facts, *values)
    if len(values) != 2:
        raise Refusal(f"{len(values)} operands", "use one of two operands after the other")
    return [_of_two(reader, kind, node, *values)]


def _of_two(reader, kind, node, a, b, **facts):
    """What an operator makes of two maps of one shape."""
    a, b = _pair(reader, node, a, b)
    pixel = _pixel(reader, a, b)
    if pixel == 0:
        a = spread(reader, node, a, reader.shape(b)[1:])
    elif pixel == 1:
        b = spread(reader, node, b, reader.shape(a)[1:])
    shapes = reader.shape(a), reader.shape(b)
    if shapes[0] != shapes[1]:
        raise Refusal(f"its operands have shapes {by(shapes[0])} and {by(shapes[1])}",
                      "bring both to one shape by a 1x1 Conv")
    return Result(kind, clean(node.output[0]), node, (a, b), facts)


def _mul(reader, node, facts, a, b):
    if isinstance(a, Constant):
        a, b = b, a
    if isinstance(b, Constant):
        return [affine(reader, node, a, per_channel(b.real), 0.0)]
    halves = [isinstance(x, Result) and x.kind == "nearest" and not x.affine
              and not x.bounded and isinstance(x.sources[0], Real) for x in (a, b)]
    if all(halves):
        halves[1] = False
    grown  = [x.sources[0] if half else x for x, half in zip((a, b), halves, strict=True)]
    a, b   = _pair(reader, node, *grown)
    if not any(halves) and (pixel := _pixel(reader, a, b)) is not None:
        # Gates read maps of half the rows and columns as they are.
        alpha, skip = (a, b) if pixel == 0 else (b, a)
        sides = reader.shape(skip)[1:]
        half  = all(side % 2 == 0 for side in sides)
        alpha = spread(reader, node, alpha, [side // 2 if half else side for side in sides])
        if reader.channels(alpha) in (1, reader.channels(skip)):
            return [Result("gate", clean(node.output[0]), node, (alpha, skip))]
    first  = halves[0] or (not halves[1] and _is_alpha_first(reader, a, b))
    alpha, skip = (a, b) if first else (b, a)
    shapes = reader.shape(alpha), reader.shape(skip)
    grown  = [2 * side if any(halves) else side for side in shapes[0][1:]]
    if shapes[0][0] not in (1, shapes[1][0]) or tuple(grown) != tuple(shapes[1][1:]):
        raise Refusal(f"its operands have shapes {by(shapes[0])} and {by(shapes[1])}",
                      "multiply maps of the same rows and columns, one of them with 1 channel "
                      "or as many as the other")
    return [Result("gate", clean(node.output[0]), node, (alpha, skip))]


def _div(reader, node, facts, a, b):
    if isinstance(b, Constant):
        return [affine(reader, node, a, 1 / per_channel(b.real), 0.0)]
    raise Refusal("the engine does not divide", "multiply by a constant instead")


def _moved(reader, node, value, constant):
    """A constant added; in steps of the accumulator of a product it stays an integer."""
    if (isinstance(value, Result) and value.kind == "gate" and not value.affine
            and constant.whole is not None and not value.bounded):
        unit = math.prod(np.float64(x.scale) for x in value.sources)
        if np.allclose(constant.scale, unit, rtol=SAME_SCALE, atol=0):
            return replace(value, name=clean(node.output[0]),
                           bias=np.broadcast_to(per_channel(constant.whole).astype(np.int64),
                                                reader.shape(value.sources[1])[0]))
    return affine(reader, node, value, 1.0, per_channel(constant.real))


def _pair(reader, node, a, b):
    return reader.real(a, node), reader.real(b, node)


def _pixel(reader, a, b):
    """Which of two maps, 0 or 1, is one pixel beside a map of several; None if none is."""
    single = [reader.shape(x)[1:] == (1, 1) for x in (a, b)]
    return single.index(True) if single[0] != single[1] else None


def _is_alpha_first(reader, a, b):
    """Which factor is the attention map: the one with one channel, or from a table."""
    channels = reader.channels(a), reader.channels(b)
    if channels[0] != channels[1]:
        return channels[0] == 1
    return _from_table(reader, a.name) or not _from_table(reader, b.name)


def _from_table(reader, name):
    layer = reader.builder.layers[name]
    while isinstance(layer, Upsample):
        layer = reader.builder.layers[layer.input]
    return isinstance(layer, Lookup)


OPERATORS = {
    "Add": _add,
    "Sub": _sub,
    "Max": _max,
    "Min": _min,
    "Mul": _mul,
    "Div": _div,
}
