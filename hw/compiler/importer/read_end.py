"""The end of a network, which the host does; and where a network ends."""

import numpy as np

from hw.compiler.importer.ending import AFTER_END, EXACT_FLOATS, TO_INTEGERS, Ending, continued
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.file import attributes
from hw.compiler.importer.names import clean
from hw.compiler.importer.rewrites import FREEZE, REWRITES
from hw.compiler.importer.values import Frame, Host, Index, Real, Result, Stored


def _cast(reader, node, facts, value):
    if isinstance(value, Stored) and value.offset == 0 and not any(value.pads):
        return [Index(value.name)]
    if isinstance(value, Frame) and value.offset is not None and facts["to"] in EXACT_FLOATS:
        return [_whole_pixels(reader, value)]
    if isinstance(value, Frame | Real | Result) and facts["to"] in EXACT_FLOATS:
        return [value]          # of 256 numbers each stays nearest to its own
    if isinstance(value, Real | Result) and ends(reader, node, (*AFTER_END, *TO_INTEGERS)):
        return _at_end(reader, node, facts, value)
    raise Refusal("the engine has 8-bit integers only", "remove it")


def _whole_pixels(reader, frame):
    """A frame of integers as the numbers that they are."""
    name = clean(frame.name)
    if name not in reader.builder.tensors:
        reader.builder.frame(name, reader.file.frame_shape, (1.0, frame.offset))
        reader.places[name] = [(frame.name, frame.offset)]
    return Real(name, np.float32(1), frame.offset)


def _at_end(reader, node, facts, value, *operands):
    if not ends(reader, node, (*AFTER_END, *TO_INTEGERS)):
        if _normalised(reader, node):
            raise Refusal("it is part of a normalisation by the frame's own statistics", FREEZE)
        raise Refusal("it is not at the end of the network, where the host does it",
                      REWRITES.get(node.op_type, "end the network there"))
    source = reader.real(value, node)
    return [carry_on(reader, Host(source.name, ()), node, *operands)]


def _normalised(reader, node):
    """Whether groups of channels are normalised next, as exporters write GroupNorm."""
    readers = [node]
    while readers and all(x.op_type in (node.op_type, "QuantizeLinear", "DequantizeLinear")
                          for x in readers):
        readers = [each for x in readers for each in reader.file.readers.get(x.output[0], [])]
    return any(x.op_type == "InstanceNormalization" for x in readers)


def carry_on(reader, host, node, *operands):
    """What the host makes, with one more operator."""
    t = reader.builder.tensors[host.name]
    return continued(host, node, attributes(node), reader.file.opset,
                     (1, t.channels, t.height, t.width), *operands)


def end(reader, output, name, steps=(), offset=None, dims="NCHW"):
    """Note what the first output holds."""
    if reader.ending is None:
        t = reader.builder.tensors[name]
        last = steps[-1] if steps else None
        if last is not None and last.operator == "QuantizeLinear":
            grid, offset = last.grid, last.offset
        else:
            grid = (t.scale, t.zero_point) if not steps and offset is not None else None
        reader.ending = Ending(output, steps, name in reader.builder.units, grid, offset or 0,
                               dims)


def ends(reader, node, after):
    """Whether only operators ``after`` the end follow."""
    open_ = [node]
    while open_:
        for name in open_.pop().output:
            found = reader.file.readers.get(name, []) if name else []
            if not all(each.op_type in after for each in found):
                return False
            open_ += found
    return True


OPERATORS = {
    "Cast":       _cast,
    "Softmax":    _at_end,
    "LogSoftmax": _at_end,
    "ArgMax":     _at_end,
    "Transpose":  _at_end,
    "Reshape":    _at_end,
    "Squeeze":    _at_end,
}
