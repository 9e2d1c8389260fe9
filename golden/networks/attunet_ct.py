"""An Attention U-Net after the one for pancreas CT: gates at half resolution, one alpha for all.

Source: the gate of Oktay et al., arXiv:1804.03999, with 1x1 convolutions, stride 2 on the skip,
and one alpha for all channels. The run on CT that names filters 32..512 is known by its row in a
table only; layer order follows the closest public implementation, a PyTorch
``AttentionUNet`` with the layers ``enc1..4, center, att1..4, up1_conv..up4_conv,
concat_conv_1..4`` and half the widths. From there come: half the skip's filters inside a gate,
batch normalisation after every convolution but the last (in a gate too), nearest upsampling of
alpha and of the signal, a block before each upsampling that halves the filters, and concatenation
of gated skip first, upsampled signal second.
"""

import torch
import torch.nn.functional as F
from torch import nn

from golden.networks.base import Network
from golden.networks.blocks import ConvNormBlock, upsample

__all__ = ["AttUNetCT"]


class AttentionGate(nn.Module):
    """Weighs a skip, all channels alike, at half its resolution."""

    def __init__(self, gating, filters):
        super().__init__()
        inner = max(1, filters // 2)
        self.normal = nn.Conv2d(gating, inner, 1)
        self.normal_norm = nn.BatchNorm2d(inner)
        self.down = nn.Conv2d(filters, inner, 1, stride=2)
        self.down_norm = nn.BatchNorm2d(inner)
        self.learn = nn.Conv2d(inner, 1, 1)
        self.learn_norm = nn.BatchNorm2d(1)

    def forward(self, t, i, gating_NCHW, skip_NCHW):
        """Write every tensor of gate ``i``; return the gated skip."""
        t[f"g{i}_normal"] = self.normal_norm(self.normal(gating_NCHW))
        t[f"g{i}_down"] = self.down_norm(self.down(skip_NCHW))
        t[f"g{i}_sum"] = F.relu(t[f"g{i}_normal"] + t[f"g{i}_down"])
        t[f"g{i}_logit"] = self.learn_norm(self.learn(t[f"g{i}_sum"]))
        t[f"alpha{i}"] = torch.sigmoid(t[f"g{i}_logit"])
        t[f"gated{i}"] = upsample(t[f"alpha{i}"]) * skip_NCHW
        return t[f"gated{i}"]


class DecoderBlock(ConvNormBlock):
    """A block at low resolution that halves the filters, and one on skip and upsampled signal."""

    def __init__(self, filters):
        super().__init__(2 * filters, filters)
        self.before = ConvNormBlock(2 * filters, filters)


class AttUNetCT(Network):
    """The Attention U-Net after the one for CT; 9.56 M parameters and 10.30 GMAC at 224 and 32."""

    name = "attunet-ct"

    def __init__(self, *, size=224, width=32, depth=4):
        super().__init__(size=size, width=width, depth=depth)
        filters = self.filters
        self.encoder = nn.ModuleList(
            ConvNormBlock(inputs, f) for inputs, f in zip([3, *filters], filters, strict=False))
        skips = filters[-2::-1]
        self.gates = nn.ModuleList(AttentionGate(2 * f, f) for f in skips)
        self.decoder = nn.ModuleList(DecoderBlock(f) for f in skips)
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
            gate(t, i, x, t[f"c{self.depth + 1 - i}"])
            t[f"d{i}_up"] = upsample(block.before(t, f"d{i}_half_a", f"d{i}_half", x))
            t[f"d{i}_concat"] = torch.cat([t[f"gated{i}"], t[f"d{i}_up"]], 1)
            x = block(t, f"d{i}a", f"d{i}", t[f"d{i}_concat"])
        t["logit"] = self.final(x)
        t["mask"] = torch.sigmoid(t["logit"])
        return t
