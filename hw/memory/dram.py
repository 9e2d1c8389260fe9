"""When the bursts of an off-chip memory may use its data bus: open rows, refresh, turnaround.

All timing comes in at run time, as :func:`timing_layout` has it: one build serves every memory.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.config import Dram
from hw.knobs import knob_named
from hw.memory.axi import Response
from hw.memory.traffic import COUNTER_BITS

WAIT_BITS = 13      # of a wait in cycles: the longest that a Dram may have, at the fastest clock
RATE_ONE  = 1 << 20
"""Beats per cycle, in parts of this."""

BANK_BITS = exact_log2(knob_named(Dram, "banks").most)


def timing_layout(vector):
    """A :class:`hw.config.DramTiming` as the model takes it, where beats have ``vector`` bytes."""
    return data.StructLayout({
        "column_bits":      range(exact_log2(most_window(vector)) + 1),     # beats of a row
        "bank_bits":        range(BANK_BITS + 1),
        "rate":             range(RATE_ONE + 1),
        "row_hit":          WAIT_BITS,
        "activate":         WAIT_BITS,
        "precharge":        WAIT_BITS,
        "turnaround":       WAIT_BITS,
        "refresh_busy":     16,
        "refresh_interval": 23,
    })


def timing_const(timing, vector):
    """``timing`` (:class:`hw.config.DramTiming`) as a constant with that layout."""
    return timing_layout(vector).const({
        "column_bits": exact_log2(timing.row_bytes // vector),
        "bank_bits":   exact_log2(timing.banks),
        "rate":        min(RATE_ONE, round(timing.bus_bytes_per_cycle * RATE_ONE / vector)),
        **{name: getattr(timing, name)
           for name in ("row_hit", "activate", "precharge", "turnaround", "refresh_busy",
                        "refresh_interval")},
    })


def timing_plusarg(config):
    """What tells a simulation of a machine's off-chip memory its timing, on the simulator's command
    line; ``offchip_timing.v`` reads it."""
    return f"+offchip_timing={timing_const(config.timing, config.vector).as_bits():x}"


def most_window(vector):
    """Beats in the largest row."""
    return knob_named(Dram, "row_bytes").most // vector


def access_layout(*, address_width, window, id_width):
    """An access of ``length + 1`` beats to one row, on behalf of an AXI burst that it may end."""
    return data.StructLayout({
        "address":  address_width,      # in beats
        "length":   range(window),
        "last":     1,
        "id":       id_width,
        "response": Response,
    })


class DramScheduler(wiring.Component):
    """Orders reads and writes onto one data bus and holds each back as long as the memory would.

    Addresses map to row, bank, column, from the top: consecutive rows lie in consecutive banks. An
    access to a bank's open row costs ``row_hit`` cycles before its data; ``activate`` more if the
    bank has no open row; ``activate + precharge`` more if it has another; ``turnaround`` more if
    the access before it went the other way. While one access moves its data the next one is
    prepared, so these cycles are hidden, except that an access which turns the bus around, or
    needs another row of the bank in use, is prepared after the data. From an idle bus, an access
    taken in cycle t is on offer in cycle t + 1 + cost; one prepared after the data of another
    leaves ``cost`` idle cycles between them. A cost below 2 counts as 2.

    While both kinds wait, the bus turns around after ``batch`` accesses of one kind.

    Every ``refresh_interval`` cycles the memory finishes the access in transfer, closes all rows,
    and is busy for ``refresh_busy`` cycles; an access that was prepared is prepared again.

    Parameters
    ----------
    vector : int
        Bytes per beat.
    address_width : int
        Bits of a beat address.
    id_width : int
    batch : int

    Members
    -------
    timing : In(timing_layout(vector))
        Constant while it runs.
    reads, writes : In(stream.Signature(access_layout(...)))
        Accesses, each inside one row.
    o : Out(stream.Signature(...))
        The access that has the bus; take it with its last beat.
    write : Out(1)
        Direction of ``o``.
    row_hits, row_misses, refresh_cycles, busy_cycles : Out(40)
        Accesses that found their row open, or did not; cycles spent on refresh; cycles
        in which an access was prepared or had the bus.
    """

    def __init__(self, *, vector, address_width, id_width=1, batch=4):
        if batch < 1:
            raise ValueError(f"Batch must be positive, not {batch!r}")
        self.vector        = vector
        self.window        = min(most_window(vector), 1 << address_width)
        self.address_width = address_width
        self.id_width      = id_width
        self.batch         = batch

        layout = access_layout(address_width=address_width, window=self.window, id_width=id_width)
        super().__init__({
            "timing":         In(timing_layout(vector)),
            "reads":          In(stream.Signature(layout)),
            "writes":         In(stream.Signature(layout)),
            "o":              Out(stream.Signature(layout)),
            "write":          Out(1),
            "row_hits":       Out(COUNTER_BITS),
            "row_misses":     Out(COUNTER_BITS),
            "refresh_cycles": Out(COUNTER_BITS),
            "busy_cycles":    Out(COUNTER_BITS),
        })

    def elaborate(self, platform):
        m = Module()

        timing = self.timing
        layout = self.o.p.shape()

        # The access that is being prepared, and what it finds.
        prepared  = Signal()      # its row is open, or will be when `wait` has run out
        offered   = Signal()
        access    = Signal(layout)
        write     = Signal()
        bank      = Signal(BANK_BITS)
        row       = Signal(self.address_width)
        wait      = Signal(WAIT_BITS + 2)
        above     = Signal(self.address_width)      # the address without the column
        m.d.comb += [
            above.eq(access.address >> timing.column_bits),
            bank.eq(above & ((1 << timing.bank_bits) - 1)),
            row.eq(above >> timing.bank_bits),
        ]

        # The access that has the bus.
        used_bank = Signal(BANK_BITS)
        free      = Signal()
        m.d.comb += free.eq(~self.o.valid | self.o.ready)

        m.submodules.rows = rows = Memory(shape=self.address_width, depth=1 << BANK_BITS, init=[])
        found   = rows.read_port(domain="comb")
        opened  = rows.write_port()
        open_banks = Signal(1 << BANK_BITS)
        is_open = Signal()
        hit     = Signal()
        was_hit = Signal()
        m.d.comb += [
            found.addr.eq(bank),
            opened.addr.eq(bank),
            opened.data.eq(row),
            is_open.eq(open_banks.bit_select(bank, 1)),
            hit.eq(is_open & (found.data == row)),
        ]

        # Refresh.
        since_refresh = Signal.like(timing.refresh_interval)
        refresh_due   = Signal()
        refresh_left  = Signal.like(timing.refresh_busy)
        with m.If(since_refresh == timing.refresh_interval - 1):
            m.d.sync += since_refresh.eq(0)
            m.d.sync += refresh_due.eq(1)
        with m.Else():
            m.d.sync += since_refresh.eq(since_refresh + 1)

        # Which direction goes next.
        streak = Signal(range(self.batch + 1))
        full   = Signal()
        pick_write = Signal()
        m.d.comb += [
            full.eq(streak == self.batch),
            pick_write.eq(self.writes.valid & (~self.reads.valid | (write ^ full))),
        ]

        advance = Signal()      # the prepared access gets the bus in the next cycle
        turns   = Signal()      # it goes the other way than the access before it
        m.d.comb += [
            advance.eq(offered & prepared & (wait == 0) & free & ~refresh_due
                       & (refresh_left == 0)),
            turns.eq(write ^ self.write),
        ]

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.eq(access),
                self.write.eq(write),
                used_bank.eq(bank),
            ]
            with m.If(was_hit):
                m.d.sync += self.row_hits.eq(self.row_hits + 1)
            with m.Else():
                m.d.sync += self.row_misses.eq(self.row_misses + 1)

        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(refresh_left != 0):
            m.d.sync += refresh_left.eq(refresh_left - 1)
            m.d.sync += self.refresh_cycles.eq(self.refresh_cycles + 1)
        with m.Elif(refresh_due):
            with m.If(free):
                m.d.sync += [
                    refresh_due.eq(0),
                    refresh_left.eq(timing.refresh_busy),
                    open_banks.eq(0),
                    prepared.eq(0),
                ]
        with m.Elif(offered & ~prepared
                    & ~(self.o.valid & (turns | ((used_bank == bank) & ~hit)))):
            cost = Signal.like(wait)
            m.d.comb += cost.eq(timing.row_hit + Mux(hit, 0, timing.activate)
                                + Mux(is_open & ~hit, timing.precharge, 0)
                                + Mux(turns, timing.turnaround, 0))
            m.d.comb += opened.en.eq(1)
            m.d.sync += wait.eq(Mux(cost < 2, 0, cost - 2))
            m.d.sync += [
                prepared.eq(1),
                was_hit.eq(hit),
                open_banks.bit_select(bank, 1).eq(1),
            ]

        with m.If(~offered | advance):
            m.d.comb += self.writes.ready.eq(pick_write)
            m.d.comb += self.reads.ready.eq(~pick_write)
            m.d.sync += offered.eq(0)
            with m.If(self.reads.valid | self.writes.valid):
                m.d.sync += [
                    offered.eq(1),
                    prepared.eq(0),
                    write.eq(pick_write),
                    access.eq(Mux(pick_write, self.writes.p.as_value(), self.reads.p.as_value())),
                    streak.eq(Mux(pick_write == write, Mux(full, streak, streak + 1), 1)),
                ]
        with m.If(offered | self.o.valid):
            m.d.sync += self.busy_cycles.eq(self.busy_cycles + 1)

        return m
