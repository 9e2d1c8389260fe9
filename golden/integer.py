"""The integer graph: the contract between the golden model and the hardware compiler.

A graph is a tuple of layers in topological order, each producing the one tensor that bears its
name. Activations are uint8 with one scale and zero point; only the sum of an :class:`Add` is
int16. What every layer computes is in :mod:`golden.arithmetic`, and as text in the README.
Layers that a contract forbids cannot be made: they raise ``ValueError``.
"""

from dataclasses import dataclass, field, replace

import torch

from golden import arithmetic
from golden.errors import InputError

__all__ = ["Add", "Concat", "Conv", "Gate", "INTERPOLATED", "Input", "IntegerGraph", "Interpolate",
           "Lookup", "MaxPool", "Sum", "SUM_WEIGHT_LIMIT", "TRANSPOSED_KERNELS", "Tensor",
           "TransposedConv", "UNITS", "Upsample", "execute", "float_mask", "macs", "output_shape",
           "real", "resize", "run"]

UNITS = ("encoder", "attention", "decoder")     # of figure 10
UPSAMPLE_MODES = ("nearest", "linear")
AXES = ("rows", "columns")
INTERPOLATED = ("half_pixel", "align_corners", "asymmetric")    # ONNX's names of places
TRANSPOSED_KERNELS = (2, 3, 4)
SUM_WEIGHT_LIMIT = 381          # two such weights times 255 stay within 18 bits and a sign


@dataclass(frozen=True)
class Tensor:
    """Shape and meaning of an activation: real value = ``scale * (stored - zero_point)``."""
    name: str
    channels: int
    height: int
    width: int
    scale: float
    zero_point: int = 0


@dataclass(frozen=True)
class Input:
    """The frame, uint8 RGB."""
    name: str

    inputs = ()


@dataclass(frozen=True, eq=False)
class Conv:
    """Convolution and requantisation.

    ``multiplier`` is int16 with ``2**14 <= m < 2**15``, or 0 for a dead channel; ``shift`` is
    uint8 in 1..47. ``padding`` is (top, left, bottom, right), each less than the kernel. ReLU is
    ``low`` at the zero point. ``groups`` is 1, or depthwise: as many as there are channels.

    Where batch normalisation follows ReLU, each channel has a bound of its own in place of ``low``
    and ``high``, which are 0 and 255 then: ``floor`` is what it is at least, ``ceiling`` what it is
    at most, and one of the two is 0 or 255.
    """
    name: str
    input: str
    weight: torch.Tensor        # int8  [O, I, K, L], -127..127; depthwise [C, 1, K, L]
    bias: torch.Tensor          # int32 [O]
    multiplier: torch.Tensor    # int16 [O]
    shift: torch.Tensor         # uint8 [O]
    stride: int
    padding: tuple[int, int, int, int]
    low: int
    high: int
    unit: str
    groups: int = 1
    floor: torch.Tensor | None = None       # uint8 [O]
    ceiling: torch.Tensor | None = None     # uint8 [O]

    def __post_init__(self):
        outputs, inputs, *kernel = self.weight.shape
        _demand(self, all(1 <= k <= 7 for k in kernel), "kernels are 1..7 rows and columns, "
                f"not {kernel[0]}x{kernel[1]}")
        _demand(self, self.stride in (1, 2), f"strides are 1 or 2, not {self.stride}")
        _demand(self, all(0 <= side < k for side, k in zip(self.padding, 2 * kernel, strict=True)),
                f"padding is less than the {kernel[0]}x{kernel[1]} kernel, not {self.padding}")
        _demand(self, self.groups == 1 or (inputs == 1 and self.groups == outputs),
                f"groups are 1 or, depthwise, the channels, not {self.groups} with weights of "
                f"{outputs}x{inputs} channels")
        _demand(self, (self.floor is None) == (self.ceiling is None), "floor and ceiling come "
                "together")
        if self.floor is not None:
            _demand(self, bool(((self.floor == 0) | (self.ceiling == 255)).all()),
                    "a channel has a floor or a ceiling, not both")
            _demand(self, (self.low, self.high) == (0, 255),
                    f"bounds of channels take the place of {self.low} and {self.high}")

    @property
    def inputs(self):
        return (self.input,)

    @property
    def bounds(self):
        """Least and largest byte: of all channels, or tensors with one of each."""
        return (self.low, self.high) if self.floor is None else (self.floor, self.ceiling)


@dataclass(frozen=True, eq=False)
class TransposedConv:
    """Transposed convolution of stride 2, and requantisation.

    Every input pixel adds its multiple of the kernel to the result at twice its row and column;
    ``padding`` is (top, left, bottom, right) cropped from that. Multipliers are a :class:`Conv`'s.
    """
    name: str
    input: str
    weight: torch.Tensor        # int8  [I, O, K, L], -127..127, K and L 2 to 4
    bias: torch.Tensor          # int32 [O]
    multiplier: torch.Tensor    # int16 [O]
    shift: torch.Tensor         # uint8 [O]
    padding: tuple[int, int, int, int]
    low: int
    high: int
    unit: str

    def __post_init__(self):
        kernel = list(self.weight.shape[2:])
        _demand(self, all(k in TRANSPOSED_KERNELS for k in kernel), "kernels are 2 to 4 rows and "
                f"columns, not {kernel[0]}x{kernel[1]}")
        _demand(self, all(0 <= side < k for side, k in zip(self.padding, 2 * kernel, strict=True)),
                f"padding is less than the {kernel[0]}x{kernel[1]} kernel, not {self.padding}")

    @property
    def inputs(self):
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Lookup:
    """256-entry table of uint8: the sigmoid."""
    name: str
    input: str
    table: torch.Tensor         # uint8 [256]
    unit: str

    @property
    def inputs(self):
        return (self.input,)


@dataclass(frozen=True)
class MaxPool:
    """Largest of each 2x2 window; a last odd row or column is dropped."""
    name: str
    input: str
    unit: str

    @property
    def inputs(self):
        return (self.input,)


@dataclass(frozen=True)
class Upsample:
    """Twice the rows and columns; ``mode`` is "nearest" or "linear" with half-pixel centres."""
    name: str
    input: str
    unit: str
    mode: str = "nearest"

    def __post_init__(self):
        _demand(self, self.mode in UPSAMPLE_MODES,
                f"modes are {', '.join(UPSAMPLE_MODES)}, not {self.mode!r}")

    @property
    def inputs(self):
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Interpolate:
    """``length`` rows, or columns, for those that there are, linearly, and requantisation.

    Each is a weighted sum of its two neighbours; ``place`` says where it lies. The weights are
    integers with the same sum for all, which the multiplier holds.
    """
    name: str
    input: str
    axis: str
    length: int
    place: str
    multiplier: torch.Tensor    # int16 [1]
    shift: torch.Tensor         # uint8 [1]
    low: int
    high: int
    unit: str

    def __post_init__(self):
        _demand(self, self.axis in AXES, f"axes are {' and '.join(AXES)}, not {self.axis!r}")
        _demand(self, self.place in INTERPOLATED,
                f"places are {', '.join(INTERPOLATED)}, not {self.place!r}")
        _demand(self, self.length >= 1, f"lengths are positive, not {self.length}")

    @property
    def inputs(self):
        return (self.input,)


@dataclass(frozen=True)
class Concat:
    """Channels of every input in turn; all share one scale and zero point."""
    name: str
    inputs: tuple[str, ...]
    unit: str


@dataclass(frozen=True)
class Add:
    """Exact int16 sum of two tensors that share one scale and have zero point 0."""
    name: str
    a: str
    b: str
    unit: str

    @property
    def inputs(self):
        return (self.a, self.b)


@dataclass(frozen=True, eq=False)
class Sum:
    """Weighted sum of two tensors of any scales and zero points, requantised.

    The weights stand for the two scales up to a common factor, which the multiplier holds. With
    ``weight_b`` below zero it is a difference.
    """
    name: str
    a: str
    b: str
    weight_a: int
    weight_b: int
    multiplier: torch.Tensor    # int16 [1]
    shift: torch.Tensor         # uint8 [1]
    low: int
    high: int
    unit: str

    def __post_init__(self):
        for weight in (self.weight_a, abs(self.weight_b)):
            _demand(self, 1 <= weight <= SUM_WEIGHT_LIMIT,
                    f"weights are 1..{SUM_WEIGHT_LIMIT}, the second with either sign, not {weight}")

    @property
    def inputs(self):
        return (self.a, self.b)


@dataclass(frozen=True, eq=False)
class Gate:
    """Alpha times skip, plus bias, requantised.

    Alpha has one channel or the skip's, and the skip's rows and columns or half of them (nearest).
    ``multiplier`` is like a :class:`Conv`'s, but may be negative: ``2**14 <= |m| < 2**15``.
    """
    name: str
    alpha: str
    skip: str
    bias: torch.Tensor          # int32 [C]
    multiplier: torch.Tensor    # int16 [C]
    shift: torch.Tensor         # uint8 [C]
    zero_point: int
    low: int
    high: int
    unit: str

    @property
    def inputs(self):
        return (self.alpha, self.skip)


def _demand(layer, fulfilled, rule):
    if not fulfilled:
        raise ValueError(f"{type(layer).__name__} {layer.name!r}: {rule}")


LAYERS = {kind.__name__: kind
          for kind in (Input, Conv, TransposedConv, Lookup, MaxPool, Upsample, Interpolate, Concat,
                       Add, Sum, Gate)}


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A quantised network for one frame size.

    ``tensors`` maps every name to its :class:`Tensor`; ``layers`` are in topological order;
    ``output`` is the mask, and ``outputs`` all tensors that leave the network, by default that one;
    ``equalisation`` maps tensors to the float factors per channel by which their stored real
    value exceeds the float network's (the consumers' weights are divided by them). ``classes``
    names what the mask tells apart, the background first; none: lesion from background.
    """
    network: str
    tensors: dict[str, Tensor]
    layers: tuple
    input: str = "image"
    output: str = "mask"
    equalisation: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.outputs:
            object.__setattr__(self, "outputs", (self.output,))
        seen = set()
        for layer in self.layers:
            missing = [name for name in layer.inputs if name not in seen]
            if missing:
                raise ValueError(f"Layer {layer.name!r} reads {missing[0]!r} before it is made")
            seen.add(layer.name)
        if seen != set(self.tensors):
            raise ValueError(f"Layers and tensors differ in {sorted(seen ^ set(self.tensors))}")
        for name in (self.output, *self.outputs):
            if name not in seen or self.output not in self.outputs:
                raise ValueError(f"Outputs {self.outputs} must be tensors, {self.output!r} "
                                 "among them")

    def layer(self, name):
        """The layer that produces tensor ``name``."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def size(self):
        """Rows of the frame, and columns where it is square."""
        return self.tensors[self.input].height


def run(graph, image_CHW):
    """Every tensor of the graph for one uint8 frame, exact: uint8 C x H x W (sums: int16)."""
    expected = graph.tensors[graph.input]
    shape = (expected.channels, expected.height, expected.width)
    if image_CHW.dtype != torch.uint8 or tuple(image_CHW.shape) != shape:
        raise InputError(f"The frame must be uint8 of shape {shape}, not "
                         f"{str(image_CHW.dtype).removeprefix('torch.')} of shape "
                         f"{tuple(image_CHW.shape)}; golden.images.read_image makes one")
    values = {graph.input: image_CHW}
    for layer in graph.layers:
        if not isinstance(layer, Input):
            values[layer.name] = execute(graph, layer, *(values[name] for name in layer.inputs))
    return values


def execute(graph, layer, *inputs):
    """Output of one layer for the given input tensors."""
    zeros = [graph.tensors[name].zero_point for name in layer.inputs]
    match layer:
        case Conv():
            acc_CHW = arithmetic.convolve(
                inputs[0], layer.weight, layer.bias, stride=layer.stride, padding=layer.padding,
                zero_point=zeros[0], groups=layer.groups)
        case TransposedConv():
            acc_CHW = arithmetic.convolve_transposed(
                inputs[0], layer.weight, layer.bias, padding=layer.padding, zero_point=zeros[0])
        case Lookup():
            return arithmetic.lookup(inputs[0], layer.table)
        case MaxPool():
            return arithmetic.max_pool(inputs[0])
        case Upsample():
            return arithmetic.upsample(inputs[0], layer.mode)
        case Interpolate():
            acc_CHW = arithmetic.interpolate(inputs[0], layer.axis, layer.length, layer.place,
                                             zero_point=zeros[0])
        case Concat():
            return arithmetic.concat(inputs)
        case Add():
            return arithmetic.add(*inputs)
        case Sum():
            acc_CHW = arithmetic.weighted_sum(*inputs, weights=(layer.weight_a, layer.weight_b),
                                              zero_points=zeros)
        case Gate():
            return arithmetic.gate(
                *inputs, layer.bias, layer.multiplier, layer.shift, zero_points=zeros,
                zero_point=layer.zero_point, low=layer.low, high=layer.high)
        case _:
            raise TypeError(f"No arithmetic for {type(layer).__name__}")
    low, high = layer.bounds if isinstance(layer, Conv) else (layer.low, layer.high)
    return arithmetic.requantise(acc_CHW, layer.multiplier, layer.shift, low=low, high=high,
                                 zero_point=graph.tensors[layer.name].zero_point)


def output_shape(layer, *shapes):
    """Channels, rows and columns that a layer makes of inputs of these ``(C, H, W)``.

    Raises ``ValueError`` where they do not fit the layer or each other.
    """
    channels, *frame = shapes[0]
    wanted = {shape[1:] for shape in shapes}
    match layer:
        case Conv():
            outputs, inputs, *kernel = layer.weight.shape
            fits = channels == inputs * layer.groups
            top, left, bottom, right = layer.padding
            frame = [(side + more - k) // layer.stride + 1 for side, more, k
                     in zip(frame, (top + bottom, left + right), kernel, strict=True)]
            channels = outputs
        case TransposedConv():
            inputs, outputs, *kernel = layer.weight.shape
            fits = channels == inputs
            top, left, bottom, right = layer.padding
            frame = [2 * (side - 1) + k - less for side, less, k
                     in zip(frame, (top + bottom, left + right), kernel, strict=True)]
            channels = outputs
        case MaxPool():
            fits, frame = True, [side // 2 for side in frame]
        case Upsample():
            fits, frame = True, [2 * side for side in frame]
        case Interpolate():
            fits, frame[AXES.index(layer.axis)] = True, layer.length
        case Concat():
            fits, channels = len(wanted) == 1, sum(shape[0] for shape in shapes)
        case Add() | Sum():
            fits = shapes[0] == shapes[1]
        case Gate():
            fits = channels in (1, shapes[1][0]) and (
                tuple(frame) in (shapes[1][1:], tuple(side / 2 for side in shapes[1][1:])))
            channels, *frame = shapes[1]
        case _:
            fits = True
    if not fits or min(frame) < 1:
        raise ValueError(f"{type(layer).__name__} {layer.name!r} does not fit inputs of shape "
                         + " and ".join("x".join(map(str, shape)) for shape in shapes))
    return channels, *frame


def real(graph, values, name):
    """The real values, float32 C x H x W, of a tensor of what :func:`run` returned."""
    tensor = graph.tensors[name]
    return tensor.scale * (values[name].to(torch.float32) - tensor.zero_point)


def float_mask(graph, values):
    """Probability mask, H x W in 0..1, from what :func:`run` returned; of a network that tells
    classes apart :func:`golden.classes.class_mask`'s."""
    return real(graph, values, graph.output)[0]


def macs(graph):
    """int8 multiply-accumulates of each convolution; those on padding or cropped edges count."""
    counts = {}
    for layer in graph.layers:
        if isinstance(layer, (Conv, TransposedConv)):
            t = graph.tensors[layer.name if isinstance(layer, Conv) else layer.input]
            counts[layer.name] = layer.weight.numel() * t.height * t.width
    return counts


def resize(graph, height, width=None):
    """The same weights and scales for frames of ``height`` x ``width``; all layers are shared.

    Without ``width`` frames are square.
    """
    width = height if width is None else width
    frame = graph.tensors[graph.input]
    multiple = frame.height // min(t.height for t in graph.tensors.values())
    for side in (height, width):
        if side < 1 or side % multiple:
            raise InputError(f"Frame size must be a positive multiple of {multiple}, not {side!r}; "
                             f"try {max(multiple, round(side / multiple) * multiple)}")
    shapes = {graph.input: (frame.channels, height, width)}
    for layer in graph.layers:
        if not isinstance(layer, Input):
            shapes[layer.name] = output_shape(layer, *(shapes[name] for name in layer.inputs))
    tensors = {name: replace(t, height=shapes[name][1], width=shapes[name][2])
               for name, t in graph.tensors.items()}
    return replace(graph, tensors=tensors)
