"""The Attention U-Net of ELEC4848, dense and with depthwise-separable convolutions.

Source: ELEC4848, section 3 and appendix, whose network is the public Keras "Attention UNet" for
BUSI with the layers ``Encoder1..4``, ``Encoding``, ``Attention1..4``, ``Decoder1..4`` (see
:mod:`golden.keras`). Followed layer by layer: two 3x3 convolutions with ReLU and dropout between,
2x2 max-pooling, gates of two 3x3 convolutions with ReLU (stride 2 on the skip), their sum, 1x1 with
sigmoid, nearest upsampling, product, batch normalisation; the decoder concatenates upsampled
signal, gated skip.

elec4848-ds replaces every 3x3 convolution, the first of 3 channels too, by Keras' SeparableConv2D:
1.97 GMAC, 1.18 M parameters. The idea is the Lightweight Attention U-Net project's, whose published
separable network is larger (2.9 GMAC, 10.7 MB of float); it does not say what it kept dense. Of all
choices by role (first or second convolution of encoder blocks, of decoder blocks, ``normal`` or
``down`` of gates), the only one that fits is the first convolution of every encoder block:
3.08 GMAC, which are 2.87 of 2**30 as the dense network's 15.76 are 14.68 (published: 2.9 and 14.6),
and 2.57 M parameters, 3.97 times fewer than dense (published: 4.01 times smaller). That is
elec4848-ds-published. README.md has the arithmetic.
"""

import torch
import torch.nn.functional as F
from torch import fx, nn

from golden.classes import check_classes, class_mask
from golden.errors import InputError
from golden.networks.base import Network
from golden.networks.blocks import upsample

__all__ = ["CLASSES", "Elec4848", "SeparableConv", "elec4848", "elec4848_classes", "elec4848_ds",
           "elec4848_ds_published"]

fx.wrap("class_mask")

DROPOUT = (0.1, 0.1, 0.2, 0.2)      # per level; deeper levels have the last
BOTTLENECK_DROPOUT = 0.3
KERAS_EPS = 1e-3

CLASSES = ("background", "benign", "malignant")     # of BUSI


class SeparableConv(nn.Module):
    """Keras' SeparableConv2D: depthwise without bias, then 1x1 with bias, nothing between."""

    def __init__(self, inputs, filters, kernel, *, stride=1, padding=0):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, kernel, stride=stride, padding=padding,
                                   groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, filters, 1)


def apply_conv(t, name, conv, x_NCHW):
    """Result of a convolution, before ReLU; a depthwise result is written as ``NAME_dw``."""
    if isinstance(conv, SeparableConv):
        t[f"{name}_dw"] = conv.depthwise(x_NCHW)
        return conv.pointwise(t[f"{name}_dw"])
    return conv(x_NCHW)


class ConvBlock(nn.Module):
    """Conv3x3-ReLU, dropout, conv3x3-ReLU: the body of an encoder or decoder block."""

    def __init__(self, inputs, filters, dropout, conv_a, conv_b):
        super().__init__()
        self.a = conv_a(inputs, filters, 3, padding=1)
        self.b = conv_b(filters, filters, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, t, first, last, x_NCHW):
        """Write the results of both convolutions under the names given; return the second."""
        t[first] = F.relu(apply_conv(t, first, self.a, x_NCHW))
        t[last] = F.relu(apply_conv(t, last, self.b, self.dropout(t[first])))
        return t[last]


class AttentionGate(nn.Module):
    """Weighs a skip by where the gating signal and the skip itself agree to look.

    ``down`` has stride 2 with Keras 'same' padding, which on even sizes pads only after: bottom
    and right. Batch normalisation follows the product, with Keras' epsilon.
    """

    def __init__(self, gating, filters, conv_normal, conv_down):
        super().__init__()
        self.normal = conv_normal(gating, filters, 3, padding=1)
        self.down = conv_down(filters, filters, 3, stride=2)
        self.learn = nn.Conv2d(filters, 1, 1)
        self.norm = nn.BatchNorm2d(filters, eps=KERAS_EPS)

    def forward(self, t, i, gating_NCHW, skip_NCHW):
        """Write every tensor of gate ``i``; return the gated skip."""
        normal, down = f"g{i}_normal", f"g{i}_down"
        t[normal] = F.relu(apply_conv(t, normal, self.normal, gating_NCHW))
        t[down] = F.relu(apply_conv(t, down, self.down, F.pad(skip_NCHW, (0, 1, 0, 1))))
        t[f"g{i}_sum"] = t[normal] + t[down]
        t[f"g{i}_logit"] = self.learn(t[f"g{i}_sum"])
        t[f"alpha{i}"] = torch.sigmoid(t[f"g{i}_logit"])
        t[f"gated{i}"] = self.norm(upsample(t[f"alpha{i}"]) * skip_NCHW)
        return t[f"gated{i}"]


class Elec4848(Network):
    """The ELEC4848 Attention U-Net: one gate per skip, nearest upsampling, sigmoid output.

    ``separable`` replaces every 3x3 convolution, but for those that ``dense`` names by the tensor
    they make, such as ``("e1a", "g1_down")``. With ``classes``, names with the background first,
    it tells kinds of lesion apart (:mod:`golden.classes`): a logit for each.
    """

    def __init__(self, *, size=256, width=32, depth=4, separable=False, dense=(), classes=()):
        super().__init__(size=size, width=width, depth=depth)
        self.name = f"elec4848{'-ds' if separable else ''}{'-classes' if classes else ''}"
        self.classes = tuple(classes)
        if classes:
            check_classes(self.classes)
        self.separable, self.dense = separable, tuple(dense)
        self._refuse_unknown(dense)

        def conv(tensor):
            return SeparableConv if separable and tensor not in dense else nn.Conv2d

        filters = self.filters
        levels = range(1, depth + 2)
        dropout = [*(DROPOUT[min(level, len(DROPOUT)) - 1] for level in levels[:-1]),
                   BOTTLENECK_DROPOUT]
        self.encoder = nn.ModuleList(
            ConvBlock(inputs, f, rate, conv(f"e{level}a"), conv(self.last_of(level)))
            for level, inputs, f, rate in zip(levels, [3, *filters], filters, dropout,
                                              strict=False))
        skips = list(enumerate(reversed(filters[:-1]), 1))
        self.gates = nn.ModuleList(
            AttentionGate(2 * f, f, conv(f"g{i}_normal"), conv(f"g{i}_down")) for i, f in skips)
        self.decoder = nn.ModuleList(
            ConvBlock(3 * f, f, dropout[depth - i], conv(f"d{i}a"), conv(f"d{i}"))
            for i, f in skips)
        self.final = nn.Conv2d(width, len(classes) or 1, 1)

    def _refuse_unknown(self, dense):
        levels, stages = range(1, self.depth + 2), range(1, self.depth + 1)
        known = {name for level in levels for name in (f"e{level}a", self.last_of(level))}
        known |= {name for i in stages
                  for name in (f"g{i}_normal", f"g{i}_down", f"d{i}a", f"d{i}")}
        for name in dense:
            if name not in known:
                raise InputError(f"No 3x3 convolution makes {name!r}; "
                                 f"those that can stay dense: {', '.join(sorted(known))}")

    def trace(self, frame_N3HW):
        """Every named tensor of the network, in the order of computation (see the README)."""
        t = {"image": frame_N3HW}
        x = frame_N3HW
        for level, block in enumerate(self.encoder, 1):
            x = block(t, f"e{level}a", self.last_of(level), x)
            if level <= self.depth:
                x = t[f"p{level}"] = F.max_pool2d(x, 2)
        for i, (gate, block) in enumerate(zip(self.gates, self.decoder, strict=True), 1):
            gate(t, i, x, t[f"c{self.depth + 1 - i}"])
            t[f"d{i}_up"] = upsample(x)
            t[f"d{i}_concat"] = torch.cat([t[f"d{i}_up"], t[f"gated{i}"]], 1)
            x = block(t, f"d{i}a", f"d{i}", t[f"d{i}_concat"])
        t["logit"] = self.final(x)
        t["mask"] = class_mask(t["logit"]) if self.classes else torch.sigmoid(t["logit"])
        return t


def elec4848(*, size=256, width=32, depth=4):
    """The network of ELEC4848, section 3; 10.20 M parameters and 15.76 GMAC at 256 and 32."""
    return Elec4848(size=size, width=width, depth=depth)


def elec4848_ds(*, size=256, width=32, depth=4, dense=()):
    """The same with every 3x3 separable, but for ``dense``; 1.18 M parameters, 1.97 GMAC."""
    return Elec4848(size=size, width=width, depth=depth, separable=True, dense=dense)


def elec4848_ds_published(*, size=256, width=32, depth=4):
    """The same with the first convolution of every encoder block dense, which is most likely what
    was published; 2.57 M parameters, 3.08 GMAC."""
    network = elec4848_ds(size=size, width=width, depth=depth,
                          dense=[f"e{level}a" for level in range(1, depth + 2)])
    network.name = "elec4848-ds-published"
    return network


def elec4848_classes(*, size=256, width=32, depth=4):
    """The dense network with a logit per class of BUSI: benign lesions, and malignant ones."""
    return Elec4848(size=size, width=width, depth=depth, classes=CLASSES)
