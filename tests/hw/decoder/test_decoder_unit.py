# amaranth: UnusedElaboratable=no
"""Gated rows in, feedback out and in again, and the way to on-chip memory."""

import numpy as np

from hw.decoder.unit import DecoderUnit
from hw.isa import Error, FillMode, LoadTarget, Opcode, Source, Target
from tests.hw.units import PARAMS, V, load, machine, permutation, run, simulate


def test_gated_row_through_feedback():
    rng   = np.random.default_rng(3)
    dut   = DecoderUnit(machine())
    gated = rng.integers(0, 256, (5, V), dtype=np.uint8)
    beats, order = permutation(rng)
    landed, seen = {}, []

    layer = dict(vectors=1, kernel_h=1, kernel_w=1, high=255, out_stride=1)
    row   = [{"valid": 1, "base": 8}, {}, {}]

    async def drive(ctx):
        await load(ctx, dut, LoadTarget.WEIGHTS, beats)
        await load(ctx, dut, LoadTarget.PARAMS, PARAMS)
        ctx.set(dut.gated.valid, 1)
        for x, pixel in enumerate(gated):
            ctx.set(dut.gated.p, {"bank": x % 4, "address": 8 + x // 4, "mask": 3,
                                  "data": int.from_bytes(pixel.tobytes(), "little")})
            await ctx.tick().until(dut.gated.ready)
        ctx.set(dut.gated.valid, 0)

        await run(ctx, dut.conv, Opcode.LAYER, slot=0, width_in=5, width_out=5,
                  target=Target.FEEDBACK, **layer)
        await run(ctx, dut.conv, Opcode.CONV, slot=0, groups=2, out_base=40, rows=row)

        # The attention unit's port and the decoder's own fill read the same row at the same time.
        ctx.set(dut.fill.i.p.fill, {"opcode": Opcode.FILL, "source": Source.FEEDBACK,
                                    "mode": FillMode.UP, "src_base": 40, "width": 5,
                                    "vectors": 1, "dst_base": 8, "dst_stride": 1})
        ctx.set(dut.fill.i.valid, 1)
        asked = 0
        retired = False
        while not retired or len(seen) < 5:
            ctx.set(dut.feedback.address.valid, asked < 5)
            ctx.set(dut.feedback.address.p, 40 + asked)
            if ctx.get(dut.feedback.data_valid):
                seen.append(ctx.get(dut.feedback.data).to_bytes(V, "little"))
            taken    = asked < 5 and ctx.get(dut.feedback.address.ready)
            retired |= bool(ctx.get(dut.fill.i.ready))
            await ctx.tick()
            asked += taken
            ctx.set(dut.fill.i.valid, not retired)
        assert ctx.get(dut.fill.error) == Error.NONE

        await run(ctx, dut.conv, Opcode.LAYER, slot=1, width_in=10, width_out=10,
                  target=Target.ONCHIP, **layer)
        await run(ctx, dut.conv, Opcode.CONV, slot=1, groups=2, out_base=100, rows=row)

    simulate(dut, drive, np.zeros((512, V), np.uint8), landed)
    once  = gated[:, order]
    twice = once.repeat(2, axis=0)[:, order]
    assert seen == [pixel.tobytes() for pixel in once]
    assert landed == {100 + x: bytearray(pixel.tobytes()) for x, pixel in enumerate(twice)}
