"""Maps that are stacked and then added up, as ``torch.stack(maps).sum(0)`` is exported, as sums of
two, which the engine has."""

from functools import partial

import onnx
from onnx import helper, numpy_helper

from hw.compiler.importer.file import attributes, needed

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
                attributes(node).get("keepdims", 1) or attributes(stack).get("axis") != 0):
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
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    changed.graph.node.extend(needed(nodes, [x.name for x in graph.output]))
    return changed


def _sums(node, names):
    total, *rest = names
    ends = [f"{node.output[0]}_{number}" for number in range(1, len(rest))] + [node.output[0]]
    for name, end in zip(rest, ends, strict=True):
        yield helper.make_node("Add", [total, name], [end], f"{node.name}_{end}")
        total = end


def _axes(constants, made, node):
    """The axes of a node, where the file says them."""
    given = attributes(node).get("axes")
    if given is None and len(node.input) > 1:
        name = node.input[1]
        if name in made and made[name].op_type == "Constant":
            given = numpy_helper.to_array(attributes(made[name])["value"])
        else:
            given = constants.get(name)
    return None if given is None else [int(axis) for axis in given]

