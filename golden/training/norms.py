"""Batch normalisation that is there in training alone.

ELEC4848 has none in its encoder and decoder, and learns slowly from few images without. A
normalisation right after a convolution is a factor and an offset per channel: in training it
stands there, afterwards :func:`folded` multiplies it into the convolution, exactly.
"""

import copy

import torch
from torch import nn

__all__ = ["folded", "unfold", "with_norms"]

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


@torch.no_grad()
def unfold(plain, network, x_NCHW):
    """Let ``network``, which has those normalisations, compute what ``plain``, without, does.

    What passes a normalisation in training is near what ``x_NCHW`` makes pass it: it divides by
    that deviation, and multiplies by it again. ``network`` itself, in evaluation mode.
    """
    normed = [name for name, module in network.named_modules() if isinstance(module, NormedConv)]
    for name, module in plain.named_modules():
        if name in normed:
            network.get_submodule(name)[0].load_state_dict(module.state_dict())
        elif not any(name.startswith(f"{inside}.") for inside in normed):
            for key, tensor in (*module.named_parameters(recurse=False),
                                *module.named_buffers(recurse=False)):
                getattr(network.get_submodule(name), key).copy_(tensor)

    def settle(norm, inputs):
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean)

    hooks = [network.get_submodule(name)[1].register_forward_pre_hook(settle) for name in normed]
    network.eval()(x_NCHW)
    for hook in hooks:
        hook.remove()
    return network
