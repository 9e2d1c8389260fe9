"""Layer ledger: where one engine spent its time, by layer."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.control.counters import LEDGER_LAYERS, TIME_BITS, LayerField


class LayerLedger(wiring.Component):
    """Adds every retired instruction of one engine to the record of its layer.

    Counts while ``offered``; an instruction enters the record of its layer when it is
    ``retiring``, and can be read from the next cycle on. Instructions may follow each other in
    every cycle. Layers from ``LEDGER_LAYERS`` up are counted as layer 0. ``clear`` zeroes all
    records at once.

    Each field is a memory of its own, small enough for LUT RAM: read asynchronously, added to and
    written in one cycle, so that no record is ever on its way.

    A reader holds ``read``, ``read_layer`` and ``read_field`` until ``read_done``, which comes in
    the first cycle in which no instruction retires; ``value`` follows in the next, and stays.

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
    read_field : In(LayerField)
    read_done : Out(1)
    value : Out(40)
    """

    clear:      In(1)
    now:        In(TIME_BITS)
    offered:    In(1)
    issued:     In(1)
    retiring:   In(1)
    layer:      In(8)
    read:       In(1)
    read_layer: In(range(LEDGER_LAYERS))
    read_field: In(LayerField)
    read_done:  Out(1)
    value:      Out(TIME_BITS)

    def elaborate(self, platform):
        m = Module()

        known = Signal(LEDGER_LAYERS)                  # rows written since `clear`

        # The instruction on offer, up to the previous cycle
        begun  = Signal()
        busy   = Signal(TIME_BITS)
        issued = Signal(TIME_BITS)
        first  = Signal(TIME_BITS)
        with m.If(self.offered):
            m.d.sync += begun.eq(~self.retiring)
            m.d.sync += busy.eq(Mux(self.retiring, 0, busy + 1))
            m.d.sync += issued.eq(Mux(self.retiring, 0, issued + self.issued))
            with m.If(~begun):
                m.d.sync += first.eq(self.now)

        # Its record. The one read port serves the reader when no instruction retires.
        closing   = Signal()
        row       = Signal(range(LEDGER_LAYERS))
        row_known = Signal()
        m.d.comb += [
            closing.eq(self.offered & self.retiring),
            row.eq(Mux(self.layer < LEDGER_LAYERS, self.layer, 0)),
            self.read_done.eq(self.read & ~closing),
        ]
        with m.If(~closing):
            m.d.comb += row.eq(self.read_layer)
        m.d.comb += row_known.eq(known.bit_select(row, 1))
        with m.If(closing):
            m.d.sync += known.bit_select(row, 1).eq(1)

        for field, update in (
            (LayerField.BUSY,   lambda old: old + busy + 1),
            (LayerField.ISSUED, lambda old: old + issued + self.issued),
            (LayerField.FIRST,  lambda old: Mux(row_known, old, Mux(begun, first, self.now))),
            (LayerField.LAST,   lambda old: self.now),
        ):
            m.submodules[field.name.lower()] = memory = Memory(shape=TIME_BITS, init=[],
                                                               depth=LEDGER_LAYERS)
            write, read = memory.write_port(), memory.read_port(domain="comb")
            old = Signal(TIME_BITS, name=f"old_{field.name.lower()}")
            m.d.comb += [
                read.addr.eq(row),
                old.eq(Mux(row_known, read.data, 0)),
                write.en.eq(closing),
                write.addr.eq(row),
                write.data.eq(update(old)),
            ]
            with m.If(self.read_done & (self.read_field == field)):
                m.d.sync += self.value.eq(old)

        with m.If(self.clear):
            m.d.sync += [known.eq(0), begun.eq(0), busy.eq(0), issued.eq(0)]

        return m
