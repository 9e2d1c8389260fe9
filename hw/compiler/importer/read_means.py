"""Means of maps or of channels, the largest of a map, and one pixel in place of a whole map."""

import numpy as np

from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.names import by, clean
from hw.compiler.importer.values import Constant, Real, Result


def spread(reader, node, value, sides):
    """A map of one pixel as one of ``sides``, with that pixel everywhere."""
    if reader.shape(value)[1:] == tuple(sides):
        return value
    made = Result("spread", f"{value.name}_spread", node, (value,),
                  {"shape": (reader.channels(value), *sides)})
    return Real(reader.builder.settle(made, value.grid, reader.builder.fresh(made.name)),
                *value.grid)


def _global_average(reader, node, facts, value):
    source = reader.real(value, node)
    return [Result("mean", clean(node.output[0]), node, (source,),
                   {"shape": (reader.channels(source), 1, 1)})]


def _global_largest(reader, node, facts, value):
    source = reader.real(value, node)
    return [Result("top", clean(node.output[0]), node, (source,),
                   {"shape": (reader.channels(source), 1, 1)})]


def _reduced_largest(reader, node, facts, value, axes=None):
    along = _axes(facts, axes)
    if along != [2, 3] or not facts.get("keepdims", 1):
        raise Refusal(f"it is over axes {_said(along, facts)}", "take the largest of rows and "
                      "columns (axes 2 and 3), with keepdims=1")
    return _global_largest(reader, node, facts, value)


def _axes(facts, axes):
    if not isinstance(axes, Constant | None):
        raise Refusal("its axes depend on the frame", "use constant axes")
    given = facts.get("axes", ()) if axes is None else axes.real.reshape(-1)
    return sorted(int(axis) % 4 for axis in given)


def _said(along, facts):
    return (by(along) or "of all kinds") + ("" if facts.get("keepdims", 1) else
                                            ", and drops them")


def _reduced_mean(reader, node, facts, value, axes=None):
    along = _axes(facts, axes)
    if along not in ([2, 3], [1]) or not facts.get("keepdims", 1):
        raise Refusal(f"it is over axes {_said(along, facts)}",
                      "take means over rows and columns (axes 2 and 3) or channels (axis 1), with "
                      "keepdims=1")
    if along == [2, 3]:
        return _global_average(reader, node, facts, value)
    source   = reader.real(value, node)
    channels = reader.channels(source)
    return [Result("conv", clean(node.output[0]), node, (source,), {
        "weight": np.ones((1, channels, 1, 1), np.int64), "scale": np.full(1, 1 / channels),
        "stride": 1, "padding": (0,) * 4, "groups": 1})]


OPERATORS = {
    "GlobalAveragePool": _global_average,
    "ReduceMean":        _reduced_mean,
    "GlobalMaxPool":     _global_largest,
    "ReduceMax":         _reduced_largest,
}
