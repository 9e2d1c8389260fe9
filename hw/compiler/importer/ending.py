"""The end of a network: what the host does there, and the mask that comes of it."""

import math
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.values import Constant, Host, Step

EXACT_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)     # enough for bytes
FLOAT_TYPES  = (*EXACT_FLOATS, TensorProto.BFLOAT16)
SQUASHES   = ("Sigmoid", "Softmax", "LogSoftmax")
OVER_CHANNELS = ("Softmax", "LogSoftmax", "ArgMax")
RESHAPED   = ("Squeeze", "Transpose", "Reshape")        # no number becomes another by these
AFTER_END  = ("Cast", *RESHAPED, "Identity", "Dropout", "Sigmoid", *OVER_CHANNELS)
TO_INTEGERS = ("QuantizeLinear", "DequantizeLinear")
PER_CHANNEL = 13            # opset from which Softmax is over one axis


@dataclass(frozen=True)
class Ending:
    """What the first output of a file holds: ``output``, its name; the host's ``steps``;
    ``squashed``, whether what they start from is a probability already, a sigmoid's say; ``grid``,
    scale and zero point if integers come out, of which the file holds ``offset`` less; ``dims``,
    those that it has of "NCHW", in its order."""
    output:   str
    steps:    tuple = ()
    squashed: bool  = False
    grid:     tuple = None
    offset:   int   = 0
    dims:     str   = "NCHW"

    @property
    def classes(self):
        """Whether the numbers of classes come out."""
        return any(step.operator == "ArgMax" for step in self.steps)

    def made_of(self, real_CHW):
        """What the file has in place of float32 C x H x W before the host's steps."""
        for step in self.steps:
            real_CHW = _done(step, real_CHW)
        return real_CHW

    def read(self, seen, shape_HW):
        """The file's output, as ONNX Runtime gives it, as float32 C x H x W or class numbers."""
        shape    = dict(zip("HW", shape_HW, strict=True))
        seen     = np.asarray(seen).reshape([shape.get(name, -1 if name == "C" else 1)
                                             for name in self.dims])
        seen_CHW = seen.transpose([self.dims.index(name) for name in "NCHW"
                                   if name in self.dims]).reshape(-1, *shape_HW)
        if self.grid is None or self.classes:
            return seen_CHW.astype(np.int64 if self.classes else np.float32)
        scale, zero = self.grid
        return np.float32(scale) * (seen_CHW.astype(np.float32) + self.offset - zero)

    def mask(self, made_CHW):
        """A picture of what was found, uint8 1 x H x W: the probability in 1/256, above 127 where
        it is one half or more. Of several classes, 255 is all but the first."""
        if self.classes or len(made_CHW) > 1:
            number_1HW = made_CHW if self.classes else made_CHW.argmax(0, keepdims=True)
            return np.where(number_1HW > 0, 255, 0).astype(np.uint8)
        p_1HW = made_CHW.astype(np.float64)
        squashes = [step.operator for step in self.steps if step.operator in SQUASHES]
        if squashes[-1:] == ["LogSoftmax"]:
            p_1HW = np.exp(p_1HW)
        elif not (squashes or self.squashed):
            p_1HW = 1 / (1 + np.exp(-p_1HW))
        near_1HW = np.floor(256 * p_1HW + 0.5)
        return np.where(p_1HW >= 0.5, np.clip(near_1HW, 128, 255),
                        np.clip(near_1HW, 0, 127)).astype(np.uint8)


def _done(step, real_CHW):
    match step.operator:
        case "Sigmoid":
            return np.float32(1) / (np.float32(1) + np.exp(-real_CHW))
        case "Softmax" | "LogSoftmax":
            moved_CHW = real_CHW - real_CHW.max(0, keepdims=True)
            total_1HW = np.exp(moved_CHW).sum(0, keepdims=True)
            return (np.exp(moved_CHW) / total_1HW if step.operator == "Softmax"
                    else moved_CHW - np.log(total_1HW))
        case "ArgMax":
            return real_CHW.argmax(0, keepdims=True)
        case "QuantizeLinear":
            scale, zero = step.grid
            stored_CHW = np.clip(np.rint(real_CHW / np.float32(scale)) + zero, 0, 255)
            return (np.float32(scale) * (stored_CHW - zero)).astype(np.float32)
        case _:
            return real_CHW


def continued(host, node, facts, opset, shape, *operands):
    """``host`` with one more step. ``shape`` are the sizes of "NCHW"; ``operands`` are the node's
    further inputs.

    Raises
    ------
    Refusal
        If the host does not do this there.
    """
    operator = node.op_type
    classes  = "ArgMax" in host.operators
    if classes and operator in (*OVER_CHANNELS, "Sigmoid"):
        raise Refusal("it reads the numbers of classes that ArgMax makes",
                      "end the network at ArgMax")
    match operator:
        case "Softmax" | "LogSoftmax" | "ArgMax":
            return _over_channels(host, operator, facts, opset)
        case "Cast" if facts["to"] not in FLOAT_TYPES and not classes or (
                facts["to"] == TensorProto.STRING):
            raise Refusal("it makes integers of numbers that are not whole",
                          "cast to float, or after ArgMax")
        case "Squeeze":
            return _squeezed(host, facts, shape, operands)
        case "Transpose":
            order = facts.get("perm", range(len(host.dims))[::-1])
            return Host(host.name, (*host.steps, Step(operator)),
                        "".join(host.dims[axis] for axis in order))
        case "Reshape":
            return _reshaped(host, shape, operands)
        case "Identity" | "Dropout":
            return host
        case _:
            return replace(host, steps=(*host.steps, Step(operator)))


def _over_channels(host, operator, facts, opset):
    """Softmax or ArgMax, which the host does over channels only."""
    by_opset = {"ArgMax": 0}.get(operator, -1 if opset >= PER_CHANNEL else 1)
    axis = facts.get("axis", by_opset)
    over = host.dims[axis] if -len(host.dims) <= axis < len(host.dims) else None
    if over != "C":
        names = {"N": "frames", "H": "rows", "W": "columns"}
        raise Refusal(f"it is over axis {axis}, {names.get(over, 'which there is not')}",
                      f"take it over channels, axis {host.dims.find('C')}" if "C" in host.dims else
                      "end the network before Squeeze")
    if operator != "ArgMax" and opset < PER_CHANNEL:
        raise Refusal(f"in opset {opset} it is over channels, rows and columns together",
                      f"export with opset {PER_CHANNEL} or newer")
    if facts.get("select_last_index"):
        raise Refusal("it takes the last of equal classes", "use select_last_index=0")
    dims = host.dims.replace("C", "") if operator == "ArgMax" and not facts.get(
        "keepdims", 1) else host.dims
    return Host(host.name, (*host.steps, Step(operator)), dims)


def _sizes(host, shape):
    """Of every dimension, at the end of the steps."""
    sizes = dict(zip("NCHW", shape, strict=True))
    if "ArgMax" in host.operators:
        sizes["C"] = 1
    return sizes


def _reshaped(host, shape, operands):
    """Reshape, which the host only does where it drops, adds or moves dimensions of size 1."""
    sizes = _sizes(host, shape)
    if not isinstance(operands[0], Constant):
        raise Refusal("its shape depends on the frame", "use a constant shape")
    whole  = math.prod(sizes[name] for name in host.dims)
    wanted = [int(x) for x in operands[0].real.reshape(-1)]
    wanted = [sizes[host.dims[axis]] if side == 0 and axis < len(host.dims) else side
              for axis, side in enumerate(wanted)]
    if -1 in wanted:
        known = math.prod(side for side in wanted if side != -1)
        wanted[wanted.index(-1)] = whole // max(1, known)
    large = [name for name in host.dims if sizes[name] != 1]
    small = [name for name in "NCHW" if sizes[name] == 1]
    kept  = iter(large), iter(small)
    dims = [next(kept[side == 1], "") for side in wanted]
    if [sizes.get(name) for name in dims] != wanted or len(set(dims)) < len(dims) or (
            next(kept[0], None)):
        raise Refusal(f"it makes {'x'.join(map(str, wanted))} of "
                      f"{'x'.join(str(sizes[name]) for name in host.dims)}",
                      "leave out what moves rows, columns or channels")
    return Host(host.name, (*host.steps, Step("Reshape")), "".join(dims))


def _squeezed(host, facts, shape, operands):
    sizes = _sizes(host, shape)
    axes = facts.get("axes")
    if operands and operands[0] is not None:
        if not isinstance(operands[0], Constant):
            raise Refusal("its axes depend on the frame", "use constant axes")
        axes = [int(x) for x in operands[0].real.reshape(-1)]
    if axes is None:
        gone = [name for name in host.dims if sizes[name] == 1]
    else:
        gone = [host.dims[axis] for axis in axes if -len(host.dims) <= axis < len(host.dims)]
        if len(gone) < len(axes) or any(sizes[name] != 1 for name in gone):
            raise Refusal(f"it drops axes {axes}, of which not all have the size 1",
                          "drop frames or channels only, or leave it out")
    return Host(host.name, (*host.steps, Step("Squeeze")),
                "".join(name for name in host.dims if name not in gone))
