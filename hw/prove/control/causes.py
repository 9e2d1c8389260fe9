"""Properties of the counters: :mod:`hw.control.causes` and :mod:`hw.memory.traffic`."""

from amaranth import *

from hw.control.causes import CauseCounters
from hw.isa import Traffic
from hw.memory.traffic import TrafficCounter
from hw.prove.bench import prove


@prove((CauseCounters.elaborate, "old.data, 0) + 1", "old.data, 1) + 1"), method="smt", depth=2,
       slow=True)
def each_cycle_counts_once(bench):
    """A symbolic cause's counter is the number of enabled cycles with that cause since ``clear``,
    at the full 40 bits. One cause holds in a cycle, so the counters of all causes sum to the
    cycles: by construction, every cycle is charged exactly once."""
    dut   = bench.block(CauseCounters(bits=40))
    which = bench.constant(3, "which")
    bench.assume(~(dut.clear & dut.enable))
    bench.assume(dut.read_cause == which)
    count = bench.register(40, "count")
    with bench.m.If(dut.clear):
        bench.m.d.sync += count.eq(0)
    with bench.m.Elif(dut.enable & (dut.cause.as_value() == which)):
        bench.m.d.sync += count.eq(count + 1)
    bench.check(dut.value == count, "the counter of each cause")
    bench.cover(count == 3)


@prove((TrafficCounter.elaborate, "beat & (traffic == kind)", "beat"), method="smt", depth=3,
       slow=True)
def each_beat_is_of_one_class(bench):
    """The bytes of a symbolic class are the vector times its beats of up to two cycles ago."""
    dut   = bench.block(TrafficCounter(vector=8))
    which = bench.constant(3, "which")
    bench.assume(which < len(Traffic))
    beats = bench.register(37, "beats")
    bench.m.d.sync += beats.eq(beats + bench.before(
        dut.beat & (dut.traffic.as_value() == which)))
    found = Cat(dut.bytes).word_select(which, 40)
    bench.check(found == Cat(C(0, 3), beats), "bytes")
    bench.cover(beats == 3)
