"""Whole units between model memories: one row in, one row out."""

from dataclasses import replace

from amaranth.sim import Simulator

from hw.config import TINY, UnitConfig
from hw.isa import Error, Requant
from tests.hw.models import reader, sink

V   = 8
KIB = 1024


def machine():
    unit = UnitConfig(pixels=2, outputs=4, drain=8, row_words=64, weight_words=16, params=4)
    return replace(TINY, vector=V, encoder=unit, decoder=unit, onchip_bytes=4 * KIB,
                   feedback_bytes=1 * KIB,
                   attention=UnitConfig(pixels=1, outputs=2, drain=2, row_words=64, weight_words=4,
                                        params=4))


async def run(ctx, port, opcode, **fields):
    ctx.set(port.i.p, {opcode.name.lower(): {"opcode": opcode, **fields}})
    ctx.set(port.i.valid, 1)
    *_, error = await ctx.tick().sample(port.error).until(
        port.i.ready | (port.error != Error.NONE))
    assert error == Error.NONE
    ctx.set(port.i.valid, 0)


async def load(ctx, dut, target, beats):
    for index, beat in enumerate(beats):
        ctx.set(dut.load.p, {"target": target, "base": 0, "index": index, "data": beat})
        ctx.set(dut.load.valid, 1)
        await ctx.tick().until(dut.load.ready)
    ctx.set(dut.load.valid, 0)


def permutation(rng):
    """Weights of a 1x1 convolution that permutes 8 channels, as loaded, and the permutation."""
    order = rng.permutation(V)
    beats = [0] * V
    for output, channel in enumerate(order):           # group output // 4, lane output % 4
        beats[output] = 1 << 8 * int(channel)
    return beats, order


PARAMS = [Requant.const({"multiplier": 2, "shift": 1}).as_bits()] * V


def simulate(dut, drive, onchip, landed, *others):
    """``drive`` with on-chip memory behind the unit; both sides stall."""
    def land(write):
        word = landed.setdefault(write.address, bytearray(V))
        lanes = len(dut.write_onchip.w.p.mask)
        data  = write.data.to_bytes(V, "little")
        for k in range(V):
            if write.mask >> (k * lanes // V) & 1:
                word[k] = data[k]

    async def watchdog(ctx):
        await ctx.tick().repeat(4000)
        raise TimeoutError(f"{type(dut).__name__} hangs")

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    for process in (reader(dut.read_onchip, [bytes(word) for word in onchip], stall=0.3),
                    sink(dut.write_onchip.w, land, stall=0.5), watchdog, *others):
        sim.add_testbench(process, background=True)
    sim.run()
