"""Weights and requantisation as the bytes that the units load."""

from dataclasses import dataclass

import numpy as np

from hw.compiler.emit import encode_columns
from hw.compiler.errors import CompileError
from hw.compiler.ops import CEILING
from hw.compute.transform import COLUMNS
from hw.isa import Requant

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Packed:
    """The parameters of one part. Groups follow each other in both blobs, so a run of groups is a
    slice: ``group_words`` weight words and ``group_params`` parameter words each. A group is
    ``outputs`` output channels or, depthwise, one vector of channels. Of interpolation there are
    several turns of ``turn_words``, each with all groups."""
    weights:      bytes
    params:       bytes
    vectors:      int        # input vectors per pixel
    groups:       int
    group_words:  int
    group_params: int
    transformed:  bool = False
    turn_words:   int  = 0


def padded_channels(layout, vector):
    """Position of every channel when each run of them starts at a fresh vector; and the total."""
    runs, total = _runs(layout, vector)
    return np.concatenate([np.arange(base, base + channels) for base, channels in runs]), total


def _runs(layout, vector):
    """(position of the first, number) of each run of channels; and the total."""
    runs, base = [], 0
    for channels in layout:
        runs.append((base, channels))
        base += -(-channels // vector) * vector
    return runs, base


def pack_dense(name, part, *, layout, vector, outputs, transformed):
    """Pack a :class:`hw.compiler.ops.Part` for a unit of ``outputs`` output channels a step; the
    channels of its input lie as ``layout`` says. ``transformed``: for :mod:`hw.compute.transform`,
    which takes the columns of a vector together."""
    weight       = part.weight
    out_channels = weight.shape[0]
    groups       = -(-out_channels // outputs)
    runs, channels = _runs(layout, vector)

    padded = np.zeros((groups * outputs, channels, *weight.shape[2:]), np.int8)
    first  = 0
    for base, count in runs:
        padded[:out_channels, base:base + count] = weight[:, first:first + count]
        first += count
    vectors, (kernel_h, kernel_w) = channels // vector, weight.shape[2:]
    # group, output, vector, lane, ky, kx  ->  group, ky, kx, vector, output, lane; or vector, kx
    words = padded.reshape(groups, outputs, vectors, vector, kernel_h, kernel_w)
    if transformed:
        words = words[..., COLUMNS].transpose(0, 4, 2, 5, 1, 3)
    else:
        words = words.transpose(0, 4, 5, 2, 1, 3)
    words = np.ascontiguousarray(words)
    params = pack_requant(name, part.bias, part.multiplier, part.shift, part.bound,
                          positions=range(out_channels), channels=groups * outputs, vector=vector)
    return Packed(words.tobytes(), params, vectors, groups, kernel_h * kernel_w * vectors, 1,
                  transformed)


def pack_depthwise(name, part, *, layout, vector, outputs, taps):
    """The same for a depthwise part: ``taps`` kernel columns lie in the lanes of a word."""
    positions, channels = padded_channels(layout, vector)
    vectors = channels // vector
    kernel_h, kernel_w = part.weight.shape[2:]
    chunks  = -(-kernel_w // taps)

    columns = np.zeros((channels, kernel_h, chunks * taps), np.int8)
    columns[positions, :, :kernel_w] = part.weight[:, 0]
    # vector, lane, ky, chunk, tap  ->  vector, ky, chunk, tap, lane
    lanes = columns.reshape(vectors, vector, kernel_h, chunks, taps).transpose(0, 2, 3, 4, 1)
    words = np.zeros((vectors, kernel_h, chunks, outputs, vector), np.int8)
    words[:, :, :, :taps] = lanes
    params = pack_requant(name, part.bias, part.multiplier, part.shift, part.bound,
                          positions=positions, channels=channels, vector=vector)
    return Packed(words.tobytes(), params, vectors, vectors, kernel_h * chunks, vector // outputs)


def pack_lines(name, part, *, layout, vector, outputs, span):
    """The same for interpolation: weights and parameters for ``span`` vectors of a pixel at a time,
    alike for all channels."""
    turns, _, taps, _ = part.weight.shape
    words = np.zeros((turns, span, taps, outputs, vector), np.int8)
    words[:, :, :, 0] = part.weight[:, :, :, None, 0]
    channels = span * vector
    params   = pack_requant(name, part.bias, part.multiplier, part.shift,
                            positions=range(channels), channels=channels, vector=vector)
    return Packed(words.tobytes(), params, _runs(layout, vector)[1] // vector, span, turns * taps,
                  vector // outputs, turn_words=span * taps)


def pack_requant(name, bias, multiplier, shift, bound=None, *, positions, channels, vector):
    """One vector per channel, its low 64 bits a :class:`hw.isa.Requant`; channels without a
    position give their zero point. ``bound`` is as in :class:`hw.compiler.ops.Part`."""
    bias = np.asarray(bias, np.int64)
    if bias.min() < INT32.min or bias.max() > INT32.max:
        raise CompileError(f"Layer {name!r} has a folded bias of {int(abs(bias).max())}, beyond "
                           "32 bits; quantise it with a larger input scale")
    bound = np.zeros_like(bias) if bound is None else bound
    words = np.zeros((channels, vector // 8), np.uint64)
    words[:, :1] = encode_columns(Requant, {"bias": [0], "multiplier": [0], "shift": [1]})
    words[positions, :1] = encode_columns(Requant, {
        "bias": bias & 0xFFFFFFFF, "multiplier": np.asarray(multiplier, np.int64) & 0xFFFF,
        "shift": np.asarray(shift, np.int64), "bound": bound % CEILING,
        "ceiling": bound // CEILING})
    return words.astype("<u8").tobytes()
