"""QOperator files, whose operators take and make integers, as QDQ.

Each of their operators becomes the float one of the same meaning between DequantizeLinear and
QuantizeLinear; what only moves integers likewise, on the grid that they have. Nodes keep their
names.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from golden.errors import InputError
from hw.compiler.importer.check import name_of, printable

__all__ = ["as_qdq"]

PER_CHANNEL = 13        # opset from which DequantizeLinear has scales along an axis
CONTRIB = "com.microsoft"
DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
BEHIND  = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul", "QLinearAdd": "Add",
           "QLinearMul": "Mul", "QLinearConcat": "Concat", "QLinearSigmoid": "Sigmoid",
           "QLinearLeakyRelu": "LeakyRelu", "QLinearAveragePool": "AveragePool",
           "QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearSoftmax": "Softmax"}
"""What stands between DequantizeLinear and QuantizeLinear in place of each operator."""
MOVES = ("MaxPool", "Resize", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Pad", "Slice",
         "Split", "Concat", "Clip", "Relu", "Identity", "Dropout", "DepthToSpace")
"""Operators that make integers of integers on the same grid."""


def as_qdq(model, path):
    """``model`` with QDQ in place of integer operators; itself if it has none.

    Raises
    ------
    InputError
        If it has operators whose scales depend on the frame, or weights with scales along an axis
        in an opset without them.
    """
    kinds = {node.op_type for node in model.graph.node}
    dynamic = next((name for name in DYNAMIC if name in kinds), None)
    if dynamic:
        raise InputError(f"{path}: operator {dynamic} has scales that depend on the frame; "
                         "quantise statically (quantize_static)")
    if not kinds.intersection(BEHIND):
        return model
    opset = next((x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), 0)
    if opset < PER_CHANNEL:
        raise InputError(f"{path}: integer operators in opset {opset}; export with opset "
                         f"{PER_CHANNEL} or newer")
    return _Rewriter(model, path).model


class _Rewriter:
    def __init__(self, model, path):
        self.path  = path
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.numbers = {x.name: x for x in self.graph.initializer}
        self.grids = {}         # integer tensor -> names of its scale and zero point
        self.reads = {}         # (integer tensor, scale, zero point) -> its float
        self.taken = {name for node in self.graph.node for name in (*node.input, *node.output)}
        self.nodes = []
        for node in self.graph.node:
            self._node(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)

    def _node(self, node):
        inputs = [*node.input, *[""] * 9]
        operator = node.op_type
        if operator == "QuantizeLinear":
            self.grids[node.output[0]] = inputs[1], inputs[2]
        if operator in BEHIND and len(node.input) > 3:
            self._integers(node, operator, inputs)
        elif operator in MOVES and node.input and node.input[0] in self.grids:
            grid  = self.grids[node.input[0]]
            reals = [self._read(name, *grid) if name in self.grids else name
                     for name in node.input]
            self._made(node, operator, reals, dict.fromkeys(node.output, grid), node.attribute)
        else:
            self.nodes.append(node)

    def _integers(self, node, operator, inputs):
        facts = [x for x in node.attribute if x.name not in ("channels_last", "opset")]
        if any(x.name == "channels_last" and x.i for x in node.attribute):
            raise InputError(f"{self.path}: node {printable(name_of(node))!r} ({operator}) has "
                             "channels last; convert with channels first")
        match operator:
            case "QLinearConv":
                reals = [self._read(*inputs[:3]), self._weights(*inputs[3:6])]
                if inputs[8]:
                    reals.append(self._bias(node, inputs))
                grid = inputs[6:8]
            case "QLinearConcat":
                parts = list(node.input[2:])
                reals = [self._read(*parts[at:at + 3]) for at in range(0, len(parts), 3)]
                grid  = inputs[:2]
            case "QLinearAdd" | "QLinearMul" | "QLinearMatMul":
                reals = [self._read(*inputs[:3]), self._read(*inputs[3:6])]
                grid  = inputs[6:8]
            case _:
                reals = [self._read(*inputs[:3])]
                grid  = inputs[3:5]
        self._made(node, BEHIND[operator], reals, {node.output[0]: grid}, facts)

    def _made(self, node, operator, reals, grids, facts):
        """A float operator, each of whose results goes to its grid."""
        floats = [name and self._fresh(f"{name}_real") for name in grids]
        made = helper.make_node(operator, reals, floats, node.name)
        made.attribute.extend(facts)
        self.nodes.append(made)
        for name, real in zip(grids, floats, strict=True):
            if name:
                self.grids[name] = tuple(grids[name])
                self.nodes.append(helper.make_node(
                    "QuantizeLinear", [x for x in (real, *grids[name]) if x], [name],
                    self._fresh(f"{name}_quantise")))

    def _read(self, name, scale, zero):
        """What integers stand for."""
        key = name, scale, zero
        if key not in self.reads:
            self.reads[key] = self._fresh(f"{name}_read")
            self.nodes.append(helper.make_node(
                "DequantizeLinear", [x for x in key if x], [self.reads[key]], self.reads[key]))
        return self.reads[key]

    def _weights(self, name, scale, zero):
        """Weights with scales along axis 0. A zero point for all of them is one for each, and one
        in brackets is one."""
        scales, zeros = self._numbers(scale), self._numbers(zero)
        if scales is not None and scales.size == 1:
            scale = self._constant(f"{name}_scale", scales.reshape(()))
        if scales is not None and zeros is not None:
            shape = scales.shape if scales.size > 1 else ()
            zero  = self._constant(f"{name}_zero", np.resize(zeros, shape))
        made = self._fresh(f"{name}_read")
        self.nodes.append(helper.make_node(
            "DequantizeLinear", [x for x in (name, scale, zero) if x], [made], made, axis=0))
        return made

    def _bias(self, node, inputs):
        """A bias is in steps of its convolution's sums."""
        scales = [self._numbers(inputs[index]) for index in (1, 4)]
        if any(x is None for x in scales):
            raise InputError(f"{self.path}: node {printable(name_of(node))!r} ({node.op_type}) has "
                             "scales that depend on the frame; quantise statically")
        unit = (scales[0].astype(np.float32).reshape(-1)[0]
                * scales[1].astype(np.float32).reshape(-1))
        unit = self._constant(f"{inputs[8]}_scale", unit if unit.size > 1 else unit.reshape(()))
        made = self._fresh(f"{inputs[8]}_read")
        self.nodes.append(helper.make_node("DequantizeLinear", [inputs[8], unit], [made], made,
                                           axis=0))
        return made

    def _numbers(self, name):
        return numpy_helper.to_array(self.numbers[name]) if name in self.numbers else None

    def _constant(self, name, value):
        name = self._fresh(name)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _fresh(self, name):
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
