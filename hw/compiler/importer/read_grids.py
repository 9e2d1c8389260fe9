"""Between floats and integers: QuantizeLinear and DequantizeLinear."""

import math
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from hw.compiler.importer.build_tables import put_table
from hw.compiler.importer.constants import OFFSETS, dequantised
from hw.compiler.importer.ending import TO_INTEGERS
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.names import by, clean
from hw.compiler.importer.values import Constant, Frame, Host, Looked, Real, Result, Step, Stored


def _quantised(reader, node, facts, value, scale, zero_point=None):
    grid, offset = _grid(scale, zero_point, facts)
    if isinstance(value, Host):
        if "ArgMax" in value.operators or TO_INTEGERS[0] in value.operators:
            raise Refusal("it reads integers", "remove it")
        return [replace(value, steps=(*value.steps, Step(node.op_type, grid, offset)))]
    stored = node.output[0]
    name   = _name(reader, stored, node)
    reader.builder.made.clear()
    match value:
        case Frame():
            name = clean(value.name)
            t    = reader.builder.tensors.get(name)
            if t is not None and (t.scale, t.zero_point) != grid:
                raise Refusal("the frame is quantised to two grids", "quantise it once")
            if t is None:
                reader.builder.frame(name, reader.file.frame_shape, grid)
        case Real() if any(value.pads):
            inner = reader.builder.settle(replace(value, pads=(0,) * 4), grid, name)
            return [Stored(inner, offset, value.pads)]
        case Real() | Result():
            name = reader.builder.settle(value, grid, name)
        case _:
            raise Refusal("it reads integers", "remove it")
    _check_shape(reader, name, stored)
    reader.place(name, (stored, offset), node.input[0] if isinstance(value, Result) else None)
    return [Stored(name, offset)]


def stand_in(reader, facts, name, shape, scale, zero_point=None):
    """A tensor of some shape in place of one that cannot be made."""
    grid, offset = _grid(scale, zero_point, facts)
    reader.builder.frame(name, shape, grid)
    return [Stored(name, offset)]


def _dequantised(reader, node, facts, value, scale, zero_point=None):
    if isinstance(value, Constant):
        if not isinstance(scale, Constant) or not isinstance(zero_point, Constant | None):
            raise Refusal("scale or zero point depend on the frame", "quantise statically")
        return [dequantised(value.real, scale.real, zero_point, facts.get("axis", 1), facts)]
    before = value.steps[-1] if isinstance(value, Host) and value.steps else value
    grid, offset = _grid(scale, zero_point, facts, getattr(before, "offset", None))
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
            name = clean(value.name)
            if name not in reader.builder.tensors:
                reader.builder.frame(name, reader.file.frame_shape, grid)
                reader.places[name] = [(value.name, offset)]
            return [Real(name, *grid)]
        case Looked():
            put_table(reader.builder, value.layer, grid)
            reader.places[value.layer.name] = [(node.input[0], value.offset)]
            return [Real(value.layer.name, *grid)]
        case Stored():
            tensor = reader.builder.tensors[value.name]
            if offset != value.offset or grid[1] != tensor.zero_point:
                raise Refusal(f"{value.name!r} is read with another zero point or type than it "
                              "is written with", "use the same in both")
            return [Real(value.name, *grid, value.pads)]
    raise Refusal("it reads floats", "remove it")


def _grid(scale, zero_point, facts, offset=None):
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


def _name(reader, stored, node):
    if reader.file.model.producer_name == "attune" or "/" not in node.input[0]:
        name = clean(stored)
    else:
        name = clean(node.input[0])
    return reader.builder.fresh(name)


def _check_shape(reader, name, stored):
    tensor, shape = reader.builder.tensors[name], reader.file.shape(stored)
    made = (1, tensor.channels, tensor.height, tensor.width)
    if shape is not None and shape != made:
        raise Refusal(f"the file has {by(shape)} where the layer makes {by(made)}",
                      "export with the shape that ONNX infers")


OPERATORS = {
    "QuantizeLinear":   _quantised,
    "DequantizeLinear": _dequantised,
}
