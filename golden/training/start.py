"""Where training begins: with nothing, or with what another network has learnt already."""

import math

import torch
from torch import nn

from golden.errors import InputError
from golden.networks.blocks import ConvNormBlock
from golden.networks.elec4848 import Elec4848, SeparableConv
from golden.training.norms import NormedConv

__all__ = ["begin", "borrow_encoder", "initialise", "recast", "widen"]


@torch.no_grad()
def initialise(network):
    """He weights, no biases, masks undecided; the network itself. Parts that have learnt stay."""
    learnt = tuple(f"{name}." for name in network.pretrained)
    for name, module in network.named_modules():
        if name.startswith(learnt):
            continue
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            if module.groups > 1:
                nn.init.normal_(module.weight, std=1 / 3)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                module.bias.zero_()
    network.final.weight.mul_(0.1)
    return network


@torch.no_grad()
def widen(narrow, wide, *, noise=0.0):
    """Let ``wide``, a multiple as wide, compute what ``narrow`` does (Net2Net); ``wide`` itself.

    Every channel is copied, and what reads it shares its weight among the copies at random, in
    parts that sum to one: exact, and the copies can grow apart. ``noise``, in standard deviations
    of each weight tensor, sets them apart from the start and makes it approximate.
    """
    transposed = {f"{name}.weight" for name, module in wide.named_modules()
                  if isinstance(module, nn.ConvTranspose2d)}
    state = narrow.state_dict()
    for name, target in wide.state_dict().items():
        old = state[name]
        if target.dim() == 4:
            swap = name in transposed
            old, new = (x.transpose(0, 1) if swap else x for x in (old, target))
            old = old.repeat_interleave(new.shape[0] // old.shape[0], 0)
            if (copies := new.shape[1] // old.shape[1]) > 1:
                part = torch.empty(*old.shape[:2], copies).uniform_(-0.5, 0.5) / copies
                part = part - part.mean(2, keepdim=True) + 1 / copies
                old = (old[:, :, None] * part[..., None, None]).flatten(1, 2)
            old = old.transpose(0, 1) if swap else old
            if noise:
                old = old + noise * old.std() * torch.randn(old.shape)
        elif target.dim():
            old = old.repeat_interleave(len(target) // len(old), 0)
        target.copy_(old)
    return wide


@torch.no_grad()
def recast(source, network):
    """Let ``network`` do what ``source`` does, an ELEC4848 of the same shape that has other
    convolutions separable, or that tells no classes apart; ``network`` itself.

    Where a separable one becomes dense, that is exact: each kernel is the depthwise one times a
    weight of the pointwise one. Where a dense one becomes separable, it is near: of its kernel
    bank, what reads one input channel is a matrix, filters x taps, whose best approximation of rank
    one is a tap pattern, the depthwise kernel, times a column of the pointwise one. Where there are
    classes at last, a lesion is as likely of any. Everything else is copied.
    """
    theirs, ours = ({name for name, module in each.named_modules()
                     if isinstance(module, SeparableConv)} for each in (source, network))
    inside = tuple(f"{name}." for name in theirs ^ ours)
    divided = network.classes and not source.classes
    state = source.state_dict()
    for name, target in network.state_dict().items():
        if divided and name.startswith("final."):
            target[0], target[1:] = 0, state[name]
        elif not name.startswith(inside):
            target.copy_(state[name])
    if divided:
        network.final.bias[1:] -= math.log(len(network.classes) - 1)
    for name in theirs ^ ours:
        change = _separate if name in ours else _join
        change(source.get_submodule(name), network.get_submodule(name))
    return network


def _separate(dense, part):
    conv, pointwise = _copy_norm(dense, part.pointwise)
    u_IOR, s_IR, v_IRT = torch.linalg.svd(conv.weight.transpose(0, 1).flatten(2),
                                          full_matrices=False)
    root_I1 = s_IR[:, :1].sqrt()
    part.depthwise.weight.copy_((v_IRT[:, 0] * root_I1).view_as(part.depthwise.weight))
    pointwise.weight.copy_((u_IOR[:, :, 0] * root_I1).T[..., None, None])
    pointwise.bias.copy_(conv.bias)


def _join(part, dense):
    pointwise, conv = _copy_norm(part.pointwise, dense)
    conv.weight.copy_(pointwise.weight * part.depthwise.weight[:, 0])
    conv.bias.copy_(pointwise.bias)


def _copy_norm(source, target):
    """Both convolutions without the normalisations of training, which are copied if there are
    any."""
    if not isinstance(source, NormedConv):
        return source, target
    target[1].load_state_dict(source[1].state_dict())
    return source[0], target[0]


@torch.no_grad()
def borrow_encoder(lender, network):
    """Copy the encoder of an ELEC4848 network, normalised as in training; ``network`` itself.

    For networks whose encoders have the same convolutions, each with its normalisation.
    """
    for theirs, ours in zip(lender.encoder, network.encoder, strict=True):
        for name in ("a", "b"):
            conv, norm = getattr(theirs, name)
            mine, my_norm = getattr(ours, name), getattr(ours, f"{name}_norm")
            mine.weight.copy_(conv.weight)
            my_norm.load_state_dict(norm.state_dict())
            my_norm.running_var.add_(norm.eps - my_norm.eps)
            if mine.bias is None:
                my_norm.running_mean.sub_(conv.bias)
            else:
                mine.bias.copy_(conv.bias)
    return network


def begin(network, source, *, noise):
    """``network`` with what it can take from ``source``, a network that has learnt.

    The same network, or a narrower one; of the ELEC4848 networks any other; or the dense one, where
    the encoder has the same filters.
    """
    if source.name == network.name:
        if network.width % source.width:
            raise InputError(f"A network of width {network.width} cannot start from one of width "
                             f"{source.width}, which does not divide it")
        if network.width > source.width:
            return widen(source, network, noise=noise)
        network.load_state_dict(source.state_dict())
        return network
    if source.width == network.width and source.depth == network.depth:
        if isinstance(source, Elec4848) and isinstance(network, Elec4848) and (
                source.classes in ((), network.classes)):
            return recast(source, network)
        if source.name == "elec4848" and isinstance(network.encoder[0], ConvNormBlock):
            return borrow_encoder(source, network)
    raise InputError(f"{network.name} of width {network.width} cannot start from {source.name} of "
                     f"width {source.width}; start from {network.name}, or from elec4848 of the "
                     f"same width and depth")
