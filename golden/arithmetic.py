"""The arithmetic contract: every operation of the engine, exact, in PyTorch integers.

Dimensions: ``C`` channels, ``H`` rows, ``W`` columns, ``O`` output channels, ``I`` input channels,
``K`` and ``L`` kernel rows and columns. The same contract as text is in ``golden/README.md``.
"""

import math

import torch
import torch.nn.functional as F

__all__ = ["add", "concat", "convolve", "convolve_transposed", "gate", "interpolate", "lines",
           "lookup", "max_pool", "requantise", "upsample", "weighted_sum"]

# Every integer of magnitude below this has an exact float32; so have all partial sums below it.
EXACT_FLOAT32 = 1 << 24


def requantise(acc_CHW, multiplier_C, shift_C, *, zero_point, low, high):
    """``clamp(((acc * m + 2**(s-1)) >> s) + zero_point, low, high)`` as uint8.

    ``>>`` rounds towards minus infinity, so halves round up: 0.5 to 1 and -0.5 to 0. Products take
    48 bits; ``acc_CHW`` is any integer dtype, and must hold values that fit int32. Bounds are
    numbers, or tensors with one for each channel.
    """
    m_C11 = multiplier_C.to(torch.int64)[:, None, None]
    s_C11 = shift_C.to(torch.int64)[:, None, None]
    half_C11 = torch.ones_like(s_C11) << (s_C11 - 1)
    y_CHW = acc_CHW.to(torch.int64) * m_C11
    y_CHW += half_C11
    y_CHW >>= s_C11
    y_CHW += zero_point
    if isinstance(low, torch.Tensor):
        low, high = (bound_C.to(torch.int64)[:, None, None] for bound_C in (low, high))
    return y_CHW.clamp_(low, high).to(torch.uint8)


def convolve(x_IHW, weight_OIKL, bias_O, *, zero_point, stride, padding, groups=1):
    """``sum(w * (x - zero_point)) + bias`` as exact int32.

    ``padding`` is ``(top, left, bottom, right)`` and inserts ``zero_point``, that is, a zero after
    the subtraction. ``groups`` is 1, or the number of channels: then channel ``c`` is convolved
    with ``weight[c, 0]`` alone. Sums run in float32 over groups of input channels so small that no
    partial sum can reach 2**24 in any order of addition; the groups are added as integers.
    """
    top, left, bottom, right = padding
    x_IHW = F.pad(x_IHW.to(torch.float32) - zero_point, (left, right, top, bottom))
    if groups > 1:
        _groups(weight_OIKL.to(torch.float32).abs().sum((2, 3)) * 255)      # refuses large kernels
        acc_OHW = F.conv2d(x_IHW[None], weight_OIKL.to(torch.float32), stride=stride,
                           groups=groups)[0].to(torch.int32)
        return acc_OHW.add_(bias_O.to(torch.int32)[:, None, None])
    return _in_exact_groups(
        x_IHW, weight_OIKL, bias_O,
        lambda part_IHW, part_OIKL: F.conv2d(part_IHW[None], part_OIKL, stride=stride)[0])


def convolve_transposed(x_IHW, weight_IOKL, bias_O, *, zero_point, padding):
    """Adds ``w * (x - zero_point)`` of pixel ``h, w`` at ``2h + k, 2w + l``, plus bias, as int32.

    ``padding`` is ``(top, left, bottom, right)`` cropped from the sums: ``2(H - 1) + K - top -
    bottom`` rows remain. Exact by the means of :func:`convolve`.
    """
    top, left, bottom, right = padding
    acc_OHW = _in_exact_groups(
        x_IHW.to(torch.float32) - zero_point, weight_IOKL.transpose(0, 1), bias_O,
        lambda part_IHW, part_OIKL: F.conv_transpose2d(
            part_IHW[None], part_OIKL.transpose(0, 1), stride=2)[0])
    rows, columns = acc_OHW.shape[1:]
    return acc_OHW[:, top:rows - bottom, left:columns - right].contiguous()


def _in_exact_groups(x_IHW, weight_OIKL, bias_O, convolution):
    """Integer sum of ``convolution`` over slices of input channels small enough to be exact."""
    reach_I = x_IHW.abs().amax((1, 2))
    cost_OI = weight_OIKL.to(torch.float32).abs().sum((2, 3)) * reach_I
    acc_OHW = None
    for group in _groups(cost_OI):
        part_OHW = convolution(x_IHW[group], weight_OIKL[:, group].to(torch.float32)).to(
            torch.int32)
        acc_OHW = part_OHW if acc_OHW is None else acc_OHW.add_(part_OHW)
    return acc_OHW.add_(bias_O.to(torch.int32)[:, None, None])


def _groups(cost_OI):
    """Split input channels into even slices over which every row of ``cost_OI`` stays exact."""
    channels = cost_OI.shape[1]
    for parts in range(1, channels + 1):
        step = -(-channels // parts)
        slices = [slice(start, min(start + step, channels)) for start in range(0, channels, step)]
        if all(cost_OI[:, part].sum(1).max() < EXACT_FLOAT32 for part in slices):
            return slices
    raise ValueError("One input channel alone exceeds 2**24, kernel too large for 8-bit operands")


def max_pool(x_CHW):
    """Largest of each 2x2 window; a last odd row or column is dropped."""
    return F.max_pool2d(x_CHW[None].to(torch.float32), 2)[0].to(x_CHW.dtype)


def upsample(x_CHW, mode="nearest"):
    """Twice the rows and columns.

    ``nearest`` makes each value a 2x2 block. ``linear`` has half-pixel centres: along either axis
    an output is 3/4 of the value that covers it and 1/4 of the next one on its other side, the edge
    repeated. Both axes are rounded as one: ``(9a + 3b + 3c + d + 8) >> 4``.
    """
    if mode == "nearest":
        return x_CHW.repeat_interleave(2, 1).repeat_interleave(2, 2)
    total_CHW = x_CHW.to(torch.int16)
    for axis in (1, 2):
        total_CHW = _three_to_one(total_CHW, axis)
    return ((total_CHW + 8) >> 4).to(x_CHW.dtype)


def _three_to_one(x_CHW, axis):
    """Twice as many values along an axis, each three times the nearest plus once the next."""
    length = x_CHW.shape[axis]
    index = torch.arange(length)
    before_CHW = x_CHW.index_select(axis, (index - 1).clamp(min=0))
    after_CHW = x_CHW.index_select(axis, (index + 1).clamp(max=length - 1))
    pairs = torch.stack([3 * x_CHW + before_CHW, 3 * x_CHW + after_CHW], axis + 1)
    return pairs.flatten(axis, axis + 1)


def lines(length, made, place):
    """Where each of ``made`` rows or columns lies among ``length``, after ONNX's ``place``.

    Returns, of each, the first of the two between which it lies, and how many ``parts`` of the way
    to the other; and ``parts``, as few as say all of them exactly.
    """
    number_M = torch.arange(made)
    way_M, parts = {
        "half_pixel":    ((2 * number_M + 1) * length - made, 2 * made),
        "align_corners": (number_M * (length - 1), max(made - 1, 1)),
        "asymmetric":    (number_M * length, made),
    }[place]
    way_M   = way_M.clamp(0, (length - 1) * parts)
    first_M = way_M.div(parts, rounding_mode="floor")
    part_M  = way_M - first_M * parts
    common  = math.gcd(parts, *part_M.tolist())
    return first_M, part_M // common, parts // common


def interpolate(x_CHW, axis, made, place, *, zero_point):
    """``made`` rows or columns (``axis``) for those that there are, linearly: ``(parts - part) * (a
    - zero_point) + part * (b - zero_point)`` of the two neighbours of each, as int32, with
    ``part`` and ``parts`` of :func:`lines`."""
    dim    = {"rows": 1, "columns": 2}[axis]
    length = x_CHW.shape[dim]
    first_M, part_M, parts = lines(length, made, place)
    x_CHW  = x_CHW.to(torch.int32) - zero_point
    a_CHW, b_CHW = (x_CHW.index_select(dim, index_M.clamp(max=length - 1))
                    for index_M in (first_M, first_M + 1))
    part_M = part_M.to(torch.int32).reshape([-1, 1][:3 - dim])
    return (parts - part_M) * a_CHW + part_M * b_CHW


def concat(xs_CHW):
    """Channels of the first operand, then of the second, and so on; no arithmetic."""
    return torch.cat(list(xs_CHW))


def add(a_CHW, b_CHW):
    """Exact sum of two uint8 tensors as int16, 0..510: no requantisation, no clamp."""
    return a_CHW.to(torch.int16) + b_CHW.to(torch.int16)


def weighted_sum(a_CHW, b_CHW, *, weights, zero_points):
    """``weights[0] * (a - zero_points[0]) + weights[1] * (b - zero_points[1])`` as int32."""
    a_CHW, b_CHW = (weight * (x_CHW.to(torch.int32) - zero_point) for x_CHW, weight, zero_point
                    in zip((a_CHW, b_CHW), weights, zero_points, strict=True))
    return a_CHW + b_CHW


def lookup(x_CHW, table):
    """``table[x]``, with 256 entries of uint8."""
    return table[x_CHW.to(torch.int32)]


def gate(alpha_AHW, skip_CHW, bias_C, multiplier_C, shift_C, *, zero_point, low, high,
         zero_points=(0, 0)):
    """``(alpha - Za) * (skip - Zs) + bias``, requantised (which folds batch norm).

    ``zero_points`` are those of alpha and skip. Alpha has one channel or as many as the skip, and
    is upsampled (nearest) where it has half the skip's rows and columns.
    """
    if alpha_AHW.shape[1:] != skip_CHW.shape[1:]:
        alpha_AHW = upsample(alpha_AHW)
    acc_CHW = ((alpha_AHW.to(torch.int32) - zero_points[0])
               * (skip_CHW.to(torch.int32) - zero_points[1]))
    acc_CHW += bias_C.to(torch.int32)[:, None, None]
    return requantise(acc_CHW, multiplier_C, shift_C, zero_point=zero_point, low=low, high=high)
