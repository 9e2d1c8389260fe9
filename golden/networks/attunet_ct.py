"""The Attention U-Net for pancreas CT: normalisation after ReLU, gates of one width, one alpha.

Source: OpenGenus, "Attention U-Net", whose Keras code builds it for frames of 224 x 224 x 3 with 32
filters (after Oktay et al., arXiv:1804.03999). Followed layer by layer: twice conv3x3, ReLU and
then batch normalisation per block; gates of two 1x1 convolutions, stride 2 on the skip, each with
ReLU and with twice the network's first filters in all of them, their sum, a 1x1 convolution with
sigmoid, nearest upsampling, product with the skip; the decoder concatenates gated skip and nearest
upsampled signal; a 1x1 convolution with batch normalisation and sigmoid at the end. Keras' epsilon
of 1e-3.

Left out is what changes nothing: the source's ReLU of the sum, whose operands are not negative, and
its repetition of alpha for every channel.
"""

import torch
import torch.nn.functional as F
from torch import nn

from golden.networks.base import Network
from golden.networks.blocks import upsample

__all__ = ["AttUNetCT"]

KERAS_EPS = 1e-3


class Block(nn.Module):
    """Twice conv3x3, ReLU, batch normalisation."""

    def __init__(self, inputs, filters):
        super().__init__()
        self.a = nn.Conv2d(inputs, filters, 3, padding=1)
        self.a_norm = nn.BatchNorm2d(filters, eps=KERAS_EPS)
        self.b = nn.Conv2d(filters, filters, 3, padding=1)
        self.b_norm = nn.BatchNorm2d(filters, eps=KERAS_EPS)

    def forward(self, t, first, last, x_NCHW):
        """Write both results under the names given; return the second."""
        t[first] = self.a_norm(F.relu(self.a(x_NCHW)))
        t[last] = self.b_norm(F.relu(self.b(t[first])))
        return t[last]


class AttentionGate(nn.Module):
    """Weighs a skip, all channels alike, at half its resolution."""

    def __init__(self, gating, filters, inner):
        super().__init__()
        self.normal = nn.Conv2d(gating, inner, 1)
        self.down = nn.Conv2d(filters, inner, 1, stride=2)
        self.learn = nn.Conv2d(inner, 1, 1)

    def forward(self, t, i, gating_NCHW, skip_NCHW):
        """Write every tensor of gate ``i``; return the gated skip."""
        t[f"g{i}_normal"] = F.relu(self.normal(gating_NCHW))
        t[f"g{i}_down"] = F.relu(self.down(skip_NCHW))
        t[f"g{i}_sum"] = t[f"g{i}_normal"] + t[f"g{i}_down"]
        t[f"g{i}_logit"] = self.learn(t[f"g{i}_sum"])
        t[f"alpha{i}"] = torch.sigmoid(t[f"g{i}_logit"])
        t[f"gated{i}"] = upsample(t[f"alpha{i}"]) * skip_NCHW
        return t[f"gated{i}"]


class AttUNetCT(Network):
    """The Attention U-Net for CT; 7.95 M parameters and 10.83 GMAC at 224 and 32."""

    name = "attunet-ct"

    def __init__(self, *, size=224, width=32, depth=4):
        super().__init__(size=size, width=width, depth=depth)
        filters = self.filters
        self.encoder = nn.ModuleList(
            Block(inputs, f) for inputs, f in zip([3, *filters], filters, strict=False))
        skips = filters[-2::-1]
        self.gates = nn.ModuleList(AttentionGate(2 * f, f, 2 * width) for f in skips)
        self.decoder = nn.ModuleList(Block(3 * f, f) for f in skips)
        self.final = nn.Conv2d(width, 1, 1)
        self.final_norm = nn.BatchNorm2d(1, eps=KERAS_EPS)

    def trace(self, frame_N3HW):
        """Every named tensor of the network, in the order of computation."""
        t = {"image": frame_N3HW}
        x = frame_N3HW
        for level, block in enumerate(self.encoder, 1):
            x = block(t, f"e{level}a", self.last_of(level), x)
            if level <= self.depth:
                x = t[f"p{level}"] = F.max_pool2d(x, 2)
        for i, (gate, block) in enumerate(zip(self.gates, self.decoder, strict=True), 1):
            gate(t, i, x, t[f"c{self.depth + 1 - i}"])
            t[f"d{i}_up"] = upsample(x)
            t[f"d{i}_concat"] = torch.cat([t[f"gated{i}"], t[f"d{i}_up"]], 1)
            x = block(t, f"d{i}a", f"d{i}", t[f"d{i}_concat"])
        t["logit"] = self.final_norm(self.final(x))
        t["mask"] = torch.sigmoid(t["logit"])
        return t
