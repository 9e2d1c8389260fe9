# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

from amaranth.sim import Simulator

from hw.attention.alpha_store import AlphaStore
from hw.config import TINY


def test_what_was_written_is_read_a_cycle_later():
    """Everywhere in the memory; words whose mask is off, or that are not valid, change nothing."""
    rng    = random.Random(2)
    config = replace(TINY, alpha_words=32)
    dut    = AlphaStore(config)
    words  = [0] * 32

    async def drive(ctx):
        reads = None
        for _ in range(800):
            address, read, data = rng.randrange(32), rng.randrange(32), rng.getrandbits(64)
            valid, mask = rng.random() < 0.7, rng.random() < 0.7
            ctx.set(dut.write.w.valid, valid)
            ctx.set(dut.write.w.p, {"address": address, "data": data, "mask": mask})
            ctx.set(dut.read.address, read)
            assert ctx.get(dut.write.w.ready)
            if reads is not None:
                assert ctx.get(dut.read.data) == reads
            reads = words[read]
            await ctx.tick()
            if valid and mask:
                words[address] = data

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    sim.run()
    assert all(words)
