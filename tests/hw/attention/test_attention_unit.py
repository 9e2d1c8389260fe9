# amaranth: UnusedElaboratable=no
"""One attention step through the whole unit: fetch, attention map, gate, announcement."""

from dataclasses import replace

import numpy as np
from amaranth.sim import Simulator

from hw.attention.unit import AttentionUnit
from hw.config import TINY, UnitConfig
from hw.isa import Error, FillMode, LoadTarget, Opcode, Requant, Source, Target
from tests.hw.models import RowModel, reader, sink, watch

WIDTH  = 10                       # of the skip; the attention map has half
VECTOR = 8
KIB    = 1024


def test_attention_step():
    unit   = UnitConfig(pixels=1, outputs=2, drain=4, row_words=64, weight_words=16, params=4)
    decode = UnitConfig(pixels=2, outputs=4, drain=4, row_words=64, weight_words=4, params=4)
    config = replace(TINY, vector=VECTOR, attention=unit, decoder=decode, encoder=decode,
                     gate_lanes=2, gate_param_words=8, alpha_words=8, onchip_bytes=4 * KIB,
                     feedback_bytes=2 * KIB)
    dut    = AttentionUnit(config)
    rng    = np.random.default_rng(5)
    skip, onchip, feedback = (
        np.frombuffer(rng.bytes(words * VECTOR), np.uint8).reshape(words, VECTOR)
        for words in (config.onchip_words, config.onchip_words, config.feedback_words))
    weights  = rng.integers(-128, 128, VECTOR)
    weights2 = rng.integers(-128, 128, VECTOR)
    gates    = [{"bias": int(rng.integers(-999, 999)), "multiplier": 1 << 14, "shift": 22}
                for _ in range(VECTOR)]
    written, events = {}, []
    row = RowModel(banks=decode.banks, depth=64, vector=VECTOR, lanes=2)
    gate_taps, fill_taps = [], []

    # alpha[x] = clamp((w @ feedback[x] + w2 @ pooled[x]) / 512 + 128): a kernel of two rows, whose
    # bases are the two operands.
    def expected():
        source  = onchip[100:100 + WIDTH].astype(int)
        other   = onchip[200:200 + WIDTH].astype(int)
        pooled  = np.maximum(source, other).reshape(WIDTH // 2, 2, VECTOR).max(axis=1)
        sums    = feedback[7:7 + WIDTH // 2].astype(int) @ weights + pooled @ weights2
        alpha   = np.clip(((sums * 2**14 + 2**22) >> 23) + 128, 0, 255)
        bias    = np.array([gate["bias"] for gate in gates])
        product = alpha.repeat(2)[:, None] * skip[30:30 + WIDTH].astype(int) + bias
        return alpha, np.clip((product * 2**14 + 2**21) >> 22, 0, 255)

    def word(values):
        return int.from_bytes(np.asarray(values, np.int64).astype(np.uint8).tobytes(), "little")

    async def load(ctx, target, beats):
        for index, beat in enumerate(beats):
            ctx.set(dut.load.p, {"target": target, "base": 0, "index": index, "data": beat})
            ctx.set(dut.load.valid, 1)
            await ctx.tick().until(dut.load.ready)
        ctx.set(dut.load.valid, 0)

    async def run(ctx, port, opcode, **fields):
        ctx.set(port.i.p, {opcode.name.lower(): {"opcode": opcode, **fields}})
        ctx.set(port.i.valid, 1)
        *_, error = await ctx.tick().sample(port.error).until(
            port.i.ready | (port.error != Error.NONE))
        assert error == Error.NONE
        ctx.set(port.i.valid, 0)

    async def drive(ctx):
        params = [Requant.const({"multiplier": 1 << 14, "shift": 23}).as_bits()] * 2
        await load(ctx, LoadTarget.WEIGHTS, [word(weights), 0, word(weights2), 0])
        await load(ctx, LoadTarget.PARAMS, params)
        await load(ctx, LoadTarget.GATE_PARAMS, [Requant.const(gate).as_bits() for gate in gates])
        await ctx.tick().repeat(4)

        half = WIDTH // 2
        await run(ctx, dut.fill, Opcode.FILL, source=Source.FEEDBACK, src_base=7, width=half,
                  vectors=1, dst_stride=1)
        await run(ctx, dut.fill, Opcode.FILL, layer=2, mode=FillMode.POOL, src_base=100,
                  src_base2=200, width=WIDTH, vectors=1, dst_base=20, dst_stride=1)
        await run(ctx, dut.conv, Opcode.LAYER, slot=6, vectors=1, kernel_h=2, kernel_w=1,
                  width_in=half, width_out=half, zero_out=128, high=255, target=Target.ALPHA,
                  packed=1)
        await run(ctx, dut.conv, Opcode.CONV, slot=6, layer=3, row=4, groups=1, out_base=300,
                  alpha_base=5, rows=[{"valid": 1, "base": 0}, {"valid": 1, "base": 20}, {}])
        await run(ctx, dut.gate, Opcode.GATE, layer=9, row=8, skip_base=30, alpha_base=5,
                  width=WIDTH, vectors=1, dst_base=10, dst_stride=2, dst_vector=1, high=255)
        await ctx.tick().repeat(4)

    def note(valid, event, fill_valid, fill_tap, gate_valid, gate_tap):
        if valid:
            events.append((event.layer, event.row, event.base, event.width))
        if fill_valid:
            fill_taps.append((fill_tap.layer, fill_tap.column))
        if gate_valid:
            gate_taps.append((gate_tap.layer, gate_tap.row, gate_tap.column))

    def land(write):
        assert write.mask == 2**config.onchip_lanes - 1
        written[write.address] = write.data.to_bytes(VECTOR, "little")

    async def watchdog(ctx):
        await ctx.tick().repeat(5000)
        raise TimeoutError("the attention unit hangs")

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    memories = ((dut.read_onchip, onchip), (dut.read_skip, skip), (dut.read_feedback, feedback))
    for port, words in memories:
        sim.add_testbench(reader(port, [bytes(w) for w in words], stall=0.3), background=True)
    sim.add_testbench(sink(dut.write_onchip.w, land, stall=0.5), background=True)
    sim.add_testbench(sink(dut.gated, row.write, stall=0.5), background=True)
    sim.add_testbench(watch([dut.alpha_row.valid, dut.alpha_row.p, dut.tap_fill.valid,
                             dut.tap_fill.p, dut.tap_gate.valid, dut.tap_gate.p], note),
                      background=True)
    sim.add_testbench(watchdog, background=True)
    sim.run()

    alpha, gated = expected()
    assert 10 < alpha.std(), "the map must not be flat"
    assert written == {300: alpha.astype(np.uint8).tobytes().ljust(VECTOR, b"\0")}
    assert row.words == {(x % 4, 10 + x // 4 * 2 + 1, c): gated[x, c]
                         for x in range(WIDTH) for c in range(VECTOR)}
    assert events == [(3, 4, 300, WIDTH // 2)]
    assert fill_taps == [(2, x) for x in range(WIDTH // 2)]
    assert gate_taps == [(9, 8, x) for x in range(WIDTH)]
