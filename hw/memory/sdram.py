"""Controller of a plain SDRAM (SDR): AXI4 on one side, the memory's pins on the other."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.memory.axi import Axi4, Response
from hw.memory.dram import access_layout
from hw.memory.subordinate import accept_bursts, acknowledge_layout, written_layout
from hw.memory.traffic import COUNTER_BITS

__all__ = ["ADDRESS_PINS", "ALL_BANKS", "MODE_CLOCKS", "START_REFRESHES", "Command",
           "SdramController", "SdramPins", "mode_register"]

ADDRESS_PINS    = 13
ALL_BANKS       = 10        # the address pin that closes all banks at once
START_REFRESHES = 8         # after power-up: JEDEC wants two, some data sheets eight
MODE_CLOCKS     = 2         # tMRD, from MODE to the next command (JESD21-C 3.11.5.1)


class Command(enum.Enum, shape=3):
    """Levels of RAS (bit 0), CAS and WE, 1 where the pin is low, while CS is."""
    NOP       = 0b000
    ACTIVATE  = 0b001
    READ      = 0b010
    REFRESH   = 0b011
    STOP      = 0b100
    PRECHARGE = 0b101
    WRITE     = 0b110
    MODE      = 0b111


class SdramPins(wiring.Signature):
    """The pins of a memory of ``bits`` bits, from the controller, each one register before the pad;
    CS is always on and so is the clock."""

    def __init__(self, *, bits, banks):
        self.bits, self.banks = bits, banks
        super().__init__({
            "command": Out(Command),
            "ba":      Out(range(banks)),
            "a":       Out(ADDRESS_PINS),
            "dqm":     Out(bits // 8),
            "dq_o":    Out(bits),
            "dq_oe":   Out(1),
            "dq_i":    In(bits),
        })


def mode_register(cas, burst):
    """What MODE has on the address pins: sequential bursts of ``burst`` transfers both ways."""
    return cas << 4 | exact_log2(burst)


class SdramController(wiring.Component):
    """AXI4 memory of ``depth`` beats in an SDRAM.

    Takes bursts and answers them as :class:`hw.memory.offchip.OffchipMemory` does, in the same
    order, with the same map of addresses: consecutive rows lie in consecutive banks. A beat is one
    READ or WRITE, a burst of ``config.vector`` bytes on the pins. Rows stay open; while one access
    moves its data the row of the next is opened. Once a refresh is due it comes between two beats.
    A reader that refuses data stops READs, not the pins: ``RETURNS`` beats find room.

    The pins are one register away, the memory samples in the middle of the cycle (its clock is
    ours, turned around), and what it answers comes through a register, too: of a beat that is read
    in cycle n, the first transfer is at ``dq_i`` in cycle ``n + cas + 1``.

    Parameters
    ----------
    config : hw.config.Config
        Gives the width of a beat, and the memory.
    depth : int
        Beats; default ``config.offchip_words``.
    timing : hw.config.SdramTiming
        Default: that of ``config.dram`` at ``config.clock_mhz``.
    id_width, queue, batch : int
        As in :class:`hw.memory.offchip.OffchipMemory`.

    Members
    -------
    axi : In(Axi4(...))
    pins : Out(SdramPins(...))
    ready : Out(1)
        The memory is initialised; bursts wait until then.
    read_bytes, written_bytes, row_hits, row_misses, refresh_cycles, busy_cycles : Out(40)
        As :class:`hw.memory.offchip.OffchipMemory` counts them.
    """

    RETURNS = 8

    def __init__(self, *, config, depth=None, timing=None, id_width=1, queue=4, batch=4):
        self.config   = config
        self.depth    = config.offchip_words if depth is None else depth
        self.timing   = timing or config.dram.sdram(config.clock_mhz)
        self.id_width = id_width
        self.queue    = queue
        self.batch    = batch
        self.burst    = config.vector * 8 // self.timing.bits
        if self.burst not in (1, 2, 4, 8):
            raise ValueError(f"A beat of {config.vector} bytes must be 1, 2, 4 or 8 transfers of "
                             f"{self.timing.bits} bits")
        rows = -(-self.depth * config.vector // (self.timing.banks * self.timing.row_bytes))
        if rows > 1 << ADDRESS_PINS:
            raise ValueError(f"A memory of {self.depth * config.vector} bytes needs {rows} rows, "
                             f"and the pins address {1 << ADDRESS_PINS}")

        super().__init__({
            "axi":   In(Axi4(data_width=config.vector * 8, id_width=id_width,
                             address_width=config.offchip_address_width)),
            "pins":  Out(SdramPins(bits=self.timing.bits, banks=self.timing.banks)),
            "ready": Out(1),
            **{name: Out(COUNTER_BITS)
               for name in ("read_bytes", "written_bytes", "row_hits", "row_misses",
                            "refresh_cycles", "busy_cycles")},
        })

    def elaborate(self, platform):
        m = Module()

        axi, pins, timing, burst = self.axi, self.pins, self.timing, self.burst
        vector    = self.config.vector
        byte_bits = exact_log2(vector)
        beat_bits = self.config.offchip_address_width - byte_bits
        columns   = timing.row_bytes // vector
        column_bits, bank_bits = exact_log2(columns), exact_log2(timing.banks)
        row_bits  = max(0, beat_bits - column_bits - bank_bits)
        banks     = range(timing.banks)

        layout = access_layout(address_width=beat_bits, window=columns, id_width=self.id_width)
        reads  = stream.Signature(layout).create()
        writes = stream.Signature(layout).create()
        buffer, responses = accept_bursts(m, axi, reads, writes, depth=self.depth,
                                          queue=self.queue, window=columns)

        # The access that moves its data, and the one after it.
        current, after             = Signal(layout), Signal(layout)
        current_valid, after_valid = Signal(), Signal()
        current_write, after_write = Signal(), Signal()
        current_miss,  after_miss  = Signal(), Signal()
        index = Signal(range(columns))

        def parts(access):
            above = access.address >> column_bits
            return above[:bank_bits], above[bank_bits:bank_bits + row_bits]

        # What each bank may do: how long it still may not.
        def timer(name, most):
            left = Signal(range(most + 1), name=name)
            with m.If(left != 0):
                m.d.sync += left.eq(left - 1)
            return left

        def start(left, cycles):
            """From this cycle on, ``left`` is not 0 for ``cycles`` - 1 cycles at least."""
            if cycles > 1:
                m.d.sync += left.eq(Mux(left > cycles, left - 1, cycles - 1))

        recovery = burst - 1 + timing.write_recovery
        is_open  = Array(Signal(name=f"open_{bank}") for bank in banks)
        open_row = Array(Signal(row_bits, name=f"row_{bank}") for bank in banks)
        usable   = Array(timer(f"columns_{bank}", timing.activate) for bank in banks)
        closes   = Array(timer(f"closes_{bank}", max(timing.row_active, burst, recovery))
                         for bank in banks)
        opens    = Array(timer(f"opens_{bank}", max(timing.row_cycle, timing.precharge, MODE_CLOCKS,
                                                    timing.refresh_busy)) for bank in banks)
        any_row  = timer("any_row", timing.row_to_row)
        slot     = timer("slot", burst)
        turn     = timer("turn", timing.cas + burst + 1)
        quiet    = Signal()         # all banks are closed and have rested
        m.d.comb += quiet.eq(~Cat(*is_open).any() & ~Cat(*opens).any())

        def is_hit(bank, row):
            return is_open[bank] & (open_row[bank] == row)

        # Refresh.
        since = Signal(range(timing.refresh_interval))
        due   = Signal()
        with m.If(self.ready):
            m.d.sync += since.eq(since + 1)
            with m.If(since == timing.refresh_interval - 1):
                m.d.sync += since.eq(0)
                m.d.sync += due.eq(1)

        # Data that is read comes `cas + burst` cycles after its command, and finds room.
        returned = data.StructLayout({"data": vector * 8, "id": self.id_width, "last": 1,
                                      "response": Response})
        m.submodules.returns = returns = SyncFIFO(width=returned.size, depth=self.RETURNS)
        reserved = Signal(range(self.RETURNS + 1))
        asked    = data.StructLayout({"valid": 1, "id": self.id_width, "last": 1,
                                      "response": Response})
        way      = [Signal(asked, name=f"way_{step}") for step in range(timing.cas + burst + 1)]
        words    = Signal(vector * 8)
        got      = Signal(returned)
        given    = data.View(returned, returns.r_data)
        for before, later in zip(way, way[1:]):
            m.d.sync += later.eq(before)
        m.d.sync += words.eq(got.data)
        m.d.comb += [
            got.data.eq(Cat(words, pins.dq_i)[timing.bits:]),
            got.id.eq(way[-1].id),
            got.last.eq(way[-1].last),
            got.response.eq(way[-1].response),
            returns.w_data.eq(got.as_value()),
            returns.w_en.eq(way[-1].valid),
            axi.rvalid.eq(returns.r_rdy),
            axi.rdata.eq(given.data),
            axi.rid.eq(given.id),
            axi.rlast.eq(given.last),
            axi.rresp.eq(given.response),
            returns.r_en.eq(axi.rready),
        ]

        # A beat of the access in transfer: its READ or WRITE, or only its answer if it is wrong.
        bank, row = parts(current)
        column = (current.address[:column_bits] + index)[:column_bits]
        sane   = Signal()
        here   = Signal()           # its row is open
        move   = Signal()
        last   = Signal()
        m.d.comb += [
            sane.eq(current.response == Response.OKAY),
            here.eq(~sane | is_hit(bank, row)),
            last.eq(index == current.length),
        ]
        with m.If(current_valid & here & (slot == 0) & (~sane | (usable[bank] == 0)) & ~due
                  & self.ready):
            with m.If(current_write):
                m.d.comb += move.eq(buffer.r_rdy & (turn == 0)
                                    & (responses.w_rdy | ~(last & current.last)))
            with m.Else():
                m.d.comb += move.eq(reserved != self.RETURNS)
        with m.If(move):
            m.d.sync += index.eq(Mux(last, 0, index + 1))
        acknowledged = Signal(acknowledge_layout(self.id_width))
        reads_beat   = Signal()
        m.d.comb += [
            reads_beat.eq(move & ~current_write),
            way[0].valid.eq(reads_beat),
            way[0].id.eq(current.id),
            way[0].last.eq(last & current.last),
            way[0].response.eq(current.response),
            buffer.r_en.eq(move & current_write),
            acknowledged.id.eq(current.id),
            acknowledged.response.eq(current.response),
            responses.w_data.eq(acknowledged.as_value()),
            responses.w_en.eq(move & current_write & last & current.last),
        ]
        m.d.sync += reserved.eq(reserved + reads_beat - (axi.rvalid & axi.rready))

        # Written data follow their command, one transfer a cycle.
        incoming = data.View(written_layout(vector), buffer.r_data)
        writing  = Signal(range(burst))
        rest     = Signal(written_layout(vector))
        lanes    = timing.bits // 8
        m.d.comb += pins.dq_o.eq(rest.data)
        with m.If(writing != 0):
            m.d.comb += [pins.dq_oe.eq(1), pins.dqm.eq(~rest.strb[:lanes])]
            m.d.sync += [
                rest.data.eq(rest.data >> timing.bits),
                rest.strb.eq(rest.strb >> lanes),
                writing.eq(writing - 1),
            ]

        # Which access comes next.
        finished, advance = Signal(), Signal()
        full, pick_write  = Signal(), Signal()
        streak = Signal(range(self.batch + 1))
        m.d.comb += [
            finished.eq(move & last),
            advance.eq(after_valid & (~current_valid | finished)),
            full.eq(streak == self.batch),
            pick_write.eq(writes.valid & (~reads.valid | (after_write ^ full))),
        ]
        with m.If(finished):
            m.d.sync += current_valid.eq(0)
        with m.If(advance):
            m.d.sync += [
                current_valid.eq(1),
                current.eq(after),
                current_write.eq(after_write),
                current_miss.eq(after_miss),
            ]
        with m.If(~after_valid | advance):
            m.d.comb += [writes.ready.eq(pick_write), reads.ready.eq(~pick_write)]
            m.d.sync += [after_valid.eq(reads.valid | writes.valid), after_miss.eq(0)]
            with m.If(reads.valid | writes.valid):
                m.d.sync += [
                    after_write.eq(pick_write),
                    after.eq(Mux(pick_write, writes.p.as_value(), reads.p.as_value())),
                    streak.eq(Mux(pick_write == after_write, Mux(full, streak, streak + 1), 1)),
                ]

        # The row that is opened next: of the access in transfer, else of the one after it.
        own = Signal()
        target_bank, target_row = Signal(bank_bits), Signal(row_bits)
        after_bank, after_row = parts(after)
        wanted, hit, opened   = Signal(), Signal(), Signal()
        m.d.comb += [
            own.eq(current_valid & ~here),
            target_bank.eq(Mux(own, bank, after_bank)),
            target_row.eq(Mux(own, row, after_row)),
            wanted.eq(own | (after_valid & (after.response == Response.OKAY)
                             & ~(current_valid & sane & (bank == after_bank)))),
            hit.eq(is_hit(target_bank, target_row)),
            opened.eq(is_open[target_bank]),
        ]

        # One command a cycle.
        def close_all():
            m.d.comb += pins.command.eq(Command.PRECHARGE)
            m.d.comb += pins.a[ALL_BANKS].eq(1)
            for each in banks:
                m.d.sync += is_open[each].eq(0)
                start(opens[each], timing.precharge)

        def rest_all(command, cycles):
            m.d.comb += pins.command.eq(command)
            for each in banks:
                start(opens[each], cycles)

        waits = Signal(range(timing.power_up + 1), init=timing.power_up)
        left  = Signal(range(START_REFRESHES + 1), init=START_REFRESHES)
        with m.FSM():
            with m.State("Power up"):
                m.d.sync += waits.eq(waits - 1)
                with m.If(waits == 0):
                    close_all()
                    m.next = "Refresh"
            with m.State("Refresh"):
                with m.If(quiet):
                    rest_all(Command.REFRESH, timing.refresh_busy)
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "Mode"
            with m.State("Mode"):
                with m.If(quiet):
                    rest_all(Command.MODE, MODE_CLOCKS)
                    m.d.comb += pins.a.eq(mode_register(timing.cas, burst))
                    m.next = "Run"
            with m.State("Run"):
                m.d.comb += self.ready.eq(1)
                with m.If(due):
                    m.d.sync += self.refresh_cycles.eq(self.refresh_cycles + 1)
                    with m.If(quiet):
                        rest_all(Command.REFRESH, timing.refresh_busy)
                        m.d.sync += due.eq(0)
                    with m.Elif(Cat(*is_open).any() & ~Cat(*closes).any()):
                        close_all()
                with m.Elif(move):
                    with m.If(sane):
                        m.d.comb += [
                            pins.command.eq(Mux(current_write, Command.WRITE, Command.READ)),
                            pins.ba.eq(bank),
                            pins.a.eq(column << exact_log2(burst)),
                        ]
                        start(slot, burst)
                        with m.If(current_write):
                            start(closes[bank], recovery)
                            m.d.comb += [
                                pins.dq_oe.eq(1),
                                pins.dq_o.eq(incoming.data),
                                pins.dqm.eq(~incoming.strb[:lanes]),
                            ]
                            m.d.sync += [
                                rest.data.eq(incoming.data >> timing.bits),
                                rest.strb.eq(incoming.strb >> lanes),
                                writing.eq(burst - 1),
                            ]
                        with m.Else():
                            start(closes[bank], burst)
                            start(turn, timing.cas + burst + 1)
                with m.Elif(wanted & ~hit):
                    m.d.comb += pins.ba.eq(target_bank)
                    with m.If(opened):
                        with m.If(closes[target_bank] == 0):
                            m.d.comb += pins.command.eq(Command.PRECHARGE)
                            m.d.sync += is_open[target_bank].eq(0)
                            start(opens[target_bank], timing.precharge)
                    with m.Elif((opens[target_bank] == 0) & (any_row == 0)):
                        m.d.comb += [pins.command.eq(Command.ACTIVATE), pins.a.eq(target_row)]
                        m.d.sync += is_open[target_bank].eq(1)
                        m.d.sync += open_row[target_bank].eq(target_row)
                        start(usable[target_bank], timing.activate)
                        start(closes[target_bank], timing.row_active)
                        start(opens[target_bank], timing.row_cycle)
                        start(any_row, timing.row_to_row)
                        with m.If(own):
                            m.d.sync += current_miss.eq(1)
                        with m.Elif(advance):       # in this very cycle it becomes the other
                            m.d.sync += current_miss.eq(1)
                        with m.Else():
                            m.d.sync += after_miss.eq(1)

        # Counters
        with m.If(finished):
            with m.If(current_miss):
                m.d.sync += self.row_misses.eq(self.row_misses + 1)
            with m.Else():
                m.d.sync += self.row_hits.eq(self.row_hits + 1)
        with m.If(after_valid | current_valid):
            m.d.sync += self.busy_cycles.eq(self.busy_cycles + 1)
        for name, direction in (("read_bytes", ~current_write), ("written_bytes", current_write)):
            beats = Signal(COUNTER_BITS - byte_bits, name=f"beats_{name}")
            with m.If(move & direction):
                m.d.sync += beats.eq(beats + 1)
            m.d.comb += getattr(self, name).eq(Cat(C(0, byte_bits), beats))

        return m
