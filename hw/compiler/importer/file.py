"""An ONNX file as it comes: whether it is one, its constants, shapes and who reads what."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from golden.errors import InputError

OLDEST = 11         # opset: Clip with bounds as inputs, Resize with coordinate transformations
QUANTISE = ("onnxruntime.quantization.quantize_static(..., quant_format=QuantFormat.QDQ) makes one "
            "of it")
QOPERATORS = ("QLinearConv", "QLinearAdd", "QLinearMatMul", "ConvInteger", "MatMulInteger")


class File:
    """A model and what can be asked about it.

    Nodes that no output depends on are left out. Batches count as 1; with ``size`` rows and
    columns that the file leaves open become ``size``.
    """

    def __init__(self, path, *, model=None, size=None):
        self.path  = str(path)
        self.model = _parsed(Path(path)) if model is None else model
        self._check()
        if self.model.functions:
            self.model = onnx.inliner.inline_local_functions(self.model)
        self.input   = self._frame()
        self._fix(size)
        self.graph   = self._inferred().graph
        self.constants = {x.name: numpy_helper.to_array(x) for x in self.graph.initializer}
        self.outputs = [x.name for x in self.graph.output]
        self.nodes   = self._needed()
        self.readers = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.opset   = self._opset()
        self._shapes = {info.name: _dimensions(info) for info in (
            *self.graph.value_info, *self.graph.input, *self.graph.output)}

    def refuse(self, what):
        raise InputError(f"{self.path}: {what}")

    def shape(self, name):
        """Dimensions of a tensor; None if they do not follow from the file."""
        return self._shapes.get(name)

    def uses(self, name, own):
        """How many outputs, and nodes but those that make its ``own``, read a tensor, through
        DequantizeLinear and Identity."""
        count = self.outputs.count(name)
        for node in self.readers.get(name, []):
            through = node.op_type in ("DequantizeLinear", "Identity")
            count += self.uses(node.output[0], own) if through else node.output[0] not in own
        return count

    def _check(self):
        model = self.model
        if not model.graph.node or not model.opset_import:
            self.refuse("not an ONNX model; export the network as ONNX QDQ")
        if self._opset() < OLDEST:
            self.refuse(f"opset {self._opset()} is older than {OLDEST}; export with opset 13 or "
                        "newer")
        operators = Counter(node.op_type for node in model.graph.node)
        operator = next((name for name in QOPERATORS if operators[name]), None)
        if operator:
            self.refuse(f"operator {operator} belongs to another format than QDQ; quantise with "
                        "quant_format=QuantFormat.QDQ")
        functions = {name for body in model.functions for name in (n.op_type for n in body.node)}
        if not operators["DequantizeLinear"] and "DequantizeLinear" not in functions:
            self.refuse("a float model, without QuantizeLinear and DequantizeLinear; " + QUANTISE)

    def _opset(self):
        return next((x.version for x in self.model.opset_import if x.domain in ("", "ai.onnx")), 0)

    def _frame(self):
        """The one input that is not a constant."""
        graph  = self.model.graph
        stored = {x.name for x in graph.initializer}
        inputs = [x for x in graph.input if x.name not in stored]
        if len(inputs) != 1:
            self.refuse(f"{len(inputs)} inputs ({', '.join(x.name for x in inputs)}), and the "
                        "engine takes one frame; stack them as channels")
        return inputs[0]

    def _fix(self, size):
        """Batch 1, and a frame whose size is known."""
        batch, channels, *sides = self._dims()
        if batch not in (0, 1):
            self.refuse(f"input {self.input.name!r} has a batch of {batch}; export with a batch "
                        "of 1")
        if size is not None:
            sides = [side or size for side in sides]
        if not channels or not all(sides):
            shown = " x ".join(str(x or "?") for x in (batch, channels, *sides))
            self.refuse(f"input {self.input.name!r} has the dynamic shape {shown}; export with "
                        "fixed rows and columns, or give SIZE")
        if channels > 4:
            hint = ("; it looks like channels last: convert with channels first"
                    if sides[-1] <= 4 else "; convolve them to 4 or fewer before")
            self.refuse(f"input {self.input.name!r} has {channels} channels, and a frame has 1 to "
                        f"4{hint}")
        self.frame_shape = channels, *sides
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        self.model = model
        self.input = self._frame()
        for x, value in zip(self.input.type.tensor_type.shape.dim, (1, channels, *sides),
                            strict=True):
            x.dim_value = value
        for node in model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                node.domain = ""                # the same operators under an older name
        for info in (*model.graph.value_info, *model.graph.output):
            info.type.tensor_type.ClearField("shape")

    def _dims(self):
        dims = [x.dim_value for x in self.input.type.tensor_type.shape.dim]
        if len(dims) != 4:
            self.refuse(f"input {self.input.name!r} has {len(dims)} dimensions; frames are "
                        "N x C x H x W")
        return dims

    def _inferred(self):
        try:
            return onnx.shape_inference.infer_shapes(self.model, data_prop=True)
        except Exception as error:
            cause = str(error).splitlines()[0]
            raise InputError(f"{self.path}: shapes contradict each other ({cause}); check it with "
                             "onnx.checker.check_model") from None

    def _needed(self):
        """The nodes that outputs depend on, in order."""
        wanted, nodes = set(self.outputs), []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                nodes.append(node)
        return nodes[::-1]


def evaluate(node, inputs, opset):
    """Outputs of a node all of whose inputs are constants."""
    named = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
    graph = helper.make_graph(
        [node], "constant",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
         for name, value in named.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    from onnx.reference import ReferenceEvaluator
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, named)]


def attributes(node):
    """Attributes of a node by name; strings as text."""
    values = {x.name: helper.get_attribute_value(x) for x in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value
            for name, value in values.items()}


def _parsed(path):
    try:
        return onnx.load(path)
    except FileNotFoundError as error:
        missing = Path(error.filename) if error.filename else path
        raise InputError(f"No file {missing}; MODEL is the path of an ONNX file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; MODEL is the path of an ONNX file") from None
    except DecodeError:
        raise InputError(f"{path}: not an ONNX model; export the network as ONNX QDQ") from None


def _dimensions(info):
    shape = info.type.tensor_type.shape
    if not info.type.tensor_type.HasField("shape"):
        return None
    dims = [x.dim_value if x.HasField("dim_value") else None for x in shape.dim]
    return None if None in dims else tuple(dims)
