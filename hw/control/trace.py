"""Event trace: when every instruction of every engine started and retired. Simulation only."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.control.counters import TIME_BITS
from hw.isa import Cause, Engine, Opcode, Traffic

CYCLE_BITS  = 48
NUMBER_BITS = 18


def trace_activity_layout():
    """What one front end shows: the instruction that its engine holds, and this cycle."""
    return data.StructLayout({
        "offered":  1,
        "retiring": 1,
        "cause":    Cause,
        "number":   NUMBER_BITS,    # instructions of this engine that have retired
        "opcode":   Opcode,
        "layer":    8,
        "row":      12,
    })


def event_layout():
    """An event of one engine: its instruction ``number`` (from 0) starts, retires, or both.
    ``cause`` is that of every cycle, event or not."""
    return data.StructLayout({
        "start":  1,
        "retire": 1,
        "cause":  Cause,
        "number": NUMBER_BITS,
        "opcode": Opcode,
        "layer":  8,
        "row":    12,
    })


class TraceSignature(wiring.Signature):
    """What a traced chip shows of itself, seen from the chip.

    ``cycle`` is the number of the present cycle, as the ledger counts, and stands still unless
    ``running``. ``events`` are in engine order. ``onchip_vectors`` counts the vectors that all
    ports of the on-chip memory moved; the bytes are those of the ledger.
    """

    def __init__(self):
        super().__init__({
            "running":        Out(1),
            "cycle":          Out(CYCLE_BITS),
            "events":         Out(event_layout()).array(len(Engine)),
            "frame_started":  Out(1),
            "frame_ended":    Out(1),
            "onchip_vectors": Out(TIME_BITS),
            "read_bytes":     Out(TIME_BITS).array(len(Traffic)),
            "written_bytes":  Out(TIME_BITS).array(len(Traffic)),
        })


class EventTrace(wiring.Component):
    """Turns what the front ends show into events, in the same cycle.

    An instruction starts in the first cycle in which it is offered, retires in the last, and takes
    ``retire - start + 1`` cycles: those that the ledger of layers counts as busy. A ``SYNC``, which
    is never offered, starts and retires in one cycle, with layer and row 0. One engine's events are
    in order, and an instruction may start in the cycle after the retirement of the one before.

    Parameters
    ----------
    ports : int
        On-chip memory ports.

    Members
    -------
    clear : In(1)
    running : In(1)
    activity : In(trace_activity_layout()).array(len(Engine))
    moves : In(1).array(ports)
        A vector moves through that port of the on-chip memory.
    frame_started, frame_ended : In(1)
    read_bytes, written_bytes : In(40).array(len(Traffic))
    o : Out(TraceSignature())
    """

    def __init__(self, *, ports):
        if ports < 1:
            raise ValueError(f"Number of on-chip ports must be positive, not {ports!r}")
        self.ports = ports

        super().__init__({
            "clear":         In(1),
            "running":       In(1),
            "activity":      In(trace_activity_layout()).array(len(Engine)),
            "moves":         In(1).array(ports),
            "frame_started": In(1),
            "frame_ended":   In(1),
            "read_bytes":    In(TIME_BITS).array(len(Traffic)),
            "written_bytes": In(TIME_BITS).array(len(Traffic)),
            "o":             Out(TraceSignature()),
        })

    def elaborate(self, platform):
        m = Module()

        held = Signal(len(Engine))      # offered before, and not retired
        for e, (activity, event) in enumerate(zip(self.activity, self.o.events)):
            sync = Signal(name=f"sync_{e}")
            m.d.comb += [
                sync.eq(activity.retiring & ~activity.offered),
                event.start.eq(self.running & ((activity.offered & ~held[e]) | sync)),
                event.retire.eq(self.running & activity.retiring),
                event.cause.eq(activity.cause),
                event.number.eq(activity.number),
                event.opcode.eq(Mux(sync, Opcode.SYNC, activity.opcode)),
                event.layer.eq(Mux(sync, 0, activity.layer)),
                event.row.eq(Mux(sync, 0, activity.row)),
            ]
            m.d.sync += held[e].eq(self.running & activity.offered & ~activity.retiring)

        with m.If(self.running):
            m.d.sync += self.o.cycle.eq(self.o.cycle + 1)
            m.d.sync += self.o.onchip_vectors.eq(self.o.onchip_vectors
                                                 + sum(move for move in self.moves))
        with m.If(self.clear):
            m.d.sync += [self.o.cycle.eq(0), self.o.onchip_vectors.eq(0), held.eq(0)]

        m.d.comb += [
            self.o.running.eq(self.running),
            self.o.frame_started.eq(self.running & self.frame_started),
            self.o.frame_ended.eq(self.running & self.frame_ended),
        ]
        for name in ("read_bytes", "written_bytes"):
            for shown, counted in zip(getattr(self.o, name), getattr(self, name)):
                m.d.comb += shown.eq(counted)

        return m
