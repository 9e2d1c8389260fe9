# amaranth: UnusedElaboratable=no
"""The SDRAM at its pins: each rule of its data sheet, broken by hand and kept by a hair."""

from dataclasses import replace

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped
from amaranth.sim import Simulator

from hw.config import EDGE
from hw.memory.sdram import ALL_BANKS, Command, SdramPins
from hw.memory.sdram_device import DOMAIN, TEXT, Rule, SdramDevice

PERIOD = 10         # ns
# Every wait is another number of clocks: tRCD 3, tRP 4, tRAS 9, tRC 14, tRRD 2, tWR 5, tRFC 6.
DRAM = replace(EDGE.dram, power_up_ns=120, activate_ns=30, precharge_ns=40, row_active_ns=90,
               row_cycle_ns=140, row_to_row_ns=20, write_recovery_ns=50, refresh_busy_ns=60,
               refresh_interval_ns=5000)
ALL, MODE = 1 << ALL_BANKS, 0x22        # CL 2, bursts of 4
START = [(12, "PRECHARGE", 0, ALL), (4, "REFRESH", 0, 0), (6, "REFRESH", 0, 0),
         (6, "MODE", 0, MODE)]

# Commands: clocks after the one before, name, bank, address. The first of each pair is legal, the
# last command of the second breaks the rule, one clock or one thing off.
ROW   = (2, "ACTIVATE", 1, 7)
WRITE = (3, "WRITE", 1, 8)
READ  = (3, "READ", 1, 8)
CASES = {
    Rule.POWER_UP: ([(12, "NOP", 0, 0)], [(11, "PRECHARGE", 0, ALL)], []),
    Rule.START:    ([*START, ROW], [*START[:-1], (6, "ACTIVATE", 1, 7)], []),
    Rule.MODE:     ([*START[:-1], (6, "MODE", 0, 0x33)], [*START[:-1], (6, "MODE", 0, 0x12)], []),
    Rule.TMRD:     ([ROW], [(1, "ACTIVATE", 1, 7)], START),
    Rule.OPEN:     ([ROW, (14, "ACTIVATE", 2, 7)], [ROW, (14, "ACTIVATE", 1, 8)], START),
    Rule.CLOSED:   ([ROW, READ], [ROW, (3, "READ", 2, 8)], START),
    Rule.BANKS:    ([ROW, (9, "PRECHARGE", 1, 0), (5, "REFRESH", 0, 0)],
                    [ROW, (14, "REFRESH", 0, 0)], START),
    Rule.BURST:    ([ROW, READ, (4, "READ", 1, 0)], [ROW, READ, (3, "READ", 1, 0)], START),
    Rule.BUS:      ([ROW, READ, (6, "WRITE", 1, 0)], [ROW, READ, (5, "WRITE", 1, 0)], START),
    Rule.ADDRESS:  ([ROW], [(2, "ACTIVATE", 1, 16)], START),
    Rule.TRCD:     ([ROW, READ], [ROW, (2, "READ", 1, 8)], START),
    Rule.TRP:      ([ROW, (10, "PRECHARGE", 1, 0), (4, "ACTIVATE", 1, 8)],
                    [ROW, (11, "PRECHARGE", 1, 0), (3, "ACTIVATE", 1, 8)], START),
    Rule.TRAS:     ([ROW, (9, "PRECHARGE", 1, 0)], [ROW, (8, "PRECHARGE", 1, 0)], START),
    Rule.TRC:      ([ROW, (9, "PRECHARGE", 1, 0), (5, "ACTIVATE", 1, 8)],
                    [ROW, (9, "PRECHARGE", 1, 0), (4, "ACTIVATE", 1, 8)], START),
    Rule.TRRD:     ([ROW, (2, "ACTIVATE", 2, 7)], [ROW, (1, "ACTIVATE", 2, 7)], START),
    Rule.TWR:      ([ROW, WRITE, (3 + 5, "PRECHARGE", 1, 0)],
                    [ROW, WRITE, (3 + 4, "PRECHARGE", 1, 0)], START),
    Rule.TRFC:     ([(2, "REFRESH", 0, 0), (6, "ACTIVATE", 1, 7)],
                    [(2, "REFRESH", 0, 0), (5, "ACTIVATE", 1, 7)], START),
    Rule.TREFI:    ([(1490, "REFRESH", 0, 0), (20, "NOP", 0, 0)], [(1510, "NOP", 0, 0)], START),
}


class Bench(wiring.Component):
    """The memory on the clock of the simulator."""

    def __init__(self):
        self.device = SdramDevice(dram=DRAM, size=64 << 10, period_ps=PERIOD * 1000,
                                  storage="memory")
        super().__init__({"pins": In(SdramPins(bits=16, banks=4))})

    def elaborate(self, platform):
        m = Module()
        m.domains += ClockDomain(DOMAIN, local=True, reset_less=True)
        m.d.comb += ClockSignal(DOMAIN).eq(ClockSignal())
        m.submodules.device = self.device
        connect(m, flipped(self.pins), self.device.pins)
        return m


def broken_by(commands):
    """The rules that a list of commands breaks; writes bring their data."""
    dut, found = Bench(), set()

    async def drive(ctx):
        for wait, name, bank, address in commands:
            for _ in range(wait - 1):
                await ctx.tick()
                ctx.set(dut.pins.command, Command.NOP)
            ctx.set(dut.pins.dq_oe, 0)
            await ctx.tick()
            ctx.set(dut.pins.command, Command[name])
            ctx.set(dut.pins.ba, bank)
            ctx.set(dut.pins.a, address)
            if name == "WRITE":
                ctx.set(dut.pins.dq_oe, 1)
        for _ in range(4):
            await ctx.tick()
            ctx.set(dut.pins.command, Command.NOP)
        ctx.set(dut.pins.dq_oe, 0)
        await ctx.tick()
        bits = ctx.get(dut.device.broken)
        found.update(rule for rule in Rule if bits >> rule & 1)

    sim = Simulator(dut)
    sim.add_clock(PERIOD * 1e-9)
    sim.add_testbench(drive)
    sim.run()
    return found


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_every_rule_is_noticed_and_nothing_else(rule, capsys):
    legal, illegal, before = CASES[rule]
    assert broken_by([*before, *legal]) == set()
    assert capsys.readouterr().out == ""
    assert broken_by([*before, *illegal]) == {rule}
    assert capsys.readouterr().out == f"sdram_device: {TEXT[rule]}\n"


def test_storage_is_one_of_two():
    with pytest.raises(ValueError, match="^Storage must be 'array' or 'memory', not 'disk'$"):
        SdramDevice(dram=DRAM, size=1024, period_ps=10_000, storage="disk")
