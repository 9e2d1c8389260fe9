"""Maps that are stacked and then added up, as ``torch.stack(maps).sum(0)`` is exported, as sums of
two, which the engine has."""

from functools import partial

import onnx
from onnx import helper, numpy_helper

__all__ = ["unstacked"]


def unstacked(model):
    """A float model in which sums over a new first axis are sums of two; ``model`` itself if it has
    none. What nobody reads any more is left out."""
    graph = model.graph
    made  = {node.output[0]: node for node in graph.node}
    axes  = partial(_axes, {x.name: numpy_helper.to_array(x) for x in graph.initializer}, made)
    stacks = {}
    for node in graph.node:
        stack = made.get(node.input[0]) if node.op_type == "ReduceSum" else None
        if stack is None or stack.op_type != "Concat" or axes(node) != [0] or (
                _fact(node, "keepdims", 1) or _fact(stack, "axis", None) != 0):
            continue
        parts = [made.get(name) for name in stack.input]
        if len(parts) > 1 and all(part is not None and part.op_type == "Unsqueeze"
                                  and axes(part) == [0] for part in parts):
            stacks[node.output[0]] = [part.input[0] for part in parts]
    if not stacks:
        return model
    nodes = []
    for node in graph.node:
        nodes += _sums(node, stacks[node.output[0]]) if node.output[0] in stacks else [node]
    return _without(model, nodes)


def _sums(node, names):
    total, *rest = names
    ends = [f"{node.output[0]}_{number}" for number in range(1, len(rest))] + [node.output[0]]
    for name, end in zip(rest, ends, strict=True):
        yield helper.make_node("Add", [total, name], [end], f"{node.name}_{end}")
        total = end


def _without(model, nodes):
    """A copy of the model that has these nodes, less those that only refused ones read."""
    ends  = {x.name for x in model.graph.output}
    found = []
    read  = set(ends)
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(node.input)
            found.append(node)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    changed.graph.node.extend(reversed(found))
    return changed


def _axes(constants, made, node):
    """The axes of a node, where the file says them."""
    given = _fact(node, "axes", None)
    if given is None and len(node.input) > 1:
        name = node.input[1]
        if name in made and made[name].op_type == "Constant":
            given = numpy_helper.to_array(_fact(made[name], "value", None))
        else:
            given = constants.get(name)
    return None if given is None else [int(axis) for axis in given]


def _fact(node, name, default):
    return next((helper.get_attribute_value(x) for x in node.attribute if x.name == name), default)
