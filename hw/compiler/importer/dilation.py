"""Kernels with pixels between their weights, as what the engine has: zeros between them, or, where
these reach too far, maps that are moved beforehand.
"""

import numpy as np

from golden.integer import Concat
from hw.compiler.importer.layers import LARGEST_KERNEL, UNPLACED, copying

FURTHEST = LARGEST_KERNEL - 1       # rows or columns by which one convolution moves a map


def met(side, kernel, dilation, before, after):
    """Of weights along a side those that meet a pixel of the map at all, as a range, and the pads
    with which they alone make as many outputs; all of them if these would be no pads."""
    outputs = side + before + after - (kernel - 1) * dilation
    found   = [index for index in range(kernel)
               if index * dilation - before < side
               and outputs - 1 + index * dilation - before >= 0]
    first, last = (found[0], found[-1]) if found else (0, kernel - 1)
    pads = before - first * dilation, after - (kernel - 1 - last) * dilation
    if min(pads) < 0:
        return range(kernel), (before, after)
    return range(first, last + 1), pads


def with_zeros(whole, dilations):
    """Weights with zeros between them."""
    rows, columns = ((k - 1) * x + 1 for k, x in zip(whole.shape[2:], dilations, strict=True))
    wide = np.zeros((*whole.shape[:2], rows, columns), whole.dtype)
    wide[:, :, ::dilations[0], ::dilations[1]] = whole
    return wide


def moved_apart(builder, source, whole, dilations, pads):
    """A tensor in which what weights that reach too far meet lies side by side in channels, once
    for each of them along such a side; and the weights and pads of the convolution that is left.
    It makes as many rows and columns as the source has."""
    far   = [(k - 1) * x + 1 > LARGEST_KERNEL
             for k, x in zip(whole.shape[2:], dilations, strict=True)]
    taps  = [range(k) if is_far else range(1)
             for k, is_far in zip(whole.shape[2:], far, strict=True)]
    parts, pieces = [], []
    for row in taps[0]:
        for column in taps[1]:
            start = [index * dilation - pad if is_far else 0 for index, dilation, pad, is_far
                     in zip((row, column), dilations, pads[:2], far, strict=True)]
            parts.append(_moved(builder, source, np.array(start)))
            pieces.append(whole[:, :, *(slice(index, index + 1) if is_far else slice(None)
                                        for index, is_far in zip((row, column), far,
                                                                 strict=True))])
    t = builder.tensors[source]
    name = builder.put(Concat(builder.fresh(f"{source}_apart"), tuple(parts), UNPLACED),
                       (t.scale, t.zero_point))
    left = with_zeros(np.concatenate(pieces, 1),
                      [1 if is_far else x for x, is_far in zip(dilations, far, strict=True)])
    return name, left, tuple(0 if is_far else pad
                             for pad, is_far in zip(pads, far * 2, strict=True))


def _moved(builder, source, start):
    """A map from another row and column on, zeros beyond its end, in steps of one convolution."""
    name = source
    while np.any(start):
        step   = np.clip(start, -FURTHEST, FURTHEST)
        t      = builder.tensors[name]
        kernel = np.abs(step) + 1
        weight = np.zeros((t.channels, 1, *kernel), np.int64)
        weight[:, :, *np.maximum(step, 0)] = 1
        made   = copying(builder.fresh(f"{source}_moved"), name, weight, groups=t.channels,
                         padding=(*np.maximum(-step, 0), *np.maximum(step, 0)))
        name   = builder.put(made, (t.scale, t.zero_point))
        start  = start - step
    return name
