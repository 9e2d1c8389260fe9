"""Post-training INT8 quantisation: a float network and some frames become an integer graph.

Scales come from the values that the float network takes on the frames, clipped where the squared
error is least. Weights get one scale per output channel. The gate's batch normalisation becomes
its bias and multiplier, and its channels are equalised exactly: each is scaled to fill the range
it shares with the decoder's previous output, and the weights that read it are divided by the same.
"""

import math

import torch

from golden.integer import (
    Add,
    Concat,
    Conv,
    Gate,
    Input,
    IntegerGraph,
    Lookup,
    MaxPool,
    Tensor,
    Upsample,
)
from golden.networks import LEVELS

__all__ = ["fixed_point", "input_factors", "quantize", "sigmoid_table", "weight_steps"]

SAME = (1, 1, 1, 1)
AFTER = (0, 0, 1, 1)            # Keras 'same' on stride 2 and even sizes
BIAS_LIMIT = 1 << 30            # leaves the other half of int32 to the products
SAMPLES = 1 << 17               # values kept per tensor and frame
LOGIT_LIMIT = 6.5               # beyond it the sigmoid is 0/256 or at its highest entry
ZERO_POINTS = range(0, 161, 16)  # tried for a tensor with gated, hence negative, channels


def quantize(network, images):
    """Quantise an :class:`AttentionUNet` on uint8 C x H x W frames, all of one size.

    The graph is made for that size; :func:`golden.integer.resize` makes it for another.
    """
    return _Quantiser(network, images).graph()


def fixed_point(factor_C):
    """Nearest ``m * 2**-s`` of each factor: int16 ``2**14 <= |m| < 2**15`` and uint8 s in 1..47.

    Factors too small for that, such as 0, become m = 0 and s = 1.
    """
    mantissa_C, exponent_C = torch.frexp(factor_C.to(torch.float64))
    m_C = torch.round(mantissa_C * 2**15)
    rounded_up_C = m_C.abs() == 2**15
    m_C = torch.where(rounded_up_C, m_C / 2, m_C)
    s_C = 15 - exponent_C - rounded_up_C.to(exponent_C.dtype)
    if (s_C < 1).any():
        raise ValueError(f"Factor {factor_C[s_C < 1][0].item():g} is 2**14 or more")
    dead_C = (m_C == 0) | (s_C > 47)
    m_C[dead_C], s_C[dead_C] = 0, 1
    return m_C.to(torch.int16), s_C.to(torch.uint8)


def input_factors(graph, layer):
    """Equalisation of each input channel of a convolution: the weights are divided by it."""
    parts = []
    source = graph.layer(layer.input)
    for name in source.inputs if isinstance(source, Concat) else (layer.input,):
        plain_C = torch.ones(graph.tensors[name].channels)
        parts.append(graph.equalisation.get(name, plain_C))
    return torch.cat(parts)


def weight_steps(graph, name, conv):
    """What one step of the int8 weights is worth, per output channel of layer ``name``.

    ``conv`` is the float convolution that the layer was made from.
    """
    layer = graph.layer(name)
    scale = graph.tensors[layer.input].scale
    return _steps(conv, scale, input_factors(graph, layer).to(torch.float64))[0]


def sigmoid_table(scale, zero_point):
    """``min(255, floor(256 * sigmoid(scale * (q - zero_point)) + 1/2))`` for every uint8 q."""
    q = torch.arange(256, dtype=torch.float64)
    table = torch.floor(256 * torch.sigmoid(scale * (q - zero_point)) + 0.5)
    return table.clamp(max=255).to(torch.uint8)


class _Quantiser:
    def __init__(self, network, images):
        self.network = network.eval()
        self.ranges, self.samples = {}, {}
        self._observe(images)
        self.tensors, self.layers, self.equalisation = {}, [], {}

    @torch.no_grad()
    def _observe(self, images):
        """Keep values of every tensor: some at random, and the extremes of each channel."""
        generator = torch.Generator().manual_seed(0)
        for image_CHW in images:
            trace = self.network.trace(image_CHW[None].to(torch.float32) / 255)
            for name, x_1CHW in trace.items():
                x_CP = x_1CHW[0].flatten(1).to(torch.float64)
                low_C, high_C = x_CP.aminmax(dim=1)
                if name in self.ranges:
                    low_C = torch.minimum(low_C, self.ranges[name][0])
                    high_C = torch.maximum(high_C, self.ranges[name][1])
                self.ranges[name] = low_C, high_C
                count = max(1, SAMPLES // len(x_CP))
                if count < x_CP.shape[1]:
                    x_CP = x_CP[:, torch.randint(x_CP.shape[1], (count,), generator=generator)]
                self.samples.setdefault(name, []).append(x_CP)
            self.size = image_CHW.shape[1]
        self.samples = {name: torch.cat(x, 1) for name, x in self.samples.items()}

    def graph(self):
        self._tensor("image", 3, self.size, 1 / 255)
        self.layers.append(Input("image"))
        self._encoder()
        previous = "encoding"
        for i in range(1, LEVELS + 1):
            self._gate(i, previous)
            self._decoder(i, previous)
            previous = f"d{i}"
        self._logit("logit", previous, self.network.final, "decoder")
        self._table("mask", "logit", "decoder")
        return IntegerGraph("elec4848", self.tensors, tuple(self.layers),
                            equalisation=self.equalisation)

    def _encoder(self):
        x = "image"
        for level, block in enumerate(self.network.encoder, 1):
            last = "encoding" if level > LEVELS else f"c{level}"
            self._relu(f"e{level}a", x, block.a, "encoder")
            if level > LEVELS:
                self._joined(last, "gated1")
            self._relu(last, f"e{level}a", block.b, "encoder")
            if level <= LEVELS:
                x = f"p{level}"
                pooled = self.tensors[last]
                self._tensor(x, pooled.channels, pooled.height // 2, pooled.scale)
                self.layers.append(MaxPool(x, last, "encoder"))

    def _gate(self, i, previous):
        gate, skip = self.network.gates[i - 1], f"c{LEVELS + 1 - i}"
        normal, down, total = f"g{i}_normal", f"g{i}_down", f"g{i}_sum"
        both = torch.cat([self.samples[normal].flatten(), self.samples[down].flatten()])
        shared = self._scale(both)
        self._relu(normal, previous, gate.normal, "attention", scale=shared)
        self._relu(down, skip, gate.down, "attention", scale=shared, stride=2, padding=AFTER)
        self._tensor(total, gate.normal.out_channels, self.tensors[normal].height, shared)
        self.layers.append(Add(total, normal, down, "attention"))
        self._logit(f"g{i}_logit", total, gate.learn, "attention")
        self._table(f"alpha{i}", f"g{i}_logit", "attention")

        gated, before = f"gated{i}", self.tensors[previous]
        gain_C, offset_C = _affine(gate.norm)
        k_C = self.equalisation[gated].to(torch.float64)
        unit = self.tensors[f"alpha{i}"].scale * self.tensors[skip].scale
        factor_C = gain_C * k_C * unit / before.scale
        steps_C = offset_C * k_C / before.scale
        # A gain so small that the offset overflows its own steps is raised: less than 1/50 step.
        floor_C = steps_C.abs() / BIAS_LIMIT
        factor_C = torch.where(factor_C.abs() < floor_C, floor_C, factor_C)
        m_C, s_C = fixed_point(factor_C)
        bias_C = torch.where(m_C == 0, 0, torch.round(steps_C / _value(m_C, s_C)))
        self._tensor(gated, len(k_C), self.tensors[skip].height, before.scale, before.zero_point)
        self.layers.append(Gate(gated, f"alpha{i}", skip, bias_C.to(torch.int32), m_C, s_C,
                                before.zero_point, 0, 255, "attention"))

    def _decoder(self, i, previous):
        block, before, gated = self.network.decoder[i - 1], self.tensors[previous], f"gated{i}"
        up, both = f"d{i}_up", f"d{i}_concat"
        size = 2 * before.height
        self._tensor(up, before.channels, size, before.scale, before.zero_point)
        self.layers.append(Upsample(up, previous, "decoder"))
        k_C = self.equalisation[gated].to(torch.float64)
        self._tensor(both, before.channels + len(k_C), size, before.scale, before.zero_point)
        self.layers.append(Concat(both, (up, gated), "decoder"))
        factor_I = torch.cat([torch.ones(before.channels, dtype=torch.float64), k_C])
        self._relu(f"d{i}a", both, block.a, "decoder", factor_I=factor_I)
        if i < LEVELS:
            self._joined(f"d{i}", f"gated{i + 1}")
        self._relu(f"d{i}", f"d{i}a", block.b, "decoder")

    def _tensor(self, name, channels, size, scale, zero_point=0):
        self.tensors[name] = Tensor(name, channels, size, size, scale, zero_point)

    def _scale(self, samples):
        """Scale of a tensor that is never negative, with the least squared error."""
        x = samples.flatten()
        if len(x) > 4 * SAMPLES:
            x = x[::len(x) // (4 * SAMPLES)]
        top = float(x.max())
        if top <= 0:
            return 1 / 255
        scales = [top * step / 32 / 255 for step in range(8, 33)]
        return min(scales, key=lambda s: float(_error(x, s, 0)))

    def _joined(self, name, gated):
        """Give tensor ``name`` the scale and zero point that it shares with ``gated``.

        The gated channels then get the factors that fit each into that range. Tried by squared
        error, relative to the power of either tensor.
        """
        x, (low_C, high_C) = self.samples[name].flatten(), self.ranges[gated]
        x = x[::max(1, len(x) // SAMPLES)]
        gated_CP = self.samples[gated]
        low_C, high_C = low_C.clamp(max=0), high_C.clamp(min=0)
        plain = self._scale(x)
        best = None
        for zero_point in ZERO_POINTS:
            scale = plain * 255 / (255 - zero_point)
            below = zero_point * scale if zero_point else 0.0
            above = (255 - zero_point) * scale
            fit_C = torch.minimum(
                torch.where(low_C < 0, below / low_C.abs().clamp(min=1e-12), math.inf),
                torch.where(high_C > 0, above / high_C.clamp(min=1e-12), math.inf))
            fit_C = torch.where(torch.isfinite(fit_C) & (fit_C > 0), fit_C, 1.0)
            error_C = _error(gated_CP * fit_C[:, None], scale, zero_point, dim=1) / fit_C**2
            error = (error_C.mean() / gated_CP.square().mean().clamp(min=1e-12)
                     + _error(x, scale, zero_point) / x.square().mean().clamp(min=1e-12))
            if best is None or error < best[0]:
                best = error, scale, zero_point, fit_C
        _, scale, zero_point, fit_C = best
        self.equalisation[gated] = fit_C.to(torch.float32)
        self.planned = {name: (scale, zero_point)}

    def _relu(self, name, source, conv, unit, *, scale=None, stride=1, padding=SAME,
              factor_I=None):
        planned = getattr(self, "planned", {})
        scale, zero_point = planned.get(name, (scale, 0))
        if scale is None:
            scale = self._scale(self.samples[name])
        self._conv(name, source, conv, unit, scale, zero_point, low=zero_point, stride=stride,
                   padding=padding, factor_I=factor_I)

    def _logit(self, name, source, conv, unit):
        low_C, high_C = self.ranges[name]
        low = min(-1.0, max(-LOGIT_LIMIT, float(low_C.min())))
        high = max(1.0, min(LOGIT_LIMIT, float(high_C.max())))
        scale = (high - low) / 255
        self._conv(name, source, conv, unit, scale, round(-low / scale), padding=(0, 0, 0, 0))

    def _table(self, name, source, unit):
        logit = self.tensors[source]
        self._tensor(name, 1, logit.height, 1 / 256)
        table = sigmoid_table(logit.scale, logit.zero_point)
        self.layers.append(Lookup(name, source, table, unit))

    def _conv(self, name, source, conv, unit, scale, zero_point, *, low=0, stride=1,
              padding=SAME, factor_I=None):
        before = self.tensors[source]
        step_O, w_OIKL, b_O = _steps(conv, before.scale, factor_I)
        m_O, s_O = fixed_point(before.scale * step_O / scale)     # a dead channel has step 0
        step_O = torch.where(step_O == 0, 1.0, step_O)
        weight_OIKL = torch.round(w_OIKL / step_O[:, None, None, None])
        bias_O = torch.round(b_O / (before.scale * step_O))
        self._tensor(name, len(b_O), before.height // stride, scale, zero_point)
        self.layers.append(Conv(name, source, weight_OIKL.to(torch.int8), bias_O.to(torch.int32),
                                m_O, s_O, stride, padding, low, 255, unit))


def _steps(conv, scale, factor_I=None):
    """Weight step per output channel, and weights and biases, in float64.

    A step is raised where the bias, in steps, would come near the end of int32.
    """
    w_OIKL, b_O = conv.weight.detach().to(torch.float64), conv.bias.detach().to(torch.float64)
    if factor_I is not None:
        w_OIKL = w_OIKL / factor_I[:, None, None]
    step_O = torch.maximum(w_OIKL.abs().amax((1, 2, 3)) / 127, b_O.abs() / (scale * BIAS_LIMIT))
    return step_O, w_OIKL, b_O


def _affine(norm):
    """Gain and offset of batch normalisation in evaluation."""
    gain_C = norm.weight.detach().to(torch.float64) / torch.sqrt(
        norm.running_var.to(torch.float64) + norm.eps)
    return gain_C, norm.bias.detach().to(torch.float64) - norm.running_mean * gain_C


def _value(m_C, s_C):
    """Nonzero reals that the pairs stand for; dead channels count as 1."""
    value_C = m_C.to(torch.float64) * torch.exp2(-s_C.to(torch.float64))
    return torch.where(m_C == 0, 1.0, value_C)


def _error(x, scale, zero_point, *, dim=None):
    """Mean squared error of storing ``x`` as uint8."""
    q = torch.round(x / scale).clamp_(-zero_point, 255 - zero_point)
    squared = q.mul_(scale).sub_(x).square_()
    return squared.mean() if dim is None else squared.mean(dim)
