"""Helpers for tests that run in Amaranth's own simulator."""

from amaranth.sim import Simulator

__all__ = ["simulate", "stream_get", "stream_put"]


async def stream_put(ctx, stream, payload):
    """Offer one payload until it is taken."""
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def stream_get(ctx, stream):
    """Take one payload."""
    ctx.set(stream.ready, 1)
    payload, = await ctx.tick().sample(stream.payload).until(stream.valid)
    ctx.set(stream.ready, 0)
    return payload


def simulate(dut, *testbenches, deadline=1e-3):
    """Run every testbench to its end; a hang fails at ``deadline`` seconds of simulated time.

    The clock has 100 MHz: a millisecond is 100 000 cycles.
    """
    async def watchdog(ctx):
        await ctx.delay(deadline)
        raise TimeoutError(f"{type(dut).__name__} did not finish within {deadline} s")

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    sim.add_testbench(watchdog, background=True)
    sim.run()
