"""What every network has: its shape, its trace, and the unit of figure 10 that makes each tensor.
"""

import torch
from torch import nn

from golden.errors import InputError
from golden.names import check_shape

__all__ = ["Network"]


class Network(nn.Module):
    """A U-shaped segmentation network with ``depth`` poolings and ``width`` filters at the top.

    Takes frames in 0..1, N x 3 x H x W, of any size that is a multiple of ``frames_multiple``;
    ``size`` is the one it is meant for. Subclasses have the parts ``encoder`` (with the bottleneck
    last), ``gates``, ``decoder`` and ``final``, and a method `trace`.
    """

    name = ""
    classes = ()            # names, the background first, of what a mask tells apart; none: lesion
    pretrained = ()         # parts that come with weights

    def __init__(self, *, size, width, depth):
        super().__init__()
        if depth < 1:
            raise InputError(f"Network depth must be positive, not {depth!r}; "
                             "it is the number of poolings")
        self.size, self.width, self.depth = size, width, depth
        check_shape(size, width, self.frames_multiple)

    @property
    def frames_multiple(self):
        """Rows and columns of a frame are multiples of this: each pooling halves them exactly."""
        return 1 << self.depth

    @property
    def filters(self):
        """Filters per level, from the frame down to the bottleneck."""
        return [self.width << level for level in range(self.depth + 1)]

    @staticmethod
    def unit_of(tensor):
        """The unit of figure 10 that makes a tensor: encoder, attention or decoder."""
        if tensor.startswith(("g", "alpha")):
            return "attention"
        return "decoder" if tensor.startswith(("d", "logit", "mask")) else "encoder"

    def last_of(self, level):
        """Name of the tensor that ends an encoder level, counted from 1."""
        return "encoding" if level > self.depth else f"c{level}"

    def trace(self, frame_N3HW):
        """Every tensor that the integer graph holds, by name, in the order of computation.

        Batch normalisation and ReLU right after a convolution or a sum belong to it.
        """
        raise NotImplementedError

    def forward(self, frame_N3HW):
        """Logits of the mask: the sigmoid belongs to the loss in training."""
        return self.trace(frame_N3HW)["logit"]

    @torch.no_grad()
    def segment(self, image_CHW):
        """Probability mask, H x W in 0..1, of one uint8 frame."""
        self.eval()
        return self.trace(image_CHW[None].to(torch.float32) / 255)["mask"][0, 0]
