"""An ONNX file as it comes: whether it is one, its constants, shapes and who reads what."""

import math
import subprocess
import sys
from collections import Counter

import onnx
from onnx import TensorProto, helper, numpy_helper

from golden.errors import InputError
from golden.places import COMMAND
from hw.compiler.importer import shape_worker
from hw.compiler.importer.check import (
    EXPORT,
    LARGEST_MEMORY,
    plain,
    printable,
    read_model,
    told,
)
from hw.compiler.importer.layout import channels_first
from hw.compiler.importer.qoperators import BEHIND, DYNAMIC, as_qdq

SECONDS = 20        # for shapes that are inferred in another process
OLDEST = 11         # opset: Clip with bounds as inputs, Resize with coordinate transformations
QUANTISE = f"with CALIBRATION=folder of pictures `{COMMAND} sim` quantises it"
MOST_CHANNELS = 4   # of a frame
THROUGH = ("DequantizeLinear", "Identity", "Dropout", "Cast", "Pad")    # numbers stay as they are
FRAMES    = {TensorProto.FLOAT: "float", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8",
             TensorProto.INT8: "int8"}


class File:
    """A model and what can be asked about it.

    Nodes that no output depends on are left out. Batches count as 1; with ``size`` rows and
    columns that the file leaves open become ``size``.
    """

    def __init__(self, path, *, model=None, size=None):
        self.path  = str(path)
        self.model = read_model(path) if model is None else model
        self._check()
        self.model = channels_first(as_qdq(plain(self.model, self.path), self.path))
        self.input, self.frame_shape = fixed_frame(self.model, self.path, size)
        self._tidy()
        self._check_slices()
        self.model = self._inferred()
        self.graph = self.model.graph
        self.constants = {x.name: numpy_helper.to_array(x) for x in self.graph.initializer}
        self.outputs = [x.name for x in self.graph.output]
        self.nodes   = needed(self.graph.node, self.outputs)
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
        :data:`THROUGH`."""
        count, open_ = 0, [name]
        while open_:
            name   = open_.pop()
            count += self.outputs.count(name)
            for node in self.readers.get(name, []):
                if node.op_type in THROUGH:
                    open_.append(node.output[0])
                else:
                    count += node.output[0] not in own
        return count

    def _check(self):
        model = self.model
        if not model.graph.node or not model.opset_import:
            self.refuse("not an ONNX model; export the network as ONNX QDQ")
        if self._opset() < OLDEST:
            self.refuse(f"opset {self._opset()} is older than {OLDEST}; export with opset 13 or "
                        "newer")
        operators = Counter(node.op_type for node in model.graph.node)
        functions = {name for body in model.functions for name in (n.op_type for n in body.node)}
        if not {"DequantizeLinear", *BEHIND, *DYNAMIC}.intersection({*operators, *functions}):
            self.refuse("a float model, without QuantizeLinear and DequantizeLinear; " + QUANTISE)

    def _opset(self):
        return next((x.version for x in self.model.opset_import if x.domain in ("", "ai.onnx")), 0)

    def _tidy(self):
        """Types and shapes follow anew; operators under an older name get their own."""
        for node in self.model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.domain == "ai.onnx":
                node.domain = ""
        del self.model.graph.value_info[:]
        for info in self.model.graph.output:
            info.ClearField("type")

    def _check_slices(self):
        """Where a part is taken of a map with less than no rows, which a kernel larger than its map
        makes, ONNX's shape inference ends the process; so first it is asked in another one."""
        of_maps, sliced = {self.input.name}, False
        for node in self.model.graph.node:
            if node.op_type != "Shape" and of_maps.intersection(node.input):
                of_maps.update(node.output)
                sliced = sliced or node.op_type == "Slice"
        if sliced:
            try:
                done = subprocess.run([sys.executable, "-I", shape_worker.__file__], check=False,
                                      input=self.model.SerializeToString(),
                                      stderr=subprocess.DEVNULL, timeout=SECONDS).returncode
            except subprocess.TimeoutExpired:
                done = -1
            if done < 0:
                self.refuse("no shapes follow for its Slices; look for a kernel that is larger "
                            "than its map, or use a larger frame")

    def _inferred(self):
        """The model with the type and shape of every tensor, as far as they follow."""
        strange = any(node.domain for node in self.model.graph.node)    # of which nothing follows
        try:
            return onnx.shape_inference.infer_shapes(
                self.model, data_prop=True, strict_mode=not strange, check_type=not strange)
        except Exception as error:
            self.refuse(f"shapes or types contradict each other ({told(error)}); check it with "
                        "onnx.checker.check_model(..., full_check=True)")


def fixed_frame(model, path, size=None):
    """The one input of a model that is not a constant, and its channels, rows and columns, which
    become those of the model; its batch becomes 1.

    Raises
    ------
    InputError
        If there is no such input, or no machine takes it.
    """
    def refuse(what):
        raise InputError(f"{path}: {what}")

    stored = {x.name for x in model.graph.initializer}
    inputs = [x for x in model.graph.input if x.name not in stored]
    if len(inputs) != 1:
        names = printable(", ".join(x.name for x in inputs))
        refuse(f"{len(inputs)} inputs ({names}), and the engine takes one frame; "
               + ("stack them as channels" if inputs else EXPORT))
    given, = inputs
    name   = printable(given.name)
    kind   = given.type.tensor_type.elem_type
    dims   = [x.dim_value for x in given.type.tensor_type.shape.dim]
    if len(dims) != 4:
        refuse(f"input {name!r} has {len(dims)} dimensions; frames are N x C x H x W")
    batch, channels, *sides = dims
    if kind not in FRAMES:
        shown = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else kind
        refuse(f"input {name!r} is of type {shown}; declare it as one of "
               + ", ".join(FRAMES.values()))
    if batch not in (0, 1):
        refuse(f"input {name!r} has a batch of {batch}; export with a batch of 1")
    if size is not None:
        sides = [side or size for side in sides]
    if channels < 1 or min(sides) < 1:
        shown = " x ".join(str(x or "?") for x in (batch, channels, *sides))
        refuse(f"input {name!r} has the dynamic shape {shown}; export with fixed rows and "
               "columns, or give SIZE")
    if channels > MOST_CHANNELS:
        hint = ("; it looks like channels last: convert with channels first"
                if sides[-1] <= MOST_CHANNELS else "; convolve them to 4 or fewer before")
        refuse(f"input {name!r} has {channels} channels, and a frame has 1 to 4{hint}")
    if math.prod(sides) * MOST_CHANNELS > LARGEST_MEMORY:
        refuse(f"input {name!r} has {sides[0]} x {sides[1]} pixels, and no machine has room for "
               f"more than {LARGEST_MEMORY // MOST_CHANNELS:,}; use a smaller frame")
    shape = channels, *sides
    for x, value in zip(given.type.tensor_type.shape.dim, (1, *shape), strict=True):
        x.dim_value = value
    return given, shape


def needed(nodes, outputs):
    """The nodes that outputs depend on, in order."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output) - {""}:
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def attributes(node):
    """Attributes of a node by name; strings as text."""
    values = {x.name: helper.get_attribute_value(x) for x in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value
            for name, value in values.items()}


def _dimensions(info):
    shape = info.type.tensor_type.shape
    if not info.type.tensor_type.HasField("shape"):
        return None
    dims = [x.dim_value if x.HasField("dim_value") else None for x in shape.dim]
    return None if None in dims else tuple(dims)
