"""What makes each number of one number: tables of 256 bytes."""

import numpy as np
import onnx
import torch

from golden.integer import Lookup
from hw.compiler.importer.build_tables import FUNCTIONS, function, functions
from hw.compiler.importer.build_unrounded import BEHIND
from hw.compiler.importer.constants import OFFSETS, demand_finite, numbers, per_channel
from hw.compiler.importer.ending import AFTER_END
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import UNPLACED
from hw.compiler.importer.names import clean
from hw.compiler.importer.read_end import carry_on, ends
from hw.compiler.importer.rewrites import KNOWN
from hw.compiler.importer.values import Constant, Host, Index, Looked, Real, Result

FLOATS   = (Real, Result)
POINTWISE = frozenset(
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish LeakyRelu Log Max Min Mish Neg PRelu Pow Reciprocal Round Selu Shrink Sign Sin Sinh "
    "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu".split())
"""Operators that make each number of one number, and perhaps constants."""
TOGETHER = frozenset("Add Div Max Min Mul Pow Sub".split())
"""Operators that make each number of two, which may both come of one."""


def pointwise(reader, node, facts, *values):
    """An operator that makes each number of one: a table, from byte to byte."""
    index  = next(i for i, value in enumerate(values) if not isinstance(value, Constant | None))
    value  = reader.float_(values[index], node)
    found  = function(value)
    others = [value for i, value in enumerate(values) if i != index]
    if not all(isinstance(other, Constant | None) for other in others):
        raise Refusal("its operands are different maps", KNOWN)
    if found is None and isinstance(value, Result) and value.kind in BEHIND and not value.bounded:
        return [_unrounded(reader, node, value, index, values)]
    if found is None:
        found = function(reader.real(value, node))
    source, made = found
    return [_tabulated(reader, node, source, *(made if i == index else value
                                               for i, value in enumerate(values)))]


def _unrounded(reader, node, value, index, values):
    """The operator on a convolution's result that has no grid."""
    def of(real):
        operands = [real.reshape(1, 1, 1, -1).astype(np.float32) if at == index else operand
                    for at, operand in enumerate(values)]
        return _evaluated(reader, node, operands).astype(np.float64).reshape(real.shape)
    return Result("unrounded", clean(node.output[0]), node, value.sources,
                  {"inner": value, "of": of})


def together(reader, node, *values):
    """An operator on several functions of one tensor, not all of them that tensor itself, as
    one function of it; None of others, and of what our own exporter wrote."""
    if reader.file.model.producer_name == "attune":
        return None
    if not all(isinstance(value, FLOATS) for value in values) or (
            all(isinstance(value, Real) for value in values)
            and len({value.name for value in values}) < len(values)):
        return None
    found = functions(reader.builder, *values)
    return found and _tabulated(reader, node, *found)


def _tabulated(reader, node, source, *operands):
    """An operator on float32 for each byte of ``source``, and constants."""
    made = _evaluated(reader, node, [operand.reshape(1, 1, 1, -1) if isinstance(
        operand, np.ndarray) else operand for operand in operands])
    if np.isnan(made).any():                # for bytes that the operand never has, perhaps
        layer = reader.builder.layers[source.name]
        made  = made[np.clip(np.arange(len(made)), getattr(layer, "low", 0),
                             getattr(layer, "high", 255))]
    if made.shape != (256,) or np.isnan(made).any():
        raise Refusal("for some bytes its result is no number", "bound its operand by Clip")
    return Result("function", clean(node.output[0]), node, (source,), {"made": made})


def _evaluated(reader, node, operands):
    """What an operator makes of arrays and constants, float32 in one row."""
    inputs = []
    for operand in operands:
        if isinstance(operand, Constant):
            different = np.unique(numbers(operand.real))
            if different.size != 1:
                raise Refusal(f"a constant of {operand.real.size} numbers, and a table is the "
                              "same for all channels", "use one number")
            operand = different.astype(np.float32)
        inputs.append(operand)
    named = onnx.NodeProto()            # operands may have one name, but not one value
    named.CopyFrom(node)
    named.input[:] = [name and f"{index}" for index, name in enumerate(node.input)]
    with np.errstate(all="ignore"):
        made, *_ = reader.folder.fold(named, inputs)
    return made.reshape(-1).astype(np.float32)


def _prelu(reader, node, facts, value, slope):
    """With a slope for each channel it is no table, but a sum."""
    if not isinstance(slope, Constant) or np.unique(slope.real).size == 1:
        return pointwise(reader, node, facts, value, slope)
    slope_C = per_channel(slope.real)
    demand_finite(slope_C)
    source = reader.real(value, node)
    if len(slope_C) != reader.channels(source):
        raise Refusal(f"{len(slope_C)} slopes for {reader.channels(source)} channels",
                      "give one for each channel, or one for all")
    return [Result("prelu", clean(node.output[0]), node, (source,), {"slope": slope_C})]


def _sigmoid(reader, node, facts, value):
    if isinstance(value, Real) and not any(value.pads) and ends(reader, node, AFTER_END):
        return [carry_on(reader, Host(value.name, ()), node)]
    if isinstance(value, Result) and value.kind in (*FUNCTIONS, *BEHIND):
        return pointwise(reader, node, facts, value)
    return [Result("sigmoid", clean(node.output[0]), node, (reader.real(value, node),))]


def _gather(reader, node, facts, table, index):
    if not (isinstance(table, Constant) and isinstance(index, Index)
            and table.real.shape == (256,) and table.real.dtype in OFFSETS):
        raise Refusal("it is no table of 256 bytes at the bytes of a map", KNOWN)
    offset = OFFSETS[table.real.dtype]
    entries = torch.from_numpy((table.real.astype(np.int64) + offset).astype(np.uint8))
    name = reader.builder.fresh(clean(node.output[0]))
    return [Looked(Lookup(name, index.name, entries, UNPLACED), offset)]


OPERATORS = {
    **dict.fromkeys(POINTWISE, pointwise),
    "PRelu":   _prelu,
    "Sigmoid": _sigmoid,
    "Gather":  _gather,
}
