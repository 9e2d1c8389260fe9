"""Parts that several networks share. Blocks write the tensors they make into a trace."""

import torch.nn.functional as F
from torch import nn

__all__ = ["ConvNormBlock", "upsample"]


class ConvNormBlock(nn.Module):
    """Twice conv3x3, batch normalisation, ReLU."""

    def __init__(self, inputs, filters, *, bias=True, eps=1e-5):
        super().__init__()
        self.a = nn.Conv2d(inputs, filters, 3, padding=1, bias=bias)
        self.a_norm = nn.BatchNorm2d(filters, eps=eps)
        self.b = nn.Conv2d(filters, filters, 3, padding=1, bias=bias)
        self.b_norm = nn.BatchNorm2d(filters, eps=eps)

    def forward(self, t, first, last, x_NCHW):
        """Write both results under the names given; return the second."""
        t[first] = F.relu(self.a_norm(self.a(x_NCHW)))
        t[last] = F.relu(self.b_norm(self.b(t[first])))
        return t[last]


def upsample(x_NCHW, mode="nearest"):
    """Twice the rows and columns; ``bilinear`` has half-pixel centres and clamped edges."""
    return F.interpolate(x_NCHW, scale_factor=2, mode=mode)
