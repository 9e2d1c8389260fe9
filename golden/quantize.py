"""Post-training INT8 quantisation: a float network and some frames become an integer graph.

The network's trace is read by :mod:`golden.plan`; its tensors get their scales from
:mod:`golden.calibration`. Weights get one scale per output channel. Batch normalisation becomes
part of the weights before it, or of the multiplier and bias of the gate before it.
"""

from fractions import Fraction

import numpy as np
import torch

from golden.calibration import Calibration
from golden.classes import codes, comparisons
from golden.folding import (
    BIAS_LIMIT,
    affine,
    channel_factors,
    divided,
    folded_weights,
    output_first,
    weight_steps,
)
from golden.integer import (
    SUM_WEIGHT_LIMIT,
    Add,
    Concat,
    Conv,
    Gate,
    Input,
    IntegerGraph,
    Lookup,
    MaxPool,
    Sum,
    Tensor,
    TransposedConv,
    Upsample,
    output_shape,
)
from golden.plan import plan

__all__ = ["fixed_point", "quantize", "sigmoid_table", "sum_weights"]

FACTOR_LIMIT = 16000.0          # of an equalised channel; 2**14 has no multiplier


@torch.no_grad()
def quantize(network, images, *, equalise=False, clipping="mse", advance=lambda: None):
    """Quantise a network of :mod:`golden.networks` on uint8 C x H x W frames, all of one size.

    The graph is made for that size; :func:`golden.integer.resize` makes it for another.
    ``equalise``, ``clipping`` and ``advance`` are :class:`golden.calibration.Calibration`'s.
    """
    network.eval()
    steps = plan(network)
    calibration = Calibration(network, steps, images, equalise=equalise, clipping=clipping,
                              advance=advance)
    return _Builder(network, steps, calibration).graph()


def fixed_point(factor_C):
    """Nearest ``m * 2**-s`` of each factor: int16 ``2**14 <= |m| < 2**15`` and uint8 s in 1..47.

    Factors too small for that, such as 0, become m = 0 and s = 1.
    """
    exact_C = factor_C.to(torch.float64).numpy()
    mantissa_C, exponent_C = np.frexp(exact_C)
    m_C = np.rint(mantissa_C * 2**15)
    rounded_up_C = np.abs(m_C) == 2**15
    m_C = np.where(rounded_up_C, m_C / 2, m_C)
    s_C = 15 - exponent_C - rounded_up_C
    if (s_C < 1).any():
        raise ValueError(f"Factor {exact_C[s_C < 1][0]:g} is 2**14 or more")
    dead_C = (m_C == 0) | (s_C > 47)
    m_C[dead_C], s_C[dead_C] = 0, 1
    return (torch.from_numpy(m_C.astype(np.int16)), torch.from_numpy(s_C.astype(np.uint8)))


def sum_weights(scale_a, scale_b):
    """Integers 1..381 whose ratio is nearest to that of the scales, the smallest such pair."""
    if scale_a > scale_b:
        return tuple(reversed(sum_weights(scale_b, scale_a)))
    ratio = Fraction(scale_a / scale_b).limit_denominator(SUM_WEIGHT_LIMIT)
    return (ratio.numerator, ratio.denominator) if ratio else (1, SUM_WEIGHT_LIMIT)


def sigmoid_table(scale, zero_point):
    """``min(255, floor(256 * sigmoid(scale * (q - zero_point)) + 1/2))`` for every uint8 q."""
    q = torch.arange(256, dtype=torch.float64)
    table = torch.floor(256 * torch.sigmoid(scale * (q - zero_point)) + 0.5)
    return table.clamp(max=255).to(torch.uint8)


class _Builder:
    """The graph as far as it is made: it has a graph's ``layer``, ``tensors``, ``equalisation``."""

    def __init__(self, network, steps, calibration):
        self.network, self.steps, self.calibration = network, steps, calibration
        self.layers, self.tensors = {}, {}
        self.equalisation = dict(calibration.equalisation)

    def graph(self):
        for step in self.steps:
            self._add_layer(getattr(self, f"_{step.kind}")(step), *self._place(step))
        source = next(step.name for step in self.steps if step.kind == "input")
        return IntegerGraph(self.network.name, self.tensors, tuple(self.layers.values()), source,
                            equalisation=self.equalisation, classes=self.network.classes)

    def _add_layer(self, layer, scale, zero_point=0):
        shape = output_shape(layer, *map(self._shape, layer.inputs)) if layer.inputs else (
            self.calibration.shape)
        self.layers[layer.name]  = layer
        self.tensors[layer.name] = Tensor(layer.name, *shape, scale, zero_point)

    def layer(self, name):
        return self.layers[name]

    def _shape(self, name):
        t = self.tensors[name]
        return t.channels, t.height, t.width

    def _place(self, step):
        return self.calibration.places[step.name]

    def _input(self, step):
        return Input(step.name)

    def _conv(self, step):
        *parameters, low = self._weights(step)
        floor_O, ceiling_O = self._bounds(step) if step.relu_first else (None, None)
        return Conv(step.name, *step.inputs, *parameters, step.conv.stride[0], step.padding, low,
                    255, step.unit, step.conv.groups, floor_O, ceiling_O)

    def _bounds(self, step):
        """Where ReLU comes first, a channel is bounded by what normalisation makes of zero: from
        below, or where its gain is negative from above."""
        scale, zero_point = self._place(step)
        gain_O, offset_O = affine(step.norm)
        if step.name in self.equalisation:
            offset_O = offset_O * self.equalisation[step.name].to(torch.float64)
        bound_O = (torch.round(offset_O / scale) + zero_point).clamp(0, 255).to(torch.uint8)
        return torch.where(gain_O >= 0, bound_O, 0), torch.where(gain_O < 0, bound_O, 255)

    def _transposed(self, step):
        *parameters, low = self._weights(step)
        return TransposedConv(step.name, *step.inputs, *parameters, step.padding, low, 255,
                              step.unit)

    def _weights(self, step):
        """Weight, bias, multiplier, shift and lower bound of a convolution."""
        source, (scale, zero_point) = self.tensors[step.inputs[0]], self._place(step)
        weight_OIKL, bias_O = folded_weights(step)
        step_O = weight_steps(self, step)                         # a dead channel has step 0
        k_O = self._factors(step, source.scale * step_O / scale)
        m_O, s_O = fixed_point(source.scale * step_O * k_O / scale)
        step_O = torch.where(step_O == 0, 1.0, step_O)
        weight_OIKL = divided(step, weight_OIKL, channel_factors(self, source.name))
        weight_OIKL = torch.round(weight_OIKL / step_O[:, None, None, None]).to(torch.int8)
        bias_O = torch.round(bias_O / (source.scale * step_O)).to(torch.int32)
        return (output_first(step, weight_OIKL).contiguous(), bias_O, m_O, s_O,
                zero_point if step.relu and not step.relu_first else 0)

    def _factors(self, step, factor_C):
        """Equalisation of a new tensor, lowered where ``factor_C`` times that is too much."""
        if step.name not in self.equalisation:
            return torch.ones(1, dtype=torch.float64)
        k_C = self.equalisation[step.name].to(torch.float64)
        k_C = torch.minimum(k_C, FACTOR_LIMIT / factor_C.abs().clamp(min=1e-30))
        self.equalisation[step.name] = k_C.to(torch.float32)
        return self.equalisation[step.name].to(torch.float64)

    def _gate(self, step):
        (scale, zero_point), (alpha, skip) = self._place(step), step.inputs
        unit = self.tensors[alpha].scale * self.tensors[skip].scale
        gain_C, offset_C = affine(step.norm) if step.norm is not None else (
            torch.ones(self.tensors[skip].channels, dtype=torch.float64), 0.0)
        skip_C = channel_factors(self, skip)
        k_C = self._factors(step, gain_C * unit / skip_C / scale)
        factor_C = gain_C * k_C * unit / skip_C / scale
        steps_C = offset_C * k_C / scale
        # A gain so small that the offset overflows its own steps is raised: less than 1/50 step.
        floor_C = steps_C.abs() / BIAS_LIMIT
        factor_C = torch.where(factor_C.abs() < floor_C, floor_C, factor_C)
        m_C, s_C = fixed_point(factor_C)
        bias_C = torch.where(m_C == 0, 0, torch.round(steps_C / _value(m_C, s_C)))
        return Gate(step.name, alpha, skip, bias_C.to(torch.int32), m_C, s_C, zero_point,
                    zero_point if step.relu else 0, 255, step.unit)

    def _add(self, step):
        if self.calibration.is_exact(step):
            return Add(step.name, *step.inputs, step.unit)
        (scale, zero_point), (a, b) = self._place(step), (
            self.tensors[name].scale for name in step.inputs)
        weights = sum_weights(a, b)
        unit = a / weights[0] if a > b else b / weights[1]
        m_1, s_1 = fixed_point(torch.tensor([unit / scale], dtype=torch.float64))
        return Sum(step.name, *step.inputs, *weights, m_1, s_1, zero_point if step.relu else 0,
                   255, step.unit)

    def _sigmoid(self, step):
        logit = self.tensors[step.inputs[0]]
        return Lookup(step.name, logit.name, sigmoid_table(logit.scale, logit.zero_point),
                      step.unit)

    def _classes(self, step):
        """Two tensors more: which of two logits is larger, and all of that in one byte."""
        source, = step.inputs
        weight_1I11, table = codes(self.tensors[source].channels)
        chain = ((f"{step.name}_pairs", comparisons(self.tensors[source].channels), 1),
                 (f"{step.name}_code", weight_1I11, 255))
        for name, weight_OI11, high in chain:
            bias_O = torch.zeros(len(weight_OI11), dtype=torch.int32)
            m_O, s_O = fixed_point(torch.ones(len(weight_OI11)))
            self._add_layer(Conv(name, source, weight_OI11, bias_O, m_O, s_O, 1, (0, 0, 0, 0), 0,
                                 high, step.unit), 1.0)
            source = name
        return Lookup(step.name, source, table, step.unit)

    def _max_pool(self, step):
        return MaxPool(step.name, *step.inputs, step.unit)

    def _upsample(self, step):
        return Upsample(step.name, *step.inputs, step.unit, step.mode)

    def _concat(self, step):
        return Concat(step.name, step.inputs, step.unit)


def _value(m_C, s_C):
    """Nonzero reals that the pairs stand for; dead channels count as 1."""
    value_C = m_C.to(torch.float64) * torch.exp2(-s_C.to(torch.float64))
    return torch.where(m_C == 0, 1.0, value_C)
