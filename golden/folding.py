"""What a convolution's weights are in the integer graph, before they are rounded.

Batch normalisation is multiplied into the weights before it, and what equalisation multiplied a
channel by is divided out of the weights that read it. All of it in float64; gradients pass.
"""

import torch

from golden.integer import Concat, MaxPool, Upsample

__all__ = ["BIAS_LIMIT", "affine", "channel_factors", "divided", "folded_weights", "output_first",
           "unfolded", "weight_steps"]

BIAS_LIMIT = 1 << 30            # leaves the other half of int32 to the products


def channel_factors(graph, name):
    """Equalisation of each channel of a tensor: weights that read it are divided by it."""
    if name in graph.equalisation:
        return graph.equalisation[name].to(torch.float64)
    layer = graph.layer(name)
    if isinstance(layer, (Concat, MaxPool, Upsample)):
        return torch.cat([channel_factors(graph, source) for source in layer.inputs])
    return torch.ones(graph.tensors[name].channels, dtype=torch.float64)


def folded_weights(step):
    """Weights and biases of a convolution with its batch normalisation, O x I x K x L, float64."""
    weight_OIKL = output_first(step, step.conv.weight.to(torch.float64))
    bias_O = (torch.zeros(len(weight_OIKL), dtype=torch.float64) if step.conv.bias is None
              else step.conv.bias.to(torch.float64))
    if step.norm is None:
        return weight_OIKL, bias_O
    gain_O, offset_O = affine(step.norm)
    return weight_OIKL * gain_O[:, None, None, None], bias_O * gain_O + offset_O


def output_first(step, weight):
    """Swaps the two layouts of a transposed convolution, O x I x K x L and PyTorch's I x O."""
    return weight.transpose(0, 1) if step.kind == "transposed" else weight


def divided(step, weight_OIKL, factor_I):
    """Weights divided by a factor for each channel that they read."""
    if step.conv.groups > 1:
        return weight_OIKL / factor_I[:, None, None, None]
    return weight_OIKL / factor_I[:, None, None]


def affine(norm):
    """Gain and offset of batch normalisation in evaluation."""
    gain_C = norm.weight.to(torch.float64) / torch.sqrt(
        norm.running_var.to(torch.float64) + norm.eps)
    return gain_C, norm.bias.to(torch.float64) - norm.running_mean * gain_C


@torch.no_grad()
def weight_steps(graph, step):
    """What one step of the int8 weights is worth, per output channel of a convolution.

    In terms of the weights after batch normalisation is folded in and factors are divided out.
    """
    weight_OIKL, bias_O = folded_weights(step)
    source = step.inputs[0]
    return _steps(divided(step, weight_OIKL, channel_factors(graph, source)), bias_O,
                  graph.tensors[source].scale)


@torch.no_grad()
def unfolded(graph, step, steps_O):
    """The float weights, shaped like the module's, that a layer's int8 weights stand for."""
    layer = graph.layer(step.name)
    weight_OIKL = output_first(step, layer.weight) * steps_O[:, None, None, None]
    weight_OIKL = divided(step, weight_OIKL, 1 / channel_factors(graph, layer.input))
    if step.norm is not None:
        gain_O, _ = affine(step.norm)
        weight_OIKL = weight_OIKL / torch.where(gain_O == 0, 1.0, gain_O)[:, None, None, None]
    return output_first(step, weight_OIKL)


def _steps(weight_OIKL, bias_O, scale):
    """Weight step per output channel: raised where the bias would come near the end of int32."""
    return torch.maximum(weight_OIKL.abs().amax((1, 2, 3)) / 127,
                         bias_O.abs() / (scale * BIAS_LIMIT))
