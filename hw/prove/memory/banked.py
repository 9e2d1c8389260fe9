"""Properties of :class:`hw.memory.banked.BankedMemory`."""

from amaranth import *

from hw.memory.banked import BankedMemory
from hw.prove.bench import prove

DEPTH, READERS, WRITERS = 4, 3, 2


def memory(bench, **parameters):
    """Two banks of two one-byte vectors; ports that hold what they ask for until they get it."""
    dut = bench.block(BankedMemory(depth=DEPTH, vector=1, lanes=1, banks=2, readers=READERS,
                                   writers=WRITERS, background=1, **parameters))
    for port in dut.r:
        bench.assume(bench.kept(port.address.valid, port.address.ready, port.address.p))
    for port in dut.w:
        bench.assume(bench.kept(port.w.valid, port.w.ready, port.w.p))
    return dut


@prove((BankedMemory.elaborate, "m.d.sync += later.eq(pending)",
        "m.d.sync += later.eq(pending & ~later)"))
def answers_come_after_two_cycles(bench):
    """Every accepted read is answered exactly two cycles later, and nothing else is."""
    dut = memory(bench)
    for port in dut.r:
        asked = bench.before(bench.before(port.address.valid & port.address.ready))
        bench.check(port.data_valid == asked, "two cycles")
    bench.cover(dut.r[0].data_valid & dut.r[1].data_valid & bench.before(dut.r[0].data_valid))


@prove((BankedMemory.elaborate, "write.addr.eq(w.w.p.address[bank_bits:])", "write.addr.eq(0)"))
def reads_see_the_last_write(bench):
    """A read of a symbolic address, by any reader, returns what was written there last before the
    cycle in which it was accepted."""
    dut   = memory(bench)
    where = bench.constant(range(DEPTH), "where")
    held  = bench.register(8, "held")
    for port in dut.w:
        bench.assume(port.w.p.mask)
        with bench.m.If(port.w.valid & port.w.ready & (port.w.p.address == where)):
            bench.m.d.sync += held.eq(port.w.p.data)
    for port in dut.r:
        asked = port.address.valid & port.address.ready & (port.address.p == where)
        mine  = bench.before(bench.before(asked))
        bench.check(~mine | (port.data == bench.before(bench.before(held))), "the last write")
    bench.cover(mine & (port.data == 77))


@prove((BankedMemory._ports, '(read, early_read, ("addr", "en"))',
        '(read, early_read, ("addr",)), (read, early_write, ("en",))'))
def pipelined_reads_see_the_last_write(bench):
    """Where reads wait in registers, the last one that was accepted of a symbolic address returns
    what was written there last, unless something was written there since."""
    dut    = memory(bench, pipelined=True)
    where  = bench.constant(range(DEPTH), "where")
    held   = bench.register(8, "held")
    on_way = bench.register(3, "on_way")                    # accepted of this reader, not answered
    quiet  = bench.register(4, "quiet")                     # cycles without a write there
    port   = dut.r[0]
    writes = Cat(w.w.valid & w.w.ready & (w.w.p.address == where) for w in dut.w).any()
    for w in dut.w:
        bench.assume(w.w.p.mask)
        with bench.m.If(w.w.valid & w.w.ready & (w.w.p.address == where)):
            bench.m.d.sync += held.eq(w.w.p.data)
    asks = port.address.valid & port.address.ready
    bench.assume(~asks | (port.address.p == where))
    bench.m.d.sync += [on_way.eq(on_way + asks - port.data_valid),
                       quiet.eq(Mux(writes, 0, Mux(quiet.all(), quiet, quiet + 1)))]
    bench.check(~port.data_valid | (on_way != 0), "nothing comes that was not asked for")
    bench.check(on_way <= 4, "as many as a read takes cycles")
    bench.check(~(port.data_valid & (quiet >= 3)) | (port.data == held), "the last write")
    bench.cover(port.data_valid & (port.data == 77) & (on_way == 4))


@prove((BankedMemory.elaborate, "stored[number].append(grant)",
        "stored[number].append(w.w.valid)"))
def one_access_per_bank(bench):
    """In a cycle a bank serves one reader and one writer at most: no two accepted requests of a
    kind are for the same bank."""
    dut = memory(bench)
    for ports in ([port.address for port in dut.r], [port.w for port in dut.w]):
        for bank in range(2):
            takes = [port.valid & port.ready
                     & ((port.p if len(ports) == READERS else port.p.address)[0] == bank)
                     for port in ports]
            bench.check(sum(takes) <= 1, "one at a time")
    bench.cover(Cat(port.w.valid & port.w.ready for port in dut.w).all()
                & dut.r[0].address.ready & dut.r[1].address.ready)


@prove((BankedMemory.elaborate, "readers.taken.eq(1)", "readers.taken.eq(0)"))
def nobody_waits_long(bench):
    """A request waits for at most one request of each other port of its kind; the background
    reader gets any bank that no other reader wants."""
    dut = memory(bench)
    for kind, ports in (("reader", [port.address for port in dut.r][:-1]),
                        ("writer", [port.w for port in dut.w])):
        for number, port in enumerate(ports):
            waited = bench.register(3, f"{kind}_{number}_waited")
            bench.m.d.sync += waited.eq(Mux(port.valid & ~port.ready, waited + 1, 0))
            bench.check(waited < len(ports), f"a {kind} waits for one of each other")
    last   = dut.r[-1].address
    wanted = [dut.r[number].address.valid & (dut.r[number].address.p[0] == last.p[0])
              for number in range(READERS - 1)]
    bench.check(~last.valid | (last.ready == ~Cat(wanted).any()), "background")
    bench.cover(dut.w[1].w.valid & ~dut.w[1].w.ready)
    bench.cover(last.valid & ~last.ready)
