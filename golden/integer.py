"""The integer graph: the contract between the golden model and the hardware compiler.

A graph is a tuple of layers in topological order, each producing the one tensor that bears its
name. Activations are uint8 with one scale and zero point; only the sum of an :class:`Add` is
int16. What every layer computes is in :mod:`golden.arithmetic`, and as text in the README.
"""

import json
from dataclasses import dataclass, field, fields, replace

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from golden import arithmetic
from golden.errors import InputError
from golden.networks import check_shape

__all__ = ["Add", "Concat", "Conv", "Gate", "Input", "IntegerGraph", "Lookup", "MaxPool", "Tensor",
           "UNITS", "Upsample", "execute", "float_mask", "load", "macs", "resize", "run", "save"]

UNITS = ("encoder", "attention", "decoder")     # of figure 10


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
    uint8 in 1..47. ``padding`` is (top, left, bottom, right). ReLU is ``low`` at the zero point.
    """
    name: str
    input: str
    weight: torch.Tensor        # int8  [O, I, K, L], -127..127
    bias: torch.Tensor          # int32 [O]
    multiplier: torch.Tensor    # int16 [O]
    shift: torch.Tensor         # uint8 [O]
    stride: int
    padding: tuple[int, int, int, int]
    low: int
    high: int
    unit: str

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
    """Largest of each 2x2 window."""
    name: str
    input: str
    unit: str

    @property
    def inputs(self):
        return (self.input,)


@dataclass(frozen=True)
class Upsample:
    """Nearest neighbour x2."""
    name: str
    input: str
    unit: str

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
class Gate:
    """Upsampled alpha times skip, plus bias, requantised.

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


LAYERS = {kind.__name__: kind
          for kind in (Input, Conv, Lookup, MaxPool, Upsample, Concat, Add, Gate)}


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A quantised network for one frame size.

    ``tensors`` maps every name to its :class:`Tensor`; ``layers`` are in topological order;
    ``equalisation`` maps each gated tensor to the float factors per channel by which its stored
    real value exceeds the float network's (the consumer's weights are divided by them).
    """
    network: str
    tensors: dict[str, Tensor]
    layers: tuple
    input: str = "image"
    output: str = "mask"
    equalisation: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self):
        seen = set()
        for layer in self.layers:
            missing = [name for name in layer.inputs if name not in seen]
            if missing:
                raise ValueError(f"Layer {layer.name!r} reads {missing[0]!r} before it is made")
            seen.add(layer.name)
        if seen != set(self.tensors):
            raise ValueError(f"Layers and tensors differ in {sorted(seen ^ set(self.tensors))}")

    def layer(self, name):
        """The layer that produces tensor ``name``."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def size(self):
        """Rows, and columns, of the frame."""
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
    match layer:
        case Conv():
            acc_CHW = arithmetic.convolve(
                inputs[0], layer.weight, layer.bias, stride=layer.stride, padding=layer.padding,
                zero_point=graph.tensors[layer.input].zero_point)
            return arithmetic.requantise(
                acc_CHW, layer.multiplier, layer.shift, low=layer.low, high=layer.high,
                zero_point=graph.tensors[layer.name].zero_point)
        case Lookup():
            return arithmetic.lookup(inputs[0], layer.table)
        case MaxPool():
            return arithmetic.max_pool(inputs[0])
        case Upsample():
            return arithmetic.upsample(inputs[0])
        case Concat():
            return arithmetic.concat(inputs)
        case Add():
            return arithmetic.add(*inputs)
        case Gate():
            return arithmetic.gate(
                *inputs, layer.bias, layer.multiplier, layer.shift,
                zero_point=layer.zero_point, low=layer.low, high=layer.high)
    raise TypeError(f"No arithmetic for {type(layer).__name__}")


def float_mask(graph, values):
    """Probability mask, H x W in 0..1, from what :func:`run` returned."""
    out = graph.tensors[graph.output]
    return out.scale * (values[graph.output][0].to(torch.float32) - out.zero_point)


def macs(graph):
    """int8 multiply-accumulates per layer, convolutions only."""
    return {layer.name: layer.weight.numel()
            * graph.tensors[layer.name].height * graph.tensors[layer.name].width
            for layer in graph.layers if isinstance(layer, Conv)}


def resize(graph, size):
    """The same weights and scales for square frames of ``size``; all layers are shared."""
    check_shape(size, 1)
    tensors = {name: replace(t, height=t.height * size // graph.size,
                             width=t.width * size // graph.size)
               for name, t in graph.tensors.items()}
    return replace(graph, tensors=tensors)


def save(graph, path, *, extra=None):
    """Write one safetensors file: arrays as ``layer.field``, everything else as JSON metadata.

    ``extra`` maps further names to arrays that travel along.
    """
    arrays, records = dict(extra or {}), []
    for layer in graph.layers:
        record = {"kind": type(layer).__name__}
        for part in fields(layer):
            value = getattr(layer, part.name)
            if isinstance(value, torch.Tensor):
                arrays[f"{layer.name}.{part.name}"] = value.contiguous()
            else:
                record[part.name] = value
        records.append(record)
    for name, factors_C in graph.equalisation.items():
        arrays[f"{name}.equalisation"] = factors_C
    header = {"network": graph.network, "input": graph.input, "output": graph.output,
              "tensors": [vars(t) for t in graph.tensors.values()], "layers": records}
    save_file(arrays, str(path), {"attune": json.dumps(header)})


def load(path):
    """Read what :func:`save` wrote: the graph, and the extra arrays."""
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["attune"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    layers, equalisation = [], {}
    for record in header["layers"]:
        kind = LAYERS[record.pop("kind")]
        values = {key: tuple(value) if isinstance(value, list) else value
                  for key, value in record.items()}
        for part in fields(kind):
            if part.name not in values:
                values[part.name] = arrays.pop(f"{record['name']}.{part.name}")
        layers.append(kind(**values))
    for name in [name for name in arrays if name.endswith(".equalisation")]:
        equalisation[name.removesuffix(".equalisation")] = arrays.pop(name)
    tensors = {record["name"]: Tensor(**record) for record in header["tensors"]}
    graph = IntegerGraph(header["network"], tensors, tuple(layers), header["input"],
                         header["output"], equalisation)
    return graph, arrays
