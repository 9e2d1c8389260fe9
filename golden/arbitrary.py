"""Random quantised U-Nets: every layer of the integer graph, in shapes that nobody would choose.

Scales, zero points and weights are random, the factors of requantisation such that values spread
over the bytes: a network that saturates everywhere would agree with anything.
"""

import math
import random
from types import SimpleNamespace

import torch

from golden import arithmetic
from golden.integer import (
    AXES,
    INTERPOLATED,
    TRANSPOSED_KERNELS,
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
    execute,
    output_shape,
)
from golden.quantize import fixed_point, sigmoid_table

__all__ = ["arbitrary_graph", "arbitrary_image"]

WIDTHS = (3, 48)
LARGEST_SIDE = 40


def arbitrary_graph(seed, *, depth=None, widths=WIDTHS, largest_side=LARGEST_SIDE, bounds=True):
    """A random network, the same for the same arguments.

    ``depth`` is 1..4 levels below the first, random by default; ``widths`` bounds the channels of
    a layer; ``largest_side`` the rows and columns of the frame. With ``bounds`` some convolutions
    have one for each channel.
    """
    return _Arbitrary(seed, depth, widths, largest_side, bounds).graph()


def arbitrary_image(graph, seed):
    """A uint8 frame for a graph: noise with a bright and a dark region."""
    generator = torch.Generator().manual_seed(seed)
    frame = graph.tensors[graph.input]
    image_CHW = torch.randint(0, 256, (frame.channels, frame.height, frame.width),
                              generator=generator, dtype=torch.uint8)
    image_CHW[:, :frame.height // 3] |= 192
    image_CHW[:, :, :frame.width // 4] &= 63
    return image_CHW


class _Arbitrary:
    def __init__(self, seed, depth, widths, largest_side, bounds):
        self.seed, self.widths, self.largest_side = seed, widths, largest_side
        self.choice = random.Random(seed)
        self.rarely = random.Random(f"{seed}")      # so that what is drawn of it changes no other
        self.seldom = random.Random(f"{seed} interpolated")     # nor what is drawn of that
        self.bounds  = bounds
        self.bounded = random.Random(f"{seed} bounded")
        self.noise  = torch.Generator().manual_seed(seed)
        self.depth  = depth or self.choice.choice((1, 1, 2, 2, 3, 4))
        self.tensors, self.layers, self.values = {}, [], {}
        self.unit  = "encoder"
        self.count = 0

    def graph(self):
        choice = self.choice
        unit   = 1 << self.depth
        stem   = choice.random() < 0.4                  # a first kernel that shrinks the frame
        limit  = max(1, (self.largest_side - 4) // unit)
        sides  = [unit * choice.randint(1, min(limit, 6)) for _ in range(2)]
        kernel = [choice.choice((2, 4)) if stem and side > 2 else 1 for side in sides]
        shape  = (choice.choice((1, 3, 3, 4)),
                  *(side + k - 1 for side, k in zip(sides, kernel, strict=True)))
        x = self._put(Input("image"), shape, 1 / 255, choice.choice((0, 0, 128)))
        if kernel != [1, 1]:
            x = self._dense(x, self._width(), kernel, padding=(0, 0, 0, 0))
        skips = []
        for _ in range(self.depth):
            x = self._block(x)
            skips.append(x)
            x = self._down(x)
        x = self._block(x)
        outputs = []
        for level, skip in enumerate(reversed(skips)):
            self.unit = "attention"
            skip = self._attend(skip, x)
            self.unit = "decoder"
            x = self._join(self._up(x), skip)
            x = self._block(x)
            if level < self.depth - 1 and choice.random() < 0.15:
                outputs.append(self._head(x))
        main = self._head(x)
        return IntegerGraph(f"arbitrary-{self.seed}", self.tensors, tuple(self.layers),
                            output=main, outputs=(main, *outputs))

    # What the parts of a U-Net may be.

    def _width(self):
        return self.choice.randint(*self.widths)

    def _block(self, x):
        for _ in range(self.choice.choice((1, 1, 2))):
            before = x
            kind = self.choice.random()
            if kind < 0.35:
                x = self._depthwise(x, self._kernel(), stride=1)
                if self.choice.random() < 0.8:
                    x = self._dense(x, self._width(), (1, 1))
            else:
                x = self._dense(x, self._width(), self._kernel())
            if self.choice.random() < 0.15:
                x = self._dense(self._activated(x), self._width(), (1, 1))
            if self._shape(x) == self._shape(before) and self.choice.random() < 0.7:
                x = self._sum(x, before)
        if self.choice.random() < 0.15:
            x = self._sum(self._dense(x, self._shape(x)[0], (1, 1)), x)
        if self.rarely.random() < 0.08:
            x = self._excited(x)
        return x

    def _excited(self, x):
        """A gate with a factor for each channel, made of the means of all (squeeze and excitation);
        of maps of more than 7x7 pixels, averages first. Larger ones stay as they are."""
        channels, *sides = self._shape(x)
        before, self.unit = self.unit, "attention"
        even, mean = not any(side % 2 for side in sides), x
        if max(sides) > 7 and even and max(sides) <= 14:
            mean = self._average(x, (2, 2), stride=2)
        if max(self._shape(mean)[1:]) <= 7:
            mean  = self._average(mean, self._shape(mean)[1:])
            alpha = self._dense(self._dense(mean, self._width(), (1, 1)), channels, (1, 1))
            alpha = self._sigmoid(alpha)
            halve = even and (max(sides) > 7 or self.rarely.random() < 0.7)
            x = self._gated(self._spread(alpha, [side // (1 + halve) for side in sides]), x)
        self.unit = before
        return x

    def _average(self, x, kernel, *, stride=1):
        channels = self._shape(x)[0]
        return self._conv(x, torch.ones(channels, 1, *kernel, dtype=torch.int8), stride=stride,
                          padding=(0, 0, 0, 0), groups=channels, bias=False)

    def _spread(self, x, sides):
        """One pixel at every row and column, by a convolution that pads all around it."""
        channels, around = self._shape(x)[0], [side - 1 for side in sides]
        ones  = torch.ones(channels, 1, *sides, dtype=torch.int8)
        layer = Conv(self._name("spread"), x, ones, torch.zeros(channels, dtype=torch.int32),
                     *fixed_point(torch.ones(channels)), 1, (*around, *around), 0, 255, self.unit,
                     channels)
        return self._put(layer, output_shape(layer, self._shape(x)), *self._of(x))

    def _activated(self, x):
        """A table that is no sigmoid, for a convolution to read: x * sigmoid(x) or a leaky ReLU.
        (Of a table that only sums read, a file does not keep the scale.)"""
        t = self.tensors[x]
        real   = 8 / 256 * (torch.arange(256, dtype=torch.float64) - t.zero_point)
        made   = real * real.sigmoid() if self.choice.random() < 0.5 else real.maximum(real / 8)
        zero   = self.choice.randint(0, 64)
        table  = (made / made.max() * (255 - zero) + zero).round().clamp(0, 255).to(torch.uint8)
        return self._put(Lookup(self._name("activated"), x, table, self.unit), self._shape(x),
                         self._scale(), zero)

    def _down(self, x):
        kind = self.choice.random()
        if kind < 0.5:
            return self._layer(MaxPool, x, self._of(x))
        if kind < 0.65:
            return self._average(x, (2, 2), stride=2)
        kernel  = self.choice.choice(((3, 3), (2, 2), (5, 3)))
        sides   = [self._halving(k) for k in kernel]
        padding = (sides[0][0], sides[1][0], sides[0][1], sides[1][1])
        if self.choice.random() < 0.3:
            return self._depthwise(x, kernel, stride=2, padding=padding)
        return self._dense(x, self._width(), kernel, stride=2, padding=padding)

    def _halving(self, kernel):
        """Padding before and after that makes a stride of 2 halve an even side."""
        total = kernel - 2
        before = self.choice.randint(0, total)
        return before, total - before

    def _attend(self, skip, signal):
        """The skip itself, or gated by a map of one or many channels."""
        kind = self.choice.random()
        if kind < 0.3:
            return skip
        channels = self._shape(skip)[0]
        inner = self._width()
        many  = self.choice.random() < 0.3
        same  = self.choice.random() < 0.4
        if same:
            grown = self._layer(Upsample, signal, self._of(signal),
                                mode=self.choice.choice(("nearest", "linear")))
            query, key = (self._dense(grown, inner, (1, 1)), self._dense(skip, inner, (1, 1)))
        else:
            query = self._dense(signal, inner, self.choice.choice(((1, 1), (3, 3))))
            key   = self._dense(skip, inner, (2, 2), stride=2, padding=(0, 0, 0, 0))
        logit = self._dense(self._sum(query, key), channels if many else 1, (1, 1))
        return self._gated(self._sigmoid(logit), skip)

    def _sigmoid(self, x):
        table = sigmoid_table(8 / 256, self.tensors[x].zero_point)
        return self._put(Lookup(self._name("alpha"), x, table, self.unit), self._shape(x), 1 / 256,
                         0)

    def _gated(self, alpha, skip):
        """Alpha of all or half of the skip's rows and columns, times the skip."""
        channels, height, width = self._shape(skip)
        t     = self.tensors[alpha]
        zero  = self.choice.choice((0, 0, 17))
        product = (self.values[alpha].to(torch.int64).repeat_interleave(
            height // t.height, 1).repeat_interleave(width // t.width, 2)
            * (self.values[skip].to(torch.int64) - self.tensors[skip].zero_point))
        m, s  = self._factors(product, zero, 0, 255)
        sign  = torch.where(torch.rand(channels, generator=self.noise) < 0.1, -1, 1)
        bias  = torch.randint(-200, 200, (channels,), generator=self.noise, dtype=torch.int32)
        return self._put(Gate(self._name("gated"), alpha, skip, bias,
                              (m.to(torch.int32).expand(channels) * sign).to(torch.int16),
                              s.expand(channels).contiguous(), zero, 0, 255, self.unit),
                         self._shape(skip), self._scale(), zero)

    def _up(self, x):
        kind = self.choice.random()
        if kind < 0.6 and self.seldom.random() < 0.2 and max(self._shape(x)[1:]) > 1:
            return self._interpolated(x, [2 * side for side in self._shape(x)[1:]])
        if kind < 0.6:
            x = self._layer(Upsample, x, self._of(x),
                            mode="nearest" if kind < 0.35 else "linear")
            return x
        k       = self.choice.choice(TRANSPOSED_KERNELS)
        before  = [self.choice.randint(0, k - 2) for _ in range(2)]
        padding = (*before, *(k - 2 - side for side in before))
        inputs, outputs = self._shape(x)[0], self._width()
        weight  = self._weights(inputs, outputs, k, k)
        return self._requantised(lambda name, rest: TransposedConv(
            name, x, weight, *rest, self.unit), x, outputs, padding=padding)

    def _interpolated(self, x, sides):
        """Other rows and columns, in any order, and some of them on another grid. A map of one
        pixel stays as it is: what makes more of it is read back as a convolution that spreads."""
        place = self.seldom.choice(INTERPOLATED)
        ways  = list(zip(AXES, sides, self._shape(x)[1:], strict=True))
        for axis, length, before in self.seldom.sample(ways, len(ways)):
            if length != before and max(self._shape(x)[1:]) > 1:
                scale, zero = self._of(x)
                if self.seldom.random() < 0.2:
                    scale *= self.seldom.choice((0.5, 2))       # exact in a file's float32
                    zero   = self.seldom.randint(0, 255)
                parts = arithmetic.lines(before, length, place)[2]
                m, s  = fixed_point(torch.tensor([self._of(x)[0] / scale / parts],
                                                 dtype=torch.float64))
                layer = Interpolate(self._name("interpolated"), x, axis, length, place, m, s,
                                    self.seldom.choice((0, 0, zero)), 255, self.unit)
                x = self._put(layer, output_shape(layer, self._shape(x)), scale, zero)
        return x

    def _join(self, up, skip):
        if self._shape(up) == self._shape(skip) and self.choice.random() < 0.5:
            return self._sum(up, skip)
        parts = [up, skip] if self.choice.random() < 0.7 else [skip, up]
        first = self.tensors[parts[0]]
        parts = [part if (self.tensors[part].scale, self.tensors[part].zero_point)
                 == (first.scale, first.zero_point) else self._rescaled(part, first)
                 for part in parts]
        channels = sum(self._shape(part)[0] for part in parts)
        return self._put(Concat(self._name("concat"), tuple(parts), self.unit),
                         (channels, first.height, first.width), first.scale, first.zero_point)

    def _head(self, x):
        if self.seldom.random() < 0.1:
            x = self._interpolated(x, [self.seldom.randint(1, 2 * side)
                                       for side in self._shape(x)[1:]])
        classes = self.choice.choice((1, 1, 1, 2, 5, 16))
        x = self._dense(x, classes, (1, 1))
        if self.choice.random() < 0.6:
            t = self.tensors[x]
            x = self._put(Lookup(self._name("mask"), x, sigmoid_table(8 / 256, t.zero_point),
                                 self.unit),
                          self._shape(x), 1 / 256, 0)
        return x

    # Layers.

    def _name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def _shape(self, name):
        t = self.tensors[name]
        return t.channels, t.height, t.width

    def _of(self, name):
        return self.tensors[name].scale, self.tensors[name].zero_point

    def _scale(self):
        return 2.0 ** self.choice.uniform(-9, -2)

    def _zero(self):
        return self.choice.choice((0, 0, 128, self.choice.randint(0, 255)))

    def _kernel(self):
        if self.choice.random() < 0.6:
            return 3, 3
        return tuple(self.choice.choice((1, 2, 3, 5, 7)) for _ in range(2))

    def _weights(self, *shape):
        return torch.randint(-127, 128, shape, generator=self.noise).to(torch.int8)

    def _put(self, layer, shape, scale, zero_point):
        """Append a layer that makes a tensor of ``shape``, and run it."""
        name = layer.name
        self.tensors[name] = Tensor(name, *shape, scale, zero_point)
        self.layers.append(layer)
        if isinstance(layer, Input):
            self.values[name] = arbitrary_image(SimpleNamespace(input=name, tensors=self.tensors),
                                                self.seed)
        else:
            self.values[name] = execute(SimpleNamespace(tensors=self.tensors), layer,
                                        *(self.values[source] for source in layer.inputs))
        return name

    def _layer(self, kind, x, quantisation, **settings):
        layer = kind(self._name(kind.__name__.lower()), x, unit=self.unit, **settings)
        return self._put(layer, output_shape(layer, self._shape(x)), *quantisation)

    def _dense(self, x, outputs, kernel, *, stride=1, padding=None):
        weight = self._weights(outputs, self._shape(x)[0], *kernel)
        if self.choice.random() < 0.1:                  # a dilation of 2
            weight[:, :, 1::2] = 0
            weight[:, :, :, 1::2] = 0
        return self._conv(x, weight, stride=stride, padding=padding)

    def _depthwise(self, x, kernel, *, stride, padding=None):
        channels = self._shape(x)[0]
        return self._conv(x, self._weights(channels, 1, *kernel), stride=stride, padding=padding,
                          groups=channels)

    def _rescaled(self, x, like):
        channels = self._shape(x)[0]
        return self._conv(x, torch.full((channels, 1, 1, 1), 64, dtype=torch.int8), stride=1,
                          padding=(0, 0, 0, 0), groups=channels, bias=False,
                          quantisation=(like.scale, like.zero_point))

    def _conv(self, x, weight, *, stride, padding, groups=1, bias=True, quantisation=None):
        if padding is None:
            kernel  = weight.shape[2:]
            before  = [self.choice.randint(0, k - 1) for k in kernel]
            padding = (*before, *(k - 1 - b for k, b in zip(kernel, before, strict=True)))
        bounds = self._channel_bounds(len(weight))
        return self._requantised(
            lambda name, rest: Conv(name, x, weight, *rest[:3], stride, *rest[3:], self.unit,
                                    groups, *(bounds if rest[-2:] == (0, 255) else ())),
            x, len(weight), padding=padding, bias=bias, quantisation=quantisation)

    def _channel_bounds(self, outputs):
        """Now and then a floor or a ceiling for each channel, as normalisation after ReLU has."""
        if not self.bounds or outputs == 1 or self.bounded.random() < 0.7:
            return ()
        bound_O = torch.tensor([self.bounded.randint(0, 255) for _ in range(outputs)])
        above_O = torch.tensor([self.bounded.random() < 0.4 for _ in range(outputs)])
        return tuple(x.to(torch.uint8) for x in (torch.where(above_O, 0, bound_O // 2),
                                                 torch.where(above_O, 128 + bound_O // 2, 255)))

    def _requantised(self, make, x, outputs, *, padding, bias=True, quantisation=None):
        """A convolution with factors that spread its sums over the bytes."""
        bias_O = (torch.randint(-5000, 5000, (outputs,), generator=self.noise, dtype=torch.int32)
                  if bias else torch.zeros(outputs, dtype=torch.int32))
        scale, zero = quantisation or (self._scale(), self._zero())
        low, high   = 0, 255
        kind = self.choice.random()
        if kind < 0.5:
            low = zero                                      # ReLU
        elif kind < 0.65:
            low, high = sorted((max(0, zero - 20), min(255, zero + 90)))    # clip
        one   = (torch.full((outputs,), 1 << 14, dtype=torch.int16),
                 torch.full((outputs,), 14, dtype=torch.uint8))
        name  = self._name("conv")
        probe = make(name, (bias_O, *one, padding, 0, 255))
        acc_OHW = self._accumulated(probe)
        m, s    = self._factors(acc_OHW, zero, low, high)
        spread  = torch.rand(outputs, generator=self.noise) * 0.5 + 0.75
        m_O, s_O = fixed_point(m.to(torch.float64) * torch.exp2(-s.to(torch.float64)) * spread)
        if self.choice.random() < 0.1:
            m_O[0], s_O[0] = 0, 1                           # a dead channel
        layer = make(name, (bias_O, m_O, s_O, padding, low, high))
        return self._put(layer, output_shape(layer, self._shape(x)), scale, zero)

    def _sum(self, a, b):
        weights = self.choice.randint(1, 381), self.choice.randint(1, 381)
        sign    = 1 if self.choice.random() < 0.8 else -1
        weights = [factor * weight // math.gcd(*weights) for factor, weight
                   in zip((1, sign), weights, strict=True)]
        zeros   = [self.tensors[name].zero_point for name in (a, b)]
        zero    = self._zero()
        acc = sum(w * (self.values[name].to(torch.int64) - z)
                  for w, name, z in zip(weights, (a, b), zeros, strict=True))
        m, s = self._factors(acc, zero, 0, 255)
        low  = zero if self.choice.random() < 0.5 else 0
        return self._put(Sum(self._name("sum"), a, b, *weights, m, s, low, 255, self.unit),
                         self._shape(a), self._scale(), zero)

    def _factors(self, acc, zero, low, high):
        """One factor with which most of ``acc`` falls between the bounds."""
        spread = float(acc.to(torch.float64).abs().quantile(0.9)) if acc.numel() < 1 << 20 else 1e4
        room   = max(high - zero, zero - low, 32)
        return fixed_point(torch.tensor([min(room / max(spread, 1.0), 8000.0)],
                                        dtype=torch.float64))

    def _accumulated(self, layer):
        settings = {"zero_point": self.tensors[layer.input].zero_point, "padding": layer.padding}
        if isinstance(layer, TransposedConv):
            return arithmetic.convolve_transposed(self.values[layer.input], layer.weight,
                                                  layer.bias, **settings)
        return arithmetic.convolve(self.values[layer.input], layer.weight, layer.bias,
                                   stride=layer.stride, groups=layer.groups, **settings)
