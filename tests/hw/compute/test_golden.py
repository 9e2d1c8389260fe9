# amaranth: UnusedElaboratable=no
"""Whole maps through the convolution engine, row by row, against :mod:`golden.arithmetic`."""

from itertools import product

import numpy as np
import pytest
import torch

from golden import arithmetic
from hw.isa import KERNEL_ROWS, Error, Opcode, Target
from tests.hw.compute.bench import Bench

VECTOR = 8
ZERO   = 131          # zero point of the input
LIMITS = {"zero_point": 97, "low": 3, "high": 250}


class Machine:
    """An engine with a map in its row memory, and a program of convolutions over it."""

    def __init__(self, x_CHW, **sizes):
        self.bench   = Bench("decoder", vector=VECTOR, **{"weight_words": 1024, **sizes})
        self.unit    = self.bench.unit
        self.channels, self.height, self.width = x_CHW.shape
        self.vectors = self.channels // VECTOR
        self.words, self.groups = 0, 0          # of weights and parameters in use
        self.program = []
        self.span    = -(-self.width // self.unit.banks) * self.vectors
        words_HWV    = x_CHW.permute(1, 2, 0).reshape(self.height, self.width, self.vectors, VECTOR)
        for y, x in product(range(self.height), range(self.width)):
            at = y * self.span + x // self.unit.banks * self.vectors
            self.bench.memory["row"][x % self.unit.banks, at:at + self.vectors] = words_HWV[y, x]

    def load(self, words, bias, multiplier, shift):
        """Weight words and parameters of every channel; where both begin."""
        start = {"weight_base": self.words, "param_base": self.groups}
        self.bench.weights[self.words:self.words + len(words)] = words
        requants = list(zip(bias.tolist(), multiplier.tolist(), shift.tolist(), strict=True))
        outputs  = self.unit.outputs
        for at in range(0, len(requants), outputs):
            self.bench.params[self.groups + at // outputs] = requants[at:at + outputs]
        self.words  += len(words)
        self.groups += len(requants) // outputs
        return start

    def layer(self, **fields):
        self.program.append((Opcode.LAYER, {
            "slot": 1, "vectors": self.vectors, "stride2": 0, "width_in": self.width,
            "zero_in": ZERO, "zero_out": LIMITS["zero_point"], "low": LIMITS["low"],
            "high": LIMITS["high"], "target": Target.ONCHIP, "packed": 0, "table": 0, "clamp": 0,
            "depthwise": 0, "spread": 0, "odd": 0, **fields}))

    def conv(self, ys, **fields):
        """One output row, of the input rows ``ys``; those outside the map are padding."""
        rows = [{"valid": int(0 <= y < self.height), "base": y * self.span
                 if 0 <= y < self.height else 0} for y in ys]
        rows += [{"valid": 0, "base": 0}] * (7 - len(rows))
        if len(ys) > KERNEL_ROWS:
            self.program.append((Opcode.ROWS, {"rows": rows[KERNEL_ROWS:]}))
        self.program.append((Opcode.CONV, {"slot": 1, "layer": 0, "row": 0, "first": 0,
                                           "alpha_base": 0, "rows": rows[:KERNEL_ROWS], **fields}))

    def run(self, channels, height, width):
        """The map at the start of on-chip memory after the program, channels first."""
        async def work(ctx):
            for opcode, fields in self.program:
                _, error = await self.bench.run(ctx, opcode, fields)
                assert error == Error.NONE

        self.bench.simulate(work)
        size = height * width * channels // VECTOR
        out  = torch.from_numpy(self.bench.memory["onchip"][:size].copy())
        return out.reshape(height, width, channels).permute(2, 0, 1)


def folded(bias, weight, axes):
    """``bias`` less what the input's zero point adds to every sum."""
    return bias - ZERO * weight.to(torch.int64).sum(axes)


def dense_words(weight_OIKL, outputs):
    """Weight words in the order of the array's steps."""
    groups, vectors = weight_OIKL.shape[0] // outputs, weight_OIKL.shape[1] // VECTOR
    words = weight_OIKL.reshape(groups, outputs, vectors, VECTOR, *weight_OIKL.shape[2:])
    return words.permute(0, 4, 5, 2, 1, 3).reshape(-1, outputs, VECTOR).numpy()


def depthwise_words(weight_CKL, unit, stride):
    """The same, of a depthwise layer."""
    channels, rows, columns = weight_CKL.shape
    width  = unit.depthwise_taps(stride)
    chunks = -(-columns // width)
    words  = np.zeros((channels // VECTOR, rows, chunks, unit.outputs, VECTOR), np.int8)
    for kx in range(columns):
        words[:, :, kx // width, kx % width] = (
            weight_CKL[:, :, kx].reshape(-1, VECTOR, rows).permute(0, 2, 1))
    return words.reshape(-1, unit.outputs, VECTOR)


def draw(seed, x_shape, weight_shape, channels, reach):
    """Random operands whose sums of about ``reach`` products spread over the bytes."""
    random = torch.Generator().manual_seed(seed)

    def integers(low, high, shape, dtype):
        return torch.randint(low, high, shape, generator=random, dtype=dtype)

    shift = 14 + int(np.log2(40 * np.sqrt(reach)))
    return (integers(0, 256, x_shape, torch.uint8), integers(-127, 128, weight_shape, torch.int8),
            integers(-4000, 4000, (channels,), torch.int32),
            integers(2**14, 2**15, (channels,), torch.int16),
            integers(shift, shift + 2, (channels,), torch.uint8))


UNITS = [dict(pixels=1, outputs=1, drain=1), dict(pixels=1, outputs=8, drain=8),
         dict(pixels=2, outputs=2, drain=2), dict(pixels=2, outputs=4, drain=8),
         dict(pixels=4, outputs=4, drain=8)]
KERNELS = [(3, 3, 1), (3, 3, 2), (5, 5, 1), (7, 7, 2), (1, 1, 1), (2, 4, 1), (2, 2, 2)]


@pytest.mark.parametrize("kernel", KERNELS, ids="{0[0]}x{0[1]}/{0[2]}".format)
@pytest.mark.parametrize("sizes", UNITS, ids="{0[pixels]}x{0[outputs]}".format)
@pytest.mark.parametrize("depthwise", [True, False], ids=["depthwise", "dense"])
def test_convolution(kernel, sizes, depthwise):
    rows, columns, stride = kernel
    shape = (16, 1, rows, columns) if depthwise else (8, 16, rows, columns)
    x_CHW, weight, bias, multiplier, shift = draw(
        rows * columns, (16, 3, 11), shape, shape[0], rows * columns * shape[1])
    padding = (rows // 2, columns // 2, (rows - 1) // 2, (columns - 1) // 2)
    acc_CHW = arithmetic.convolve(x_CHW, weight, bias, zero_point=ZERO, stride=stride,
                                  padding=padding, groups=16 if depthwise else 1)
    wanted = arithmetic.requantise(acc_CHW, multiplier, shift, **LIMITS)
    assert wanted.to(torch.float64).std() > 20, "the result must not be flat"

    machine = Machine(x_CHW, **sizes)
    words   = (depthwise_words(weight[:, 0], machine.unit, stride) if depthwise
               else dense_words(weight, machine.unit.outputs))
    start   = machine.load(words, folded(bias, weight, (1, 2, 3)), multiplier, shift)
    channels, height, width = wanted.shape
    machine.layer(kernel_h=rows, kernel_w=columns, stride2=stride - 1, pad_left=padding[1],
                  width_out=width, out_stride=channels // VECTOR, depthwise=int(depthwise))
    for y in range(height):
        top = y * stride - padding[0]
        machine.conv(range(top, top + rows), out_base=y * width * channels // VECTOR,
                     groups=channels // (VECTOR if depthwise else machine.unit.outputs), **start)
    assert torch.equal(machine.run(channels, height, width), wanted)


@pytest.mark.parametrize("width", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("sizes", UNITS, ids="{0[pixels]}x{0[outputs]}".format)
def test_linear_upsampling(sizes, width):
    """Four depthwise 2x2 convolutions that clamp at the edges, each for a quarter of the pixels."""
    x_CHW, *_ = draw(width, (16, 3, width), (1,), 1, 1)
    wanted    = arithmetic.upsample(x_CHW, "linear")
    machine   = Machine(x_CHW, **sizes)
    weights   = {0: (1, 3), 1: (3, 1)}
    for row_odd, odd in product((0, 1), (0, 1)):
        weight = torch.tensor([[[a * b for b in weights[odd]] for a in weights[row_odd]]] * 16,
                              dtype=torch.int8)
        ones   = torch.ones(16, dtype=torch.int64)
        start  = machine.load(depthwise_words(weight, machine.unit, 1), 0 * ones, ones, 4 * ones)
        machine.layer(kernel_h=2, kernel_w=2, pad_left=1 - odd, width_out=width, out_stride=2,
                      depthwise=1, spread=1, odd=odd, clamp=1, zero_out=0, low=0, high=255)
        for y in range(3):
            above = y - 1 + row_odd
            machine.conv([max(above, 0), min(above + 1, 2)], groups=2,
                         out_base=(2 * y + row_odd) * 2 * width * 2, **start)
    assert torch.equal(machine.run(16, 6, 2 * width), wanted)


@pytest.mark.parametrize("sizes", UNITS, ids="{0[pixels]}x{0[outputs]}".format)
def test_transposed_convolution(sizes):
    """Kernel 3, stride 2: four convolutions of one or two rows and columns, for a quarter each."""
    x_CHW, weight, bias, multiplier, shift = draw(7, (16, 4, 7), (16, 8, 3, 3), 8, 36)
    acc_CHW = arithmetic.convolve_transposed(x_CHW, weight, bias, zero_point=ZERO,
                                             padding=(1, 1, 0, 0))
    wanted  = arithmetic.requantise(acc_CHW, multiplier, shift, **LIMITS)
    assert wanted.shape == (8, 8, 14) and wanted.to(torch.float64).std() > 20

    machine = Machine(x_CHW, **sizes)
    taps    = {0: [1], 1: [2, 0]}               # of the kernel, for even and odd results
    for row_odd, odd in product((0, 1), (0, 1)):
        part  = weight.transpose(0, 1)[:, :, taps[row_odd]][:, :, :, taps[odd]]
        start = machine.load(dense_words(part, machine.unit.outputs),
                             folded(bias, part, (1, 2, 3)), multiplier, shift)
        machine.layer(kernel_h=1 + row_odd, kernel_w=1 + odd, pad_left=0, width_out=7,
                      out_stride=1, spread=1, odd=odd)
        for y in range(4):
            machine.conv(range(y, y + 1 + row_odd), groups=8 // machine.unit.outputs,
                         out_base=(2 * y + row_odd) * 14, **start)
    assert torch.equal(machine.run(8, 8, 14), wanted)
