"""The door to the networks: by name, frame size and width, float or integer.

Weights are files in ``golden/weights`` named ``NETWORK-WIDTH.safetensors``. Convolutions do not
know the frame size, so one file serves every size. A width without a file gets seeded He weights,
calibrated on phantoms: exact and deterministic on one machine, but its masks mean nothing.
"""

import math
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from golden.errors import InputError
from golden.images import read_image
from golden.integer import load, resize, save
from golden.networks import check_shape, elec4848
from golden.quantize import input_factors, quantize, weight_steps

__all__ = ["MODELS", "convolutions", "is_trained", "load_float", "load_graph", "save_trained",
           "seeded", "weights_path"]

MODELS = {"elec4848": elec4848}
WEIGHTS = Path(__file__).parent / "weights"
NORM_STATE = ("weight", "bias", "running_mean", "running_var")
CALIBRATION_SIZE = 64
CALIBRATION_SEEDS = range(4)


def load_graph(model="elec4848", size=256, width=32):
    """The integer graph of a network for frames of ``size``."""
    _check(model, size, width)
    return resize(_graph(model, width), size)


def load_float(model="elec4848", size=256, width=32):
    """The float network that the graph approximates, in evaluation mode.

    Trained weights lie on the grid of the graph's int8 weights (float32 training, then rounding),
    so what a comparison of the two measures is the rounding of activations. Biases and batch
    normalisation are as trained. Seeded weights are not rounded.
    """
    _check(model, size, width)
    network = MODELS[model](size=size, width=width)
    path = weights_path(model, width)
    if path.exists():
        _restore(network, *load(path))
    else:
        network.load_state_dict(seeded(model, width).state_dict())
    return network.eval()


def is_trained(model="elec4848", width=32):
    """Whether the masks mean anything: seeded weights make none."""
    return weights_path(model, width).exists()


def weights_path(model, width):
    """Where trained weights of a model are, if there are any."""
    return WEIGHTS / f"{model}-{width}.safetensors"


def _check(model, size, width):
    if model not in MODELS:
        raise InputError(f"No model {model!r}; known: {', '.join(MODELS)}")
    check_shape(size, width)


@lru_cache(maxsize=2)
def _graph(model, width):
    if is_trained(model, width):
        return load(weights_path(model, width))[0]
    images = [read_image(f"phantom:{seed}", CALIBRATION_SIZE) for seed in CALIBRATION_SEEDS]
    return quantize(seeded(model, width), images)


def save_trained(path, graph, network):
    """Write a graph with what :func:`load_float` needs beyond it; the network it came from."""
    extra = {}
    for name, conv in convolutions(network).items():
        extra[f"{name}.float_bias"] = conv.bias.detach()
        extra[f"{name}.float_step"] = weight_steps(graph, name, conv)
    for i, block in enumerate(network.gates, 1):
        for key in NORM_STATE:
            extra[f"gated{i}.norm_{key}"] = block.norm.state_dict()[key]
    save(graph, path, extra={name: x.to(torch.float32) for name, x in extra.items()})


@torch.no_grad()
def _restore(network, graph, extra):
    """Set a float network to the weights that :func:`save_trained` wrote."""
    for name, conv in convolutions(network).items():
        layer = graph.layer(name)
        weight_OIKL = layer.weight * extra[f"{name}.float_step"][:, None, None, None]
        conv.weight.copy_(weight_OIKL * input_factors(graph, layer)[:, None, None])
        conv.bias.copy_(extra[f"{name}.float_bias"])
    for i, block in enumerate(network.gates, 1):
        for key in NORM_STATE:
            getattr(block.norm, key).copy_(extra[f"gated{i}.norm_{key}"])


def convolutions(network):
    """Convolutions of the float network by the name of the tensor that each makes."""
    named = {"logit": network.final}
    for level, block in enumerate(network.encoder, 1):
        last = "encoding" if level == len(network.encoder) else f"c{level}"
        named |= {f"e{level}a": block.a, last: block.b}
    for i, (gate, block) in enumerate(zip(network.gates, network.decoder, strict=True), 1):
        named |= {f"g{i}_normal": gate.normal, f"g{i}_down": gate.down, f"g{i}_logit": gate.learn,
                  f"d{i}a": block.a, f"d{i}": block.b}
    return named


@torch.no_grad()
def seeded(model, width):
    """The network with He weights from a fixed seed, made to exercise the whole contract.

    Logits are centred and spread, batch normalisation has random parameters and negative gains,
    and one channel of ``e2a`` is dead.
    """
    generator = torch.Generator().manual_seed(4848)
    network = MODELS[model](size=CALIBRATION_SIZE, width=width)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            module.bias.normal_(0, 0.02, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(-0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
            module.running_mean.uniform_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.2, 1.0, generator=generator)
    network.encoder[1].a.weight[0] = 0
    network.encoder[1].a.bias[0] = 0
    frames_N3HW = torch.stack([read_image(f"phantom:{seed}", CALIBRATION_SIZE)
                               for seed in CALIBRATION_SEEDS]).to(torch.float32) / 255
    network.eval()
    heads = {f"g{i}_logit": gate.learn for i, gate in enumerate(network.gates, 1)}
    for name, head in {**heads, "logit": network.final}.items():
        logit = network.trace(frames_N3HW)[name]
        spread = logit.std().clamp(min=1e-6)
        head.bias.copy_((head.bias - logit.mean()) * 2 / spread)
        head.weight.mul_(2 / spread)
    return network
