"""Properties of :class:`hw.memory.arbiter.RoundRobin`."""

from amaranth import *

from hw.memory.arbiter import RoundRobin
from hw.prove.bench import prove

WIDTH = 6


@prove((RoundRobin.elaborate, "bit & ~eligible[:number].any()", "bit"))
def grants_one_requester(bench):
    """At most one bit of ``grant`` is high, one that requests, and one whenever any requests."""
    dut = bench.block(RoundRobin(width=WIDTH))
    bench.check((dut.grant & (dut.grant - 1)) == 0, "grant is one-hot or zero")
    bench.check((dut.grant & ~dut.requests) == 0, "only a requester is granted")
    bench.check(dut.grant.any() == dut.requests.any(), "a request is never left without a grant")
    bench.cover(dut.requests.all() & (dut.grant == 1 << WIDTH - 1))


@prove((RoundRobin.elaborate, "self.requests & later", "self.requests & ~later"))
def nobody_starves(bench):
    """A requester that keeps its bit up sees at most ``width - 1`` taken grants go to others."""
    dut    = bench.block(RoundRobin(width=WIDTH))
    who    = bench.constant(range(WIDTH), "who")
    passed = bench.register(range(WIDTH + 1), "passed")      # grants to others that `who` waited
    with bench.m.If(~dut.requests.bit_select(who, 1) | dut.grant.bit_select(who, 1)):
        bench.m.d.sync += passed.eq(0)
    with bench.m.Elif(dut.taken):
        bench.m.d.sync += passed.eq(passed + 1)
    bench.assume(who < WIDTH)
    bench.check(passed < WIDTH, "width - 1 others at most")
    bench.cover(passed == WIDTH - 1)
