"""Performance ledger: every cycle of every engine, charged to exactly one cause."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.control.counters import (
    COUNTER_BITS,
    FRAME_STAMPS,
    INDEX_BITS,
    LEDGER_ENGINES,
    LEDGER_LAYERS,
    Counter,
)
from hw.control.layers import TIME_BITS, LayerLedger
from hw.isa import Cause, Engine, Traffic

CYCLE_BITS   = 48
RETIRED_BITS = 18
BYTES_BITS   = 40
TRAFFIC      = len(Traffic)


def activity_layout():
    """What one engine did in one cycle."""
    return data.StructLayout({
        "cause":    Cause,
        "retiring": 1,      # retires an instruction, SYNC included
        "offered":  1,      # holds an instruction
        "layer":    8,      # of the instruction that it holds
    })


class Ledger(wiring.Component):
    """Counts while ``running``, keeps everything until ``clear``, and answers by number.

    The causes of each engine sum to the total cycles. All counts lag one cycle behind their
    inputs. Counter numbers are those of :func:`hw.control.counters.counter_index`; any other
    number reads as 0. Off-chip traffic is counted elsewhere and only passes through.

    A pulse on ``sample`` latches ``select``; ``value`` holds the counter from the pulse on
    ``sampled`` (three cycles later, or more while layer records are being written) until the next.

    Parameters
    ----------
    onchip_readers, onchip_writers : int
        Ports of the on-chip memory, at most 16 each.

    Members
    -------
    clear : In(1)
    running : In(1)
    activity : In(activity_layout()).array(len(Engine))
    frame_started, frame_ended : In(1)
        Pulses.
    onchip_reads, onchip_writes : In(1).array(...)
        Pulses, one per port: a vector moved.
    read_bytes, written_bytes : In(40).array(len(Traffic))
    read_bursts, written_bursts : In(40)
    select : In(16)
    sample : In(1)
    sampled : Out(1)
    value : Out(64)
    cycles : Out(48)
    """

    def __init__(self, *, onchip_readers, onchip_writers):
        for name, count in (("readers", onchip_readers), ("writers", onchip_writers)):
            if not 0 <= count <= 16:
                raise ValueError(f"On-chip {name} must be 0 to 16, not {count!r}")
        self.onchip_readers = onchip_readers
        self.onchip_writers = onchip_writers

        super().__init__({
            "clear":          In(1),
            "running":        In(1),
            "activity":       In(activity_layout()).array(len(Engine)),
            "frame_started":  In(1),
            "frame_ended":    In(1),
            "onchip_reads":   In(1).array(onchip_readers),
            "onchip_writes":  In(1).array(onchip_writers),
            "read_bytes":     In(BYTES_BITS).array(TRAFFIC),
            "written_bytes":  In(BYTES_BITS).array(TRAFFIC),
            "read_bursts":    In(BYTES_BITS),
            "written_bursts": In(BYTES_BITS),
            "select":         In(COUNTER_BITS),
            "sample":         In(1),
            "sampled":        Out(1),
            "value":          Out(64),
            "cycles":         Out(CYCLE_BITS),
        })

    def elaborate(self, platform):
        m = Module()

        # Inputs are registered, so that no engine's logic ends in a counter.
        running  = Signal()
        activity = [Signal.like(port, name=f"activity_{e}")
                    for e, port in enumerate(self.activity)]
        m.d.sync += running.eq(self.running)
        for signal, port in zip(activity, self.activity):
            m.d.sync += signal.eq(port)

        counters = []           # all plain counters, for `clear`

        def counter(name, enable, bits=TIME_BITS):
            count = Signal(bits, name=name)
            counters.append(count)
            with m.If(enable):
                m.d.sync += count.eq(count + 1)
            return count

        plain = {}              # (group, index) -> counter
        cycles = counter("total", running, CYCLE_BITS)
        m.d.comb += self.cycles.eq(cycles)
        plain[Counter.CYCLES, 0] = cycles

        for engine in Engine:
            for cause in Cause:
                plain[Counter.CAUSE, engine * 8 + cause.value] = count = Signal(
                    TIME_BITS, name=f"{engine.name}_{cause.name}".lower())
                counters.append(count)
            with m.If(running):
                with m.Switch(activity[engine].cause):
                    for cause in Cause:
                        with m.Case(cause):
                            count = plain[Counter.CAUSE, engine * 8 + cause.value]
                            m.d.sync += count.eq(count + 1)
            plain[Counter.RETIRED, engine.value] = counter(
                f"{engine.name}_retired".lower(), running & activity[engine].retiring,
                RETIRED_BITS)

        for group, name, pulses in ((Counter.ONCHIP_READS, "reads", self.onchip_reads),
                                    (Counter.ONCHIP_WRITES, "writes", self.onchip_writes)):
            for index, pulse in enumerate(pulses):
                seen = Signal(name=f"{name}_{index}_seen")
                m.d.sync += seen.eq(pulse)
                plain[group, index] = counter(f"{name}_{index}", running & seen)

        for index in range(TRAFFIC):
            plain[Counter.READ_BYTES, index]    = self.read_bytes[index]
            plain[Counter.WRITTEN_BYTES, index] = self.written_bytes[index]
        plain[Counter.BURSTS, 0] = self.read_bursts
        plain[Counter.BURSTS, 1] = self.written_bursts

        # Frames: a small memory of time stamps each
        selected = Signal(COUNTER_BITS)
        stamps   = {}           # group -> stamp, 0 for a frame that is not yet known
        for index, (group, pulse) in enumerate(((Counter.FRAME_STARTED, self.frame_started),
                                                (Counter.FRAME_ENDED, self.frame_ended))):
            m.submodules[f"frames_{index}"] = memory = Memory(
                shape=TIME_BITS, depth=FRAME_STAMPS, init=[])
            write, read = memory.write_port(), memory.read_port()
            seen = Signal(name=f"frame_seen_{index}")
            m.d.sync += seen.eq(pulse)
            count = counter(f"frames_{index}_count", running & seen)
            plain[Counter.FRAMES, index] = count
            frame = selected[:read.addr.shape().width]
            m.d.comb += [
                write.en.eq(running & seen & (count < FRAME_STAMPS)),
                write.addr.eq(count),
                write.data.eq(cycles),
                read.addr.eq(frame),
            ]
            stamps[group] = Mux(frame < count, read.data, 0)

        # Layers
        ledgers    = []
        wants      = Signal()
        layer_bits = ceil_log2(LEDGER_LAYERS)
        for index, engine in enumerate(LEDGER_ENGINES):
            m.submodules[f"layers_{engine.name.lower()}"] = ledger = LayerLedger()
            ledgers.append(ledger)
            m.d.comb += [
                ledger.clear.eq(self.clear),
                ledger.now.eq(cycles),
                ledger.offered.eq(running & activity[engine].offered),
                ledger.issued.eq(activity[engine].cause == Cause.ISSUE),
                ledger.retiring.eq(activity[engine].retiring),
                ledger.layer.eq(activity[engine].layer),
                ledger.read.eq(wants & (selected[2 + layer_bits:INDEX_BITS] == index)),
                ledger.read_layer.eq(selected[2:2 + layer_bits]),
            ]

        with m.If(self.clear):
            m.d.sync += [count.eq(0) for count in counters]

        # Window
        group, number = selected[INDEX_BITS:], selected[:INDEX_BITS]
        m.d.sync += self.sampled.eq(0)
        with m.FSM():
            with m.State("Idle"):
                with m.If(self.sample):
                    m.d.sync += selected.eq(self.select)
                    m.next = "Address"

            with m.State("Address"):
                m.next = "Look up"
                with m.If(group == Counter.LAYER):
                    m.d.comb += wants.eq(1)
                    with m.If(~Cat(ledger.read_done for ledger in ledgers).any()
                              & (number[2 + layer_bits:] < len(ledgers))):
                        m.next = "Address"

            with m.State("Look up"):
                m.d.sync += self.sampled.eq(1)
                m.d.sync += self.value.eq(0)
                m.next = "Idle"
                with m.Switch(group):
                    for which in Counter:
                        with m.Case(which):
                            with m.Switch(number):
                                for (owner, index), count in plain.items():
                                    if owner is which:
                                        with m.Case(index):
                                            m.d.sync += self.value.eq(count)
                            if which in stamps:
                                with m.If(number < FRAME_STAMPS):
                                    m.d.sync += self.value.eq(stamps[which])
                            if which is Counter.LAYER:
                                with m.Switch(number[2 + layer_bits:]):
                                    for index, ledger in enumerate(ledgers):
                                        with m.Case(index):
                                            fields = [ledger.record.busy, ledger.record.issued,
                                                      ledger.record.first, ledger.record.last]
                                            with m.Switch(number[:2]):
                                                for field, value in enumerate(fields):
                                                    with m.Case(field):
                                                        m.d.sync += self.value.eq(value)

        return m
