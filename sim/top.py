"""What is simulated: the chip, its off-chip memory, and recorders on its taps."""

from inspect import signature
from pathlib import Path

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.control.trace import CYCLE_BITS, event_layout
from hw.isa import LOADS, STORES, Engine, Traffic
from hw.memory.load import LoadEngines
from hw.memory.offchip import MODEL_SOURCES, OffchipMemory
from hw.memory.pinned import PinnedMemory
from hw.memory.store import StoreEngine
from hw.top import TAPS, Chip
from sim.hostile_bus import HOSTILITY, HostileBus
from sim.taps import HEADER_BYTES, MONITOR_BYTES

__all__ = ["SOURCES", "SimTop", "recorder"]

MONITOR_SOURCE = Path(__file__).with_name("axi_monitor.v")

SOURCES = (*MODEL_SOURCES, MONITOR_SOURCE, *(Path(__file__).with_name(name)
                                             for name in ("tap_recorder.v", "event_recorder.v")))
"""Verilog that the exported design instantiates."""

BACKDOOR = ("load", "dump", "dump_first", "dump_count", "inject_error")
COUNTERS = ("read_bytes", "written_bytes", "row_hits", "row_misses", "refresh_cycles",
            "busy_cycles")
HITS       = ("hit", "hit_address", "hit_id", "read_beats", "responses")
WORD_BYTES = 8

# Bursts that the chip has outstanding at most: of every channel, what it takes by default.
MOST_READS  = (len(LOADS) + 1) * signature(LoadEngines).parameters["outstanding"].default
MOST_WRITES = len(STORES) * signature(StoreEngine).parameters["outstanding"].default


class SimTop(wiring.Component):
    """Chip and off-chip memory, wired together; only a host is missing.

    Parameters
    ----------
    config : hw.config.Config
    trace : bool
        Record every event of every engine; :mod:`sim.trace` reads it. Without, nothing is there
        that could.
    check : bool
        Check the protocol of all three buses.
    hostile : bool
        Put a :class:`sim.hostile_bus.HostileBus` between chip and memory.
    pins : bool
        Off-chip memory is a :class:`hw.memory.pinned.PinnedMemory`, down to the pins of an SDRAM.
    chip : wiring.Component
        Another one in the place of :class:`hw.top.Chip`, with its signature.

    Members
    -------
    control, irq, monitor
        Those of :class:`hw.top.Chip`.
    load, dump : In(1)
    dump_first, dump_count : In(32)
    inject_error : In(2)
        Not with ``pins``.
    read_bytes, written_bytes, row_hits, row_misses, refresh_cycles, busy_cycles : Out(40)
        Those of :class:`hw.memory.offchip.OffchipMemory`.
    ready : Out(1)
        Only with ``pins``: the memory is initialised.
    violations : Out(32)
        How often a rule of a bus, or of the SDRAM's data sheet, was broken; ``axi_monitor.v`` and
        :class:`hw.memory.sdram_device.SdramDevice` print which.
    owed : Out(8)
        Off-chip bursts that are not over.
    hostility, hit, hit_address, hit_id, read_beats, responses
        Only with ``hostile``: those of :class:`sim.hostile_bus.HostileBus`; it restarts with
        ``load``, and holds up the chip's monitor stream, too.
    monitor_bytes : Out(32)
    tap_records : Array of Out(32), in the order of ``TAPS``
        Only with ``hostile``: bytes that left the monitor, and records of each tap, ever.
    cycle : Out(48)
        Only with ``trace``: the machine's own count, 0 until a run begins.
    """

    def __init__(self, config, *, trace=False, check=True, hostile=False, pins=False, chip=None):
        self.config  = config
        self.traced  = trace
        self.checked = check
        self.chip    = Chip(config, trace=trace) if chip is None else chip
        self.offchip = (PinnedMemory if pins else OffchipMemory)(config=config)
        self.pins    = pins
        self.hostile = HostileBus(self.chip.axi.signature) if hostile else None

        chip, offchip = self.chip.signature.members, self.offchip.signature.members
        super().__init__({
            **{name: chip[name] for name in ("control", "irq", "monitor")},
            **{name: offchip[name] for name in (*BACKDOOR, *COUNTERS, "ready") if name in offchip},
            "violations": Out(32),
            "owed": Out(8),
            **({"hostility": In(HOSTILITY), "monitor_bytes": Out(32),
                "tap_records": Out(32).array(len(TAPS)),
                **{name: self.hostile.signature.members[name] for name in HITS}}
               if hostile else {}),
            **({"cycle": Out(CYCLE_BITS)} if trace else {}),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.chip    = chip    = self.chip
        m.submodules.offchip = offchip = self.offchip

        connect(m, flipped(self.control), chip.control)
        if self.hostile is None:
            connect(m, chip.axi, offchip.axi)
            connect(m, chip.monitor, flipped(self.monitor))
        else:
            self._harass(m)
        m.d.comb += self.irq.eq(chip.irq)
        m.d.comb += [getattr(self, name).eq(getattr(offchip, name)) for name in COUNTERS]
        m.d.comb += [getattr(offchip, name).eq(getattr(self, name))
                     for name in BACKDOOR if hasattr(offchip, name)]
        if self.pins:
            m.d.comb += self.ready.eq(offchip.ready)

        for name, tap in zip(TAPS, chip.taps):
            m.submodules[f"record_{name}"] = recorder(name, tap.valid, tap.p)
        seen = chip.monitor
        m.submodules.record_monitor = Instance(
            "tap_recorder", p_BYTES=MONITOR_BYTES, p_NAME="monitor", p_FORMAT="monitor=%s",
            i_clk=ClockSignal(), i_valid=seen.tvalid & seen.tready,
            i_record=Cat(seen.tdata, seen.tuser.as_value(), seen.tlast,
                         C(0, MONITOR_BYTES * 8 - 29)))
        if self.checked:
            self._check_buses(m)
        if self.traced:
            m.d.comb += self.cycle.eq(chip.trace.cycle)
            self._record_events(m, chip.trace, offchip, seen)

        return m

    def _harass(self, m):
        chip = self.chip
        m.submodules.hostile = bus = self.hostile
        connect(m, chip.axi, bus.manager)
        connect(m, bus.memory, self.offchip.axi)
        m.d.comb += [
            bus.control.eq(self.hostility),
            bus.restart.eq(self.load),
            *(getattr(self, name).eq(getattr(bus, name)) for name in HITS),
            *(getattr(self.monitor, name).eq(getattr(chip.monitor, name))
              for name in ("tdata", "tuser", "tlast")),
            self.monitor.tvalid.eq(chip.monitor.tvalid & bus.stream_open),
            chip.monitor.tready.eq(self.monitor.tready & bus.stream_open),
        ]
        with m.If(chip.monitor.tvalid & chip.monitor.tready):
            m.d.sync += self.monitor_bytes.eq(self.monitor_bytes + 1)

        for tap, count in zip(chip.taps, self.tap_records):
            with m.If(tap.valid):
                m.d.sync += count.eq(count + 1)

    def _check_buses(self, m):
        found = []

        def watch(kind, bus, **parameters):
            found.append(Signal(32, name=f"{kind}_violations"))
            return Instance(
                kind, *(("i", name, Value.cast(getattr(bus, name)))
                        for name in bus.signature.members),
                i_clk=ClockSignal(), i_rst=ResetSignal(allow_reset_less=True),
                o_violations=found[-1], **parameters)

        axi = self.chip.axi
        m.submodules.check_offchip = watch(
            "axi4_monitor", axi, p_BYTES=self.config.vector, p_ADDRESS=len(axi.araddr),
            p_ID=len(axi.arid), p_READS=MOST_READS, p_WRITES=MOST_WRITES, o_owed=self.owed)
        if self.hostile is not None:
            m.submodules.check_memory = watch(
                "axi4_monitor", self.offchip.axi, p_BYTES=self.config.vector,
                p_ADDRESS=len(axi.araddr), p_ID=len(axi.arid), p_KIND="the memory's bus")
        m.submodules.check_control = watch("axi_lite_monitor", self.control,
                                           p_ADDRESS=len(self.control.awaddr))
        m.submodules.check_monitor = watch("axi_stream_monitor", self.chip.monitor,
                                           p_USER=len(self.monitor.tuser.as_value()))
        if self.pins:
            found.append(self.offchip.violations)
        m.d.comb += self.violations.eq(sum(found))

    def _record_events(self, m, trace, offchip, monitor):
        sample = Signal()
        m.submodules.sampler = Instance("event_sampler", i_clk=ClockSignal(),
                                        i_running=trace.running, o_sample=sample)
        for engine, event in zip(Engine, trace.events):
            name = engine.name.lower()
            m.submodules[f"events_{name}"] = Instance(
                "event_recorder", p_NAME=name, i_clk=ClockSignal(), i_running=trace.running,
                i_cycle=trace.cycle, i_sample=sample,
                **{f"i_{field}": getattr(event, field) for field, _ in event_layout()})

        def record(name, valid, *values):
            bits = Cat(*values)
            m.submodules[f"trace_{name}"] = Instance(
                "tap_recorder", p_BYTES=WORD_BYTES, p_NAME=name, p_FORMAT="trace=%s",
                i_clk=ClockSignal(), i_valid=valid,
                i_record=Cat(bits, C(0, WORD_BYTES * 8 - len(bits))))

        record("cycle", sample, trace.cycle)
        record("onchip_vectors", sample, trace.onchip_vectors)
        for name in COUNTERS:
            record(name, sample, getattr(offchip, name))
        for kind in Traffic:
            for name in ("read_bytes", "written_bytes"):
                record(f"{name}_{kind.name.lower()}", sample, getattr(trace, name)[kind.value])
        for name in ("frame_started", "frame_ended"):
            record(name, getattr(trace, name), trace.cycle)

        moves  = Signal()
        inside = Signal()       # of a row
        m.d.comb += moves.eq(trace.running & monitor.tvalid & monitor.tready)
        with m.If(moves):
            m.d.sync += inside.eq(~monitor.tlast)
        where = (trace.cycle, monitor.tuser.layer)
        record("monitor_started", moves & ~inside, *where)
        record("monitor_ended", moves & monitor.tlast, *where)
        record("monitor_rows", moves & monitor.tlast, monitor.tuser.row)


def recorder(name, valid, payload):
    """An instance that writes ``payload`` (:func:`hw.interfaces.tap_layout`) to the file ``name``
    whenever ``valid``; :mod:`sim.taps` reads it."""
    head = payload.shape().size - len(payload.data)
    bits = Cat(payload.as_value()[:head], C(0, HEADER_BYTES * 8 - head), payload.data)
    return Instance("tap_recorder", p_BYTES=len(bits) // 8, p_NAME=name, i_clk=ClockSignal(),
                    i_valid=valid, i_record=bits)
