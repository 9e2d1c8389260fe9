"""The door to the networks: by name, frame size and width, float or integer.

Weights are files in ``golden/weights`` named ``NETWORK-WIDTH.safetensors``. Convolutions do not
know the frame size, so one file serves every size. A width without a file gets seeded He weights,
calibrated on phantoms: exact and deterministic on one machine, but its masks mean nothing.
"""

import hashlib
import inspect
import math
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from golden.errors import InputError
from golden.folders import temporary
from golden.folding import unfolded, weight_steps
from golden.graph_file import load, save
from golden.images import read_image
from golden.integer import resize
from golden.names import demand_network
from golden.networks import MODELS
from golden.places import CACHE
from golden.plan import plan
from golden.quantize import quantize

__all__ = ["MODELS", "default_shape", "is_trained", "load_float", "load_graph", "save_trained",
           "seeded", "shipped", "weights_path"]

WEIGHTS = Path(__file__).parent / "weights"
SOURCES = Path(__file__).parent
NORM_STATE = ("weight", "bias", "running_mean", "running_var")
CALIBRATION_SIZE = 64
CALIBRATION_SEEDS = range(4)


def default_shape(model="elec4848"):
    """Frame size and width of a network's source."""
    demand_network(model)
    parameters = inspect.signature(MODELS[model]).parameters
    return parameters["size"].default, parameters["width"].default


def load_graph(model="elec4848", size=None, width=None):
    """The integer graph of a network for frames of ``size``; its source's size and width if None.
    """
    size, width = _checked(model, size, width)
    return resize(_graph(model, width), size)


def load_float(model="elec4848", size=None, width=None):
    """The float network that the graph approximates, in evaluation mode.

    Trained weights lie on the grid of the graph's int8 weights (float32 training, then rounding),
    so what a comparison of the two measures is the rounding of activations. Biases and batch
    normalisation are as trained. Seeded weights are not rounded.
    """
    size, width = _checked(model, size, width)
    network = MODELS[model](size=size, width=width)
    path = weights_path(model, width)
    if path.exists():
        _restore(network, *load(path))
    else:
        network.load_state_dict(_kept("weights", model, width, load_file, save_file,
                                      lambda: seeded(model, width).state_dict()))
    return network.eval()


def is_trained(model="elec4848", width=None):
    """Whether the masks mean anything: seeded weights make none."""
    return weights_path(model, default_shape(model)[1] if width is None else width).exists()


def weights_path(model, width):
    """Where trained weights of a model are, if there are any."""
    return WEIGHTS / f"{model}-{width}.safetensors"


def shipped():
    """Model and width of every file of trained weights, by its name: ``elec4848-32``."""
    names = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    return {name: (name.rpartition("-")[0], int(name.rpartition("-")[2])) for name in names}


def _checked(model, size, width):
    """Size and width, with defaults for None; refused where the network cannot have them."""
    defaults = default_shape(model)
    size, width = (default if value is None else value
                   for value, default in zip((size, width), defaults, strict=True))
    with torch.device("meta"):
        MODELS[model](size=size, width=width)
    return size, width


@lru_cache(maxsize=2)
def _graph(model, width):
    if is_trained(model, width):
        return load(weights_path(model, width))[0]
    return _kept("graph", model, width, lambda path: load(path)[0], save, lambda: quantize(
        seeded(model, width),
        [read_image(f"phantom:{seed}", CALIBRATION_SIZE) for seed in CALIBRATION_SEEDS]))


def _kept(what, model, width, read, write, make):
    """What ``make`` makes of seeded weights, which takes seconds, kept while the sources are those
    of then."""
    path = CACHE / f"seeded-{what}-{model}-{width}-{_sources()}.safetensors"
    if path.exists():
        return read(path)
    made = make()
    with suppress(OSError):         # then it is made again
        CACHE.mkdir(parents=True, exist_ok=True)
        with temporary(CACHE, "scratch-") as folder:
            write(made, folder / path.name)
            (folder / path.name).replace(path)
        for older in set(CACHE.glob(f"seeded-{what}-{model}-{width}-*.safetensors")) - {path}:
            older.unlink(missing_ok=True)
    return made


@lru_cache(maxsize=1)
def _sources():
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def save_trained(path, graph, network):
    """Write a graph with what :func:`load_float` needs beyond it; the network it came from."""
    extra = {}
    for step in plan(network):
        if step.conv is not None:
            extra[f"{step.name}.float_step"] = weight_steps(graph, step)
            if step.conv.bias is not None:
                extra[f"{step.name}.float_bias"] = step.conv.bias.detach()
        if step.norm is not None:
            for key in NORM_STATE:
                extra[f"{step.name}.norm_{key}"] = step.norm.state_dict()[key]
    save(graph, path, extra={name: x.to(torch.float32) for name, x in extra.items()})


@torch.no_grad()
def _restore(network, graph, extra):
    """Set a float network to the weights that :func:`save_trained` wrote."""
    for step in plan(network):
        if step.norm is not None:
            for key in NORM_STATE:
                norm = getattr(step.norm, key)
                norm.copy_(_extra(extra, f"{step.name}.norm_{key}", norm.shape))
        if step.conv is not None:
            layer = next((layer for layer in graph.layers if layer.name == step.name), None)
            if getattr(layer, "weight", torch.empty(0)).shape != step.conv.weight.shape:
                raise InputError(f"The file of weights has no convolution {step.name!r} of shape "
                                 f"{tuple(step.conv.weight.shape)}: it is of another network than "
                                 f"{network.name} of width {network.width}")
            steps_O = _extra(extra, f"{step.name}.float_step", (step.conv.out_channels,))
            step.conv.weight.copy_(unfolded(graph, step, steps_O))
            if step.conv.bias is not None:
                bias = step.conv.bias
                bias.copy_(_extra(extra, f"{step.name}.float_bias", bias.shape))


def _extra(extra, name, shape):
    """An array that :func:`save_trained` wrote, or an :class:`InputError`."""
    array = extra.get(name)
    if array is None or array.shape != tuple(shape) or not array.isfinite().all():
        raise InputError(f"The file of weights has no usable {name!r} of shape {tuple(shape)}; "
                         f"take it from the repository again, or export it anew")
    return array


@torch.no_grad()
def seeded(model, width):
    """The network with He weights from a fixed seed, made to exercise the whole contract.

    Logits are centred and spread, batch normalisation has random parameters and negative gains,
    and one channel of ``e2a`` is dead.
    """
    generator = torch.Generator().manual_seed(4848)
    network = MODELS[model](size=CALIBRATION_SIZE, width=width)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            # Where stride 2 is transposed, each input pixel reaches an output through one tap.
            fan_in = (module.weight[0].numel() if isinstance(module, nn.Conv2d)
                      else module.in_channels)
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.02, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(-0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
            module.running_mean.uniform_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.2, 1.0, generator=generator)
    steps = {step.name: step for step in plan(network)}
    frames_N3HW = torch.stack([read_image(f"phantom:{seed}", CALIBRATION_SIZE)
                               for seed in CALIBRATION_SEEDS]).to(torch.float32) / 255
    network.eval()
    _settle([step for step in steps.values() if step.conv and step.norm], network, frames_N3HW)
    for module in (steps["e2a"].conv, steps["e2a"].norm):
        for parameter in () if module is None else module.parameters():
            parameter[0] = 0
    for step in steps.values():
        if step.kind == "sigmoid":
            head = steps[step.inputs[0]]
            logit = network.trace(frames_N3HW)[head.name]
            spread = logit.std().clamp(min=1e-6)
            last = head.conv if head.norm is None else head.norm
            last.bias.copy_((last.bias - logit.mean()) * 2 / spread)
            last.weight.mul_(2 / spread)
        if step.kind == "classes":
            conv = steps[step.inputs[0]].conv
            logit_CP = network(frames_N3HW).transpose(0, 1).flatten(1)
            spread_C = logit_CP.std(1).clamp(min=1e-6)
            conv.bias.copy_((conv.bias - logit_CP.mean(1)) * 2 / spread_C)
            conv.weight.mul_((2 / spread_C)[:, None, None, None])
    return network


def _settle(steps, network, frames_N3HW):
    """Make batch normalisations behave as if they were trained, with every fourth gain negative.

    They divide by the power that the frames have there, and mostly let values pass the ReLU that
    follows; after a ReLU they take mean and variance. A deep random network is chaos otherwise:
    channels die, and every rounding ends up in the mask.
    """
    def settle(norm, inputs):
        norm.running_var.copy_(inputs[0].square().mean((0, 2, 3)))
        norm.running_mean.mul_(norm.running_var.sqrt())
        norm.weight.abs_().clamp_(min=0.5)
        norm.weight[1::4] *= -1
        norm.bias.add_(0.6)

    def settle_last(norm, inputs):
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))
        norm.weight.abs_().clamp_(min=0.5)
        norm.weight[1::4] *= -1

    hooks = [step.norm.register_forward_pre_hook(settle_last if step.relu_first else settle)
             for step in steps]
    network(frames_N3HW)
    for hook in hooks:
        hook.remove()
