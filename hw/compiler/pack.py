"""Weights and requantisation as the bytes that the units load."""

from dataclasses import dataclass

import numpy as np

from hw.compiler.emit import encode_layout
from hw.compiler.errors import CompileError
from hw.isa import Requant

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Packed:
    """One layer's parameters. Groups of output channels follow each other in both blobs, so a run
    of groups is a slice: ``group_words`` weight words, and one parameter word, each."""
    weights:     bytes
    params:      bytes
    vectors:     int        # input vectors per pixel
    groups:      int
    group_words: int


def padded_channels(operands, vector):
    """Position of every channel when each operand starts at a fresh vector; and the total."""
    positions, base = [], 0
    for channels in operands:
        positions += range(base, base + channels)
        base += -(-channels // vector) * vector
    return np.array(positions), base


def pack_layer(layer, *, vector, outputs):
    """Pack a :class:`hw.compiler.lower.Layer` for a unit of ``outputs`` output channels a step.

    The weights of input zero points are folded into the bias: padding inserts the zero point, so
    ``sum w * (x - zero) + bias == sum w * x + (bias - zero * sum w)`` at the borders as well.
    """
    conv      = layer.conv
    weight    = conv.weight.numpy()
    out_channels, _, _, kernel_w = weight.shape
    groups    = -(-out_channels // outputs)
    positions, channels = padded_channels(layer.operands, vector)

    padded = np.zeros((groups * outputs, channels, *weight.shape[2:]), np.int8)
    padded[:out_channels, positions] = weight
    padded = np.concatenate([padded] * layer.summed, axis=2)
    vectors, kernel_h = channels // vector, padded.shape[2]
    # group, output, vector, lane, ky, kx  ->  group, ky, kx, vector, output, lane
    words = padded.reshape(groups, outputs, vectors, vector, kernel_h, kernel_w)
    words = np.ascontiguousarray(words.transpose(0, 4, 5, 2, 1, 3))

    bias = (conv.bias.numpy().astype(np.int64)
            - layer.source.zero_point * weight.astype(np.int64).sum(axis=(1, 2, 3)))
    return Packed(words.tobytes(), pack_requant(conv.name, bias, conv.multiplier, conv.shift,
                                                channels=groups * outputs, vector=vector),
                  vectors, groups, kernel_h * kernel_w * vectors)


def pack_requant(name, bias, multiplier, shift, *, channels, vector):
    """One vector per channel, its low 64 bits a :class:`hw.isa.Requant`; padding channels give
    their zero point."""
    if bias.min() < INT32.min or bias.max() > INT32.max:
        raise CompileError(f"Layer {name!r} has a folded bias of {int(abs(bias).max())}, beyond "
                           "32 bits; quantise it with a larger input scale")
    blob = b""
    for index in range(channels):
        fields = {"bias": 0, "multiplier": 0, "shift": 1}
        if index < len(bias):
            fields = {"bias": int(bias[index]) & 0xFFFFFFFF,
                      "multiplier": int(multiplier[index]) & 0xFFFF, "shift": int(shift[index])}
        blob += encode_layout(Requant, fields).to_bytes(vector, "little")
    return blob
