"""What a float network computes, as layers of the engine: its trace, read with ``torch.fx``.

Every tensor that ``trace`` names becomes one step. Padding, batch normalisation, ReLU and dropout
around it are part of the step; a gate's upsampling of alpha is too, where the trace does not name
it. What the engine has no layer for is refused by name.
"""

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from golden.classes import class_mask
from golden.errors import InputError
from golden.networks.operations import operations

__all__ = ["Step", "plan"]

OPERATIONS = {
    F.relu: "relu", torch.relu: "relu", "relu": "relu", nn.ReLU: "relu",
    F.dropout: "dropout", nn.Dropout: "dropout", nn.Dropout2d: "dropout", nn.Identity: "dropout",
    F.pad: "pad",
    nn.BatchNorm2d: "norm",
    nn.Conv2d: "conv",
    nn.ConvTranspose2d: "transposed",
    F.max_pool2d: "max_pool", torch.max_pool2d: "max_pool", nn.MaxPool2d: "max_pool",
    F.interpolate: "upsample", nn.Upsample: "upsample",
    torch.cat: "concat", torch.concat: "concat",
    operator.add: "add", operator.iadd: "add", torch.add: "add", "add": "add",
    operator.mul: "gate", operator.imul: "gate", torch.mul: "gate", "mul": "gate",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", "sigmoid": "sigmoid", nn.Sigmoid: "sigmoid",
    class_mask: "classes",
}
KNOWN = ("convolutions, transposed convolutions, batch normalisation, ReLU, dropout, padding, "
         "max-pooling, upsampling, concatenation, sums, products with a sigmoid, and sigmoids")
MAY_HAVE_NORM = ("conv", "transposed", "gate")
MAY_HAVE_RELU = (*MAY_HAVE_NORM, "add")
MODES = {"nearest": "nearest", "bilinear": "linear"}


@dataclass(frozen=True, eq=False)
class Step:
    """One tensor, and how it is made of others.

    ``kind`` is input, conv, transposed, max_pool, upsample, concat, add, gate, sigmoid or classes.
    The inputs of a gate are alpha and skip. ReLU comes after batch normalisation or,
    ``relu_first``, before it. ``padding`` is (top, left, bottom, right); a transposed convolution
    crops by it. ``mode`` is that of an upsampling.
    """
    name: str
    kind: str
    inputs: tuple[str, ...]
    unit: str
    conv: nn.Module | None = None
    norm: nn.BatchNorm2d | None = None
    relu: bool = False
    relu_first: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    mode: str = ""


def plan(network):
    """The steps of a network in the order of its ``trace``, which must be that of computation."""
    return _Reader(network).steps()


class _Reader:
    def __init__(self, network):
        self.network = network
        self.graph_module, self.named = operations(network)
        self.made = {}

    def steps(self):
        for node, name in self.named.items():
            self.made[name] = self._step(node, name)
        return tuple(self.made.values())

    def _step(self, node, name):
        self.name = name
        unit = self.network.unit_of(name)
        if node.op == "placeholder":
            return Step(name, "input", (), unit)
        relu, norm, inner = False, None, self._plain(node)
        if self._operation(inner) == "relu":
            relu, inner = True, self._inside(inner)
        if self._operation(inner) == "norm":
            norm, inner = self._module(inner), self._inside(inner)
        relu_first = norm is not None and not relu and self._operation(inner) == "relu"
        if relu_first:
            relu, inner = True, self._inside(inner)
        kind = self._operation(inner)
        if relu_first and kind != "conv":
            self._refuse(inner, "ReLU and then batch normalisation after it, which only "
                                "convolutions can have")
        if kind in ("relu", "norm", "pad"):
            self._refuse(inner, "nothing that it could be part of")
        if norm is not None and kind not in MAY_HAVE_NORM:
            self._refuse(inner, "batch normalisation after it, which only convolutions and "
                                "products can have")
        if relu and kind not in MAY_HAVE_RELU:
            self._refuse(inner, "ReLU after it, which only convolutions, sums and products can "
                                "have")
        parts = getattr(self, f"_{kind}")(inner)
        return Step(name, kind, unit=unit, norm=norm, relu=relu, relu_first=relu_first, **parts)

    def _conv(self, node):
        conv, source = self._module(node), self._plain(node.args[0])
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or not (
                conv.groups == 1 or depthwise):
            self._refuse(node, "dilation, groups or a padding mode that the engine lacks")
        if conv.stride[0] != conv.stride[1] or isinstance(conv.padding, str):
            self._refuse(node, "unequal strides or padding that is not in numbers")
        top, left = conv.padding
        sides = [top, left, top, left]
        if source not in self.named and self._operation(source) == "pad":
            more = self._argument(source, 1, "pad")
            if (len(more) != 4 or self._argument(source, 2, "mode", "constant") != "constant"
                    or self._argument(source, 3, "value")):
                self._refuse(source, "padding other than by zeros on four sides")
            left, right, top, bottom = more
            sides = [a + b for a, b in zip(sides, (top, left, bottom, right), strict=True)]
            source = source.args[0]
        return {"inputs": (self._name_of(source),), "conv": conv, "padding": tuple(sides)}

    def _transposed(self, node):
        conv = self._module(node)
        if conv.dilation != (1, 1) or conv.groups != 1 or conv.stride != (2, 2):
            self._refuse(node, "a stride other than 2, dilation, or groups")
        before, after = conv.padding, [
            p - more for p, more in zip(conv.padding, conv.output_padding, strict=True)]
        if min(after) < 0:
            self._refuse(node, "output padding larger than its padding")
        return {"inputs": (self._name_of(node.args[0]),), "conv": conv,
                "padding": (*before, *after)}

    def _max_pool(self, node):
        kernel = self._argument(node, 1, "kernel_size")
        stride = self._argument(node, 2, "stride")
        if (_pair(kernel) != (2, 2) or _pair(stride or kernel) != (2, 2)
                or _pair(self._argument(node, 3, "padding", 0)) != (0, 0)
                or _pair(self._argument(node, 4, "dilation", 1)) != (1, 1)
                or self._argument(node, 5, "ceil_mode", False)):
            self._refuse(node, "a window other than 2x2 with stride 2")
        return {"inputs": (self._name_of(node.args[0]),)}

    def _upsample(self, node):
        mode = self._argument(node, 3, "mode", "nearest")
        if (_pair(self._argument(node, 2, "scale_factor")) != (2, 2) or mode not in MODES
                or self._argument(node, 4, "align_corners")):
            self._refuse(node, "a factor other than 2, a mode other than nearest and bilinear, or "
                               "aligned corners")
        return {"inputs": (self._name_of(node.args[0]),), "mode": MODES[mode]}

    def _concat(self, node):
        if self._argument(node, 1, "dim", 0) != 1:
            self._refuse(node, "a dimension other than channels")
        return {"inputs": tuple(self._name_of(part) for part in node.args[0])}

    def _add(self, node):
        if len(node.args) != 2 or node.kwargs:
            self._refuse(node, "more than two plain operands")
        return {"inputs": tuple(self._name_of(part) for part in node.args)}

    def _gate(self, node):
        names = []
        for part in node.args:
            part = self._plain(part)
            if part not in self.named and self._operation(part) == "upsample":
                if self._upsample(part)["mode"] == "nearest":
                    part = part.args[0]
            names.append(self._name_of(part))
        alphas = [name for name in names if self._is_alpha(name)]
        if not alphas:
            self._refuse(node, "no operand that a sigmoid made")
        names.remove(alphas[0])
        return {"inputs": (alphas[0], *names)}

    def _sigmoid(self, node):
        return {"inputs": (self._name_of(node.args[0]),)}

    _classes = _sigmoid

    def _is_alpha(self, name):
        step = self.made[name]
        while step.kind == "upsample":
            step = self.made[step.inputs[0]]
        return step.kind == "sigmoid"

    def _operation(self, node):
        """What the node does, by one of the words in ``OPERATIONS``."""
        if node.op == "placeholder":
            return "input"
        key = type(self._module(node)) if node.op == "call_module" else node.target
        if node.op == "get_attr" or key not in OPERATIONS:
            self._refuse(node, "no layer in the engine, which has " + KNOWN)
        return OPERATIONS[key]

    def _module(self, node):
        return self.graph_module.get_submodule(node.target)

    def _plain(self, node):
        """The node, or what a dropout around it was given."""
        if not isinstance(node, fx.Node):
            raise InputError(f"Tensor {self.name!r} of network {self.network.name!r}: an operand "
                             f"is {node!r}, but must be a tensor")
        while node.op != "placeholder" and self._operation(node) == "dropout":
            node = node.args[0]
        return node

    def _inside(self, node):
        """What ReLU or batch normalisation is applied to: part of the same step, so unnamed."""
        inner = self._plain(node.args[0])
        if inner in self.named:
            self._refuse(node, f"an input, {self.named[inner]!r}, that is a tensor by itself; "
                               "leave that out of the trace")
        return inner

    def _name_of(self, node):
        plain = self._plain(node)
        for candidate in (node, plain):
            if candidate in self.named:
                name = self.named[candidate]
                if name not in self.made:
                    self._refuse(node, f"tensor {name!r} for input, which the trace has later")
                return name
        self._refuse(plain, "a result without a name in the trace")

    def _argument(self, node, index, name, default=None):
        """Argument of a function, or attribute of a module, that do the same."""
        if node.op == "call_module":
            return getattr(self._module(node), name, default)
        if len(node.args) > index:
            return node.args[index]
        return node.kwargs.get(name, default)

    def _refuse(self, node, what):
        """``what`` completes the sentence "Operation has ..."."""
        operation = (type(self._module(node)).__name__ if node.op == "call_module"
                     else getattr(node.target, "__name__", node.target))
        raise InputError(f"Tensor {self.name!r} of network {self.network.name!r}: {operation} "
                         f"({node.name}) has {what}")


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)
