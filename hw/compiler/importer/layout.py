"""Frames with channels last, as TensorFlow has them, become frames with channels first.

Exporters from TensorFlow (tf2onnx) compute with channels first, and keep channels last at both
ends by a Transpose there, or for one channel a Reshape. The one at the beginning is taken out of
the file here; the one at the end is the host's (:mod:`hw.compiler.importer.ending`).
"""

import onnx
from onnx import helper, numpy_helper

__all__ = ["channels_first"]

TO_FIRST = [0, 3, 1, 2]
THROUGH  = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast")


def channels_first(model):
    """A copy of ``model`` that takes N x C x H x W, if all that is done with its frame of N x H x W
    x C is to bring it there; else ``model`` itself."""
    stored = {x.name: x for x in model.graph.initializer}
    frames = [x for x in model.graph.input if x.name not in stored]
    dims   = list(frames[0].type.tensor_type.shape.dim) if len(frames) == 1 else []
    if len(dims) != 4:
        return model
    readers, outputs = {}, {x.name for x in model.graph.output}
    for index, node in enumerate(model.graph.node):
        for name in node.input:
            readers.setdefault(name, []).append((index, node))
    found, open_ = set(), [frames[0].name]
    while open_:
        name = open_.pop()
        if name in outputs or not readers.get(name):
            return model
        for index, node in readers[name]:
            if node.op_type in THROUGH and node.input[0] == name:
                open_ += node.output
            elif _is_to_first(node, dims, stored) and node.input[0] == name:
                found.add(index)
            else:
                return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for index in found:
        node = changed.graph.node[index]
        node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output, node.name))
    given = next(x for x in changed.graph.input if x.name == frames[0].name)
    for dim, source in zip(given.type.tensor_type.shape.dim, TO_FIRST, strict=True):
        dim.CopyFrom(dims[source])
    del changed.graph.value_info[:]
    return changed


def _is_to_first(node, dims, stored):
    """Whether a node makes N x C x H x W of N x H x W x C."""
    facts = {x.name: helper.get_attribute_value(x) for x in node.attribute}
    if node.op_type == "Transpose":
        return list(facts.get("perm", ())) == TO_FIRST
    if node.op_type != "Reshape" or dims[3].dim_value != 1 or node.input[1] not in stored:
        return False
    shape = numpy_helper.to_array(stored[node.input[1]]).tolist()
    sides = [x.dim_value for x in dims[1:3]]
    return len(shape) == 4 and shape[1] == 1 and all(
        made in (-1, side) for made, side in zip(shape[2:], sides, strict=True))
