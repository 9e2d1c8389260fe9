"""Load engines over the off-chip memory model: latency stays hidden."""

import pytest
from amaranth import *
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from hw.config import REFERENCE, preset
from hw.isa import FORMS, LoadTarget, Opcode
from hw.memory.axi import read_half
from hw.memory.load import LoadEngines
from hw.memory.offchip import OffchipMemory

V     = REFERENCE.vector
BEATS = 800


@pytest.mark.parametrize(("channels", "dram", "lowest"), [
    (1, "ddr4-2400", 0.95), (3, "ddr4-2400", 0.93),
    # A third of sixteen bytes per cycle of this clock; refresh takes 20 of 2343 cycles.
    (1, "sdr-ulx3s", 0.97 / 3 / 16)])
def test_beats_per_cycle(channels, dram, lowest):
    config = preset("reference", dram=dram)
    beats  = BEATS if dram == "ddr4-2400" else BEATS // 4
    m = Module()
    m.submodules.load   = load   = LoadEngines(config=config)
    m.submodules.memory = memory = OffchipMemory(config=config, depth=4096, storage="memory")
    connect(m, load.axi, read_half(memory.axi))
    cycles  = []
    written = {}

    def channel(number):
        async def testbench(ctx):
            port = load.engines[number]
            ctx.set(port.i.p.load, FORMS[Opcode.LOAD].const({
                "opcode": Opcode.LOAD, "target": LoadTarget.ONCHIP, "beats": beats,
                "offchip": 1024 * number * V, "base": 1024 * number}))
            ctx.set(port.i.valid, 1)
            count = 1
            while not ctx.get(port.i.ready):
                await ctx.tick()
                count += 1
            cycles.append(count)
        return testbench

    async def onchip(ctx):
        ctx.set(load.w.w.ready, 1)
        while True:
            _, _, valid, address, data = await ctx.tick().sample(
                load.w.w.valid, load.w.w.p.address, load.w.w.p.data)
            if valid:
                written[address] = data

    async def fill(ctx):
        for word in range(4096):
            ctx.set(memory.data[word], word * 0x1_0001)

    sim = Simulator(m)
    sim.add_clock(1e-8)
    sim.add_testbench(fill)
    for number in range(channels):
        sim.add_testbench(channel(number))
    sim.add_testbench(onchip, background=True)
    sim.run()
    assert channels * beats / max(cycles) > lowest
    assert written == {1024 * k + j: (1024 * k + j) * 0x1_0001
                       for k in range(channels) for j in range(beats)}
