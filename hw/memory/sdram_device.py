"""A plain SDRAM at its pins, which notices what its data sheet forbids. Simulation only.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.memory.sdram import ALL_BANKS, MODE_CLOCKS, Command, SdramPins

__all__ = ["DOMAIN", "LEAST_REFRESHES", "Rule", "SdramDevice"]

DOMAIN          = "sdram"
LEAST_REFRESHES = 2         # between power-up and the mode register
POSTPONED       = 2         # refreshes that may be late at once
GARBAGE         = 0x5A      # on the data pins when nobody asked


class Rule(enum.IntEnum, shape=5):
    """What may be broken; :data:`TEXT` says it in words."""
    POWER_UP = 0
    START    = 1
    MODE     = 2
    TMRD     = 3
    OPEN     = 4
    CLOSED   = 5
    BANKS    = 6
    BURST    = 7
    BUS      = 8
    ADDRESS  = 9
    TRCD     = 10
    TRP      = 11
    TRAS     = 12
    TRC      = 13
    TRRD     = 14
    TWR      = 15
    TRFC     = 16
    TREFI    = 17


TEXT = {
    Rule.POWER_UP: "a command before the supply and clock were stable for long enough",
    Rule.START:    f"access before the mode register was set, or that before {LEAST_REFRESHES} "
                   "refreshes",
    Rule.MODE:     "a mode register with a CAS latency below the least, or a burst unknown here",
    Rule.TMRD:     "tMRD, a command too early after the mode register",
    Rule.OPEN:     "ACTIVATE of a bank that has a row open",
    Rule.CLOSED:   "READ or WRITE of a bank without an open row",
    Rule.BANKS:    "REFRESH or MODE while a row is open",
    Rule.BURST:    "a burst cut short",
    Rule.BUS:      "data pins driven from both sides, or from none while writing",
    Rule.ADDRESS:  "a row or column that does not exist",
    Rule.TRCD:     "tRCD, from ACTIVATE to READ or WRITE",
    Rule.TRP:      "tRP, from PRECHARGE to ACTIVATE, REFRESH or MODE",
    Rule.TRAS:     "tRAS, from ACTIVATE to PRECHARGE",
    Rule.TRC:      "tRC, from ACTIVATE to ACTIVATE of the same bank or REFRESH",
    Rule.TRRD:     "tRRD, from ACTIVATE to ACTIVATE of another bank",
    Rule.TWR:      "tWR, from the last data written to PRECHARGE",
    Rule.TRFC:     "tRFC, from REFRESH to the next command",
    Rule.TREFI:    f"tREFI, {POSTPONED} refreshes late",
}


class SdramDevice(wiring.Component):
    """The memory behind :class:`hw.memory.sdram.SdramPins`, in the clock domain :data:`DOMAIN`.

    Times are measured in clocks of ``period_ps`` and held against the nanoseconds of ``dram``, and
    so is what is open where. Data that nobody asked for are garbage, and those of a READ come as
    late as the mode register says, so a controller that looks at the wrong time reads nonsense.

    Parameters
    ----------
    dram : hw.config.Dram
    size : int
        Bytes.
    period_ps : int
    storage : str
        As in :class:`hw.memory.offchip.OffchipMemory`; ``"memory"`` has words of the pins' width.
    beat : int
        Bytes of a word of the ``"array"``.

    Members
    -------
    pins : In(SdramPins(...))
    load, dump, dump_first, dump_count
        As :class:`hw.memory.offchip.OffchipMemory` has them, in words of the ``"array"``.
    violations : Out(32)
        Cycles in which a rule was broken; the first time that each was is printed.
    broken : Out(len(Rule))
        Which, ever.
    """

    def __init__(self, *, dram, size, period_ps, storage="array", beat=8):
        if storage not in ("array", "memory"):
            raise ValueError(f"Storage must be 'array' or 'memory', not {storage!r}")
        self.dram, self.size, self.period_ps = dram, size, period_ps
        self.storage, self.beat = storage, beat
        self.words   = size * 8 // dram.sdram_bits
        if storage == "memory":
            self.data = MemoryData(shape=dram.sdram_bits, depth=self.words, init=[])
        super().__init__({
            "pins":       In(SdramPins(bits=dram.sdram_bits, banks=dram.banks)),
            "load":       In(1),
            "dump":       In(1),
            "dump_first": In(32),
            "dump_count": In(32),
            "violations": Out(32),
            "broken":     Out(len(Rule)),
        })

    def elaborate(self, platform):
        m = Module()

        pins, dram = self.pins, self.dram
        lanes = dram.sdram_bits // 8
        bank_bits   = exact_log2(dram.banks)
        column_bits = exact_log2(dram.row_bytes // lanes)
        banks       = range(dram.banks)

        found = Signal(len(Rule))

        def sync(statements):
            m.d[DOMAIN] += statements

        def forbid(rule, when):
            with m.If(when):
                m.d.comb += found[rule].eq(1)

        def clocks(nanoseconds):
            return -(-round(nanoseconds * 1000) // self.period_ps)

        def age(name, least):
            """Clocks since it was set to 0, as far as ``least`` of them matter; old at first."""
            since = Signal(range(max(least, 1) + 1), init=max(least, 1), name=name)
            with m.If(since != max(least, 1)):
                sync(since.eq(since + 1))
            return since

        command = pins.command
        is_     = {each: Signal(name=f"is_{each.name.lower()}") for each in Command}
        for each, signal in is_.items():
            m.d.comb += signal.eq(command == each)
        transfer = is_[Command.READ] | is_[Command.WRITE]
        anything = command != Command.NOP

        # Since when. An event in one clock is 1 old in the next.
        limits = {name: clocks(getattr(dram, f"{name}_ns")) for name in (
            "activate", "precharge", "row_active", "row_cycle", "row_to_row", "write_recovery",
            "refresh_busy", "power_up")}
        opened  = Array(age(f"opened_{bank}", max(limits["activate"], limits["row_active"],
                                                  limits["row_cycle"])) for bank in banks)
        closed  = Array(age(f"closed_{bank}", limits["precharge"]) for bank in banks)
        written = Array(age(f"written_{bank}", limits["write_recovery"]) for bank in banks)
        any_row = age("any_row", limits["row_to_row"])
        rested  = age("rested", limits["refresh_busy"])
        moded   = age("moded", MODE_CLOCKS)
        is_open = Array(Signal(name=f"open_{bank}") for bank in banks)
        row     = Array(Signal(len(pins.a), name=f"row_{bank}") for bank in banks)
        powered = Signal(range(limits["power_up"] + 1))
        with m.If(powered != limits["power_up"]):
            sync(powered.eq(powered + 1))

        # Power-up, mode register, refresh.
        refreshes, ready = Signal(range(LEAST_REFRESHES + 1)), Signal()
        length, cas      = Signal(range(9)), Signal(range(4))
        forbid(Rule.POWER_UP, anything & (powered != limits["power_up"]))
        forbid(Rule.START, (is_[Command.ACTIVATE] | transfer) & ~ready)
        forbid(Rule.START, is_[Command.MODE] & (refreshes != LEAST_REFRESHES))
        forbid(Rule.TMRD, anything & (moded < MODE_CLOCKS))
        forbid(Rule.TRFC, anything & (rested < limits["refresh_busy"]))
        for bank in banks:
            resting = is_[Command.REFRESH] | is_[Command.MODE]
            forbid(Rule.BANKS, resting & is_open[bank])
            forbid(Rule.TRP, resting & (closed[bank] < limits["precharge"]))
            forbid(Rule.TRC, is_[Command.REFRESH] & (opened[bank] < limits["row_cycle"]))
        with m.If(is_[Command.MODE]):
            sync([moded.eq(1), ready.eq(1), cas.eq(pins.a[4:7]), length.eq(1 << pins.a[:2])])
            # Sequential bursts of up to 8, both ways; nothing else is modelled.
            forbid(Rule.MODE, (pins.a[4:7] < dram.cas) | (pins.a[4:7] > 3) | pins.a[2:4].any()
                   | pins.a[7:].any() | pins.ba.any())
        with m.If(is_[Command.REFRESH]):
            sync(rested.eq(1))
            with m.If(refreshes != LEAST_REFRESHES):
                sync(refreshes.eq(refreshes + 1))

        interval = round(dram.refresh_interval_ns * 1000)
        elapsed, late, comes = Signal(range(interval)), Signal(range(POSTPONED + 1)), Signal()
        m.d.comb += comes.eq(elapsed + self.period_ps >= interval)
        with m.If(ready):
            sync(elapsed.eq(Mux(comes, elapsed + self.period_ps - interval,
                                elapsed + self.period_ps)))
            with m.If(comes & ~is_[Command.REFRESH]):
                forbid(Rule.TREFI, late == POSTPONED)
                with m.If(late != POSTPONED):
                    sync(late.eq(late + 1))
            with m.Elif(is_[Command.REFRESH] & ~comes & (late != 0)):
                sync(late.eq(late - 1))

        # Rows.
        forbid(Rule.OPEN, is_[Command.ACTIVATE] & is_open[pins.ba])
        forbid(Rule.TRP,  is_[Command.ACTIVATE] & (closed[pins.ba] < limits["precharge"]))
        forbid(Rule.TRC,  is_[Command.ACTIVATE] & (opened[pins.ba] < limits["row_cycle"]))
        forbid(Rule.TRRD, is_[Command.ACTIVATE] & (any_row < limits["row_to_row"]))
        last_row = (self.words - 1) >> (column_bits + bank_bits)
        forbid(Rule.ADDRESS, is_[Command.ACTIVATE] & (pins.a > last_row))
        with m.If(is_[Command.ACTIVATE]):
            sync([is_open[pins.ba].eq(1), row[pins.ba].eq(pins.a), opened[pins.ba].eq(1),
                  any_row.eq(1)])
        for bank in banks:
            closes = Signal(name=f"closes_{bank}")
            m.d.comb += closes.eq(is_[Command.PRECHARGE] & (pins.a[ALL_BANKS] | (pins.ba == bank)))
            with m.If(closes):
                with m.If(is_open[bank]):
                    sync(closed[bank].eq(1))
                sync(is_open[bank].eq(0))
            forbid(Rule.TRAS, closes & is_open[bank] & (opened[bank] < limits["row_active"]))
            forbid(Rule.TWR, closes & is_open[bank] & (written[bank] < limits["write_recovery"]))

        # Bursts: one transfer in the clock of the command, the others in those after it.
        left, writes = Signal(range(8)), Signal()
        at_bank, at_row, at_column = (Signal(bank_bits), Signal.like(pins.a), Signal(column_bits))
        now_bank, now_row, now_column = (Signal.like(at_bank), Signal.like(at_row),
                                         Signal.like(at_column))
        reads_now, writes_now = Signal(), Signal()
        forbid(Rule.CLOSED, transfer & ~is_open[pins.ba])
        forbid(Rule.TRCD, transfer & (opened[pins.ba] < limits["activate"]))
        forbid(Rule.ADDRESS, transfer & (pins.a[:ALL_BANKS] >> column_bits).any())
        forbid(Rule.BURST, (left != 0) & (transfer | is_[Command.STOP] | (
            is_[Command.PRECHARGE] & (pins.a[ALL_BANKS] | (pins.ba == at_bank)))))
        m.d.comb += [
            reads_now.eq(is_[Command.READ] | ((left != 0) & ~writes)),
            writes_now.eq(is_[Command.WRITE] | ((left != 0) & writes & ~is_[Command.READ])),
            now_bank.eq(Mux(transfer, pins.ba, at_bank)),
            now_row.eq(Mux(transfer, row[pins.ba], at_row)),
            now_column.eq(Mux(transfer, pins.a, at_column)),
        ]
        with m.If(transfer):
            sync([left.eq(length - 1), writes.eq(is_[Command.WRITE])])
        with m.Elif(left != 0):
            sync(left.eq(left - 1))
        inside = Signal(column_bits)    # of a burst, whose columns wrap around
        m.d.comb += inside.eq(length - 1)
        sync([at_bank.eq(now_bank), at_row.eq(now_row),
              at_column.eq((now_column & ~inside) | ((now_column + 1) & inside))])
        with m.If(writes_now):
            sync(written[now_bank].eq(1))

        # Data: what is read leaves `cas` - 1 clocks after its transfer.
        target = Signal(ceil_log2(self.words))
        word   = Signal(dram.sdram_bits)
        mask   = Signal(lanes)
        m.d.comb += [
            target.eq(Cat(now_column, now_bank, now_row)),
            mask.eq(Mux(writes_now & pins.dq_oe, ~pins.dqm, 0)),
        ]
        if self.storage == "memory":
            m.submodules.store = store = Memory(self.data)
            read  = store.read_port(domain=DOMAIN)
            write = store.write_port(domain=DOMAIN, granularity=8)
            m.d.comb += [read.addr.eq(target), word.eq(read.data), write.addr.eq(target),
                         write.data.eq(pins.dq_o), write.en.eq(mask), read.en.eq(1)]
        else:
            parts = exact_log2(self.beat // lanes)     # of a word of the array
            beat, part, asked = Signal(self.beat * 8), target[:parts], Signal(parts)
            sync(asked.eq(part))
            m.d.comb += word.eq(beat.word_select(asked, dram.sdram_bits))
            m.submodules.store = Instance(
                "offchip_array", p_BYTES=self.beat, p_DEPTH=self.size // self.beat,
                p_ADDRESS=len(target) - parts, i_clk=ClockSignal(DOMAIN),
                i_read_enable=C(1), i_read_address=target[parts:], o_read_data=beat,
                i_write_mask=Cat(Mux(part == which, mask, 0) for which in range(1 << parts)),
                i_write_address=target[parts:], i_write_data=pins.dq_o.replicate(1 << parts),
                i_load=self.load, i_dump=self.dump, i_dump_first=self.dump_first,
                i_dump_count=self.dump_count)
        drives, values = [Signal(name=f"drives_{step}") for step in range(3)], [word]
        sync(drives[0].eq(reads_now))
        for step in (1, 2):
            value = Signal(dram.sdram_bits, name=f"value_{step}")
            sync([drives[step].eq(drives[step - 1]), value.eq(values[-1])])
            values.append(value)
        masked = [pins.dqm, Signal(lanes), Signal(lanes)]      # two clocks ahead of what it hides
        sync([masked[1].eq(masked[0]), masked[2].eq(masked[1])])
        driving, shown = Signal(), Signal(dram.sdram_bits)
        m.d.comb += [
            driving.eq(Mux(cas == 3, drives[2], drives[1])),
            shown.eq(Mux(cas == 3, values[2], values[1])),
            *(pins.dq_i.word_select(lane, 8).eq(
                Mux(driving & ~masked[2][lane], shown.word_select(lane, 8), GARBAGE))
              for lane in range(lanes)),
        ]
        forbid(Rule.BUS, (driving & pins.dq_oe) | (writes_now & ~pins.dq_oe))

        # What was broken.
        with m.If(found.any()):
            sync([self.violations.eq(self.violations + 1), self.broken.eq(self.broken | found)])
        for rule, text in TEXT.items():
            with m.If(found[rule] & ~self.broken[rule]):
                sync(Print(f"sdram_device: {text}"))

        return m

