"""Performance ledger: every cycle of every engine, charged to exactly one cause."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.control.causes import CauseCounters
from hw.control.counters import (
    COUNTER_BITS,
    FRAME_STAMPS,
    INDEX_BITS,
    LEDGER_ENGINES,
    LEDGER_LAYERS,
    TIME_BITS,
    Counter,
    LayerField,
)
from hw.control.layers import LayerLedger
from hw.control.totals import Totals
from hw.isa import Cause, Engine, Traffic

CYCLE_BITS   = 48
RETIRED_BITS = 18
ERROR_BITS   = 32
TRAFFIC      = len(Traffic)
MEMORY_ERRORS = {"corrected": Counter.CORRECTED, "uncorrectable": Counter.UNCORRECTABLE}
FIELD_BITS   = LayerField.as_shape().width
LAYER_BITS   = ceil_log2(LEDGER_LAYERS)
ENGINE_SLOTS = 8                        # totals of an engine: one for each cause
PORT_SLOTS   = 16                       # of ports that read, and of ports that write
READ_SLOTS   = len(Engine) * ENGINE_SLOTS
WRITE_SLOTS  = READ_SLOTS + PORT_SLOTS


def activity_layout():
    """What one engine did in one cycle."""
    return data.StructLayout({
        "cause":    Cause,
        "offered":  1,      # holds an instruction
        "retiring": 1,      # retires an instruction
        "layer":    8,      # of the instruction that it holds
    })


class Ledger(wiring.Component):
    """Counts while ``running``, keeps everything until ``clear``, and answers by number.

    The causes of each engine sum to the total cycles. All counts lag one cycle behind their
    inputs. Counter numbers are those of :func:`hw.control.counters.counter_index`; any other
    number reads as 0. Retired instructions and off-chip traffic are counted elsewhere and only
    pass through.

    A pulse on ``sample`` latches ``select``; ``value`` holds the counter from the pulse on
    ``sampled`` until the next: four cycles later, five for totals, or more while instructions of a
    layer's engine retire.

    Parameters
    ----------
    onchip_readers, onchip_writers : int
        Ports of the on-chip memory, at most 16 each.
    memories : int
        Protected memories whose errors are counted.

    Members
    -------
    clear : In(1)
    running : In(1)
    activity : In(activity_layout()).array(len(Engine))
    retired : In(18).array(len(Engine))
    frame_started, frame_ended : In(1)
        Pulses.
    onchip_reads, onchip_writes : In(1).array(...)
        Pulses, one per port: a vector moved.
    read_bytes, written_bytes : In(40).array(len(Traffic))
    read_bursts, written_bursts : In(40)
    corrected, uncorrectable : In(memories)
        Only with ``memories``: pulses.
    select : In(16)
    sample : In(1)
    sampled : Out(1)
    value : Out(64)
    cycles : Out(48)
    """

    def __init__(self, *, onchip_readers, onchip_writers, memories=0):
        for name, count in (("readers", onchip_readers), ("writers", onchip_writers)):
            if not 0 <= count <= PORT_SLOTS:
                raise ValueError(f"On-chip {name} must be 0 to {PORT_SLOTS}, not {count!r}")
        self.onchip_readers = onchip_readers
        self.onchip_writers = onchip_writers
        self.memories       = memories

        super().__init__({
            "clear":          In(1),
            "running":        In(1),
            "activity":       In(activity_layout()).array(len(Engine)),
            "retired":        In(RETIRED_BITS).array(len(Engine)),
            "frame_started":  In(1),
            "frame_ended":    In(1),
            "onchip_reads":   In(1).array(onchip_readers),
            "onchip_writes":  In(1).array(onchip_writers),
            "read_bytes":     In(TIME_BITS).array(TRAFFIC),
            "written_bytes":  In(TIME_BITS).array(TRAFFIC),
            "read_bursts":    In(TIME_BITS),
            "written_bursts": In(TIME_BITS),
            "select":         In(COUNTER_BITS),
            "sample":         In(1),
            "sampled":        Out(1),
            "value":          Out(64),
            "cycles":         Out(CYCLE_BITS),
            **{name: In(memories) for name in MEMORY_ERRORS if memories},
        })

    def elaborate(self, platform):
        m = Module()

        selected      = Signal(COUNTER_BITS)
        group, number = selected[INDEX_BITS:], selected[:INDEX_BITS]
        single        = {}         # (group, number) -> value

        # Inputs are registered, so that no engine's logic ends in a counter.
        running  = Signal()
        activity = [Signal.like(port, name=f"activity_{e}")
                    for e, port in enumerate(self.activity)]
        m.d.sync += running.eq(self.running)
        for signal, port in zip(activity, self.activity):
            m.d.sync += signal.eq(port)

        def counter(name, pulse, bits=TIME_BITS):
            count = Signal(bits, name=name)
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(running & pulse):
                m.d.sync += count.eq(count + 1)
            return count

        def delayed(name, pulse):
            seen = Signal(name=f"{name}_seen")
            m.d.sync += seen.eq(pulse)
            return seen

        cycles = counter("total", 1, CYCLE_BITS)
        m.d.comb += self.cycles.eq(cycles)
        single[Counter.CYCLES, 0] = cycles

        # Causes of engines and vectors of memory ports, narrow, and their totals
        m.submodules.totals = totals = Totals(slots=1 << ceil_log2(WRITE_SLOTS + PORT_SLOTS))
        engine_slots = []
        for engine in Engine:
            m.submodules[f"causes_{engine.name.lower()}"] = causes = CauseCounters(
                bits=totals.bits)
            m.d.comb += [
                causes.clear.eq(self.clear),
                causes.enable.eq(running),
                causes.cause.eq(activity[engine].cause),
                causes.read_cause.eq(totals.slot[:exact_log2(ENGINE_SLOTS)]),
            ]
            engine_slots.append(causes.value)
            single[Counter.RETIRED, engine.value] = self.retired[engine]
        ports = {}
        for base, name, pulses in ((READ_SLOTS, "reads", self.onchip_reads),
                                   (WRITE_SLOTS, "writes", self.onchip_writes)):
            for index, pulse in enumerate(pulses):
                label = f"{name}_{index}"
                ports[base + index] = counter(label, delayed(label, pulse), totals.bits)
        m.d.comb += totals.clear.eq(self.clear)
        with m.Switch(totals.slot):
            for engine, value in enumerate(engine_slots):
                with m.Case(*range(engine * ENGINE_SLOTS, (engine + 1) * ENGINE_SLOTS)):
                    m.d.comb += totals.narrow.eq(value)
            for slot, value in ports.items():
                with m.Case(slot):
                    m.d.comb += totals.narrow.eq(value)
        is_total = Signal()
        with m.Switch(group):
            with m.Case(Counter.CAUSE):
                m.d.comb += is_total.eq(number < READ_SLOTS)
                m.d.comb += totals.read_slot.eq(number)
            for which, base in ((Counter.ONCHIP_READS, READ_SLOTS),
                                (Counter.ONCHIP_WRITES, WRITE_SLOTS)):
                with m.Case(which):
                    m.d.comb += is_total.eq(number < PORT_SLOTS)
                    m.d.comb += totals.read_slot.eq(base + number[:exact_log2(PORT_SLOTS)])

        # Off-chip traffic
        for index in range(TRAFFIC):
            single[Counter.READ_BYTES, index]    = self.read_bytes[index]
            single[Counter.WRITTEN_BYTES, index] = self.written_bytes[index]
        single[Counter.BURSTS, 0] = self.read_bursts
        single[Counter.BURSTS, 1] = self.written_bursts

        for name, which in MEMORY_ERRORS.items():
            for index in range(self.memories):
                label = f"{name}_{index}"
                pulse = delayed(label, getattr(self, name)[index])
                single[which, index] = counter(label, pulse, ERROR_BITS)

        # Frames: a small memory of time stamps each; 0 for a frame that is not yet known
        stamps = {}
        for index, (which, pulse) in enumerate(((Counter.FRAME_STARTED, self.frame_started),
                                                (Counter.FRAME_ENDED, self.frame_ended))):
            m.submodules[f"frames_{index}"] = memory = Memory(
                shape=TIME_BITS, depth=FRAME_STAMPS, init=[])
            write, read = memory.write_port(), memory.read_port()
            seen  = delayed(f"frames_{index}", pulse)
            count = counter(f"frames_{index}", seen)
            single[Counter.FRAMES, index] = count
            m.d.comb += [
                write.en.eq(running & seen & (count < FRAME_STAMPS)),
                write.addr.eq(count),
                write.data.eq(cycles),
                read.addr.eq(number),
            ]
            known = Signal(name=f"known_{index}")
            m.d.sync += known.eq((number < count) & (number < FRAME_STAMPS))
            stamps[which] = Mux(known, read.data, 0)

        # Layers
        layers = Array()
        wants  = Signal()
        unit   = number[FIELD_BITS + LAYER_BITS:]
        for index, engine in enumerate(LEDGER_ENGINES):
            m.submodules[f"layers_{engine.name.lower()}"] = ledger = LayerLedger()
            layers.append(ledger)
            m.d.comb += [
                ledger.clear.eq(self.clear),
                ledger.now.eq(cycles),
                ledger.offered.eq(running & activity[engine].offered),
                ledger.issued.eq(activity[engine].cause == Cause.ISSUE),
                ledger.retiring.eq(activity[engine].retiring),
                ledger.layer.eq(activity[engine].layer),
                ledger.read.eq(wants & (unit == index)),
                ledger.read_layer.eq(number[FIELD_BITS:]),
                ledger.read_field.eq(number[:FIELD_BITS]),
            ]

        # What is selected, a cycle ahead of the answer: of all counters, and of the memories
        counted, kept = Signal(CYCLE_BITS), Signal(TIME_BITS)
        from_memory   = Signal()
        m.d.sync += [counted.eq(0), kept.eq(0), from_memory.eq(0)]
        with m.Switch(selected):
            for (which, index), value in single.items():
                with m.Case(which << INDEX_BITS | index):
                    m.d.sync += counted.eq(value)
        layered = (group == Counter.LAYER) & (unit < len(LEDGER_ENGINES))
        for here, value in (*((group == which, value) for which, value in stamps.items()),
                            (layered, layers[unit].value), (is_total, totals.value)):
            with m.If(here):
                m.d.sync += [kept.eq(value), from_memory.eq(1)]

        # Window
        m.d.sync += self.sampled.eq(0)
        with m.FSM():
            with m.State("Idle"):
                with m.If(self.sample):
                    m.d.sync += selected.eq(self.select)
                    m.next = "Read memories"

            with m.State("Read memories"):
                m.next = "Collect"
                with m.If(layered):
                    m.d.comb += wants.eq(1)
                    with m.If(~layers[unit].read_done):
                        m.next = "Read memories"
                with m.Elif(is_total):
                    m.d.comb += totals.read.eq(1)
                    m.next = "Add up"

            with m.State("Add up"):
                m.next = "Collect"

            with m.State("Collect"):
                m.next = "Answer"

            with m.State("Answer"):
                m.d.sync += self.sampled.eq(1)
                m.d.sync += self.value.eq(Mux(from_memory, kept, counted))
                m.next = "Idle"

        return m
