"""What each node of a file means, in terms of :mod:`hw.compiler.importer.values`.

A module for each kind of node has its operators: functions of the reader, the node, its attributes
and what its inputs stand for, to what its outputs do.
"""

import numpy as np

from golden.integer import Input
from hw.compiler.importer import (
    read_affine,
    read_convolutions,
    read_end,
    read_grids,
    read_means,
    read_moves,
    read_pairs,
    read_pools,
    read_tables,
)
from hw.compiler.importer.build import Builder
from hw.compiler.importer.check import printable
from hw.compiler.importer.ending import AFTER_END, TO_INTEGERS
from hw.compiler.importer.errors import Refusal, Refused
from hw.compiler.importer.file import attributes
from hw.compiler.importer.fold import Folder
from hw.compiler.importer.names import node_said
from hw.compiler.importer.read_end import carry_on, end
from hw.compiler.importer.read_grids import stand_in
from hw.compiler.importer.read_tables import TOGETHER, together
from hw.compiler.importer.rewrites import KNOWN, REWRITES
from hw.compiler.importer.share import said
from hw.compiler.importer.values import (
    Constant,
    Frame,
    Host,
    Real,
    Result,
    Stored,
    Unknown,
    Unmade,
)

OPERATORS = {}
for kind in (read_tables, read_grids, read_convolutions, read_affine, read_pairs, read_moves,
             read_pools, read_means, read_end):
    OPERATORS |= kind.OPERATORS         # after tables: Max and Min of two maps


class Reader:
    """Reads the nodes of a :class:`hw.compiler.importer.file.File` in order."""

    def __init__(self, file):
        self.file    = file
        self.folder  = Folder(file.opset)
        self.builder = Builder(self._sole)
        self.values  = {name: Constant(x) for name, x in file.constants.items()}
        self.values[""] = None
        offset = {2: 0, 3: 128}.get(file.input.type.tensor_type.elem_type)
        self.values[file.input.name] = Frame(file.input.name, offset)
        self.places  = {}           # tensor of the graph -> [(tensor of the file, offset)]
        self.floats  = {}           # tensor of the graph -> what the file quantises to make it
        self.reasons = []
        self.hosted  = []           # what the host does to outputs
        self.notes   = []           # what runs in another form than the file has it
        self.ending  = None         # what the first output holds
        self.stand_ins = set()      # tensors in place of those that refused nodes would make
        self.refused = []           # nodes, with those of which nothing is known that follow

    def read(self):
        """Names of the output tensors; every layer is then in :attr:`builder`."""
        try:
            self._read_nodes()
        finally:
            self.folder.close()
        outputs = [self._output(name) for name in self.file.outputs]
        if self.reasons:
            raise Refused(self.file.path, self.reasons, said(self.file, self.refused))
        return tuple(dict.fromkeys(outputs))

    def _read_nodes(self):
        for node in self.file.nodes:
            try:
                outputs = self._node(node)
            except Refusal as refusal:
                self.reasons.append(f"{node_said(refusal.node or node)}: {refusal}")
                self.refused.append(refusal.node or node)
                outputs = [Unknown()] * len(node.output)
            except ValueError as error:         # a layer that the golden contract forbids
                self.reasons.append(f"{node_said(node)}: {error}; change the layer")
                self.refused.append(node)
                outputs = [Unknown()] * len(node.output)
            for index, name in enumerate(node.output):
                if name:
                    self.values[name] = (outputs[index] if index < len(outputs)
                                         else Unmade(node, index + 1))

    def _sole(self, name):
        """Whether a tensor of the graph has one reader, wherever the file has it."""
        own = [place for place, _ in self.places.get(name, ())]
        return sum(self.file.uses(x, own) for x in (self.floats.get(name), *own)) == 1

    def place(self, name, place, source=None):
        """Note where the file has a tensor: there alone if its layer was :attr:`Builder.made` just
        now, or got bounds; there too if the file has it before. What else got bounds, the file has
        nowhere any more."""
        for changed in self.builder.tightened:
            if changed != name:
                self.places.pop(changed, None)
        self.builder.tightened.clear()
        if name in self.builder.made:
            self.places[name] = [place]
            self.floats[name] = source
        elif name in self.places:
            self.places[name].append(place)

    def _output(self, name):
        value = self.values[name]
        match value:
            case Real() | Stored() if value.name in self.stand_ins:
                pass
            case Real() | Stored() if not any(value.pads) and not isinstance(
                    self.builder.layers[value.name], Input):
                end(self, name, value.name, offset=getattr(value, "offset", None))
                return value.name
            case Host():
                self.hosted.append((value.name, value.operators))
                end(self, name, value.name, value.steps, dims=value.dims)
                return value.name
            case Result():
                kept = self.builder.kept(value) or self.builder.exact_sum(value)
                if kept:
                    end(self, name, kept.name)
                    return kept.name
                self.reasons.append(f"output {printable(name)!r}: it has no QuantizeLinear; "
                                    f"quantise the result of {value.node.op_type}")
            case Unknown():
                pass
            case Unmade():
                self.reasons.append(f"output {printable(name)!r}: {value}; leave it out")
            case _:
                self.reasons.append(f"output {printable(name)!r}: no layer makes it; leave it out")
        return name

    def _node(self, node):
        values = [self.values[name] for name in node.input]
        if any(isinstance(value, Unknown) for value in values):
            return self._unknown(node, values)
        handler = OPERATORS.get(node.op_type)
        if node.domain not in ("", "ai.onnx"):
            raise Refusal(f"the operator is of the domain {printable(node.domain)!r}", KNOWN)
        if node.op_type == "Shape" and not isinstance(values[0], Constant):
            shape = self.dims(values[0], node.input[0])
            if shape is None:
                raise Refusal("the shape is not known before the frame is", "export with fixed "
                              "rows and columns")
            facts = attributes(node)
            return [Constant(np.array(shape, np.int64)[facts.get("start", 0):facts.get("end")])]
        if node.op_type != "DequantizeLinear" and all(
                value is None or isinstance(value, Constant) for value in values):
            found = self.folder.fold(node, [value.real if value else None for value in values])
            return [Constant(x) for x in found]
        if values and isinstance(values[0], Host) and node.op_type in AFTER_END:
            return [carry_on(self, values[0], node, *values[1:])]
        if handler is None:
            raise Refusal("the engine has no such operator", REWRITES.get(node.op_type, KNOWN))
        unmade = next((value for value in values if isinstance(value, Unmade)), None)
        if unmade is not None:
            raise Refusal(f"it reads {unmade}", "leave it out")
        hosted = next((value for value in values if isinstance(value, Host)), None)
        if hosted is not None and not (node.op_type in TO_INTEGERS and hosted is values[0]):
            raise Refusal(f"it reads the result of {hosted.operators[-1]}, which the host "
                          "makes after the network", "end the network there")
        if node.op_type in TOGETHER and (found := together(self, node, *values)):
            if handler and all(isinstance(value, Real) for value in values):
                found.facts["otherwise"], = handler(self, node, attributes(node), *values)
            return [found]
        return handler(self, node, attributes(node), *values)

    def _unknown(self, node, values):
        """What follows from a refused node: nothing, up to where it gets a grid. There something of
        its shape stands in, so that what comes after is looked at as well."""
        shape = self.file.shape(node.output[0])
        if (node.op_type != "QuantizeLinear" or not isinstance(values[0], Unknown)
                or shape is None or len(shape) != 4 or shape[0] != 1 or min(shape) < 1):
            self.refused.append(node)
            return [Unknown()] * len(node.output)
        name = self.builder.fresh(node.output[0])
        self.stand_ins.add(name)
        return stand_in(self, attributes(node), name, shape[1:], *values[1:])

    def real(self, value, node, *, pads=False):
        """An operand as a float with a grid."""
        match value:
            case Real():
                if any(value.pads) and not pads:
                    raise Refusal("it reads a padded map, and only Conv can",
                                  "pad by a Conv's own pads")
                return value
            case Result():
                kept = self.builder.kept(value)
                if kept is None:
                    raise Refusal(f"its operand {value.name!r} has no QuantizeLinear",
                                  f"quantise the result of {value.node.op_type}")
                return kept
            case Frame():
                raise Refusal("it reads the frame before QuantizeLinear",
                              "quantise the input, and do this beforehand or in a Conv")
            case Constant():
                raise Refusal("an operand is a constant", "fold it into the Conv before")
            case _:
                raise Refusal("it reads integers", "put DequantizeLinear before it")

    def float_(self, value, node):
        """An operand that may still wait for its grid."""
        return value if isinstance(value, Result) else self.real(value, node)

    def dims(self, value, name):
        """N, C, H and W of a tensor of the file; None if they are not known."""
        shape = self.file.shape(name)
        if shape is not None or not isinstance(value, Real | Stored | Result):
            return shape
        if not isinstance(value, Result):
            t = self.builder.tensors[value.name]
            top, left, bottom, right = value.pads
            return 1, t.channels, t.height + top + bottom, t.width + left + right
        shapes = [self.dims(source, "") for source in value.sources]
        if None in shapes:
            return None
        *_, (_, channels, height, width) = shapes       # of a product, that of the second factor
        match value.kind:
            case "pool" | "average":
                return 1, channels, height // 2, width // 2
            case "nearest" | "linear":
                return 1, channels, 2 * height, 2 * width
            case "concat":
                return 1, sum(shape[1] for shape in shapes), height, width
            case "window" | "crop" | "pick" | "mean" | "spread" | "top" | "interpolated":
                return 1, *value.facts["shape"]
            case "sum" | "larger" | "smaller" | "gate" | "scaled" | "sigmoid" | "function" | (
                    "prelu"):
                return shapes[-1]
        return None

    def channels(self, real):
        return self.builder.tensors[real.name].channels

    def shape(self, real):
        t = self.builder.tensors[real.name]
        return t.channels, t.height, t.width

