"""Layer ledger: where one engine spent its time, by layer."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.control.counters import LEDGER_LAYERS, TIME_BITS, LayerField
from hw.memory.protected import memory

KNOWN_ROWS  = 16            # of the memory that says which layers have a record
COLUMN_BITS = ceil_log2(LEDGER_LAYERS // KNOWN_ROWS)
LAYER       = range(LEDGER_LAYERS)
RETIRED     = data.StructLayout({"layer": LAYER, "issued": TIME_BITS, "first": TIME_BITS,
                                 "last": TIME_BITS})
# The halves of a record, in the order of LayerField
SUMS        = data.StructLayout({"busy": TIME_BITS, "issued": TIME_BITS})
TIMES       = data.StructLayout({"first": TIME_BITS, "last": TIME_BITS})


class LayerLedger(wiring.Component):
    """Adds every retired instruction of one engine to the record of its layer.

    Counts while ``offered``; an instruction enters the record of its layer when it is
    ``retiring``, and can be read once no instruction is on its way. ``clear`` forgets all records,
    in ``KNOWN_ROWS`` cycles: before the first instruction can be here, as the headers of all
    streams are read first.

    The two halves of a record, sums and times, are words of one block RAM, which an instruction
    reads, changes and writes in turn: one is begun in every second cycle, and one waits. That is
    enough for a :class:`hw.control.frontend.FrontEnd`, which takes instructions at least two cycles
    apart, and retires each after the cycle in which it is taken, and no later than the next is. So
    if one is begun here at most a cycle after the next is taken, the next is begun at most two
    later, a cycle after its own successor is taken, and retires no sooner than its place is free.

    A reader holds ``read``, ``read_layer`` and ``read_field`` until ``read_done``, which comes in
    the first cycle in which no instruction needs the memory; ``value`` is there in the next.

    Members
    -------
    clear : In(1)
    now : In(40)
        Number of the present cycle.
    offered, issued, retiring : In(1)
        An instruction is on offer; it did a vector instruction; it retires with this cycle.
    layer : In(range(LEDGER_LAYERS))
    read : In(1)
    read_layer : In(range(LEDGER_LAYERS))
    read_field : In(LayerField)
    read_done : Out(1)
    value : Out(40)
    """

    clear:      In(1)
    now:        In(TIME_BITS)
    offered:    In(1)
    issued:     In(1)
    retiring:   In(1)
    layer:      In(range(LEDGER_LAYERS))
    read:       In(1)
    read_layer: In(range(LEDGER_LAYERS))
    read_field: In(LayerField)
    read_done:  Out(1)
    value:      Out(TIME_BITS)

    def elaborate(self, platform):
        m = Module()

        m.submodules.records = records = memory("none", shape=SUMS.size, depth=2 * LEDGER_LAYERS)
        m.submodules.known   = known   = Memory(shape=LEDGER_LAYERS // KNOWN_ROWS,
                                                depth=KNOWN_ROWS, init=[])
        read, write             = records.read_port(), records.write_port()
        known_read, known_write = known.read_port(domain="comb"), known.write_port()

        # The instruction on offer, up to the previous cycle
        begun  = Signal()
        issued = Signal(TIME_BITS)
        first  = Signal(TIME_BITS)
        with m.If(self.offered):
            m.d.sync += begun.eq(~self.retiring)
            m.d.sync += issued.eq(Mux(self.retiring, 0, issued + self.issued))
            with m.If(~begun):
                m.d.sync += first.eq(self.now)

        # Those that have retired: one waits, the times of one are there, the sums of one are there.
        waits     = Signal()
        waiting   = Signal(RETIRED)
        begins    = Signal()            # its times are being read,
        is_known  = Signal()            # if there is a record
        has_times = Signal()
        timed     = Signal(RETIRED)
        had_times = Signal()            # there was a record
        has_sums  = Signal()
        summed_layer = Signal(LAYER)
        spent     = Signal(SUMS)        # by the instruction whose sums are there
        had_sums  = Signal()
        m.d.comb += begins.eq(waits & ~has_times)
        with m.If(begins):
            m.d.sync += waits.eq(0)
        with m.If(self.offered & self.retiring):
            m.d.sync += [
                waits.eq(1),
                waiting.layer.eq(self.layer),
                waiting.issued.eq(issued + self.issued),
                waiting.first.eq(Mux(begun, first, self.now)),
                waiting.last.eq(self.now),
            ]
        m.d.sync += [
            has_times.eq(begins), timed.eq(waiting), had_times.eq(is_known),
            has_sums.eq(has_times), summed_layer.eq(timed.layer), had_sums.eq(had_times),
            spent.busy.eq(timed.last - timed.first + 1), spent.issued.eq(timed.issued),
        ]

        # Reading: an instruction's times, then its sums; else what the reader asks for.
        layer    = Signal(LAYER)
        clearing = Signal()
        times    = Signal(TIMES)
        sums     = Signal(SUMS)
        m.d.comb += [
            layer.eq(Mux(begins, waiting.layer, self.read_layer)),
            read.addr.eq(Mux(has_times, Cat(C(0, 1), timed.layer),
                             Cat(begins | self.read_field[1], layer))),
            self.read_done.eq(self.read & ~(waits | has_times | has_sums | clearing)),
            known_read.addr.eq(layer[COLUMN_BITS:]),
            is_known.eq(known_read.data.bit_select(layer[:COLUMN_BITS], 1)),
            times.eq(read.data),
            sums.eq(read.data),
        ]
        second = Signal()
        m.d.sync += second.eq(self.read_field[0])
        m.d.comb += self.value.eq(Mux(had_times, read.data.word_select(second, TIME_BITS), 0))

        # Writing
        new_times = Signal(TIMES)
        new_sums  = Signal(SUMS)
        m.d.comb += [
            new_times.first.eq(Mux(had_times, times.first, timed.first)),
            new_times.last.eq(timed.last),
            new_sums.busy.eq(Mux(had_sums, sums.busy, 0) + spent.busy),
            new_sums.issued.eq(Mux(had_sums, sums.issued, 0) + spent.issued),
            write.en.eq(has_times | has_sums),
            write.addr.eq(Mux(has_times, Cat(C(1, 1), timed.layer), Cat(C(0, 1), summed_layer))),
            write.data.eq(Mux(has_times, new_times, new_sums)),
        ]

        # Which layers have a record; `clear` takes all of that back, row by row.
        row = Signal(range(KNOWN_ROWS))
        m.d.comb += [
            known_write.en.eq(begins | clearing),
            known_write.addr.eq(Mux(clearing, row, known_read.addr)),
            known_write.data.eq(Mux(clearing, 0, known_read.data
                                    | (1 << layer[:COLUMN_BITS])[:LEDGER_LAYERS // KNOWN_ROWS])),
        ]
        with m.If(clearing):
            m.d.sync += row.eq(row + 1)
            m.d.sync += clearing.eq(row != KNOWN_ROWS - 1)
        with m.If(self.clear):
            m.d.sync += [row.eq(0), clearing.eq(1), begun.eq(0), issued.eq(0),
                         waits.eq(0), has_times.eq(0), has_sums.eq(0)]

        return m
