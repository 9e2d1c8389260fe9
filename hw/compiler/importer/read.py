"""What each node of a file means, in terms of :mod:`hw.compiler.importer.values`."""

import math
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from golden.integer import TRANSPOSED_KERNELS, Input, Lookup
from hw.compiler.importer.build import FUNCTIONS, UNIT_WEIGHT, UNPLACED, Builder
from hw.compiler.importer.check import name_of, printable, spoken
from hw.compiler.importer.ending import AFTER_END, FLOAT_TYPES, TO_INTEGERS, Ending, continued
from hw.compiler.importer.errors import Refusal, Refused
from hw.compiler.importer.file import attributes
from hw.compiler.importer.fold import Folder
from hw.compiler.importer.rewrites import KNOWN, REWRITES
from hw.compiler.importer.values import (
    Constant,
    Frame,
    Host,
    Index,
    Looked,
    Real,
    Result,
    Step,
    Stored,
    Unknown,
    Unmade,
)
from hw.compiler.ops import COPIED

SUFFIXES = ("_quantized", "_QuantizeLinear_Output", "_QuantizeLinear_Input", "_output_0")
BREVITAS = ("act_quant", "activation_impl", "export_handler")   # its own parts of a module's path
OFFSETS  = {np.dtype(np.uint8): 0, np.dtype(np.int8): 128}
INTEGERS = ("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32")
LARGEST_KERNEL = 7
AUTO_PADS  = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
SAME_SCALE = 1e-6       # relative: a bias in steps of its convolution's accumulator
FLOATS   = (Real, Result)
POINTWISE = frozenset(
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish LeakyRelu Log Max Min Mish Neg PRelu Pow Reciprocal Round Selu Shrink Sign Sin Sinh "
    "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu".split())
"""Operators that make each number of one number, and perhaps constants."""
TOGETHER = frozenset("Add Div Max Min Mul Pow Sub".split())
"""Operators that make each number of two, which may both come of one."""


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

    def read(self):
        """Names of the output tensors; every layer is then in :attr:`builder`."""
        try:
            self._read_nodes()
        finally:
            self.folder.close()
        outputs = [self._output(name) for name in self.file.outputs]
        if self.reasons:
            raise Refused(self.file.path, self.reasons)
        return tuple(dict.fromkeys(outputs))

    def _read_nodes(self):
        for node in self.file.nodes:
            try:
                outputs = self._node(node)
            except Refusal as refusal:
                self.reasons.append(f"{_spoken(refusal.node or node)}: {refusal}")
                outputs = [Unknown()] * len(node.output)
            except ValueError as error:         # a layer that the golden contract forbids
                self.reasons.append(f"{_spoken(node)}: {error}; change the layer")
                outputs = [Unknown()] * len(node.output)
            for index, name in enumerate(node.output):
                if name:
                    self.values[name] = (outputs[index] if index < len(outputs)
                                         else Unmade(node, index + 1))

    def _sole(self, name):
        """Whether a tensor of the graph has one reader, wherever the file has it."""
        own = [place for place, _ in self.places.get(name, ())]
        return sum(self.file.uses(x, own) for x in (self.floats.get(name), *own)) == 1

    def _place(self, name, place, made, source=None):
        """Note where the file has a tensor: there alone if it is new, or got its bounds since the
        layers were those ``made``; there too if it has it before. What else got bounds, the file
        has nowhere any more."""
        for changed in self.builder.tightened:
            if changed != name:
                self.places.pop(changed, None)
        self.builder.tightened.clear()
        if made.get(name) is not self.builder.layers[name]:
            self.places[name] = [place]
            self.floats[name] = source
        elif name in self.places:
            self.places[name].append(place)

    def _output(self, name):
        value = self.values[name]
        match value:
            case Real() | Stored() if not any(value.pads) and not isinstance(
                    self.builder.layers[value.name], Input):
                self._end(name, value.name, offset=getattr(value, "offset", None))
                return value.name
            case Host():
                self.hosted.append((value.name, value.operators))
                self._end(name, value.name, value.steps)
                return value.name
            case Result():
                kept = self.builder.kept(value) or self.builder.exact_sum(value)
                if kept:
                    self._end(name, kept.name)
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
            return [Unknown()] * len(node.output)
        handler = getattr(self, f"_on_{node.op_type.lower()}", None)
        if node.domain not in ("", "ai.onnx"):
            raise Refusal(f"the operator is of the domain {printable(node.domain)!r}", KNOWN)
        if node.op_type == "Shape" and not isinstance(values[0], Constant):
            shape = self._dims(values[0], node.input[0])
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
            return [self._continued(values[0], node, *values[1:])]
        if handler is None and node.op_type in POINTWISE:
            handler = self._pointwise
        if handler is None:
            raise Refusal("the engine has no such operator", REWRITES.get(node.op_type, KNOWN))
        unmade = next((value for value in values if isinstance(value, Unmade)), None)
        if unmade is not None:
            raise Refusal(f"it reads {unmade}", "leave it out")
        hosted = next((value for value in values if isinstance(value, Host)), None)
        if hosted is not None and not (node.op_type in TO_INTEGERS and hosted is values[0]):
            raise Refusal(f"it reads the result of {hosted.operators[-1]}, which the host "
                          "makes after the network", "end the network there")
        if node.op_type in TOGETHER and (found := self._together(node, *values)):
            if handler and all(isinstance(value, Real) for value in values):
                found.facts["otherwise"], = handler(node, attributes(node), *values)
            return [found]
        return handler(node, attributes(node), *values)

    def _real(self, value, node, *, pads=False):
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

    def _float(self, value, node):
        """An operand that may still wait for its grid."""
        return value if isinstance(value, Result) else self._real(value, node)

    # Between floats and integers.

    def _on_quantizelinear(self, node, facts, value, scale, zero_point=None):
        grid, offset = self._grid(scale, zero_point, facts)
        if isinstance(value, Host):
            if "ArgMax" in value.operators or TO_INTEGERS[0] in value.operators:
                raise Refusal("it reads integers", "remove it")
            return [replace(value, steps=(*value.steps, Step(node.op_type, grid, offset)))]
        stored = node.output[0]
        name   = self._name(stored, node)
        made   = dict(self.builder.layers)
        match value:
            case Frame():
                name = _clean(value.name)
                t    = self.builder.tensors.get(name)
                if t is not None and (t.scale, t.zero_point) != grid:
                    raise Refusal("the frame is quantised to two grids", "quantise it once")
                if t is None:
                    self.builder.frame(name, self.file.frame_shape, grid)
            case Real() if any(value.pads):
                inner = self.builder.settle(replace(value, pads=(0,) * 4), grid, name)
                return [Stored(inner, offset, value.pads)]
            case Real() | Result():
                name = self.builder.settle(value, grid, name)
            case _:
                raise Refusal("it reads integers", "remove it")
        self._check_shape(name, stored)
        self._place(name, (stored, offset), made,
                    node.input[0] if isinstance(value, Result) else None)
        return [Stored(name, offset)]

    def _on_dequantizelinear(self, node, facts, value, scale, zero_point=None):
        if isinstance(value, Constant):
            if not isinstance(scale, Constant) or not isinstance(zero_point, Constant | None):
                raise Refusal("scale or zero point depend on the frame", "quantise statically")
            return [_dequantised(value.real, scale.real, zero_point, facts.get("axis", 1), facts)]
        before = value.steps[-1] if isinstance(value, Host) and value.steps else value
        grid, offset = self._grid(scale, zero_point, facts, getattr(before, "offset", None))
        match value:
            case Host(steps=(*_, Step(operator="QuantizeLinear", grid=made))) if made == grid:
                return [replace(value, steps=(*value.steps, Step(node.op_type)))]
            case Host():
                raise Refusal("it reads the host's result with another scale or zero point than it "
                              "is written with", "use the same in both")
            case Frame():
                if value.offset != offset:
                    raise Refusal("the frame has no 8-bit integers", "declare the input as uint8, "
                                  "or quantise it")
                name = _clean(value.name)
                if name not in self.builder.tensors:
                    self.builder.frame(name, self.file.frame_shape, grid)
                    self.places[name] = [(value.name, offset)]
                return [Real(name, *grid)]
            case Looked():
                self.builder.table(value.layer, grid)
                self.places[value.layer.name] = [(node.input[0], value.offset)]
                return [Real(value.layer.name, *grid)]
            case Stored():
                tensor = self.builder.tensors[value.name]
                if offset != value.offset or grid[1] != tensor.zero_point:
                    raise Refusal(f"{value.name!r} is read with another zero point or type than it "
                                  "is written with", "use the same in both")
                return [Real(value.name, *grid, value.pads)]
        raise Refusal("it reads floats", "remove it")

    def _grid(self, scale, zero_point, facts, offset=None):
        """Scale and zero point of uint8, and what int8 lacks to them; without a zero point, of
        the type that the attribute says, or that what is read has, by its ``offset``."""
        if not isinstance(scale, Constant) or not (
                zero_point is None or isinstance(zero_point, Constant)):
            raise Refusal("scale or zero point depend on the frame", "quantise statically")
        if scale.real.size != 1:
            raise Refusal(f"{scale.real.size} scales for one activation",
                          "quantise activations per tensor")
        if facts.get("block_size"):
            raise Refusal("blocks of activations with scales of their own",
                          "quantise activations per tensor")
        if zero_point is not None:
            if zero_point.real.size != 1:
                raise Refusal(f"{zero_point.real.size} zero points for one activation",
                              "quantise activations per tensor")
            zero = zero_point.real.reshape(-1)[0]
        elif offset is None:
            given = facts.get("output_dtype", TensorProto.UINT8) or TensorProto.UINT8
            zero  = np.zeros((), helper.tensor_dtype_to_np_dtype(given))[()]
        else:
            zero = np.uint8(0) if offset == 0 else np.int8(0)
        if zero.dtype not in OFFSETS:
            raise Refusal(f"activations of type {zero.dtype}", "quantise them to uint8 or int8")
        scale = np.float32(scale.real.reshape(-1)[0])
        if not 0 < scale < math.inf:
            raise Refusal(f"a scale of {scale}", "calibrate with frames on which it is not "
                                                 "constant")
        offset = OFFSETS[zero.dtype]
        return (scale, int(zero) + offset), offset

    def _name(self, stored, node):
        if self.file.model.producer_name == "attune" or "/" not in node.input[0]:
            name = _clean(stored)
        else:
            name = _clean(node.input[0])
        return self.builder.fresh(name)

    def _check_shape(self, name, stored):
        tensor, shape = self.builder.tensors[name], self.file.shape(stored)
        made = (1, tensor.channels, tensor.height, tensor.width)
        if shape is not None and shape != made:
            raise Refusal(f"the file has {_by(shape)} where the layer makes {_by(made)}",
                          "export with the shape that ONNX infers")

    # Convolutions.

    def _on_conv(self, node, facts, value, weight, bias=None):
        groups = facts.get("group", 1)
        whole, scale = _weights(weight, axis=0)
        if isinstance(value, Result) and groups == 1 and 2 * whole.shape[2] <= LARGEST_KERNEL:
            value = self.builder.exact_sum(value) or value      # its rows, for each operand
        source = self._real(value, node, pads=True)
        channels = self._channels(source)
        outputs, inputs, *kernel = whole.shape
        if groups < 1 or groups * inputs != channels or outputs % groups:
            raise Refusal(f"{groups} groups of {inputs} channels for {outputs} outputs of "
                          f"{channels} channels", "export with the shape that ONNX infers")
        if groups > 1 and (inputs > 1 or outputs != channels):
            whole, groups = _ungrouped(whole, groups), 1
            self.notes.append(f"{spoken(name_of(node))!r} has {facts['group']} groups: it runs as "
                              "a dense convolution with zeros, and counts as one")
        strides = facts.get("strides", [1] * len(kernel))
        if len(kernel) != 2 or strides[0] != strides[-1] or strides[0] not in (1, 2):
            raise Refusal(f"a kernel of {_by(kernel)} with strides of {_by(strides)}",
                          "use two dimensions and a stride of 1 or 2 in both")
        dilations = facts.get("dilations", [1] * len(kernel))
        if any(x != 1 for x in dilations):
            reached = [(k - 1) * x + 1 for k, x in zip(kernel, dilations, strict=True)]
            if min(dilations) < 1 or max(reached) > LARGEST_KERNEL:
                raise Refusal(f"a kernel of {_by(kernel)} with a dilation of {_by(dilations)}",
                              "reach over up to 7x7 pixels, or use several Convs")
            whole, kernel = _dilated(whole, dilations), reached
            self.notes.append(f"{spoken(name_of(node))!r} has a dilation of {_by(dilations)}: it "
                              f"runs, and counts, as a kernel of {_by(reached)} with zeros")
        if max(kernel) > LARGEST_KERNEL:
            raise Refusal(f"a kernel of {_by(kernel)}", "use several of up to 7x7")
        own  = self._pads(facts, source, kernel, strides[0])
        pads = tuple(int(a + b) for a, b in zip(own, source.pads, strict=True))
        if any(side >= k for side, k in zip(pads, 2 * kernel, strict=True)):
            raise Refusal(f"padding of {_by(pads)} (top, left, bottom, right) is not less than "
                          f"the {_by(kernel)} kernel", "pad less, or use a larger kernel")
        return self._convolved("conv", node, source, whole, scale, bias, {
            "stride": strides[0], "padding": pads, "groups": groups if channels > 1 else 1})

    def _on_convtranspose(self, node, facts, value, weight, bias=None):
        source = self._real(value, node)
        whole, scale = _weights(weight, axis=1)
        kernel = whole.shape[2:]
        rewrite = "use 2x2 to 4x4 with stride 2, or Resize and a Conv"
        if facts.get("group", 1) != 1:
            raise Refusal(f"{facts['group']} groups", "use one group")
        if (len(kernel) != 2 or any(k not in TRANSPOSED_KERNELS for k in kernel)
                or list(facts.get("strides", [])) != [2, 2]
                or any(x != 1 for x in facts.get("dilations", (1, 1)))):
            raise Refusal(f"a kernel of {_by(kernel)} with strides of "
                          f"{_by(facts.get('strides', [1, 1]))}", rewrite)
        shape = self.file.shape(node.output[0])
        if facts.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in facts:
            if shape is None:
                raise Refusal("a shape that does not follow from the file", "give pads instead")
            tensor = self.builder.tensors[source.name]
            total  = [2 * (side - 1) + k - out for side, k, out in zip(
                (tensor.height, tensor.width), kernel, shape[2:], strict=True)]
            upper  = facts.get("auto_pad") == "SAME_UPPER"
            first  = [x // 2 if upper else x - x // 2 for x in total]
            pads   = [*first, *(x - y for x, y in zip(total, first, strict=True))]
        else:
            pads  = facts.get("pads", [0] * 4)
            extra = facts.get("output_padding", [0, 0])
            pads  = [*pads[:2], *(x - y for x, y in zip(pads[2:], extra, strict=True))]
        if any(not 0 <= side < k for side, k in zip(pads, 2 * kernel, strict=True)):
            raise Refusal(f"{_by(pads)} (top, left, bottom, right) to be cropped", rewrite)
        return self._convolved("transposed", node, source, whole, scale, bias,
                               {"padding": tuple(pads)}, outputs=whole.shape[1])

    def _convolved(self, kind, node, source, whole, scale, bias, facts, outputs=None):
        outputs = outputs or len(whole)
        scale_O = np.broadcast_to(scale, outputs)
        integers, offset = None, 0.0
        if bias is not None:
            if not isinstance(bias, Constant):
                raise Refusal("its bias depends on the frame", "use a constant bias")
            if bias.real.size != outputs:
                raise Refusal(f"{bias.real.size} biases for {outputs} channels",
                              "give one for each channel")
            unit_O = np.float64(source.scale) * scale_O.astype(np.float64)
            steps  = None if bias.whole is None else np.broadcast_to(bias.scale, outputs)
            if steps is not None and np.allclose(steps, unit_O, rtol=SAME_SCALE, atol=0):
                integers = bias.whole.reshape(-1)
            else:
                offset = _numbers(bias.real).reshape(-1)
                _demand_finite(offset)
        return [Result(kind, _clean(node.output[0]), node, (source,),
                       {"weight": whole, "scale": scale_O, **facts}, integers, offset=offset)]

    def _pads(self, facts, source, kernel, stride):
        """(top, left, bottom, right) of a convolution."""
        mode = facts.get("auto_pad", "NOTSET")
        if mode not in AUTO_PADS:
            raise Refusal(f"auto_pad {printable(mode)!r}", f"use one of {', '.join(AUTO_PADS)}")
        if mode in ("NOTSET", "VALID"):
            return facts.get("pads", [0] * 4) if mode == "NOTSET" else [0] * 4
        tensor = self.builder.tensors[source.name]
        first, last = [], []
        for side, k, more in zip((tensor.height, tensor.width), kernel, range(2), strict=True):
            side += source.pads[more] + source.pads[more + 2]
            total = max(0, (-(-side // stride) - 1) * stride + k - side)
            first.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
            last.append(total - first[-1])
        return first + last

    # What is folded into the operator before.

    def _on_batchnormalization(self, node, facts, value, *parts):
        if not all(isinstance(part, Constant) for part in parts):
            raise Refusal("its parameters depend on the frame", "export in evaluation mode")
        if facts.get("training_mode"):
            raise Refusal("it is in training mode", "export in evaluation mode")
        weight, bias, mean, variance = (_numbers(part.real) for part in parts)
        widened = variance + facts.get("epsilon", 1e-5)
        if not np.all(widened > 0):
            raise Refusal(f"a variance of {variance.min():g}", "train it again, or leave it out")
        gain = weight / np.sqrt(widened)
        return [self._affine(node, value, gain, bias - mean * gain)]

    def _on_relu(self, node, facts, value):
        return [self._bounded(node, value, 0.0, math.inf)]

    def _on_clip(self, node, facts, value, low=None, high=None):
        if not all(x is None or isinstance(x, Constant) for x in (low, high)):
            raise Refusal("its bounds depend on the frame", "use constant bounds")
        if any(x is not None and x.real.size != 1 for x in (low, high)):
            raise Refusal("its bounds are not one number each", "use one number")
        low, high = (default if x is None else float(x.real.reshape(-1)[0]) for x, default
                     in ((low, -math.inf), (high, math.inf)))
        if isinstance(value, Stored):
            # Brevitas: bounds of fewer levels, on the integers.
            t = self.builder.tensors[value.name]
            real = Real(value.name, np.float32(t.scale), t.zero_point)
            reals = [t.scale * (x + value.offset - t.zero_point) for x in (low, high)]
            made = dict(self.builder.layers)
            name = self.builder.settle(self._bounded(node, real, *reals), real.grid,
                                       self.builder.fresh(_clean(node.output[0])))
            self._place(name, (node.output[0], value.offset), made)
            return [Stored(name, value.offset)]
        return [self._bounded(node, value, low, high)]

    def _bounded(self, node, value, low, high):
        value = self._float(value, node)
        if isinstance(value, Real):
            value = Result("scaled", _clean(node.output[0]), node, (value,))
        low, high = (min(max(x, low), high) for x in (value.low, value.high))
        if math.isnan(low) or math.isnan(high) or low == math.inf or high == -math.inf:
            raise Refusal("its bounds are not numbers", "use finite bounds")
        return replace(value, name=_clean(node.output[0]), low=low, high=high)

    def _affine(self, node, value, gain, offset):
        """``gain * value + offset``, one number for each channel or for all."""
        _demand_finite(gain, offset)
        value = self._float(value, node)
        if max(np.size(gain), np.size(offset)) > 1 and isinstance(value, Result):
            value = value.facts.get("otherwise", value)
        if isinstance(value, Real):
            value = Result("scaled", _clean(node.output[0]), node, (value,))
        if value.bounded and (found := self.builder.function(value)):
            value = Result("function", value.name, value.node, found[:1], {"made": found[1]})
        if value.bounded:
            raise Refusal("it scales or moves what Relu or Clip bounded, with no QuantizeLinear "
                          "between", "put QuantizeLinear and DequantizeLinear after Relu or Clip, "
                                     "or this before it")
        return replace(value, name=_clean(node.output[0]), gain=value.gain * gain,
                       offset=value.offset * gain + offset)

    # Two operands.

    def _on_add(self, node, facts, a, b):
        if isinstance(a, Constant):
            a, b = b, a
        if isinstance(b, Constant):
            return [self._moved(node, a, b)]
        return [self._of_two("sum", node, a, b)]

    def _on_sub(self, node, facts, a, b):
        if isinstance(b, Constant):
            return [self._affine(node, a, 1.0, -_per_channel(b.real))]
        if isinstance(a, Constant):
            return [self._affine(node, b, -1.0, _per_channel(a.real))]
        return [self._of_two("sum", node, a, b, subtracted=True)]

    def _of_two(self, kind, node, a, b, **facts):
        """What an operator makes of two maps of one shape."""
        a, b = self._pair(node, a, b)
        if self._shape(a) != self._shape(b):
            raise Refusal(f"its operands have shapes {_by(self._shape(a))} and "
                          f"{_by(self._shape(b))}", "bring both to one shape by a 1x1 Conv")
        return Result(kind, _clean(node.output[0]), node, (a, b), facts)

    def _on_max(self, node, facts, *values):
        return self._one_of(node, facts, "larger", *values)

    def _on_min(self, node, facts, *values):
        return self._one_of(node, facts, "smaller", *values)

    def _one_of(self, node, facts, kind, *values):
        maps = [value for value in values if not isinstance(value, Constant)]
        if len(maps) == 1:
            return self._pointwise(node, facts, *values)
        if len(values) != 2:
            raise Refusal(f"{len(values)} operands", "use one of two operands after the other")
        return [self._of_two(kind, node, *values)]

    def _on_mul(self, node, facts, a, b):
        if isinstance(a, Constant):
            a, b = b, a
        if isinstance(b, Constant):
            return [self._affine(node, a, _per_channel(b.real), 0.0)]
        halves = [isinstance(x, Result) and x.kind == "nearest" and not x.affine
                  and not x.bounded and isinstance(x.sources[0], Real) for x in (a, b)]
        if all(halves):
            halves[1] = False
        grown  = [x.sources[0] if half else x for x, half in zip((a, b), halves, strict=True)]
        a, b   = self._pair(node, *grown)
        first  = halves[0] or (not halves[1] and self._is_alpha_first(a, b))
        alpha, skip = (a, b) if first else (b, a)
        shapes = self._shape(alpha), self._shape(skip)
        grown  = [2 * side if any(halves) else side for side in shapes[0][1:]]
        if shapes[0][0] not in (1, shapes[1][0]) or tuple(grown) != tuple(shapes[1][1:]):
            raise Refusal(f"its operands have shapes {_by(shapes[0])} and {_by(shapes[1])}",
                          "multiply maps of the same rows and columns, one of them with 1 channel "
                          "or as many as the other")
        return [Result("gate", _clean(node.output[0]), node, (alpha, skip))]

    def _on_div(self, node, facts, a, b):
        if isinstance(b, Constant):
            return [self._affine(node, a, 1 / _per_channel(b.real), 0.0)]
        raise Refusal("the engine does not divide", "multiply by a constant instead")

    def _moved(self, node, value, constant):
        """A constant added; in steps of the accumulator of a product it stays an integer."""
        if (isinstance(value, Result) and value.kind == "gate" and not value.affine
                and constant.whole is not None and not value.bounded):
            unit = math.prod(np.float64(x.scale) for x in value.sources)
            if np.allclose(constant.scale, unit, rtol=SAME_SCALE, atol=0):
                return replace(value, name=_clean(node.output[0]),
                               bias=np.broadcast_to(_per_channel(constant.whole).astype(np.int64),
                                                    self._shape(value.sources[1])[0]))
        return self._affine(node, value, 1.0, _per_channel(constant.real))

    def _pair(self, node, a, b):
        return self._real(a, node), self._real(b, node)

    def _is_alpha_first(self, a, b):
        """Which factor is the attention map: the one with one channel, or from a table."""
        channels = self._channels(a), self._channels(b)
        if channels[0] != channels[1]:
            return channels[0] == 1
        return self._from_table(a.name) or not self._from_table(b.name)

    def _from_table(self, name):
        layer = self.builder.layers[name]
        return isinstance(layer, Lookup) or (
            type(layer).__name__ == "Upsample" and self._from_table(layer.input))

    # What moves values.

    def _on_concat(self, node, facts, *values):
        if facts.get("axis") not in (1, -3):
            raise Refusal(f"axis {facts.get('axis')}", "concatenate channels, axis 1")
        values = tuple(self._float(value, node) for value in values)
        return [Result("concat", _clean(node.output[0]), node, values)]

    def _on_maxpool(self, node, facts, value):
        if (list(facts["kernel_shape"]), list(facts.get("strides", []))) == ([3, 3], [2, 2]):
            return [self._window(node, facts, self._real(value, node))]
        self._check_pool(node, facts, value)
        return [Result("pool", _clean(node.output[0]), node, (self._float(value, node),))]

    def _on_averagepool(self, node, facts, value):
        source  = self._real(value, node)
        kernel  = list(facts["kernel_shape"])
        strides = list(facts.get("strides", [1] * len(kernel)))
        if (len(kernel) != 2 or max(kernel) > LARGEST_KERNEL or strides[0] != strides[-1]
                or strides[0] not in (1, 2) or any(x != 1 for x in facts.get("dilations", ()))):
            raise Refusal(f"a window of {_by(kernel)} with strides of {_by(strides)}",
                          "use up to 7x7 with a stride of 1 or 2 in both")
        pads = tuple(int(x) for x in self._pads(facts, source, kernel, strides[0]))
        if any(side >= k for side, k in zip(pads, 2 * kernel, strict=True)):
            raise Refusal(f"pads of {_by(pads)}", "pad less than the window")
        if any(pads) and not facts.get("count_include_pad"):
            raise Refusal("at the border it averages fewer pixels",
                          "use count_include_pad=1, or no pads")
        t = self.builder.tensors[source.name]
        rest = [(side + pads[more] + pads[more + 2] - k) % strides[0] for more, (side, k) in
                enumerate(zip((t.height, t.width), kernel, strict=True))]
        if facts.get("ceil_mode") and any(rest):
            raise Refusal("a last window that is cut", "use ceil_mode=0")
        return [Result("average", _clean(node.output[0]), node, (source,), {
            "kernel": tuple(kernel), "stride": strides[0], "padding": pads})]

    def _on_depthtospace(self, node, facts, value):
        """Pixels out of channels: a transposed convolution that only moves."""
        source, block = self._real(value, node), facts["blocksize"]
        channels = self._channels(source)
        if block != 2 or channels % 4:
            raise Refusal(f"blocks of {block}x{block} out of {channels} channels",
                          "use 2x2 out of four times the channels")
        made  = channels // 4
        place = np.arange(channels)             # of output, row and column
        if facts.get("mode", "DCR") == "DCR":
            place = place.reshape(2, 2, made).transpose(2, 0, 1)
        whole = np.zeros((channels, made, 2, 2), np.int64)
        whole[place.reshape(made, 2, 2), *np.indices((made, 2, 2))] = UNIT_WEIGHT
        return [Result("transposed", _clean(node.output[0]), node, (source,), {
            "weight": whole, "scale": np.full(made, 1 / UNIT_WEIGHT), "padding": (0,) * 4})]

    def _window(self, node, facts, source):
        """Windows of 3x3, of which the four of 2x2 begin at shifts of rows and columns."""
        t    = self.builder.tensors[source.name]
        pads = tuple(int(x) for x in self._pads(facts, source, [3, 3], 2))
        if max(pads) > 1 or any(x != 1 for x in facts.get("dilations", ())):
            raise Refusal(f"a window of 3x3 with pads of {_by(pads)} and dilations of "
                          f"{_by(facts.get('dilations', (1, 1)))}",
                          "pad at most one row and column")
        sides  = [_windows(side, pads[more], pads[more + 2], facts.get("ceil_mode", 0))
                  for more, side in enumerate((t.height, t.width))]
        if min(sides) < 1:
            raise Refusal(f"a window of 3x3 on a map of {t.height}x{t.width}", "use a larger frame")
        shifts = [[_shift(side, offset - pads[more], 2 * made) for offset in range(2)]
                  for more, (side, made) in enumerate(zip((t.height, t.width), sides, strict=True))]
        return Result("window", _clean(node.output[0]), node, (source,), {
            "shifts": shifts, "pads": pads, "shape": (t.channels, *sides)})

    def _check_pool(self, node, facts, value):
        kernel, strides = facts["kernel_shape"], facts.get("strides", [1, 1])
        pads = facts.get("pads", [0] * 4)
        if (list(kernel), list(strides)) != ([2, 2], [2, 2]) or any(pads) or any(
                x != 1 for x in facts.get("dilations", (1,))):
            raise Refusal(f"a window of {_by(kernel)} with strides of {_by(strides)} and pads of "
                          f"{_by(pads)}", "use 2x2 with stride 2 and no pads, or a Conv with "
                                          "stride 2")
        shape = self._dims(value, node.input[0])
        odd = shape is not None and any(side % 2 for side in shape[2:])
        if odd and (facts.get("ceil_mode") or facts.get("auto_pad", "NOTSET") not in (
                "NOTSET", "VALID")):
            raise Refusal(f"a last window that is cut, on a map of {_by(shape[2:])}",
                          "use ceil_mode=0, or a frame whose sides are even at every level")

    def _on_resize(self, node, facts, value, roi=None, scales=None, sizes=None):
        if not all(x is None or isinstance(x, Constant) for x in (scales, sizes)):
            raise Refusal("its size depends on the frame", "use constant scales")
        shapes = [self._dims(value, node.input[0]), self.file.shape(node.output[0])]
        if shapes[1] is None and scales is not None and len(scales.real) == 4 and shapes[0]:
            shapes[1] = tuple(math.floor(side * factor) for side, factor
                              in zip(shapes[0], _numbers(scales.real), strict=True))
        rewrite = "use x2 nearest (asymmetric, floor) or x2 linear (half_pixel)"
        if None in shapes:
            raise Refusal("a size that does not follow from the file", "use constant scales")
        if [side * factor for side, factor in zip(shapes[0], (1, 1, 2, 2), strict=True)] != list(
                shapes[1]):
            raise Refusal(f"it makes {_by(shapes[1])} of {_by(shapes[0])}", rewrite)
        mode  = facts.get("mode", "nearest")
        place = facts.get("coordinate_transformation_mode", "half_pixel")
        exact = scales is None or not scales.real.size or np.allclose(scales.real[-2:], 2)
        if mode == "nearest" and exact and all(
                _nearest(side, place, facts.get("nearest_mode", "round_prefer_floor"))
                for side in shapes[0][2:]):
            return [Result("nearest", _clean(node.output[0]), node, (self._float(value, node),))]
        pytorch = place == "pytorch_half_pixel"
        if mode == "linear" and exact and not facts.get("antialias") and (
                place in ("half_pixel", "half_pixel_symmetric") or pytorch):
            return [Result("linear", _clean(node.output[0]), node, (self._real(value, node),))]
        raise Refusal(f"mode {mode} with {place}"
                      + (f" and {facts.get('nearest_mode', 'round_prefer_floor')}"
                         if mode == "nearest" else ""), rewrite)

    def _on_pad(self, node, facts, value, pads=None, constant=None, axes=None):
        if not all(x is None or isinstance(x, Constant) for x in (pads, constant, axes)):
            raise Refusal("what it pads depends on the frame", "use constant pads")
        given = [] if pads is None else [int(x) for x in pads.real.reshape(-1)]
        along = range(4) if axes is None else [int(x) % 4 for x in axes.real.reshape(-1)]
        if len(given) != 2 * len(along):
            raise Refusal(f"{len(given)} pads for {len(along)} axes", "give two for each axis")
        if not any(given):
            return [value]
        source = self._real(value, node, pads=True)
        sides  = [0] * 8
        for index, axis in enumerate(along):
            sides[axis], sides[axis + 4] = given[index], given[index + len(along)]
        filled = 0 if constant is None or not constant.real.size else float(
            _numbers(constant.real).reshape(-1)[0])
        rewrite = "pad rows and columns with zeros, before a Conv"
        if facts.get("mode", "constant") != "constant" or filled:
            raise Refusal(f"mode {facts.get('mode', 'constant')} with a value of {filled:g}",
                          rewrite)
        if any(x < 0 for x in sides) or any(sides[i] for i in (0, 1, 4, 5)):
            raise Refusal(f"pads of {_by(sides)}", rewrite)
        more = (sides[2], sides[3], sides[6], sides[7])
        return [replace(source, pads=tuple(a + b for a, b in zip(source.pads, more,
                                                                  strict=True)))]

    def _on_identity(self, node, facts, value):
        return [value]

    def _on_dropout(self, node, facts, value, ratio=None, training=None):
        if training is not None and not (isinstance(training, Constant)
                                         and not np.any(training.real)):
            raise Refusal("it is in training mode", "export in evaluation mode")
        return [value]

    # Tables.

    def _pointwise(self, node, facts, *values):
        """An operator that makes each number of one: a table, from byte to byte."""
        index  = next(i for i, value in enumerate(values) if not isinstance(value, Constant | None))
        value  = self._float(values[index], node)
        found  = self.builder.function(value)
        others = [value for i, value in enumerate(values) if i != index]
        if not all(isinstance(other, Constant | None) for other in others):
            raise Refusal("its operands are different maps", KNOWN)
        if found is None:
            found = self.builder.function(self._real(value, node))
        source, made = found
        return [self._tabulated(node, source, *(made if i == index else value
                                                for i, value in enumerate(values)))]

    def _together(self, node, *values):
        """An operator on several functions of one tensor, not all of them that tensor itself, as
        one function of it; None of others, and of what our own exporter wrote."""
        if self.file.model.producer_name == "attune":
            return None
        if not all(isinstance(value, FLOATS) for value in values) or (
                all(isinstance(value, Real) for value in values)
                and len({value.name for value in values}) < len(values)):
            return None
        found = self.builder.functions(*values)
        return found and self._tabulated(node, *found)

    def _tabulated(self, node, source, *operands):
        """An operator on float32 for each byte of ``source``, and constants."""
        inputs = []
        for operand in operands:
            if isinstance(operand, Constant):
                numbers = np.unique(_numbers(operand.real))
                if numbers.size != 1:
                    raise Refusal(f"a constant of {operand.real.size} numbers, and a table is the "
                                  "same for all channels", "use one number")
                operand = numbers.astype(np.float32)
            elif operand is not None:
                operand = operand.reshape(1, 1, 1, -1)
            inputs.append(operand)
        named = onnx.NodeProto()            # operands may have one name, but not one value
        named.CopyFrom(node)
        named.input[:] = [name and f"{index}" for index, name in enumerate(node.input)]
        with np.errstate(all="ignore"):
            made, *_ = self.folder.fold(named, inputs)
        made = made.reshape(-1).astype(np.float32)
        if made.shape != (256,) or np.isnan(made).any():
            raise Refusal("for some bytes its result is no number", "bound its operand by Clip")
        return Result("function", _clean(node.output[0]), node, (source,), {"made": made})

    def _on_sigmoid(self, node, facts, value):
        if isinstance(value, Real) and not any(value.pads) and self._ends(node, AFTER_END):
            return [self._continued(Host(value.name, ()), node)]
        if isinstance(value, Result) and value.kind in FUNCTIONS:
            return self._pointwise(node, facts, value)
        return [Result("sigmoid", _clean(node.output[0]), node, (self._real(value, node),))]

    def _on_cast(self, node, facts, value):
        if isinstance(value, Stored) and value.offset == 0 and not any(value.pads):
            return [Index(value.name)]
        if isinstance(value, Real | Result) and facts["to"] in FLOAT_TYPES:
            return self._at_end(node, facts, value)
        raise Refusal("the engine has 8-bit integers only", "remove it")

    def _on_gather(self, node, facts, table, index):
        if not (isinstance(table, Constant) and isinstance(index, Index)
                and table.real.shape == (256,) and table.real.dtype in OFFSETS):
            raise Refusal("it is no table of 256 bytes at the bytes of a map", KNOWN)
        offset = OFFSETS[table.real.dtype]
        entries = torch.from_numpy((table.real.astype(np.int64) + offset).astype(np.uint8))
        name = self.builder.fresh(_clean(node.output[0]))
        return [Looked(Lookup(name, index.name, entries, UNPLACED), offset)]

    # The end.

    def _at_end(self, node, facts, value, *operands):
        source = self._real(value, node)
        if not self._ends(node, (*AFTER_END, *TO_INTEGERS)):
            raise Refusal("it is not at the end of the network, where the host does it",
                          "end the network there")
        return [self._continued(Host(source.name, ()), node, *operands)]

    _on_softmax = _on_argmax = _on_logsoftmax = _on_squeeze = _at_end

    def _continued(self, host, node, *operands):
        t = self.builder.tensors[host.name]
        return continued(host, node, attributes(node), self.file.opset,
                         (1, t.channels, t.height, t.width), *operands)

    def _end(self, output, name, steps=(), offset=None):
        """Note what the first output holds."""
        if self.ending is None:
            t = self.builder.tensors[name]
            last = steps[-1] if steps else None
            if last is not None and last.operator == "QuantizeLinear":
                grid, offset = last.grid, last.offset
            else:
                grid = (t.scale, t.zero_point) if not steps and offset is not None else None
            self.ending = Ending(output, steps, name in self.builder.units, grid, offset or 0)

    def _ends(self, node, after):
        """Whether only operators ``after`` the end follow."""
        open_ = [node]
        while open_:
            for name in open_.pop().output:
                readers = self.file.readers.get(name, []) if name else []
                if not all(reader.op_type in after for reader in readers):
                    return False
                open_ += readers
        return True

    def _dims(self, value, name):
        """N, C, H and W of a tensor of the file; None if they are not known."""
        shape = self.file.shape(name)
        if shape is not None or not isinstance(value, Real | Stored | Result):
            return shape
        if not isinstance(value, Result):
            t = self.builder.tensors[value.name]
            top, left, bottom, right = value.pads
            return 1, t.channels, t.height + top + bottom, t.width + left + right
        shapes = [self._dims(source, "") for source in value.sources]
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
            case "window":
                return 1, *value.facts["shape"]
            case "sum" | "larger" | "smaller" | "gate" | "scaled" | "sigmoid" | "function":
                return shapes[-1]
        return None

    def _channels(self, real):
        return self.builder.tensors[real.name].channels

    def _shape(self, real):
        t = self.builder.tensors[real.name]
        return t.channels, t.height, t.width


def _dequantised(whole, scale, zero_point, axis, facts):
    """A constant, with the integers that it is made of."""
    if facts.get("block_size"):
        raise Refusal("blocks of weights with scales of their own", "quantise per channel")
    if whole.dtype.name not in INTEGERS:
        raise Refusal(f"constants of type {whole.dtype.name}", "quantise them to int8")
    if not np.all(np.isfinite(scale.astype(np.float64))) or np.any(scale < 0):
        raise Refusal("scales that are negative, infinite or no numbers",
                      "quantise weights again; some have diverged")
    zero = np.zeros(1, whole.dtype) if zero_point is None else zero_point.real
    wide = whole.astype(np.int64)
    if max(scale.size, zero.size) > 1 and not (
            -whole.ndim <= axis < whole.ndim
            and {scale.size, zero.size} <= {1, whole.shape[axis]}):
        raise Refusal(f"{scale.size} scales and {zero.size} zero points for a constant of shape "
                      f"{_by(whole.shape)}, axis {axis}", "quantise per channel")
    line = [1] * whole.ndim
    if scale.size > 1:
        line[axis] = -1
    centred = wide - zero.astype(np.int64).reshape(line if zero.size > 1 else ())
    real    = centred * scale.astype(np.float64).reshape(line if scale.size > 1 else ())
    return Constant(real.astype(np.float32), centred, np.atleast_1d(scale.astype(np.float32)),
                    axis % max(1, whole.ndim))


def _numbers(values):
    """A constant as float64."""
    if values.dtype.kind in "OUSc":
        raise Refusal("a constant that is no number", "use numbers")
    return values.astype(np.float64)


def _demand_finite(*values):
    for value in values:
        if not np.all(np.isfinite(value)):
            raise Refusal("constants that are infinite or no numbers",
                          "train and export again; some weight has diverged")


def _weights(weight, *, axis):
    """Integers and scales of a convolution's weights."""
    if not isinstance(weight, Constant):
        raise Refusal("its weights depend on the frame", "use constant weights")
    if weight.whole is None:
        raise Refusal("its weights are floats", "quantise weights too, with DequantizeLinear "
                                                "before the operator")
    low, high = weight.whole.min(), weight.whole.max()
    if low < -128 or high > 127:
        raise Refusal(f"its weights less their zero point are {low}..{high}, beyond 8 bits and a "
                      "sign", "quantise weights symmetrically (quantize_static(..., extra_options="
                      "{'WeightSymmetric': True}))")
    if weight.scale.size > 1 and weight.axis != axis:
        raise Refusal(f"its weights have scales along axis {weight.axis}",
                      f"quantise weights per output channel, axis {axis}")
    return weight.whole, weight.scale


def _windows(side, before, after, rounded_up):
    """How many windows of 3, two apart, begin in a padded side."""
    space = side + before + after - 3
    count = (-(-space // 2) if rounded_up else space // 2) + 1
    return count - (rounded_up and 2 * (count - 1) >= side + before)


def _shift(side, start, wanted):
    """How a convolution with one weight that is not zero moves a side, so that it begins at
    ``start`` and 2x2 windows find ``wanted`` pixels, and not two more: its kernel, where in it the
    weight is, and pads before and after. The smallest such kernel."""
    return next((kernel, index, before, after) for kernel in (1, 2, 3)
                for index, before, after in np.ndindex(kernel, kernel, kernel)
                if index - before == start
                and side + before + after - kernel + 1 - wanted in (0, 1))


def _ungrouped(whole, groups):
    """Weights of a grouped convolution as a dense one has them, with zeros."""
    outputs, inputs, *kernel = whole.shape
    dense = np.zeros((groups, outputs // groups, groups, inputs, *kernel), whole.dtype)
    for group in range(groups):
        dense[group, :, group] = whole.reshape(groups, -1, inputs, *kernel)[group]
    return dense.reshape(outputs, groups * inputs, *kernel)


def _dilated(whole, dilations):
    """Weights with zeros between them."""
    rows, columns = ((k - 1) * x + 1 for k, x in zip(whole.shape[2:], dilations, strict=True))
    wide = np.zeros((*whole.shape[:2], rows, columns), whole.dtype)
    wide[:, :, ::dilations[0], ::dilations[1]] = whole
    return wide


def _per_channel(values):
    """A constant as one number, or one for each channel."""
    values = _numbers(values)
    if values.size == 1:
        return values.reshape(-1)[0]
    shape = values.shape[-3:]
    if len(shape) != 3 or shape[1:] != (1, 1) or values.size != shape[0]:
        raise Refusal(f"a constant of shape {_by(values.shape)}",
                      "use one number, or one for each channel")
    return values.reshape(-1)


def _nearest(side, place, rounding):
    """Whether this way to double a side copies every value twice."""
    x = np.arange(2 * side, dtype=np.float64)
    match place:
        case "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric":
            x = (x + 0.5) / 2 - 0.5
        case "asymmetric":
            x = x / 2
        case "tf_half_pixel_for_nn":
            x = (x + 0.5) / 2
        case "align_corners":
            x = x * (side - 1) / max(1, 2 * side - 1)
        case _:
            return False
    match rounding:
        case "floor":
            x = np.floor(x)
        case "ceil":
            x = np.ceil(x)
        case "round_prefer_floor":
            x = np.ceil(x - 0.5)
        case "round_prefer_ceil":
            x = np.floor(x + 0.5)
    return np.array_equal(x.clip(0, side - 1), np.arange(2 * side) // 2)


def _spoken(node):
    return f"node {printable(name_of(node))!r} ({node.op_type})"


def _clean(name):
    """A name of the file as one of a tensor."""
    changed = True
    while changed:
        changed = False
        for suffix in SUFFIXES:
            if name.endswith(suffix) and name != suffix:
                name, changed = name.removesuffix(suffix), True
    parts = name.strip("/").replace("/", ".").split(".")
    name = spoken(".".join([part for part in parts[:-1] if part not in BREVITAS] + parts[-1:]))
    return f"{name}_" if name.endswith(COPIED) else name


def _by(sides):
    return "x".join(str(side) for side in sides)
