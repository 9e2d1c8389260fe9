"""Layer ledger: where one engine spent its time, by layer."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.control.counters import LEDGER_LAYERS

TIME_BITS = 40


class LayerRecord(data.Struct):
    """One row; the order of the fields is that of :class:`hw.control.counters.LayerField`."""
    busy:   TIME_BITS
    issued: TIME_BITS
    first:  TIME_BITS
    last:   TIME_BITS


class LayerLedger(wiring.Component):
    """Adds every retired instruction of one engine to the record of its layer.

    Counts while ``offered``; an instruction enters its record in the cycle after ``retiring``.
    Instructions may follow each other in every cycle. Layers from ``LEDGER_LAYERS`` up are counted
    as layer 0. ``clear`` zeroes all records at once.

    A reader holds ``read`` and ``read_layer`` until ``read_done``, which comes in the first cycle
    in which no instruction retires; the record follows one cycle later, for one cycle.

    Members
    -------
    clear : In(1)
    now : In(40)
        Number of the present cycle.
    offered, issued, retiring : In(1)
        An instruction is on offer; it did a vector instruction; it retires with this cycle.
    layer : In(8)
    read : In(1)
    read_layer : In(range(LEDGER_LAYERS))
    read_done : Out(1)
    record : Out(LayerRecord)
    """

    clear:      In(1)
    now:        In(TIME_BITS)
    offered:    In(1)
    issued:     In(1)
    retiring:   In(1)
    layer:      In(8)
    read:       In(1)
    read_layer: In(range(LEDGER_LAYERS))
    read_done:  Out(1)
    record:     Out(LayerRecord)

    def elaborate(self, platform):
        m = Module()

        m.submodules.memory = memory = Memory(shape=LayerRecord, depth=LEDGER_LAYERS, init=[])
        write = memory.write_port()
        read  = memory.read_port(transparent_for=(write,))
        known = Signal(LEDGER_LAYERS)                  # rows written since `clear`

        # The instruction on offer, up to the previous cycle
        begun   = Signal()
        busy    = Signal(TIME_BITS)
        issued  = Signal(TIME_BITS)
        first   = Signal(TIME_BITS)
        closing = Signal()
        row     = Signal(range(LEDGER_LAYERS))
        present = Signal(LayerRecord)                  # the same, with this cycle
        m.d.comb += [
            closing.eq(self.offered & self.retiring),
            row.eq(Mux(self.layer < LEDGER_LAYERS, self.layer, 0)),
            present.busy.eq(busy + 1),
            present.issued.eq(issued + self.issued),
            present.first.eq(Mux(begun, first, self.now)),
            present.last.eq(self.now),
        ]
        with m.If(self.offered):
            m.d.sync += begun.eq(~self.retiring)
            m.d.sync += busy.eq(Mux(self.retiring, 0, present.busy))
            m.d.sync += issued.eq(Mux(self.retiring, 0, present.issued))
            m.d.sync += first.eq(present.first)

        # One cycle later the old record has been read.
        update       = Signal(LayerRecord)
        update_row   = Signal.like(row)
        update_valid = Signal()
        m.d.sync += update_valid.eq(closing)
        with m.If(closing):
            m.d.sync += update.eq(present)
            m.d.sync += update_row.eq(row)
        m.d.comb += [
            write.en.eq(update_valid),
            write.addr.eq(update_row),
            write.data.eq(update),
        ]
        with m.If(update_valid):
            m.d.sync += known.bit_select(update_row, 1).eq(1)
            with m.If(known.bit_select(update_row, 1)):
                m.d.comb += write.data.busy.eq(read.data.busy + update.busy)
                m.d.comb += write.data.issued.eq(read.data.issued + update.issued)
                m.d.comb += write.data.first.eq(read.data.first)
        with m.If(self.clear):
            m.d.sync += [known.eq(0), begun.eq(0), busy.eq(0), issued.eq(0), update_valid.eq(0)]

        # The port serves readers when it is free.
        asked = Signal.like(row)
        m.d.sync += asked.eq(self.read_layer)
        m.d.comb += [
            read.addr.eq(Mux(closing, row, self.read_layer)),
            self.read_done.eq(self.read & ~closing),
        ]
        with m.If(known.bit_select(asked, 1)):
            m.d.comb += self.record.eq(read.data)

        return m
