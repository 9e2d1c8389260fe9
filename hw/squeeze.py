"""What gates over channels (squeeze and excitation) need, in operators that quantise well.

The engine makes the mean of up to 7x7 pixels at once. Of more, averages of 2x2 come first, here as
convolutions, for each of which ONNX Runtime's quantiser finds a range of its own: means have a
narrower one than what they are of, and on its grid too much would be lost. Layers on vectors, the
means of all channels, become convolutions of a map of one pixel.
"""

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from hw.compiler.importer.build_means import halved
from hw.compiler.importer.file import attributes
from hw.compiler.importer.read_tables import POINTWISE, TOGETHER

__all__ = ["in_steps"]

RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
ALIKE    = {*POINTWISE, *TOGETHER, "Relu", "Clip", "Sigmoid", "Dropout", "Identity"}
"""Operators on vectors that are the same on a map of one pixel."""


def in_steps(model):
    """A copy of a float model with such operators; ``model`` itself if there are no means in it."""
    if not any(node.op_type in ("GlobalAveragePool", "ReduceMean") for node in model.graph.node):
        return model
    model = shape_inference.infer_shapes(model, data_prop=True)
    try:
        return _Rewriter(model, vectors=True).model
    except _NoPixel:
        return _Rewriter(model, vectors=False).model


class _NoPixel(Exception):
    """An operator on a vector that has no equal on a map of one pixel."""


class _Rewriter:
    def __init__(self, model, *, vectors):
        self.vectors = vectors
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self.numbers = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
        self.shapes  = {x.name: tuple(side.dim_value for side in x.type.tensor_type.shape.dim)
                        for x in (*graph.value_info, *graph.input, *graph.output)}
        self.made    = []           # constants
        self.pixels  = set()        # vectors that are now maps of one pixel
        self.outputs = {x.name for x in graph.output}
        nodes = [made for node in graph.node for made in self._node(node)]
        read = {name for node in nodes for name in node.input}
        kept = [x for x in (*graph.initializer, *self.made) if x.name in read]
        del graph.node[:], graph.value_info[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(kept)

    def _node(self, node):
        facts = attributes(node)
        shape = self.shapes.get(node.input[0], ()) if node.input else ()
        if node.output[0] in self.outputs:
            if self.pixels.intersection(node.input):
                raise _NoPixel
            return [node]
        if self._is_mean(node, facts, shape):
            return self._mean(node, shape)
        if not self.vectors:
            return [node]
        made = self.shapes.get(node.output[0], ())
        if node.op_type in RESHAPES and _is_pixel(shape) and _is_pixel(made) and (
                len(shape) == 4 or node.input[0] in self.pixels):
            if len(made) < 4:
                self.pixels.add(node.output[0])
            return [helper.make_node("Identity", node.input[:1], node.output, node.name)]
        if self.pixels.intersection(node.input):
            self.pixels.add(node.output[0])
            return self._on_pixels(node, facts)
        return [node]

    def _is_mean(self, node, facts, shape):
        if len(shape) != 4 or min(shape) < 1 or not (self.vectors or facts.get("keepdims", 1)):
            return False
        if node.op_type == "ReduceMean":
            axes = facts.get("axes", self.numbers.get(node.input[1], ())
                             if len(node.input) > 1 else ())
            return sorted(int(axis) % 4 for axis in axes) == [2, 3]
        return node.op_type == "GlobalAveragePool"

    def _mean(self, node, shape):
        """Convolutions of 2x2, and the mean of what is left."""
        _, channels, *sides = shape
        stages, factor = halved(sides)
        nodes, source = [], node.input[0]
        for index, (kernel, behind) in enumerate(stages):
            weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
            if index == len(stages) - 1:
                weight *= np.float32(factor)
            made = f"{node.output[0]}_halved_{index}"
            nodes.append(helper.make_node(
                "Conv", [source, self._constant(f"{made}_weight", weight)], [made], made,
                group=channels, strides=[2, 2], pads=[0, 0, *behind], kernel_shape=kernel))
            source = made
        nodes.append(helper.make_node("GlobalAveragePool", [source], node.output, node.name))
        if len(self.shapes.get(node.output[0], ())) == 2:           # it drops rows and columns
            self.pixels.add(node.output[0])
        return nodes

    def _on_pixels(self, node, facts):
        """An operator on a vector as one on a map of one pixel."""
        weight = self.numbers.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in ("Gemm", "MatMul") and weight is not None and weight.ndim == 2:
            if not facts.get("transB"):
                weight = weight.T
            inputs = [node.input[0], self._constant(
                f"{node.output[0]}_weight", (facts.get("alpha", 1.0) * weight)[:, :, None, None])]
            if len(node.input) > 2:
                bias = facts.get("beta", 1.0) * self.numbers[node.input[2]]
                inputs.append(self._constant(f"{node.output[0]}_bias", np.broadcast_to(
                    bias.reshape(-1), len(weight))))
            return [helper.make_node("Conv", inputs, node.output, node.name)]
        if node.op_type not in ALIKE or node.op_type in TOGETHER and not all(
                name in self.pixels or name in self.numbers for name in node.input):
            raise _NoPixel
        made = onnx.NodeProto()
        made.CopyFrom(node)
        for index, name in enumerate(node.input):
            value = self.numbers.get(name)
            if value is not None and value.size > 1:        # one for each channel
                made.input[index] = self._constant(f"{node.output[0]}_operand",
                                                   value.reshape(-1, 1, 1))
        return [made]

    def _constant(self, name, value):
        self.made.append(numpy_helper.from_array(
            np.ascontiguousarray(value, np.float32), name))
        return name


def _is_pixel(shape):
    """Whether this is a vector of channels, as such or as a map of one pixel."""
    return 2 <= len(shape) <= 4 and shape[1] == math.prod(shape) > 0
