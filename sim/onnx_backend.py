"""The compiler and its machine as a backend of ONNX (``onnx.backend.base``).

A model that is quantised runs as it is. Around one of floats or integers come QuantizeLinear and
DequantizeLinear, at its frame and its outputs, on grids of 256 steps that hold the very numbers it
is run on. ONNX's own reference then says, before anything is compiled, whether that changed a
number: what does not fit 8 bits is refused, and never run to a near miss. What runs is the compiled
program, on :class:`sim.interpreter.Interpreter`.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.backend.base import Backend, BackendRep
from onnx.reference import ReferenceEvaluator
from onnx.version_converter import convert_version

from golden.errors import InputError
from hw.compiler import compile_network
from hw.compiler.importer import import_onnx
from hw.compiler.importer.file import MOST_CHANNELS
from hw.compiler.importer.qoperators import BEHIND, DYNAMIC
from hw.config import preset
from sim.campaigns.fuzz import interpreted
from sim.taps import golden_name

__all__ = ["AttuneBackend", "Prepared", "Unfit", "grid_of"]

STEPS     = 256
DIVISIONS = 16          # of the smallest distance between two numbers, in the search for a grid
NEAR      = 1e-4        # of a step: float32 holds few numbers exactly
OPSET     = 21          # to which older models are brought, so that the reference runs them
CLOSE     = {"rtol": 1e-3, "atol": 1e-7, "equal_nan": True}     # as ONNX's tests compare
OFFSETS   = {np.dtype(np.uint8): 0, np.dtype(np.int8): 128}     # of what the machine stores
FLOAT     = np.dtype(np.float32)
WEIGHED   = ("Conv", "ConvTranspose")
QUANTISED = {"DequantizeLinear", *BEHIND, *DYNAMIC}


class Unfit(InputError):
    """A model that cannot run here whatever its operators are: a ``reason``, and a ``detail``."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, str(detail)


class AttuneBackend(Backend):
    """``onnx.backend`` on the machine ``tiny``, or any that :func:`hw.config.preset` takes."""

    @classmethod
    def prepare(cls, model, device="CPU", *, machine="tiny", **_):
        if not cls.supports_device(device):
            raise InputError(f"Device must be CPU, on which the machine runs, not {device!r}")
        return Prepared(model, preset(machine))

    @classmethod
    def supports_device(cls, device):
        return device.partition(":")[0] == "CPU"


class Prepared(BackendRep):
    """A model, for a machine."""

    def __init__(self, model, config):
        self._model, self._config = model, config

    def run(self, inputs, **_):
        """The outputs, in the order of the model's.

        ``inputs`` are arrays in the order of its inputs. The first is the frame, or several where
        its first dimension of four is larger than 1; what others hold counts as constant, or comes
        as further channels of the frame if it is of the same shape.

        Raises
        ------
        InputError, hw.compiler.CompileError
            If it does not run on the machine, or not exactly.
        """
        given    = _named(self._model, inputs)
        _demand_numbers([*given.values()][:1])
        model    = _at_opset(self._model)
        expected = _reference(model, given)
        _demand_numbers(expected)
        refused = []
        for layout in (_rows, _channels, _stacked):
            wrapped = layout(given)
            if wrapped is not None:
                try:
                    return self._run(_quantised(model, wrapped, expected), wrapped.frame, expected)
                except InputError as error:
                    refused.append(error)
        raise min(refused, key=lambda error: isinstance(error, Unfit))

    def _run(self, model, frame_NCHW, expected):
        """What the machine makes of each frame, side by side as the model's outputs."""
        frames = [frame_NCHW[number:number + 1] for number in range(len(frame_NCHW))]
        name   = model.graph.input[0].name
        by_reference = _joined([_reference(model, {name: one}) for one in frames], expected)
        if not all(np.allclose(found, wanted, **CLOSE)
                   for found, wanted in zip(by_reference, expected, strict=True)):
            raise Unfit("numbers that do not fit 8 bits")
        imported = import_onnx("model", model=model)
        program  = compile_network(imported.graph, self._config)
        return _joined([self._outputs(imported, program, one, expected) for one in frames],
                       expected)

    def _outputs(self, imported, program, frame_1CHW, expected):
        graph = imported.graph
        t     = graph.tensors[graph.input]
        q_CHW = (frame_1CHW[0].astype(np.int64) + OFFSETS[frame_1CHW.dtype]
                 if frame_1CHW.dtype in OFFSETS else
                 np.rint(frame_1CHW[0] / np.float32(t.scale)) + t.zero_point)
        seen, _ = interpreted(program, self._config, torch.from_numpy(q_CHW.astype(np.uint8)), 0)
        stored  = {golden_name(name, graph.tensors): values for name, values in seen.items()}
        return [_as_file(imported, stored[name], graph.tensors[name], number, wanted.dtype)
                for number, (name, wanted) in enumerate(zip(graph.outputs, expected, strict=True))]


def grid_of(values):
    """Scale and zero point of 256 steps that hold all of ``values``, zero among them.

    Raises
    ------
    Unfit
        If there is none.
    """
    numbers = np.union1d(values.astype(np.float64).ravel(), [0.0])
    if len(numbers) == 1:
        return np.float32(1), 0
    if np.isfinite(numbers).all():
        for step in (*(np.diff(numbers).min() / np.arange(1, DIVISIONS + 1)), 1.0):
            whole = numbers / step
            if whole[-1] - whole[0] < STEPS - 1 + NEAR and (
                    np.abs(whole - np.rint(whole)).max() < NEAR):
                return np.float32(step), int(-np.rint(whole[0]))
    raise Unfit("numbers that do not fit 8 bits")


def _as_file(imported, q_CHW, t, number, kind):
    """What the file's output ``number`` holds where the machine stored ``q_CHW``."""
    if kind in OFFSETS:
        return q_CHW.astype(np.int16) - OFFSETS[kind]
    real_CHW = np.float32(t.scale) * (q_CHW.astype(np.float32) - t.zero_point)
    return real_CHW if number else imported.ending.made_of(real_CHW)


def _at_opset(model):
    opset = next((x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), OPSET)
    if opset >= OPSET:
        return model
    try:
        return convert_version(model, OPSET)
    except Exception as error:          # a library's, which says what it likes
        raise Unfit(f"opsets that cannot be brought to {OPSET}", opset) from error


def _named(model, inputs):
    """``{input: value}`` of the inputs that are no constants."""
    stored = {x.name for x in model.graph.initializer}
    names  = [x.name for x in model.graph.input if x.name not in stored]
    if not names or len(inputs) != len(names):
        raise Unfit("inputs that are left out, or none", f"{len(inputs)} of {len(names)}")
    return {name: numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
            for name, value in zip(names, inputs, strict=True)}


def _reference(model, given):
    """The outputs by ONNX's reference."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ReferenceEvaluator(model).run(None, given)
    except Exception as error:          # a library's, which says what it likes
        raise Unfit("shapes, types or operators that a frame of the reference does not take",
                    model.graph.node[0].op_type if len(model.graph.node) == 1 else "") from error


def _demand_numbers(values):
    for value in values:
        kind = getattr(value, "dtype", type(value).__name__)
        if kind not in (FLOAT, *OFFSETS):
            raise Unfit("values of another type than float32, uint8 or int8", kind)
        if not isinstance(value, np.ndarray) or not 1 <= value.ndim <= 4 or not value.size:
            raise Unfit("arrays of no numbers, or of none or more than 4 dimensions",
                        np.ndim(value))


@dataclass(frozen=True)
class _Wrapped:
    """How inputs become one frame: ``frame``, N x C x H x W, called ``name``; the ``constants``
    by name; and names of inputs that are ``stacked`` in its channels."""
    frame:     np.ndarray
    name:      str
    constants: dict  = field(default_factory=dict)
    stacked:   tuple = ()


def _rows(given):
    """Dimensions that lack are ones, and come first."""
    name, *others = given
    return _Wrapped(_four(given[name]), name, {other: given[other] for other in others})


def _channels(given):
    """The numbers of a vector are channels."""
    name, *others = given
    frame = given[name]
    if frame.ndim != 1 or len(frame) > MOST_CHANNELS:
        return None
    return _Wrapped(frame.reshape(1, -1, 1, 1), name, {
        other: given[other].reshape(1, -1, 1, 1) if np.shape(given[other]) == frame.shape
        else given[other] for other in others})


def _stacked(given):
    """All inputs are channels of one frame."""
    first, *others = given.values()
    if not others or not all(isinstance(x, np.ndarray) and x.dtype == first.dtype
                             and x.shape == first.shape for x in others):
        return None
    frame = np.concatenate([_four(x) for x in given.values()], axis=1)
    if len(frame) > 1 or frame.shape[1] > MOST_CHANNELS:
        return None
    return _Wrapped(frame, "frame", stacked=tuple(given))


def _four(value):
    return value.reshape((1,) * (4 - value.ndim) + value.shape)


class _Quantiser:
    """The nodes and constants of a model on grids; names that begin with ``_`` are new."""

    def __init__(self):
        self.nodes, self.stored = [], {}

    def node(self, operator, *inputs, out):
        self.nodes.append(helper.make_node(operator, inputs, [out]))
        return out

    def grid(self, name, scale, zero, kind):
        """Names of a scale and a zero point."""
        self.stored[f"_{name}_scale"] = np.asarray(scale, np.float32)
        self.stored[f"_{name}_zero"]  = np.asarray(zero, kind)
        return f"_{name}_scale", f"_{name}_zero"

    def real(self, name, kind, values):
        """An input of float32 or integers ``values`` as reals on a grid."""
        at = self.grid(name, *(grid_of(values) if kind == FLOAT else (1, 0)),
                       np.uint8 if kind == FLOAT else kind)
        if kind == FLOAT:
            name = self.node("QuantizeLinear", name, *at, out=f"_{name}_stored")
        return self.node("DequantizeLinear", name, *at, out=f"_{name}_real")

    def weight(self, name, values):
        """A constant as int8 on a grid around zero."""
        step, _ = grid_of(values)
        q = np.rint(values / step)
        if np.abs(q).max() > STEPS // 2 - 1:
            raise Unfit("numbers that do not fit 8 bits")
        self.stored[f"_{name}"] = q.astype(np.int8)
        return self.node("DequantizeLinear", f"_{name}", *self.grid(name, step, 0, np.int8),
                         out=f"_{name}_real")

    def end(self, name, values):
        """An output, of reals called as it will be with ``_`` before."""
        if values.dtype == FLOAT:
            at = self.grid(name, *grid_of(values), np.uint8)
            self.node("QuantizeLinear", f"_{name}", *at, out=f"_{name}_stored")
            self.node("DequantizeLinear", f"_{name}_stored", *at, out=name)
        else:
            self.node("QuantizeLinear", f"_{name}", *self.grid(name, 1, 0, values.dtype), out=name)


def _quantised(model, wrapped, expected):
    """The model for one frame, quantised if it is not."""
    made, frame, of = onnx.ModelProto(), wrapped.frame, _Quantiser()
    made.CopyFrom(model)
    graph   = made.graph
    shift   = 4 - len(graph.input[0].type.tensor_type.shape.dim)
    plain   = not QUANTISED & {node.op_type for node in graph.node}
    weights = {node.input[1] for node in graph.node if node.op_type in WEIGHED}
    named   = {wrapped.name: of.real(wrapped.name, frame.dtype, frame) if plain else wrapped.name}
    for name, value in wrapped.constants.items():
        named[name] = f"_{name}"
        if plain and name in weights:
            named[name] = of.weight(name, value)
        else:       # an integer beside the frame is a real as the frame is
            of.stored[f"_{name}"] = value.astype(FLOAT) if plain and getattr(
                value, "dtype", None) == frame.dtype in OFFSETS else value
    for number, name in enumerate(wrapped.stacked):
        size  = frame.shape[1] // len(wrapped.stacked)
        bound = {"from": number * size, "to": (number + 1) * size, "axis": 1}
        of.stored |= {f"_{name}_{key}": np.array([value]) for key, value in bound.items()}
        named[name] = of.node("Slice", named[wrapped.name], *(f"_{name}_{key}" for key in bound),
                              out=f"_{name}")
    ends = {x.name: f"_{x.name}" for x in graph.output} if plain else {}
    for node in graph.node:
        node.input[:]  = [ends.get(x, named.get(x, x)) for x in node.input]
        node.output[:] = [ends.get(x, x) for x in node.output]
        for attribute in node.attribute:
            if attribute.name == "axis" and attribute.i >= 0:
                attribute.i += shift
        of.nodes.append(node)
    for out, values in zip(graph.output, expected, strict=True):
        if plain:
            of.end(out.name, values)
        out.type.tensor_type.ClearField("shape")
    nodes = [*of.nodes]
    del graph.node[:], graph.value_info[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(
        wrapped.name, helper.np_dtype_to_tensor_dtype(frame.dtype), (1, *frame.shape[1:])))
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name)
                             for name, value in of.stored.items())
    return made


def _joined(parts, expected):
    """Outputs of several frames as those of all, in the shapes and types of ``expected``."""
    try:
        return tuple(np.concatenate([np.ravel(x) for x in each]).reshape(wanted.shape)
                     .astype(wanted.dtype)
                     for each, wanted in zip(zip(*parts, strict=True), expected, strict=True))
    except ValueError:
        raise Unfit("frames that depend on each other") from None
