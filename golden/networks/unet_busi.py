"""A plain U-Net: two 3x3 convolutions per level, batch normalisation, transposed convolutions.

Source: github.com/mateuszbuda/brain-segmentation-pytorch, ``unet.py`` (M. Buda, A. Saha, M. A.
Mazurowski, Computers in Biology and Medicine 109, 2019), with its defaults: ``init_features=32``,
3x3 convolutions without bias, 2x2 transposed convolutions with bias, concatenation of upsampled
signal and skip, sigmoid after a 1x1 convolution. Here it takes BUSI frames of 224 x 224.
"""

import torch
import torch.nn.functional as F
from torch import nn

from golden.networks.base import Network
from golden.networks.blocks import ConvNormBlock

__all__ = ["UNetBusi"]


class DecoderBlock(ConvNormBlock):
    """A transposed 2x2 convolution that halves the filters, and a block on both halves."""

    def __init__(self, filters):
        super().__init__(2 * filters, filters, bias=False)
        self.up = nn.ConvTranspose2d(2 * filters, filters, 2, stride=2)


class UNetBusi(Network):
    """The U-Net of Buda et al.; 7.77 M parameters and 9.24 GMAC at 224 and 32."""

    name = "unet-busi"

    def __init__(self, *, size=224, width=32, depth=4):
        super().__init__(size=size, width=width, depth=depth)
        filters = self.filters
        self.encoder = nn.ModuleList(
            ConvNormBlock(inputs, f, bias=False)
            for inputs, f in zip([3, *filters], filters, strict=False))
        self.gates = nn.ModuleList()
        self.decoder = nn.ModuleList(DecoderBlock(f) for f in reversed(filters[:-1]))
        self.final = nn.Conv2d(width, 1, 1)

    def trace(self, frame_N3HW):
        """Every named tensor of the network, in the order of computation."""
        t = {"image": frame_N3HW}
        x = frame_N3HW
        for level, block in enumerate(self.encoder, 1):
            x = block(t, f"e{level}a", self.last_of(level), x)
            if level <= self.depth:
                x = t[f"p{level}"] = F.max_pool2d(x, 2)
        for i, block in enumerate(self.decoder, 1):
            t[f"d{i}_up"] = block.up(x)
            t[f"d{i}_concat"] = torch.cat([t[f"d{i}_up"], t[f"c{self.depth + 1 - i}"]], 1)
            x = block(t, f"d{i}a", f"d{i}", t[f"d{i}_concat"])
        t["logit"] = self.final(x)
        t["mask"] = torch.sigmoid(t["logit"])
        return t
