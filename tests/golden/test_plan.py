import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden.errors import InputError
from golden.models import MODELS
from golden.plan import plan


class Small(nn.Module):
    """A network whose trace is ``function(network, t)``, with a few modules to use."""

    name = "small"

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pointwise = nn.Conv2d(3, 3, 1)
        self.dilated = nn.Conv2d(3, 3, 3, dilation=2)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.same = nn.Conv2d(3, 3, 3, padding="same")
        self.up = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1)
        self.up_one = nn.ConvTranspose2d(3, 2, 3, stride=1)
        self.up_more = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=0, output_padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.norm3 = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.leaky = nn.LeakyReLU()
        self.pool = nn.MaxPool2d(2)
        self.pool3 = nn.MaxPool2d(3)
        self.dropout = nn.Dropout(0.5)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear")

    def unit_of(self, tensor):
        return "encoder"

    def trace(self, frame):
        t = {"image": frame}
        self.function(self, t)
        return t


def steps_of(function):
    return {step.name: step for step in plan(Small(function))}


def test_parts_become_one_step():
    def trace(net, t):
        t["c"] = net.relu(net.norm(net.conv(F.pad(net.dropout(t["image"]), (1, 2, 3, 0)))))
        t["p"] = net.pool(net.dropout(t["c"]))
        t["u"] = net.larger(t["p"])
        t["n"] = F.interpolate(t["p"], scale_factor=2)
        t["both"] = torch.cat([t["u"], net.dropout(t["n"])], 1)
        t["total"] = (t["u"] + t["n"]).relu()
        t["alpha"] = t["total"].sigmoid()
        t["gated"] = F.relu(net.norm(t["u"] * t["alpha"]))
        t["late"] = net.dropout(net.norm(net.dropout(net.conv(t["image"]).relu())))
        t["half"] = torch.sigmoid(t["p"])
        t["wide"] = F.interpolate(t["half"], scale_factor=2) * t["n"]

    steps = steps_of(trace)
    assert {name: (s.kind, s.inputs, s.norm is not None, s.relu) for name, s in steps.items()} == {
        "image": ("input", (), False, False),
        "c": ("conv", ("image",), True, True),
        "p": ("max_pool", ("c",), False, False),
        "u": ("upsample", ("p",), False, False),
        "n": ("upsample", ("p",), False, False),
        "both": ("concat", ("u", "n"), False, False),
        "total": ("add", ("u", "n"), False, True),
        "alpha": ("sigmoid", ("total",), False, False),
        "gated": ("gate", ("alpha", "u"), True, True),
        "late": ("conv", ("image",), True, True),
        "half": ("sigmoid", ("p",), False, False),
        "wide": ("gate", ("half", "n"), False, False),
    }
    assert steps["c"].padding == (1 + 3, 1 + 1, 1 + 0, 1 + 2)
    assert (steps["u"].mode, steps["n"].mode) == ("linear", "nearest")
    assert [name for name, step in steps.items() if step.relu_first] == ["late"]


def test_transposed_convolutions_crop():
    def trace(net, t):
        t["u"] = net.relu(net.up(t["image"]))

    step = steps_of(trace)["u"]
    assert (step.kind, step.padding, step.relu) == ("transposed", (1, 1, 0, 0), True)


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_of_every_network_has_a_step(model):
    network = MODELS[model](size=32, width=2)
    names = [step.name for step in plan(network)]
    assert names == list(network.eval().trace(torch.zeros(1, 3, 32, 32)))


def named(function):
    def trace(net, t):
        t["x"] = function(net, t["image"])
    return trace


RESIZED = "a factor other than 2, a mode other than nearest and bilinear, or aligned corners"
RELU = "ReLU after it, which only convolutions, sums and products can have"
KNOWN = ("no layer in the engine, which has convolutions, transposed convolutions, batch "
         "normalisation, ReLU, dropout, padding, max-pooling, upsampling, concatenation, sums, "
         "products with a sigmoid, and sigmoids")


@pytest.mark.parametrize(("function", "message"), [
    (lambda net, x: F.avg_pool2d(x, 2), f"avg_pool2d (avg_pool2d) has {KNOWN}"),
    (lambda net, x: net.leaky(x), f"LeakyReLU (network_leaky) has {KNOWN}"),
    (lambda net, x: x.softmax(1), f"softmax (softmax) has {KNOWN}"),
    (lambda net, x: net.dilated(x),
     "Conv2d (network_dilated) has dilation, groups or a padding mode that the engine lacks"),
    (lambda net, x: net.grouped(x),
     "Conv2d (network_grouped) has dilation, groups or a padding mode that the engine lacks"),
    (lambda net, x: net.same(x),
     "Conv2d (network_same) has unequal strides or padding that is not in numbers"),
    (lambda net, x: net.conv(F.pad(x, (1, 1, 1, 1), "reflect")),
     "pad (pad) has padding other than by zeros on four sides"),
    (lambda net, x: net.conv(F.pad(x, (1, 1, 1, 1), value=1.0)),
     "pad (pad) has padding other than by zeros on four sides"),
    (lambda net, x: net.up_one(x),
     "ConvTranspose2d (network_up_one) has a stride other than 2, dilation, or groups"),
    (lambda net, x: net.up_more(x),
     "ConvTranspose2d (network_up_more) has output padding larger than its padding"),
    (lambda net, x: net.pool3(x),
     "MaxPool2d (network_pool3) has a window other than 2x2 with stride 2"),
    (lambda net, x: F.interpolate(x, scale_factor=4),
     f"interpolate (interpolate) has {RESIZED}"),
    (lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
     f"interpolate (interpolate) has {RESIZED}"),
    (lambda net, x: torch.cat([x, x], 2), "cat (cat) has a dimension other than channels"),
    (lambda net, x: torch.add(x, x, alpha=2), "add (add) has more than two plain operands"),
    (lambda net, x: x * x, "mul (mul) has no operand that a sigmoid made"),
    (lambda net, x: net.norm3(torch.cat([x], 1)),
     "cat (cat) has batch normalisation after it, which only convolutions and products can have"),
    (lambda net, x: net.norm3(F.relu(x + x)),
     "add (add) has ReLU and then batch normalisation after it, which only convolutions can have"),
    (lambda net, x: F.relu(F.max_pool2d(x, 2)),
     f"max_pool2d (max_pool2d) has {RELU}"),
    (lambda net, x: F.relu(x),
     "relu (relu) has an input, 'image', that is a tensor by itself; leave that out of the trace"),
    (lambda net, x: F.pad(x, (1, 1, 1, 1)), "pad (pad) has nothing that it could be part of"),
    (lambda net, x: net.conv(net.pointwise(x)),
     "Conv2d (network_pointwise) has a result without a name in the trace"),
])
def test_what_the_engine_lacks_is_refused(function, message):
    message = f"Tensor 'x' of network 'small': {message}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        steps_of(named(function))


def test_operands_must_be_tensors():
    with pytest.raises(InputError, match="^Tensor 'x' of network 'small': an operand is 2, but "
                                         "must be a tensor$"):
        steps_of(named(lambda net, x: x + 2))


def test_the_trace_must_be_in_order():
    def trace(net, t):
        first = net.pointwise(t["image"])
        t["second"] = net.conv(first)
        t["first"] = first

    with pytest.raises(InputError, match=re.escape(
            "Tensor 'second' of network 'small': Conv2d (network_pointwise) has tensor 'first' "
            "for input, which the trace has later")):
        steps_of(trace)
