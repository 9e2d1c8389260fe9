"""Properties of :class:`hw.control.layers.LayerLedger`."""

from amaranth import *

from hw.control.layers import LayerLedger
from hw.prove.bench import prove
from hw.prove.control.frontend import front


@prove((LayerLedger.elaborate, "waits & ~has_times", "waits & ~has_times & ~has_sums"),
       slow=True)
def the_waiting_place_is_free(bench):
    """Behind a front end, an instruction that retires finds the place free in which it waits for
    the memory, whatever engine and program do: no record is lost."""
    source, _ = front(bench)
    dut    = LayerLedger()
    inside = bench.inner(dut, "layers")
    bench.driven(dut.offered, dut.retiring)
    bench.m.d.comb += [dut.offered.eq(source.port.i.valid), dut.retiring.eq(source.retiring)]
    enters = dut.offered & dut.retiring
    bench.check(~(enters & inside("waits") & ~inside("begins")), "the place is free")
    bench.cover(enters & inside("waits"))
