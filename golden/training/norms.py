"""Batch normalisation that is there in training alone.

ELEC4848 has none in its encoder and decoder, and learns slowly from few images without. A
normalisation right after a convolution is a factor and an offset per channel: in training it
stands there, afterwards :func:`folded` multiplies it into the convolution, exactly.
"""

import copy

import torch
from torch import nn

__all__ = ["folded", "with_norms"]

# Convolutions that a ReLU follows, by the name they have in their blocks.
FOLLOWED_BY_RELU = ("a", "b", "normal", "down", "pointwise")


class NormedConv(nn.Sequential):
    """A convolution and the normalisation that will be folded into it."""

    def __init__(self, conv):
        super().__init__(conv, nn.BatchNorm2d(conv.out_channels, eps=1e-3))


def with_norms(network):
    """The network itself, with a normalisation wherever it has none before a ReLU."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if (isinstance(child, nn.Conv2d) and name in FOLLOWED_BY_RELU
                    and not hasattr(module, f"{name}_norm")):
                setattr(module, name, NormedConv(child))
    return network


@torch.no_grad()
def folded(network):
    """A copy without those normalisations that computes the same in evaluation mode."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NormedConv):
                conv, norm = child
                gain_O = norm.weight / (norm.running_var + norm.eps).sqrt()
                conv.weight.mul_(gain_O[:, None, None, None])
                conv.bias.copy_((conv.bias - norm.running_mean) * gain_O + norm.bias)
                setattr(module, name, conv)
    return network
