"""What a network costs, counted from the float network.

Nothing is computed: shapes come from PyTorch's meta device, and what reads what from `torch.fx`.
"""

import copy
import math
from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

from golden.classes import comparisons
from golden.networks.operations import operations

__all__ = ["float_bytes", "int8_bytes", "macs", "parameters", "peak_activation_bytes"]

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
REQUANTISE_BYTES = 4 + 2 + 1        # bias, multiplier and shift of one channel
BOUND_BYTES = 1                     # of a channel that is normalised after ReLU
TABLE_BYTES = 256                   # a sigmoid


def parameters(network):
    """Number of parameters as Keras counts them: running mean and variance are included."""
    running = [b for name, b in network.named_buffers() if "running" in name]
    return sum(p.numel() for p in [*network.parameters(), *running])


@torch.no_grad()
def macs(network):
    """Multiply-accumulates of all convolutions for one frame, by figure-10 unit; those by which the
    machine compares classes are among them."""
    counts = {"encoder": 0, "attention": 0, "decoder": 0}
    units = {"encoder": "encoder", "gates": "attention", "decoder": "decoder", "final": "decoder"}

    def count(unit):
        def hook(conv, inputs, output):
            # A transposed convolution spreads each input, a convolution gathers each output.
            spread = inputs[0] if isinstance(conv, nn.ConvTranspose2d) else output
            counts[unit] += spread[0].numel() * conv.weight[0].numel()
        return hook

    network = copy.deepcopy(network).to("meta").eval()
    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_hook(count(units[name.split(".")[0]]))
    logit_NCHW = network(_frame(network))
    if network.classes:
        counts["decoder"] += _comparing(network)[0] * logit_NCHW[0, 0].numel()
    return counts


def float_bytes(network):
    """Bytes of all parameters in float32."""
    return 4 * parameters(network)


def int8_bytes(network):
    """Bytes of the parameters in the integer graph, batch normalisation folded.

    int8 weights; bias, multiplier and shift per channel of every convolution, those that compare
    classes among them, and every gate; a bound per channel that is normalised after ReLU; a table
    per sigmoid, and that of the classes. The three bytes of a rescaled sum are left out.
    """
    convolutions = [m for m in network.modules() if isinstance(m, CONVOLUTIONS)]
    shapes = _shapes(network)
    gated = sum(shape[0] for name, shape in shapes.items() if name.startswith("gated"))
    tables = sum(name.startswith(("alpha", "mask")) for name in shapes)
    return (sum(m.weight.numel() + REQUANTISE_BYTES * m.out_channels for m in convolutions)
            + REQUANTISE_BYTES * gated + BOUND_BYTES * _bounded(network) + TABLE_BYTES * tables
            + (_comparing(network)[1] if network.classes else 0))


def peak_activation_bytes(network):
    """Most bytes of INT8 activations alive at once, layer by layer, each whole in memory.

    A tensor lives from the step that makes it to the last that reads it. A concat is no copy: its
    parts live until it is read. The gate sums of elec4848 have two bytes per element; the peak is
    elsewhere, and they count as one.
    """
    shapes, sources = _shapes(network), _sources(network)
    concats = {name for name in sources if name.endswith("_concat")}
    step_of = {name: step for step, name in enumerate(sources)}
    last_read = dict(step_of)
    for name, read in sources.items():
        parts = chain.from_iterable(sources[x] if x in concats else (x,) for x in read)
        for part in parts:
            last_read[part] = max(last_read[part], step_of[name])
    return max(sum(math.prod(shapes[name]) for name in sources
                   if name not in concats and step_of[name] <= step <= last_read[name])
               for step in step_of.values())


def _bounded(network):
    """Channels that are normalised after ReLU."""
    traced, named = operations(network)
    norms = [node for node in named if node.op == "call_module"
             and isinstance(traced.get_submodule(node.target), nn.BatchNorm2d)]
    return sum(traced.get_submodule(node.target).num_features for node in norms
               if node.args[0].target is F.relu)


def _comparing(network):
    """Multiply-accumulates per pixel, and bytes, of the two layers that find the largest logit."""
    weight_OI11 = comparisons(len(network.classes))
    pairs = len(weight_OI11)
    products = weight_OI11.numel() + pairs
    return products, products + REQUANTISE_BYTES * (pairs + 1)


def _frame(network):
    return torch.zeros(1, 3, network.size, network.size, device="meta")


@torch.no_grad()
def _shapes(network):
    """Channels, rows and columns of every tensor of the trace."""
    network = copy.deepcopy(network).to("meta").eval()
    return {name: tuple(x.shape[1:]) for name, x in network.trace(_frame(network)).items()}


def _sources(network):
    """Names of the tensors of the trace that each tensor of the trace is computed from."""
    _, named = operations(network)

    def nearest(node):
        found = {}
        for before in node.all_input_nodes:
            found |= {named[before]: None} if before in named else nearest(before)
        return found

    return {name: tuple(nearest(node)) for node, name in named.items()}
