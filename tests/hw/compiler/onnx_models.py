"""Small ONNX QDQ models, node by node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FRAME = (3, 8, 12)


class Model:
    """A model as it grows: every method appends a node and returns the name of its result."""

    def __init__(self, *, frame=FRAME, kind=np.uint8, opset=17, seed=0):
        self.nodes, self.constants, self.outputs = [], [], []
        self.frame, self.kind, self.opset = frame, np.dtype(kind), opset
        self.random = np.random.default_rng(seed)
        self.input_type = TensorProto.FLOAT

    def constant(self, value, name=None):
        name = name or f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operator, *inputs, name=None, domain="", **attributes):
        name = name or f"{operator.lower()}{len(self.nodes)}"
        inputs = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name,
                                           domain=domain, **attributes))
        return f"{name}_out"

    def stored(self, x, scale=0.02, zero=None, **naming):
        zero = {np.uint8: 100, np.int8: -5}[self.kind.type] if zero is None else zero
        return self.node("QuantizeLinear", x, np.float32(scale), self.kind.type(zero), **naming)

    def read(self, x, scale=0.02, zero=None):
        zero = {np.uint8: 100, np.int8: -5}[self.kind.type] if zero is None else zero
        return self.node("DequantizeLinear", x, np.float32(scale), self.kind.type(zero))

    def quantised(self, x, scale=0.02, zero=None, **naming):
        return self.read(self.stored(x, scale, zero, **naming), scale, zero)

    def image(self):
        """The frame, on the grid of its bytes; quantised once."""
        if any(node.name == "image_q" for node in self.nodes):
            return self.frame_read
        zero = {np.uint8: 0, np.int8: -128}[self.kind.type]
        self.frame_read = self.quantised("image", 1 / 255, zero, name="image_q")
        return self.frame_read

    def weights(self, shape, *, axis=0, per_channel=True, kind=np.int8, zero=0):
        values = self.random.integers(-127, 128, shape) + zero
        count  = shape[axis] if per_channel else ()
        scale  = self.random.uniform(0.001, 0.006, count).astype(np.float32)
        zeros  = np.full(count, zero, kind)
        return self.node("DequantizeLinear", values.astype(kind), scale, zeros, axis=axis)

    def conv(self, x, shape, *, bias=True, weights=None, **attributes):
        inputs = [x, weights or self.weights(shape)]
        if bias:
            inputs.append(self.random.normal(0, 0.5, shape[0]).astype(np.float32))
        return self.node("Conv", *inputs, **attributes)

    def output(self, *names):
        self.outputs += names
        return self

    def model(self):
        frame = helper.make_tensor_value_info("image", self.input_type, [1, *self.frame])
        graph = helper.make_graph(
            self.nodes, "small", [frame],
            [onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(
                TensorProto.FLOAT, None)) for name in self.outputs], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)],
                                 ir_version=8)
