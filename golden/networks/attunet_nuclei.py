"""An Attention U-Net for nuclei: gates at the skip's own resolution, one alpha per channel.

Source: github.com/nikhilroxtomar/Semantic-Segmentation-Architecture, ``attention-unet.py`` of its
folder ``TensorFlow`` (after Oktay et al., arXiv:1804.03999), with its filters 64, 128, 256, a
bottleneck of 512 and frames of 256 x 256 x 3. Followed layer by layer: conv3x3, batch
normalisation, ReLU, twice per level; bilinear upsampling; gates of two 1x1 convolutions, each with
batch normalisation, their sum with ReLU, and a 1x1 convolution with sigmoid that has as many
filters as the skip; concatenation of upsampled signal and gated skip. Keras' epsilon of 1e-3.

The project that describes it prints this code incompletely: its gate lacks the sigmoid, without
which it is no weight, and its third decoder block, ``d3``, is read but never made. Both are in the
repository.
"""

import torch
import torch.nn.functional as F
from torch import nn

from golden.networks.base import Network
from golden.networks.blocks import ConvNormBlock, upsample

__all__ = ["AttUNetNuclei"]

KERAS_EPS = 1e-3


class AttentionGate(nn.Module):
    """Weighs every channel of a skip by itself, at full resolution."""

    def __init__(self, gating, filters):
        super().__init__()
        self.normal = nn.Conv2d(gating, filters, 1)
        self.normal_norm = nn.BatchNorm2d(filters, eps=KERAS_EPS)
        self.skip = nn.Conv2d(filters, filters, 1)
        self.skip_norm = nn.BatchNorm2d(filters, eps=KERAS_EPS)
        self.learn = nn.Conv2d(filters, filters, 1)

    def forward(self, t, i, gating_NCHW, skip_NCHW):
        """Write every tensor of gate ``i``; return the gated skip."""
        t[f"g{i}_normal"] = self.normal_norm(self.normal(gating_NCHW))
        t[f"g{i}_skip"] = self.skip_norm(self.skip(skip_NCHW))
        t[f"g{i}_sum"] = F.relu(t[f"g{i}_normal"] + t[f"g{i}_skip"])
        t[f"g{i}_logit"] = self.learn(t[f"g{i}_sum"])
        t[f"alpha{i}"] = torch.sigmoid(t[f"g{i}_logit"])
        t[f"gated{i}"] = t[f"alpha{i}"] * skip_NCHW
        return t[f"gated{i}"]


class AttUNetNuclei(Network):
    """The Attention U-Net for nuclei; 8.14 M parameters and 45.62 GMAC at 256 and 64."""

    name = "attunet-nuclei"

    def __init__(self, *, size=256, width=64, depth=3):
        super().__init__(size=size, width=width, depth=depth)
        filters = self.filters
        self.encoder = nn.ModuleList(
            ConvNormBlock(inputs, f, eps=KERAS_EPS)
            for inputs, f in zip([3, *filters], filters, strict=False))
        skips = filters[-2::-1]
        self.gates = nn.ModuleList(AttentionGate(2 * f, f) for f in skips)
        self.decoder = nn.ModuleList(ConvNormBlock(3 * f, f, eps=KERAS_EPS) for f in skips)
        self.final = nn.Conv2d(width, 1, 1)

    def trace(self, frame_N3HW):
        """Every named tensor of the network, in the order of computation."""
        t = {"image": frame_N3HW}
        x = frame_N3HW
        for level, block in enumerate(self.encoder, 1):
            x = block(t, f"e{level}a", self.last_of(level), x)
            if level <= self.depth:
                x = t[f"p{level}"] = F.max_pool2d(x, 2)
        for i, (gate, block) in enumerate(zip(self.gates, self.decoder, strict=True), 1):
            t[f"d{i}_up"] = upsample(x, "bilinear")
            gate(t, i, t[f"d{i}_up"], t[f"c{self.depth + 1 - i}"])
            t[f"d{i}_concat"] = torch.cat([t[f"d{i}_up"], t[f"gated{i}"]], 1)
            x = block(t, f"d{i}a", f"d{i}", t[f"d{i}_concat"])
        t["logit"] = self.final(x)
        t["mask"] = torch.sigmoid(t["logit"])
        return t
