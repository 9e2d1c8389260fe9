# amaranth: UnusedElaboratable=no
import random

from amaranth.sim import Simulator

from hw.control.causes import CauseCounters
from hw.isa import Cause


def test_only_enabled_cycles_since_the_clear_count():
    dut    = CauseCounters(bits=5)
    rng    = random.Random(1)
    counts = dict.fromkeys(Cause, 0)

    async def check(ctx):
        for cause, count in counts.items():
            ctx.set(dut.read_cause, cause.value)
            assert ctx.get(dut.value) == count % 32

    async def bench(ctx):
        for _ in range(3):
            await check(ctx)
            for _ in range(300):
                cause, enable = rng.choice(list(Cause)), rng.random() < 0.8
                ctx.set(dut.cause, cause)
                ctx.set(dut.enable, enable)
                await ctx.tick()
                counts[cause] += enable
                await check(ctx)
            ctx.set(dut.enable, 0)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            counts.update(dict.fromkeys(Cause, 0))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
