"""The arithmetic contract: every operation of the engine, exact, in PyTorch integers.

Dimensions: ``C`` channels, ``H`` rows, ``W`` columns, ``O`` output channels, ``I`` input channels,
``K`` and ``L`` kernel rows and columns. The same contract as text is in ``golden/README.md``.
"""

import torch
import torch.nn.functional as F

__all__ = ["add", "concat", "convolve", "gate", "lookup", "max_pool", "requantise", "upsample"]

# Every integer of magnitude below this has an exact float32; so have all partial sums below it.
EXACT_FLOAT32 = 1 << 24


def requantise(acc_CHW, multiplier_C, shift_C, *, zero_point, low, high):
    """``clamp(((acc * m + 2**(s-1)) >> s) + zero_point, low, high)`` as uint8.

    ``>>`` rounds towards minus infinity, so halves round up: 0.5 to 1 and -0.5 to 0. Products take
    48 bits; ``acc_CHW`` is any integer dtype, and must hold values that fit int32.
    """
    m_C11 = multiplier_C.to(torch.int64)[:, None, None]
    s_C11 = shift_C.to(torch.int64)[:, None, None]
    half_C11 = torch.ones_like(s_C11) << (s_C11 - 1)
    y_CHW = acc_CHW.to(torch.int64) * m_C11
    y_CHW += half_C11
    y_CHW >>= s_C11
    y_CHW += zero_point
    return y_CHW.clamp_(low, high).to(torch.uint8)


def convolve(x_IHW, weight_OIKL, bias_O, *, zero_point, stride, padding):
    """``sum(w * (x - zero_point)) + bias`` as exact int32.

    ``padding`` is ``(top, left, bottom, right)`` and inserts ``zero_point``, that is, a zero after
    the subtraction. Sums run in float32 over groups of input channels so small that no partial
    sum can reach 2**24 in any order of addition; the groups are added as integers.
    """
    top, left, bottom, right = padding
    x_IHW = F.pad(x_IHW.to(torch.float32) - zero_point, (left, right, top, bottom))
    reach_I = x_IHW.abs().amax((1, 2))
    cost_OI = weight_OIKL.to(torch.float32).abs().sum((2, 3)) * reach_I
    acc_OHW = None
    for group in _groups(cost_OI):
        part_OHW = F.conv2d(x_IHW[None, group], weight_OIKL[:, group].to(torch.float32),
                            stride=stride)[0].to(torch.int32)
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
    """Largest of each 2x2 window."""
    return F.max_pool2d(x_CHW[None].to(torch.float32), 2)[0].to(x_CHW.dtype)


def upsample(x_CHW):
    """Nearest neighbour x2: each value becomes a 2x2 block."""
    return x_CHW.repeat_interleave(2, 1).repeat_interleave(2, 2)


def concat(xs_CHW):
    """Channels of the first operand, then of the second, and so on; no arithmetic."""
    return torch.cat(list(xs_CHW))


def add(a_CHW, b_CHW):
    """Exact sum of two uint8 tensors as int16, 0..510: no requantisation, no clamp."""
    return a_CHW.to(torch.int16) + b_CHW.to(torch.int16)


def lookup(x_CHW, table):
    """``table[x]``, with 256 entries of uint8."""
    return table[x_CHW.to(torch.int32)]


def gate(alpha_1HW, skip_CHW, bias_C, multiplier_C, shift_C, *, zero_point, low, high):
    """Nearest-upsampled alpha times skip, plus bias, requantised (which folds batch norm).

    ``alpha_1HW`` has half the rows and columns of the skip; both have zero point 0.
    """
    acc_CHW = upsample(alpha_1HW).to(torch.int32) * skip_CHW.to(torch.int32)
    acc_CHW += bias_C.to(torch.int32)[:, None, None]
    return requantise(acc_CHW, multiplier_C, shift_C, zero_point=zero_point, low=low, high=high)
