"""Fake quantisation: what an integer graph computes, in float32 and with gradients.

Every value is a real one, but lies where the graph's integers are: weights on the grid of their
output channel, activations on that of their tensor, rounded and clipped as the graph does it. So a
frame costs what it costs the float network, and training sees what INT8 does to a mask. Rounding
passes gradients on as if it were not there, and clipping stops them (Jacob et al., CVPR 2018).
"""

import torch
import torch.nn.functional as F
from torch import nn

from golden.classes import class_mask
from golden.folding import affine, channel_factors, divided, folded_weights, weight_steps
from golden.integer import Add
from golden.plan import plan

__all__ = ["FakeQuantised"]

TIE = 1 / 64        # of a step: lifts halves of a linear upsampling, and no other sixteenth


class FakeQuantised(nn.Module):
    """A float network with the rounding of an integer graph, which was quantised from it.

    Scales, zero points and factors of channels are the graph's; weights and batch normalisations
    are the network's at the time, folded and rounded as :func:`golden.quantize.quantize` would,
    so they can be trained. Normalisations use their running statistics, and nothing is dropped.

    Left out is what is far below a step: that biases and multipliers are rounded, too. A tensor
    may differ from the graph's by a step where a value is within that of a half.
    """

    def __init__(self, network, graph):
        super().__init__()
        self.network, self.graph = network, graph
        self.steps = plan(network)
        self.factors = {step.name: channel_factors(graph, step.name) for step in self.steps}
        self.logit = next(step.inputs[0] for step in self.steps if step.name == graph.output)

    def forward(self, frame_N3HW):
        """Logits of the mask, N x C x H x W, for frames in 0..1 whose values are those of uint8."""
        return self.trace(frame_N3HW)[self.logit]

    def trace(self, frame_N3HW):
        """The real value of every tensor of the graph by name, N x C x H x W."""
        values = {}
        for step in self.steps:
            values[step.name] = (frame_N3HW if step.kind == "input" else
                                 self.make(step, *(values[name] for name in step.inputs)))
        return values

    def make(self, step, *inputs_NCHW):
        """The tensor of one step, of the tensors that it reads."""
        y_NCHW = getattr(self, f"_{step.kind}")(step, *inputs_NCHW)
        if step.relu and not step.relu_first:
            y_NCHW = F.relu(y_NCHW)
        copies = step.kind in ("max_pool", "concat") or step.mode == "nearest"
        if copies or isinstance(self.graph.layer(step.name), Add):
            return y_NCHW
        return self._rounded(step, y_NCHW)

    def _rounded(self, step, y_NCHW):
        t = self.graph.tensors[step.name]
        factor_C11 = self.factors[step.name].to(torch.float32)[:, None, None]
        tie = TIE * t.scale if step.mode == "linear" else 0.0
        stored_NCHW = torch.fake_quantize_per_tensor_affine(
            y_NCHW * factor_C11 + tie, t.scale, t.zero_point, 0, 255)
        return stored_NCHW / factor_C11

    def _conv(self, step, x_NCHW):
        weight_OIKL, bias_O = self._weights(step)
        top, left, bottom, right = step.padding
        if (top, left) != (bottom, right):
            x_NCHW = F.pad(x_NCHW, (left, right, top, bottom))
            top = left = 0
        y_NCHW = F.conv2d(x_NCHW, weight_OIKL, bias_O, step.conv.stride, (top, left),
                          groups=step.conv.groups)
        if not step.relu_first:
            return y_NCHW
        # What normalisation makes of zero: as much as a positive gain's channel is at least.
        gain_O, offset_O = (x_O.to(torch.float32)[:, None, None] for x_O in affine(step.norm))
        return torch.where(gain_O >= 0, torch.maximum(y_NCHW, offset_O),
                           torch.minimum(y_NCHW, offset_O))

    def _transposed(self, step, x_NCHW):
        weight_OIKL, bias_O = self._weights(step)
        top, left, bottom, right = step.padding
        y_NCHW = F.conv_transpose2d(x_NCHW, weight_OIKL.transpose(0, 1), bias_O, stride=2)
        return y_NCHW[..., top:y_NCHW.shape[2] - bottom, left:y_NCHW.shape[3] - right]

    def _weights(self, step):
        """Folded weights on the int8 grid, O x I x K x L, and biases, both float32."""
        weight_OIKL, bias_O = folded_weights(step)
        factor_I = self.factors[step.inputs[0]]
        steps_O = weight_steps(self.graph, step)
        rounded_OIKL = torch.fake_quantize_per_channel_affine(
            divided(step, weight_OIKL, factor_I).to(torch.float32),
            torch.where(steps_O == 0, 1.0, steps_O).to(torch.float32),
            torch.zeros(len(steps_O), dtype=torch.int32), 0, -127, 127)
        return divided(step, rounded_OIKL, 1 / factor_I.to(torch.float32)), bias_O.to(torch.float32)

    def _gate(self, step, alpha_NAHW, skip_NCHW):
        if alpha_NAHW.shape[2:] != skip_NCHW.shape[2:]:
            alpha_NAHW = F.interpolate(alpha_NAHW, scale_factor=2)
        y_NCHW = alpha_NAHW * skip_NCHW
        if step.norm is None:
            return y_NCHW
        gain_C, offset_C = (x_C.to(torch.float32)[:, None, None] for x_C in affine(step.norm))
        return y_NCHW * gain_C + offset_C

    def _add(self, step, a_NCHW, b_NCHW):
        return a_NCHW + b_NCHW

    def _sigmoid(self, step, x_NCHW):
        return torch.sigmoid(x_NCHW)

    def _classes(self, step, x_NCHW):
        return class_mask(x_NCHW)

    def _max_pool(self, step, x_NCHW):
        return F.max_pool2d(x_NCHW, 2)

    def _upsample(self, step, x_NCHW):
        return F.interpolate(x_NCHW, scale_factor=2,
                             mode="bilinear" if step.mode == "linear" else "nearest")

    def _concat(self, step, *inputs_NCHW):
        return torch.cat(inputs_NCHW, 1)
