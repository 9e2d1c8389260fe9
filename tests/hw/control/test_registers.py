# amaranth: UnusedElaboratable=no
import random
from pathlib import Path

import pytest
from amaranth.sim import Simulator

from hw.control.registers import ControlRegisters
from hw.control.regmap import (
    ID,
    REGISTERS,
    VERSION,
    Access,
    Control,
    Entry,
    Register,
    Status,
    register_table,
)
from hw.isa import Engine, Error
from tests.hw.control.bench import Bus

SLVERR = 2


def simulate(bench):
    dut = ControlRegisters()

    async def ledger(ctx):
        """Answers each sample some cycles later, with a value made from the selector."""
        while True:
            selected, = await ctx.tick().sample(dut.counter_select).until(dut.counter_sample)
            for _ in range(selected % 5):
                await ctx.tick()
            ctx.set(dut.counter_value, selected * 0x1_0000_0001)
            ctx.set(dut.counter_sampled, 1)
            await ctx.tick()
            ctx.set(dut.counter_sampled, 0)

    async def run(ctx):
        await bench(ctx, dut, Bus(ctx, dut.bus))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(ledger, background=True)
    sim.add_testbench(run)
    sim.run()


def test_every_register_that_keeps_its_value():
    async def bench(ctx, dut, bus):
        rng  = random.Random(1)
        kept = {register: 0 for register, entry in REGISTERS.items()
                if entry.access is Access.READ_WRITE}
        for register in kept:
            assert await bus.read(register) == 0
        for _ in range(3):
            for register in kept:
                value, strobe = rng.getrandbits(32), rng.randrange(16)
                await bus.write(register, value, strobe=strobe)
                mask = sum(0xFF << 8 * lane for lane in range(4) if strobe >> lane & 1)
                kept[register] = (kept[register] & ~mask | value & mask) \
                    & ((1 << REGISTERS[register].bits) - 1)
            for register, value in kept.items():
                assert await bus.read(register) == value, register
        assert ctx.get(dut.program_base) == kept[Register.PROGRAM_BASE]
        assert ctx.get(dut.writable.base) == kept[Register.WRITE_BASE]
        assert ctx.get(dut.writable.limit) == kept[Register.WRITE_LIMIT]
        assert ctx.get(dut.cycle_limit) == (kept[Register.CYCLE_LIMIT_LO]
                                            | kept[Register.CYCLE_LIMIT_HI] << 32)
        assert ctx.get(dut.stall_limit) == kept[Register.STALL_LIMIT]
        assert ctx.get(dut.counter_select) == kept[Register.COUNTER_SELECT]
        for name in ("enable", "layer", "x0", "y0", "width", "height", "decimate"):
            assert (ctx.get(getattr(dut.monitor, name))
                    == kept[Register[f"MONITOR_{name.upper()}"]])

    simulate(bench)


def test_read_only_registers():
    async def bench(ctx, dut, bus):
        ctx.set(dut.status, {"busy": 1, "error": Error.BAD_ADDRESS, "engine": Engine.GATE})
        ctx.set(dut.monitor_sent, 0x1234_5678)
        ctx.set(dut.monitor_dropped, 9)
        status = Status.from_bits(await bus.read(Register.STATUS))
        assert (status.busy, status.done, status.stopped) == (1, 0, 0)
        assert (status.error, status.engine) == (Error.BAD_ADDRESS, Engine.GATE)
        for register, value in ((Register.ID, ID), (Register.VERSION, VERSION),
                                (Register.MONITOR_SENT, 0x1234_5678),
                                (Register.MONITOR_DROPPED, 9), (Register.CONTROL, 0)):
            assert await bus.read(register) == value
        for register, entry in REGISTERS.items():
            if entry.access is Access.READ:
                await bus.write(register, 0xFFFF_FFFF, response=SLVERR)
        assert await bus.read(Register.ID) == ID

    simulate(bench)


def test_address_without_a_register():
    async def bench(ctx, dut, bus):
        free = sorted(set(range(0, 0x80, 4)) - set(Register)) + [0xFFC, 0x100 + Register.CONTROL]
        assert 0x3C in free
        for address in free:
            assert await bus.read(address, response=SLVERR) == 0
            await bus.write(address, 3, response=SLVERR)
        assert await bus.read(Register.ID + 3) == ID      # the low bits do not matter

    simulate(bench)


def test_control_bits_are_pulses():
    async def bench(ctx, dut, bus):
        pulses = []

        async def write(value, strobe=0xF):
            ctx.set(dut.bus.awaddr, Register.CONTROL)
            ctx.set(dut.bus.wdata, value)
            ctx.set(dut.bus.wstrb, strobe)
            ctx.set(dut.bus.awvalid, 1)
            ctx.set(dut.bus.wvalid, 1)
            ctx.set(dut.bus.bready, 1)
            for cycle in range(5):
                await ctx.tick()
                if cycle:
                    ctx.set(dut.bus.awvalid, 0)
                    ctx.set(dut.bus.wvalid, 0)
                pulses.append(ctx.get(dut.control.as_value()))

        await write(Control.const({"start": 1}).as_bits())
        await write(Control.const({"stop": 1}).as_bits())
        await write(3, strobe=0xE)
        assert pulses == [0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]

    simulate(bench)


def test_interrupts():
    async def bench(ctx, dut, bus):
        async def event(**bits):
            ctx.set(dut.interrupts, bits)
            await ctx.tick()
            ctx.set(dut.interrupts, {})

        await event(done=1)
        assert not ctx.get(dut.irq)
        await bus.write(Register.IRQ_ENABLE, 1)
        assert ctx.get(dut.irq)
        await bus.write(Register.IRQ_STATUS, 2)
        assert await bus.read(Register.IRQ_STATUS) == 1
        await bus.write(Register.IRQ_STATUS, 1)
        assert not ctx.get(dut.irq)
        await event(error=1)
        assert not ctx.get(dut.irq)
        await bus.write(Register.IRQ_ENABLE, 2)
        assert ctx.get(dut.irq)
        assert await bus.read(Register.IRQ_STATUS) == 2

        await event(done=1, error=1)
        await bus.write(Register.IRQ_STATUS, 3, strobe=0xE)
        assert await bus.read(Register.IRQ_STATUS) == 3
        await bus.write(Register.IRQ_STATUS, 3)
        assert await bus.read(Register.IRQ_STATUS) == 0

        # An event in the cycle of the clearing write stays.
        ctx.set(dut.bus.awaddr, Register.IRQ_STATUS)
        ctx.set(dut.bus.wdata, 3)
        ctx.set(dut.bus.awvalid, 1)
        ctx.set(dut.bus.wvalid, 1)
        ctx.set(dut.bus.bready, 1)
        await ctx.tick()
        assert ctx.get(dut.bus.awready)
        await event(done=1)
        ctx.set(dut.bus.awvalid, 0)
        ctx.set(dut.bus.wvalid, 0)
        await ctx.tick()
        assert await bus.read(Register.IRQ_STATUS) == 1

    simulate(bench)


def test_counter_window_waits_and_holds_its_sample():
    async def bench(ctx, dut, bus):
        for selector in (7, 10, 0xFFFF):
            await bus.write(Register.COUNTER_SELECT, selector)
            assert await bus.read(Register.COUNTER_LO) == selector
            await bus.write(Register.COUNTER_SELECT, 3)
            assert await bus.read(Register.COUNTER_HI) == selector

    simulate(bench)


def test_slow_manager_gets_every_answer():
    async def bench(ctx, dut, bus):
        rng = random.Random(2)
        for index in range(60):
            port = dut.bus
            ctx.set(port.awaddr, Register.STALL_LIMIT if index % 3 else Register.ID)
            ctx.set(port.wdata, index)
            ctx.set(port.wstrb, 0xF)
            address, word, answer = rng.randrange(4), rng.randrange(4), rng.randrange(3, 9)
            read = rng.randrange(4)
            answers = []
            reads   = []
            for cycle in range(24):
                if cycle == address:
                    ctx.set(port.awvalid, 1)
                if cycle == word:
                    ctx.set(port.wvalid, 1)
                if cycle == read:
                    ctx.set(port.araddr, Register.ID if index % 2 else 0x3C)
                    ctx.set(port.arvalid, 1)
                ctx.set(port.bready, cycle >= answer)
                ctx.set(port.rready, cycle >= answer)
                take  = ctx.get(port.awvalid) and ctx.get(port.awready)
                order = ctx.get(port.arvalid) and ctx.get(port.arready)
                assert (ctx.get(port.awready) == ctx.get(port.wready))
                if ctx.get(port.bvalid) and ctx.get(port.bready):
                    answers.append(ctx.get(port.bresp).value)
                if ctx.get(port.rvalid) and ctx.get(port.rready):
                    reads.append((ctx.get(port.rdata), ctx.get(port.rresp).value))
                await ctx.tick()
                if take:
                    ctx.set(port.awvalid, 0)
                    ctx.set(port.wvalid, 0)
                if order:
                    ctx.set(port.arvalid, 0)
            assert answers == [0 if index % 3 else SLVERR]
            assert reads == [(ID, 0) if index % 2 else (0, SLVERR)]
            assert ctx.get(dut.stall_limit) == (index if index % 3 else max(index - 1, 0))

    simulate(bench)


def test_second_write_waits_for_the_first_answer():
    async def bench(ctx, dut, bus):
        port = dut.bus
        ctx.set(port.awaddr, Register.ID)
        ctx.set(port.awvalid, 1)
        ctx.set(port.wvalid, 1)
        await ctx.tick().repeat(2)
        ctx.set(port.awaddr, Register.STALL_LIMIT)
        for _ in range(3):
            assert (ctx.get(port.awready), ctx.get(port.wready)) == (0, 0)
            assert (ctx.get(port.bvalid), ctx.get(port.bresp).value) == (1, SLVERR)
            await ctx.tick()
        ctx.set(port.bready, 1)
        await ctx.tick()
        assert (ctx.get(port.awready), ctx.get(port.wready)) == (1, 1)
        assert ctx.get(port.bvalid) == 0
        await ctx.tick()
        assert (ctx.get(port.bvalid), ctx.get(port.bresp).value) == (1, 0)

    simulate(bench)


def test_no_output_depends_on_an_input_in_the_same_cycle():
    async def bench(ctx, dut, bus):
        port    = dut.bus
        inputs  = ("awvalid", "wvalid", "bready", "arvalid", "rready")
        outputs = ("awready", "wready", "bvalid", "arready", "rvalid", "rdata")
        rng     = random.Random(4)
        ready   = set()
        for _ in range(200):
            before = {name: ctx.get(getattr(port, name)) for name in inputs}
            seen   = set()
            for value in range(1 << len(inputs)):
                for index, name in enumerate(inputs):
                    ctx.set(getattr(port, name), value >> index & 1)
                seen.add(tuple(ctx.get(getattr(port, name)) for name in outputs))
            assert len(seen) == 1
            found = dict(zip(outputs, seen.pop(), strict=True))
            ready |= {name for name, value in found.items() if value}
            # What is on offer stays, unless it was taken; the rest is up to chance.
            for name in inputs:
                taken = found.get(name.replace("valid", "ready"), 0)
                held  = name.endswith("valid") and before[name] and not taken
                ctx.set(getattr(port, name), held or rng.random() < 0.5)
            await ctx.tick()
        assert ready >= {"awready", "wready", "bvalid", "arready", "rvalid"}

    simulate(bench)


def test_map_is_complete():
    assert list(REGISTERS) == list(Register)
    assert all(register % 4 == 0 and isinstance(entry, Entry) and 1 <= entry.bits <= 32
               for register, entry in REGISTERS.items())
    assert Status.as_shape().size == REGISTERS[Register.STATUS].bits
    table = register_table()
    assert "| 0x0C | STATUS | read | Busy, done" in table
    assert table.count("\n") == len(Register) + 1


def test_readme_shows_the_map():
    readme = Path(__file__).parents[3] / "hw" / "control" / "README.md"
    assert readme.read_text().endswith(register_table() + "\n")


@pytest.mark.cosim
def test_under_an_independent_manager(cosimulate):
    cosimulate(ControlRegisters(), "tests.hw.control.bench_registers")
