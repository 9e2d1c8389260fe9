"""What stands for the chip where only the board around it is looked at."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.control.regmap import ADDRESS_BITS, Register
from hw.memory.axi import Axi4, AxiLite
from hw.monitor.monitor import MonitorStream

__all__ = ["REFUSED", "ROW", "WRITES", "Stub", "row_request"]

WRITES  = 0xFFC         # how many registers were written, ever
REFUSED = 0x800         # a register that does not exist
ROW     = 0x900         # of the monitor, to be sent: a row_request


class row_request(data.Struct):
    layer: 8
    row:   12
    bytes: 12


class Stub(wiring.Component):
    """In the chip's place: a memory of registers; counters are their number, and its square. A
    write to ``ROW`` makes the monitor send a row, whose bytes count from its layer."""

    def __init__(self, config):
        super().__init__({
            "axi":     Out(Axi4(data_width=64, address_width=config.offchip_address_width)),
            "control": In(AxiLite(address_width=ADDRESS_BITS)),
            "irq":     Out(1),
            "monitor": Out(MonitorStream()),
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.control
        m.submodules.file = file = Memory(shape=32, depth=1 << ADDRESS_BITS - 2, init=[])
        write, read = file.write_port(), file.read_port(domain="comb")
        writes, select, both = Signal(32), Signal(16), Signal()
        m.d.comb += [
            both.eq(bus.awvalid & bus.wvalid & ~bus.bvalid),
            bus.awready.eq(both), bus.wready.eq(both),
            write.addr.eq(bus.awaddr[2:]), write.data.eq(bus.wdata), write.en.eq(both),
            read.addr.eq(bus.araddr[2:]),
            bus.arready.eq(~bus.rvalid),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(both):
            m.d.sync += [bus.bvalid.eq(1), writes.eq(writes + 1), Value.cast(bus.bresp).eq(
                Mux(bus.awaddr == REFUSED, 2, 0))]
            with m.If(bus.awaddr == Register.COUNTER_SELECT):
                m.d.sync += select.eq(bus.wdata)
        asked, sent = Signal(row_request), Signal(12)
        monitor     = self.monitor
        m.d.comb += [
            monitor.tvalid.eq(sent != asked.bytes), monitor.tlast.eq(sent + 1 == asked.bytes),
            monitor.tdata.eq(asked.layer + sent),
            monitor.tuser.layer.eq(asked.layer), monitor.tuser.row.eq(asked.row),
        ]
        with m.If(monitor.tvalid & monitor.tready):
            m.d.sync += sent.eq(sent + 1)
        with m.If(both & (bus.awaddr == ROW)):
            m.d.sync += [asked.eq(bus.wdata), sent.eq(0)]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += bus.rvalid.eq(1)
            with m.Switch(bus.araddr):
                with m.Case(WRITES):
                    m.d.sync += bus.rdata.eq(writes)
                with m.Case(Register.COUNTER_LO):
                    m.d.sync += bus.rdata.eq(select)
                with m.Case(Register.COUNTER_HI):
                    m.d.sync += bus.rdata.eq(select * select)
                with m.Default():
                    m.d.sync += bus.rdata.eq(read.data)
        return m
