"""What the tensors of a file stand for, while it is read."""

import math
from dataclasses import dataclass, field

import numpy as np

from golden import integer


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that no frame changes. ``whole`` are its integers before dequantisation, in steps
    of ``scale`` along ``axis``; None if it never was integer."""
    real:  np.ndarray
    whole: np.ndarray | None = None
    scale: np.ndarray | None = None
    axis:  int = 0


@dataclass(frozen=True, eq=False)
class Frame:
    """The graph's input, float or bytes, as it comes; ``offset`` as of :class:`Stored`."""
    name:   str
    offset: int | None = None


@dataclass(frozen=True, eq=False)
class Stored:
    """The bytes of tensor ``name`` of the integer graph; the file holds them less ``offset``, 0 or
    128. ``pads``: to be padded (top, left, bottom, right) by the convolution that reads them."""
    name:   str
    offset: int
    pads:   tuple = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Real:
    """What the bytes of tensor ``name`` stand for."""
    name:       str
    scale:      np.float32
    zero_point: int
    pads:       tuple = (0, 0, 0, 0)

    @property
    def grid(self):
        return self.scale, self.zero_point


@dataclass(frozen=True, eq=False)
class Index:
    """The bytes of tensor ``name`` as the index of a table."""
    name: str


@dataclass(frozen=True, eq=False)
class Looked:
    """A table at an index, before somebody says what its bytes stand for."""
    layer:  integer.Lookup
    offset: int


@dataclass(frozen=True, eq=False)
class Result:
    """A float that waits for its QuantizeLinear: ``gain * x + offset``, bounded (a convolution's by
    one number or one for each channel), where x is what an operator of this ``kind`` makes of
    ``sources``. ``bias`` is an integer that the operator adds
    first, in its accumulator; ``name`` is the float's in the file."""
    kind:    str
    name:    str
    node:    object
    sources: tuple
    facts:   dict       = field(default_factory=dict)
    bias:    np.ndarray = None
    gain:    np.ndarray = 1.0
    offset:  np.ndarray = 0.0
    low:     float      = -math.inf
    high:    float      = math.inf

    @property
    def affine(self):
        """Whether there is anything but the operator before the bounds."""
        return self.bias is not None or np.any(self.gain != 1) or np.any(self.offset != 0)

    @property
    def bounded(self):
        return bool(np.any(self.low != -math.inf) or np.any(self.high != math.inf))

    @property
    def by_channel(self):
        """Whether any bound is one for each channel."""
        return max(np.size(self.low), np.size(self.high)) > 1


@dataclass(frozen=True, eq=False)
class Step:
    """One operator of the host's; ``grid`` is scale and zero point of what makes integers, of
    which the file holds ``offset`` less."""
    operator: str
    grid:     tuple = None
    offset:   int   = 0


@dataclass(frozen=True, eq=False)
class Host:
    """What the host makes of tensor ``name``, at the end: the ``steps`` in turn, all of them on
    every element or over channels. ``dims`` are those that are left of "NCHW"."""
    name:  str
    steps: tuple
    dims:  str = "NCHW"

    @property
    def operators(self):
        return tuple(step.operator for step in self.steps)


class Unknown:
    """Follows from a node that was refused; nothing is said about it again."""


@dataclass(frozen=True, eq=False)
class Unmade:
    """A further output of a node, of which the first alone is made."""
    node:  object
    count: int

    def __str__(self):
        return f"output {self.count} of {self.node.op_type}, which the engine does not make"
