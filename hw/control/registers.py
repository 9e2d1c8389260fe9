"""Control registers behind an AXI4-Lite port."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.control.regmap import (
    ADDRESS_BITS,
    ID,
    REGISTERS,
    VERSION,
    Access,
    Control,
    Interrupt,
    Register,
    Status,
)
from hw.interfaces import window_layout
from hw.memory.axi import AxiLite, Response


def monitor_layout():
    """What the attention monitor shows: the MONITOR registers that the host may write."""
    return data.StructLayout({
        name.removeprefix("MONITOR_").lower(): REGISTERS[register].bits
        for name, register in Register.__members__.items()
        if name.startswith("MONITOR_") and REGISTERS[register].access is Access.READ_WRITE
    })


class ControlRegisters(wiring.Component):
    """Keeps the registers of :mod:`hw.control.regmap`; AXI4-Lite subordinate, 32 bits.

    One read and one write are served at a time, side by side; a write takes three cycles, a read
    two, and a read of ``COUNTER_LO`` as long as the ledger takes. No output of the bus depends on
    an input in the same cycle. Byte strobes are honoured; the two
    lowest address bits are ignored. An access to an address without a register, or a write to a
    read-only one, changes nothing and is answered with ``SLVERR``.

    Members
    -------
    bus : In(AxiLite(address_width=12))
    irq : Out(1)
        Some enabled bit of IRQ_STATUS is high.
    control : Out(Control)
        Pulses.
    status : In(Status)
    interrupts : In(Interrupt)
        Pulses that set bits of IRQ_STATUS.
    program_base : Out(32)
    writable : Out(window_layout())
    cycle_limit : Out(48)
    stall_limit : Out(32)
    frames_ready : Out(18)
    counter_select : Out(16)
    counter_sample : Out(1)
    counter_sampled : In(1)
    counter_value : In(64)
        As ``select``, ``sample``, ``sampled`` and ``value`` of :class:`hw.control.ledger.Ledger`.
    monitor : Out(monitor_layout())
    monitor_sent, monitor_dropped : In(32)
    """

    bus:             In(AxiLite(address_width=ADDRESS_BITS))
    irq:             Out(1)
    control:         Out(Control)
    status:          In(Status)
    interrupts:      In(Interrupt)
    program_base:    Out(32)
    writable:        Out(window_layout())
    cycle_limit:     Out(48)
    stall_limit:     Out(32)
    frames_ready:    Out(REGISTERS[Register.FRAMES_READY].bits)
    counter_select:  Out(16)
    counter_sample:  Out(1)
    counter_sampled: In(1)
    counter_value:   In(64)
    monitor:         Out(monitor_layout())
    monitor_sent:    In(32)
    monitor_dropped: In(32)

    def elaborate(self, platform):
        m = Module()

        kept = {register: Signal(entry.bits, name=register.name.lower())
                for register, entry in REGISTERS.items()
                if entry.access in (Access.READ_WRITE, Access.CLEAR)}
        values = {
            **kept,
            Register.ID:              C(ID, 32),
            Register.VERSION:         C(VERSION, 32),
            Register.STATUS:          self.status.as_value(),
            Register.COUNTER_LO:      self.counter_value[:32],
            Register.COUNTER_HI:      self.counter_value[32:],
            Register.MONITOR_SENT:    self.monitor_sent,
            Register.MONITOR_DROPPED: self.monitor_dropped,
        }
        m.d.comb += [
            self.program_base.eq(kept[Register.PROGRAM_BASE]),
            self.writable.base.eq(kept[Register.WRITE_BASE]),
            self.writable.limit.eq(kept[Register.WRITE_LIMIT]),
            self.cycle_limit.eq(Cat(kept[Register.CYCLE_LIMIT_LO],
                                    kept[Register.CYCLE_LIMIT_HI])),
            self.stall_limit.eq(kept[Register.STALL_LIMIT]),
            self.frames_ready.eq(kept[Register.FRAMES_READY]),
            self.counter_select.eq(kept[Register.COUNTER_SELECT]),
            self.irq.eq((kept[Register.IRQ_STATUS] & kept[Register.IRQ_ENABLE]).any()),
        ]
        for name, _ in self.monitor.shape():
            m.d.comb += self.monitor[name].eq(kept[Register[f"MONITOR_{name.upper()}"]])

        bus = self.bus

        # Writes: address and data may come in any order; both are taken at once, in the cycle after
        # both were seen on offer.
        write_fire = Signal()
        mask       = Signal(32)
        word       = bus.awaddr[2:]
        m.d.comb += [
            bus.awready.eq(write_fire),
            bus.wready.eq(write_fire),
            mask.eq(Cat(bit.replicate(8) for bit in bus.wstrb)),
        ]
        m.d.sync += write_fire.eq(bus.awvalid & bus.wvalid & ~write_fire
                                  & (~bus.bvalid | bus.bready))
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        m.d.sync += self.control.eq(0)
        with m.If(write_fire):
            m.d.sync += bus.bvalid.eq(1)
            m.d.sync += bus.bresp.eq(Response.SLVERR)
            with m.Switch(word):
                for register, entry in REGISTERS.items():
                    if entry.access is Access.READ:
                        continue
                    with m.Case(register >> 2):
                        m.d.sync += bus.bresp.eq(Response.OKAY)
                        if entry.access is Access.WRITE:
                            m.d.sync += self.control.eq(bus.wdata & mask)
                        elif entry.access is Access.CLEAR:
                            m.d.sync += kept[register].eq(kept[register] & ~(bus.wdata & mask))
                        else:
                            m.d.sync += kept[register].eq((kept[register] & ~mask)
                                                          | (bus.wdata & mask))

        # An event in the cycle of a clear is not lost.
        events = self.interrupts.as_value()
        status = kept[Register.IRQ_STATUS]
        for index in range(len(status)):
            with m.If(events[index]):
                m.d.sync += status[index].eq(1)

        # Reads
        read_word = Signal.like(bus.araddr[2:])
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += bus.arready.eq(~bus.rvalid)
                m.d.sync += read_word.eq(bus.araddr[2:])
                with m.If(bus.arvalid & bus.arready):
                    m.next = "Answer"
                    with m.If(bus.araddr[2:] == Register.COUNTER_LO >> 2):
                        m.d.comb += self.counter_sample.eq(1)
                        m.next = "Wait for the ledger"

            with m.State("Wait for the ledger"):
                with m.If(self.counter_sampled):
                    m.next = "Answer"

            with m.State("Answer"):
                m.d.sync += bus.rvalid.eq(1)
                m.d.sync += bus.rdata.eq(0)
                m.d.sync += bus.rresp.eq(Response.SLVERR)
                m.next = "Idle"
                with m.Switch(read_word):
                    for register in REGISTERS:
                        with m.Case(register >> 2):
                            m.d.sync += bus.rresp.eq(Response.OKAY)
                            m.d.sync += bus.rdata.eq(values.get(register, 0))

        return m
