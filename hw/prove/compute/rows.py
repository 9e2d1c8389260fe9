"""Properties of :mod:`hw.compute.row_memory` and :mod:`hw.compute.row_writer`."""

from amaranth import *

from hw.compute.row_memory import RowMemory
from hw.compute.row_writer import RowWriter
from hw.prove.bench import prove

BANKS, DEPTH = 2, 4


def rows(bench):
    return bench.block(RowMemory(banks=BANKS, depth=DEPTH, vector=2, lanes=2, writers=3))


@prove((RowMemory.elaborate, "free = free & ~wants", "free = free"))
def one_writer_per_bank(bench):
    """A bank takes one write a cycle, the lowest numbered writer's: who is refused has lost its
    bank to a lower number, and the first is never refused."""
    dut = rows(bench)
    for number, port in enumerate(dut.writes):
        rivals = [dut.writes[lower].valid & (dut.writes[lower].p.bank == port.p.bank)
                  for lower in range(number)]
        bench.check(~port.valid | (port.ready == ~Cat(rivals).any()), f"writer {number}")
    bench.cover(dut.writes[2].valid & ~dut.writes[2].ready & dut.writes[1].ready)


@prove((RowMemory.elaborate, "write.en.eq(request.p.mask)", "write.en.eq(-1)"))
def reads_see_the_last_write(bench):
    """A read of a symbolic byte returns what was written there last in an earlier cycle; masked
    bytes stay, and while ``enable`` is low the data holds."""
    dut  = rows(bench)
    bank, where, lane = (bench.constant(shape, name) for shape, name in (
        (1, "bank"), (range(DEPTH), "where"), (1, "lane")))
    held = bench.register(8, "held")
    hits = []
    for number in range(3):
        port = dut.writes[number]
        hit  = (port.valid & port.ready & (port.p.bank == bank) & (port.p.address == where)
                & port.p.mask.bit_select(lane, 1))
        hits.append(hit)
        with bench.m.If(hit):
            bench.m.d.sync += held.eq(port.p.data.word_select(lane, 8))
    address = Cat(dut.read.addresses[b] for b in range(BANKS)).word_select(bank, 2)
    found   = Cat(dut.read.data[b] for b in range(BANKS)).word_select(bank, 16)
    reads   = dut.read.enable & (address == where)
    bench.assume(~(reads & Cat(hits).any()))        # the contract: not in the cycle of its write
    bench.check(~bench.before(reads)
                | (found.word_select(lane, 8) == bench.before(held)), "the last write")
    bench.check(bench.before(dut.read.enable) | ~bench.before(bench.started)
                | (found == bench.before(found)), "data holds")
    bench.cover(bench.before(reads) & (found.word_select(lane, 8) == 77))


def writer(bench):
    """A row of up to 7 pixels of up to 3 vectors, whose settings hold, started once."""
    dut = bench.block(RowWriter(banks=4, depth=64, vector=1, lanes=1))
    bench.driven(dut.start, dut.base, dut.stride, dut.vectors, dut.columns, dut.twice)
    settings = {"base": 3, "stride": 3, "vectors": 2, "columns": 3, "twice": 1}
    chosen   = {name: bench.constant(bits, name) for name, bits in settings.items()}
    bench.m.d.comb += [getattr(dut, name).eq(value) for name, value in chosen.items()]
    bench.m.d.comb += dut.start.eq(~bench.started)
    bench.assume((chosen["vectors"] != 0) & (chosen["columns"] != 0))
    bench.assume(~chosen["twice"] | ~chosen["columns"][0])
    bench.assume(bench.started | ~dut.i.valid)
    bench.assume(bench.kept(dut.i.valid, dut.i.ready, dut.i.p))
    finished = bench.register(1, "has_finished")
    with bench.m.If(dut.finished):
        bench.m.d.sync += finished.eq(1)
    taken = bench.register(6, "taken")
    bench.m.d.sync += taken.eq(taken + (dut.i.valid & dut.i.ready))
    whole = chosen["vectors"] * (chosen["columns"] >> chosen["twice"])
    bench.assume(~dut.i.valid | (taken < whole))
    return dut, chosen, finished


@prove((RowWriter.elaborate, "self.o.p.address.eq(block + vec)", "self.o.p.address.eq(block)"),
       steps=16, slow=True)
def addresses_are_their_closed_form(bench):
    """Vector v of pixel x goes to bank ``x % banks``, address ``base + x // banks * stride + v``,
    for any row of up to 7 pixels of up to 3 vectors, with and without ``twice``."""
    dut, chosen, _ = writer(bench)
    x, v = dut.column, dut.channel
    want = chosen["base"] + (x >> 2)[:2] * chosen["stride"] + v
    bench.check(~dut.o.valid | (dut.o.p.bank == x[:2]), "bank")
    bench.check(~dut.o.valid | (dut.o.p.address == want[:6]), "address")
    bench.check(~dut.o.valid | ((x < chosen["columns"]) & (v < chosen["vectors"])), "in the row")
    bench.cover(dut.o.valid & (x == 5) & (v == 1))


@prove((RowWriter.elaborate, "last.eq(next_column == self.columns)",
        "last.eq(next_column + 1 == self.columns)"), steps=16, slow=True)
def rows_are_written_once(bench):
    """Each vector of each pixel is written exactly once, and ``finished`` comes with the last: a
    symbolic pixel's vector has been written once by then."""
    dut, chosen, finished = writer(bench)
    x, v   = bench.constant(3, "x"), bench.constant(2, "v")
    bench.assume((x < chosen["columns"]) & (v < chosen["vectors"]))
    writes = bench.register(2, "writes")
    hit    = dut.o.valid & dut.o.ready & (dut.column == x) & (dut.channel == v)
    with bench.m.If(hit & (writes != 3)):
        bench.m.d.sync += writes.eq(writes + 1)
    bench.check(writes <= 1, "never twice")
    bench.check(~finished | (writes == 1), "written by the end")
    bench.cover(finished & (x == 2) & (v == 1))


@prove((RowWriter.elaborate, "load.eq(self.i.valid & (~self.o.valid | self.o.ready))",
        "load.eq(self.i.valid)"), slow=True)
def offers_hold(bench):
    """A write on offer holds until the row memory takes it."""
    dut, _, _ = writer(bench)
    bench.check(bench.kept(dut.o.valid, dut.o.ready, dut.o.p), "offer holds")
    bench.cover(dut.o.valid & bench.before(dut.o.valid & ~dut.o.ready))
