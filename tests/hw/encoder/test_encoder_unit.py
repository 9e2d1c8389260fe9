# amaranth: UnusedElaboratable=no
"""A pooled row through a convolution, from on-chip memory to on-chip memory."""

import numpy as np

from hw.encoder.unit import EncoderUnit
from hw.isa import FillMode, LoadTarget, Opcode, Target
from tests.hw.models import watch
from tests.hw.units import PARAMS, V, load, machine, permutation, run, simulate


def test_encoder_row_from_onchip_to_onchip():
    rng    = np.random.default_rng(4)
    dut    = EncoderUnit(machine())
    onchip = rng.integers(0, 256, (512, V), dtype=np.uint8)
    beats, order = permutation(rng)
    landed, taps = {}, []

    async def drive(ctx):
        await load(ctx, dut, LoadTarget.WEIGHTS, beats)
        await load(ctx, dut, LoadTarget.PARAMS, PARAMS)
        await run(ctx, dut.fill, Opcode.FILL, layer=1, mode=FillMode.POOL, src_base=50,
                  src_base2=70, width=14, vectors=1, dst_stride=1)
        await run(ctx, dut.conv, Opcode.LAYER, slot=9, vectors=1, kernel_h=1, kernel_w=1, high=255,
                  width_in=7, width_out=7, out_stride=2, target=Target.ONCHIP)
        await run(ctx, dut.conv, Opcode.CONV, slot=9, layer=2, groups=2, out_base=300,
                  rows=[{"valid": 1, "base": 0}, {}, {}])

    def note(fill, conv):
        taps.extend(["fill"] * fill + ["conv"] * conv)

    simulate(dut, drive, onchip, landed, watch([dut.tap_fill.valid, dut.tap_conv.valid], note))
    assert taps == ["fill"] * 7 + ["conv"] * 7 * 2      # pixels, and two channel groups each
    pooled = np.maximum(onchip[50:64], onchip[70:84]).reshape(7, 2, V).max(axis=1)[:, order]
    assert landed == {300 + 2 * x: bytearray(pixel.tobytes()) for x, pixel in enumerate(pooled)}
