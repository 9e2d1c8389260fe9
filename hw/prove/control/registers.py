"""Properties of :class:`hw.control.registers.ControlRegisters`: the AXI4-Lite subordinate."""

from amaranth import *

from hw.control.registers import ControlRegisters
from hw.control.regmap import Register
from hw.memory.axi import Response
from hw.prove.bench import prove


def registers(bench):
    """The registers, a host that obeys AXI4-Lite, and a ledger that answers at some time."""
    dut = bench.block(ControlRegisters())
    bus = dut.bus
    bench.assume(bench.kept(bus.awvalid, bus.awready, bus.awaddr))
    bench.assume(bench.kept(bus.wvalid, bus.wready, bus.wdata, bus.wstrb))
    bench.assume(bench.kept(bus.arvalid, bus.arready, bus.araddr))
    return dut, bus


@prove((ControlRegisters.elaborate, "with m.If(bus.bready):", "with m.If(bus.awvalid):"))
def answers_hold(bench):
    """B and R, once valid, stay valid and the same until the host takes them."""
    _, bus = registers(bench)
    bench.check(bench.kept(bus.bvalid, bus.bready, bus.bresp), "B holds")
    bench.check(bench.kept(bus.rvalid, bus.rready, bus.rdata, bus.rresp), "R holds")
    bench.cover(bus.rvalid & bench.before(bus.rvalid & ~bus.rready))
    bench.cover(bus.bvalid & bench.before(bus.bvalid & ~bus.bready))


@prove((ControlRegisters.elaborate, "bus.arready.eq(~bus.rvalid)", "bus.arready.eq(1)"))
def one_answer_per_request(bench):
    """Every write and every read gets exactly one answer, after it and before the next: requests
    taken less answers taken is 0 or 1, and 1 when an answer is on offer."""
    _, bus = registers(bench)
    writes = bench.register(2, "writes")
    reads  = bench.register(2, "reads")
    bench.m.d.sync += writes.eq(writes + (bus.awvalid & bus.awready) - (bus.bvalid & bus.bready))
    bench.m.d.sync += reads.eq(reads + (bus.arvalid & bus.arready) - (bus.rvalid & bus.rready))
    bench.check((bus.awvalid & bus.awready) == (bus.wvalid & bus.wready), "address with data")
    bench.check((writes <= 1) & (reads <= 1), "one at a time")
    bench.check(bus.bvalid == (writes != 0), "B answers the write")
    bench.check(~bus.rvalid | (reads != 0), "R answers the read")
    bench.cover((writes == 1) & (reads == 1) & bus.rvalid & bus.bvalid)


@prove((ControlRegisters.elaborate, "& ~write_fire\n", "\n"))
def ready_depends_on_no_valid(bench):
    """No READY of the bus depends on an input of the same cycle: it is what registers say. Here:
    AWREADY and WREADY rise only a cycle after both were seen on offer, and never twice for one."""
    _, bus = registers(bench)
    seen = bench.before(bus.awvalid & bus.wvalid)
    bench.check(~bus.awready | seen, "offered a cycle ago")
    bench.check(~bus.awready | (bus.awvalid & bus.wvalid), "and still")
    bench.check(bus.arready | bus.rvalid | bench.before(bus.arvalid | ~bus.arready), "reads")
    bench.cover(bus.awready & bus.arready)


@prove((ControlRegisters.elaborate, "(kept[register] & ~mask)", "kept[register]"), slow=True)
def reads_see_writes(bench):
    """PROGRAM_BASE holds what was written last, byte by byte of WSTRB, and a read returns it."""
    dut, bus = registers(bench)
    held = bench.register(32, "held")
    mask = Cat(bit.replicate(8) for bit in bus.wstrb)
    with bench.m.If(bus.awvalid & bus.awready
                    & (bus.awaddr[2:] == Register.PROGRAM_BASE >> 2)):
        bench.m.d.sync += held.eq((held & ~mask) | (bus.wdata & mask))
    asked = bench.register(1, "asked")
    with bench.m.If(bus.arvalid & bus.arready):
        bench.m.d.sync += asked.eq(bus.araddr[2:] == Register.PROGRAM_BASE >> 2)
    answer = bench.register(32, "answer")
    bench.m.d.sync += answer.eq(Mux(bus.rvalid, answer, held))
    bench.check(dut.program_base == held, "the last write")
    bench.check(~(bus.rvalid & asked) | ((bus.rdata == answer) & (bus.rresp == Response.OKAY)),
                "the read")
    bench.cover(bus.rvalid & asked & (bus.rdata == 0x1234_5678))


@prove((ControlRegisters.elaborate, "with m.If(events[index]):",
        "with m.If(events[index] & ~write_fire):"))
def no_event_is_lost(bench):
    """An event raises its bit, and only a write of 1 to IRQ_STATUS lowers it, and not in the cycle
    of an event; the interrupt is an enabled bit."""
    dut, bus = registers(bench)
    writes = [bus.awvalid & bus.awready & (bus.awaddr[2:] == register >> 2)
              for register in (Register.IRQ_STATUS, Register.IRQ_ENABLE)]
    count = len(dut.interrupts.as_value())
    status, enable = bench.register(count, "status"), bench.register(count, "enable")
    mask = bus.wstrb[0].replicate(count)
    bench.m.d.sync += status.eq((status & ~Mux(writes[0], bus.wdata & mask, 0))
                                | dut.interrupts.as_value())
    with bench.m.If(writes[1]):
        bench.m.d.sync += enable.eq((enable & ~mask) | (bus.wdata & mask))
    bench.check(dut.irq == (status & enable).any(), "irq")
    bench.cover(dut.irq & bench.before(writes[0]))
