"""A small integer graph with every kind of layer, numbers from a seed."""

import math

import torch

from golden.arithmetic import lines
from golden.integer import (
    Add,
    Concat,
    Conv,
    Gate,
    Input,
    IntegerGraph,
    Interpolate,
    Lookup,
    MaxPool,
    Sum,
    Tensor,
    TransposedConv,
    Upsample,
    output_shape,
)
from golden.quantize import fixed_point, sigmoid_table

SPREAD = 60         # standard deviation of results, in steps, so that few are clamped


class _Maker:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors, self.layers = {}, []

    def integers(self, low, high, *shape, dtype=torch.int32):
        return torch.randint(low, high, shape, generator=self.generator, dtype=dtype)

    def number(self, low, high):
        return int(self.integers(low, high, 1))

    def put(self, layer, *, zero_point=None, scale=None, shape=None):
        """Append a layer; its tensor has a random grid if none is given."""
        zero_point = self.number(1, 200) if zero_point is None else zero_point
        scale = math.exp(self.number(-500, 0) / 100) if scale is None else scale
        shape = shape or output_shape(layer, *(
            (t.channels, t.height, t.width) for t in map(self.tensors.get, layer.inputs)))
        self.tensors[layer.name] = Tensor(layer.name, *shape, scale, zero_point)
        self.layers.append(layer)

    def copy(self, layer):
        """Append a layer that keeps scale and zero point."""
        t = self.tensors[layer.inputs[0]]
        self.put(layer, zero_point=t.zero_point, scale=t.scale)

    def requantise(self, channels, rms, *, negative=False):
        """Multipliers and shifts that bring sums of this size to SPREAD; the last one is dead."""
        m = self.integers(1 << 14, 1 << 15, channels, dtype=torch.int16)
        if negative:
            m[::2] *= -1
        shift = round(math.log2(3 << 13) + math.log2(max(2.0, rms) / SPREAD))
        s = torch.full((channels,), shift, dtype=torch.uint8)
        if channels > 1:
            m[-1], s[-1] = 0, 1
        return {"multiplier": m, "shift": s}

    def conv(self, name, source, outputs, kernel, *, stride=1, padding=(0, 0, 0, 0), groups=1,
             low=0, high=255, zero_point=None):
        inputs = 1 if groups > 1 else self.tensors[source].channels
        weight = self.integers(-127, 128, outputs, inputs, *kernel, dtype=torch.int8)
        rms = 73 * 73 * math.sqrt(weight[0].numel())
        bias = self.integers(-9000, 9000, outputs)
        if zero_point == 0:                                # results below zero would be cut off
            bias += round(2 * rms)
        self.put(Conv(name, source, weight, bias, **self.requantise(outputs, rms), stride=stride,
                      padding=padding, low=low, high=high, unit="encoder", groups=groups),
                 zero_point=zero_point)

    def transposed(self, name, source, outputs, kernel, padding):
        inputs = self.tensors[source].channels
        weight = self.integers(-127, 128, inputs, outputs, *kernel, dtype=torch.int8)
        self.put(TransposedConv(
            name, source, weight, self.integers(-9000, 9000, outputs),
            **self.requantise(outputs, 73 * 73 * math.sqrt(inputs)), padding=padding, low=0,
            high=255, unit="decoder"))

    def interpolate(self, name, source, axis, length, place):
        t = self.tensors[source]
        parts = lines({"rows": t.height, "columns": t.width}[axis], length, place)[2]
        m, s  = fixed_point(torch.tensor([1 / parts], dtype=torch.float64))
        self.copy(Interpolate(name, source, axis, length, place, m, s, 0, 255, "decoder"))

    def gate(self, name, alpha, skip):
        channels = self.tensors[skip].channels
        self.put(Gate(name, alpha, skip, self.integers(-9000, 9000, channels),
                      **self.requantise(channels, 73 * 73, negative=True),
                      zero_point=50, low=0, high=255, unit="attention"), zero_point=50)


def random_graph(seed, *, rows=16, columns=24):
    """The graph: all kinds, odd sizes, uneven padding, dead channels, any zero points."""
    make = _Maker(seed)
    make.put(Input("image"), zero_point=0, scale=1 / 255, shape=(3, rows, columns))
    make.conv("relu", "image", 6, (3, 3), padding=(1, 1, 1, 1), low=40, zero_point=40)
    make.conv("bounded", "relu", 6, (7, 5), padding=(4, 2, 2, 2), low=30, high=220)
    make.conv("depthwise", "bounded", 6, (3, 3), stride=2, padding=(0, 0, 1, 1), groups=6)
    make.copy(MaxPool("pooled", "bounded", "encoder"))
    weights = make.number(1, 382), make.number(1, 382)
    make.put(Sum("sum", "depthwise", "pooled", *weights,
                 **make.requantise(1, 73 * math.hypot(*weights)), low=90, high=255,
                 unit="attention"), zero_point=90)
    make.transposed("same", "sum", 4, (3, 3), (1, 1, 0, 0))
    make.transposed("odd", "sum", 4, (3, 2), (0, 0, 0, 1))
    make.copy(MaxPool("dropped", "odd", "decoder"))
    make.copy(Upsample("smooth", "sum", "decoder", "linear"))
    make.copy(Upsample("blocks", "sum", "decoder"))
    make.interpolate("wide", "sum", "columns", 26, "align_corners")
    make.interpolate("tall", "wide", "rows", 24, "half_pixel")
    make.interpolate("low", "sum", "rows", 3, "asymmetric")
    make.copy(Concat("both", ("smooth", "blocks"), "decoder"))
    make.conv("logit", "sum", 1, (1, 1), zero_point=128)
    logit = make.tensors["logit"]
    logit = make.tensors["logit"] = Tensor(**{**vars(logit), "scale": 0.04})
    make.put(Lookup("alpha", "logit", sigmoid_table(logit.scale, 128), "attention"),
             zero_point=0, scale=1 / 256)
    make.put(Lookup("table", "sum", make.integers(0, 256, 256, dtype=torch.uint8), "attention"))
    make.gate("gated", "alpha", "blocks")
    make.gate("every", "table", "sum")
    make.conv("left", "both", 4, (3, 3), padding=(1, 1, 1, 1), zero_point=0)
    left = make.tensors["left"]
    make.conv("right", "gated", 4, (1, 3), padding=(0, 2, 0, 0), zero_point=0)
    make.tensors["right"] = Tensor(**{**vars(make.tensors["right"]), "scale": left.scale})
    make.put(Add("exact", "left", "right", "attention"), zero_point=0, scale=left.scale)
    make.conv("end", "exact", 1, (1, 1), zero_point=128)
    end = make.tensors["end"] = Tensor(**{**vars(make.tensors["end"]), "scale": 0.04})
    make.put(Lookup("mask", "end", sigmoid_table(end.scale, 128), "decoder"), zero_point=0,
             scale=1 / 256)
    return IntegerGraph("random", make.tensors, tuple(make.layers),
                        outputs=("mask", "every", "exact", "alpha", "tall", "low"))


def random_frame(graph, seed):
    """A frame of noise for a graph."""
    t = graph.tensors[graph.input]
    return torch.randint(0, 256, (t.channels, t.height, t.width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))
