"""What is simulated: the chip, its off-chip memory, and recorders on its taps."""

from pathlib import Path

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from hw.memory.offchip import ARRAY_SOURCE, OffchipMemory
from hw.top import TAPS, Chip
from sim.taps import HEADER_BYTES, MONITOR_BYTES

__all__ = ["SOURCES", "SimTop", "recorder"]

SOURCES = (ARRAY_SOURCE, Path(__file__).with_name("tap_recorder.v"))
"""Verilog that the exported design instantiates."""

BACKDOOR = ("load", "dump", "dump_first", "dump_count", "inject_error")
COUNTERS = ("read_bytes", "written_bytes", "row_hits", "row_misses", "refresh_cycles",
            "busy_cycles")


class SimTop(wiring.Component):
    """Chip and off-chip memory, wired together; only a host is missing.

    Parameters
    ----------
    config : hw.config.Config

    Members
    -------
    control, irq, monitor
        Those of :class:`hw.top.Chip`.
    load, dump : In(1)
    dump_first, dump_count : In(32)
    inject_error : In(2)
    read_bytes, written_bytes, row_hits, row_misses, refresh_cycles, busy_cycles : Out(40)
        Those of :class:`hw.memory.offchip.OffchipMemory`.
    """

    def __init__(self, config):
        self.config  = config
        self.chip    = Chip(config)
        self.offchip = OffchipMemory(config=config)

        chip, offchip = self.chip.signature.members, self.offchip.signature.members
        super().__init__({
            **{name: chip[name] for name in ("control", "irq", "monitor")},
            **{name: offchip[name] for name in (*BACKDOOR, *COUNTERS)},
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.chip    = chip    = self.chip
        m.submodules.offchip = offchip = self.offchip

        connect(m, flipped(self.control), chip.control)
        connect(m, chip.axi, offchip.axi)
        connect(m, chip.monitor, flipped(self.monitor))
        m.d.comb += self.irq.eq(chip.irq)
        m.d.comb += [getattr(self, name).eq(getattr(offchip, name)) for name in COUNTERS]
        m.d.comb += [getattr(offchip, name).eq(getattr(self, name))
                     for name in BACKDOOR]

        for name, tap in zip(TAPS, chip.taps):
            m.submodules[f"record_{name}"] = recorder(name, tap.valid, tap.p)
        seen = self.monitor
        m.submodules.record_monitor = Instance(
            "tap_recorder", p_BYTES=MONITOR_BYTES, p_NAME="monitor", p_FORMAT="monitor=%s",
            i_clk=ClockSignal(), i_valid=seen.tvalid & seen.tready,
            i_record=Cat(seen.tdata, seen.tuser.as_value(), C(0, MONITOR_BYTES * 8 - 28)))

        return m


def recorder(name, valid, payload):
    """An instance that writes ``payload`` (:func:`hw.interfaces.tap_layout`) to the file ``name``
    whenever ``valid``; :mod:`sim.taps` reads it."""
    head = payload.shape().size - len(payload.data)
    bits = Cat(payload.as_value()[:head], C(0, HEADER_BYTES * 8 - head), payload.data)
    return Instance("tap_recorder", p_BYTES=len(bits) // 8, p_NAME=name, i_clk=ClockSignal(),
                    i_valid=valid, i_record=bits)
