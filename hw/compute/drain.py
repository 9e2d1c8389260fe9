"""Drain: finished accumulators, piece by piece, through requantiser lanes and the table."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.compute import requantize
from hw.compute.layer import LAYER
from hw.compute.requantize import Requantizer
from hw.compute.transform import OUTPUTS
from hw.compute.weight_memory import read_port
from hw.isa import FORMS, Opcode, Requant
from hw.memory.protected import queue

LATENCY = 1 + requantize.LATENCY + 1 + 1
"""Cycles from ``done`` to the first piece's bytes: capture, requantiser, table, queue."""


def depthwise_pieces(unit, vector):
    """Pieces of a depthwise sum."""
    return unit.pixels * vector // unit.drain


def most_pieces(unit, vector):
    """Pieces of the sum that has most."""
    return max(depthwise_pieces(unit, vector), unit.pixels * (OUTPUTS if unit.transform else 1))


def queue_depth(unit, vector, delay):
    """Of the queue behind the lanes: the pieces between their reservation and its return, if one is
    taken in every cycle."""
    return 1 << ceil_log2(delay + LATENCY + 2 * most_pieces(unit, vector))


class Drain(wiring.Component):
    """Second set of accumulators, emptied while the array works on the next sums.

    A *piece* is what goes through the lanes in one cycle: the ``outputs`` channels of one pixel,
    or with ``layer.depthwise`` ``drain`` of its ``vector`` channels. Captures ``acc``, with
    ``layer.transformed`` ``odd_acc`` beside it, or ``depthwise_acc``, when ``done`` is high; from
    the next cycle on, one piece per cycle enters the requantiser lanes, and :data:`LATENCY` cycles
    after ``done`` the bytes of pixel 0's first piece are on offer at ``o``, then its next ones,
    then those of pixel 1 and so on, for every one of ``pixels``, or with ``layer.transformed`` of
    twice as many: lane 0's two, lane 1's two and so on. With ``layer.table`` the ``outputs`` bytes
    are looked up in the table.

    Nothing of this can stall. Instead, room is set aside when the last step of a sum is issued:
    that is allowed, and announced by ``reserve``, while ``room`` is high. It is low for the cycles
    in which the sum before it will drain, and while the queue behind ``o`` might overflow; the
    queue is deep enough that this needs a consumer that refuses. ``done`` must follow ``reserve``
    by ``delay`` cycles, or always by the same fewer.

    Captures follow the order of :class:`hw.compute.sequence.StepSequencer`, so the parameters
    count from ``conv.param_base`` to the last of ``conv.groups``, over and over; ``start`` begins
    a row.

    Parameters
    ----------
    unit : hw.config.UnitConfig
    vector, delay : int
    bounds : bool
        As in :class:`hw.compute.requantize.Requantizer`.

    Attributes
    ----------
    depthwise_pieces : int
        Of one depthwise sum; others have one per pixel.

    Members
    -------
    start, reserve : In(1)
    room : Out(1)
    layer : In(LAYER)
    conv : In(FORMS[Opcode.CONV])
    done : In(1)
    acc : In(signed(32)).array(pixels, outputs)
    odd_acc : In(signed(32)).array(pixels, outputs)
        If ``unit.transform``.
    depthwise_acc : In(signed(32)).array(pixels, vector)
    params, table : Out
        As in :class:`hw.compute.weight_memory.WeightMemory`.
    o : Out(stream.Signature(data.ArrayLayout(8, drain)))
        Of a piece of ``outputs`` channels the low bytes.
    """

    def __init__(self, *, unit, vector, delay, protection="none", bounds=False):
        if delay < 1:
            raise ValueError(f"Drain delay must be positive, not {delay!r}")
        if unit.drain > vector:
            raise ValueError(f"Drain lanes ({unit.drain}) must not exceed the vector ({vector})")
        self.unit   = unit
        self.vector = vector
        self.bounds = bounds
        self.depthwise_pieces = depthwise_pieces(unit, vector)
        self.pieces      = most_pieces(unit, vector)
        self.queue_depth = queue_depth(unit, vector, delay)
        self.queue       = queue(protection, width=8 * unit.drain, depth=self.queue_depth)
        self.protected   = [("queues", self.queue)]

        pixels, outputs = unit.pixels, unit.outputs
        words = -(-unit.params * outputs // unit.drain)
        super().__init__({
            "start":   In(1),
            "reserve": In(1),
            "room":    Out(1),
            "layer":   In(LAYER),
            "conv":    In(FORMS[Opcode.CONV]),
            "done":    In(1),
            "acc":     In(signed(32)).array(pixels, outputs),
            **({"odd_acc": In(signed(32)).array(pixels, outputs)} if unit.transform else {}),
            "depthwise_acc": In(signed(32)).array(pixels, vector),
            "params":  Out(read_port(Out(range(words)), In(Requant).array(unit.drain))),
            "table":   Out(read_port(Out(8).array(outputs), In(8).array(outputs))),
            "o":       Out(stream.Signature(data.ArrayLayout(8, unit.drain))),
        })

    def elaborate(self, platform):
        m = Module()

        layer, conv     = self.layer, self.conv
        pixels, outputs = self.unit.pixels, self.unit.outputs
        drain, vector   = self.unit.drain, self.vector
        parts           = vector // drain           # pieces of a depthwise pixel
        transformed     = layer.transformed if self.unit.transform else Const(0)
        m.submodules.queue = queue = self.queue

        # Reservations: pieces that the queue can still promise to hold, and the time in which the
        # held set is taken.
        pieces = Signal(range(self.pieces + 1))     # of one sum
        free   = Signal(range(self.queue_depth + 1), init=self.queue_depth)
        taken  = Signal(range(self.pieces))
        m.d.comb += [
            pieces.eq(Mux(layer.depthwise, self.depthwise_pieces, pixels << transformed)),
            self.room.eq((free >= pieces) & (taken == 0)),
        ]
        m.d.sync += free.eq(free + queue.r_en - Mux(self.reserve, pieces, 0))
        with m.If(self.reserve):
            m.d.sync += taken.eq(pieces - 1)
        with m.Elif(taken != 0):
            m.d.sync += taken.eq(taken - 1)

        # The captured set moves down by one piece per cycle; its lowest piece is on offer. Muxes
        # that share their condition are one branch in compiled simulators.
        full  = Signal()
        moves = Signal()
        piece = Signal(range(max(self.pieces, 2)))
        m.d.comb += moves.eq(self.done | full)
        held  = [[Signal(signed(32), name=f"held_{k}_{lane}", reset_less=True)
                  for lane in range(drain if k < self.depthwise_pieces else outputs)]
                 for k in range(self.pieces)]
        for k, (here, above) in enumerate(zip(held, [*held[1:], held[-1]])):
            for lane, register in enumerate(here):
                old   = above[lane] if lane < len(above) else register
                fresh = self._captured(k, lane, parts, transformed)
                m.d.sync += register.eq(Mux(moves, Mux(self.done, fresh, old), register))
        with m.If(self.done):
            m.d.sync += [full.eq(1), piece.eq(0)]
        with m.Elif(full):
            m.d.sync += [full.eq(piece != pieces - 1), piece.eq(piece + 1)]

        # Parameters are read at the capture, and stay on the port while the set drains; depthwise,
        # every part of a pixel has its own word.
        per_word = exact_log2(drain // outputs)
        group  = Signal(8)
        base   = Signal(range(self.unit.params))    # of the next sum
        word   = Signal.like(self.params.address)   # of the held set's first part
        choice = Signal(range(max(drain // outputs, 2)))    # which channels of the word
        onward = Signal.like(self.params.address)
        with m.If(self.start):
            m.d.sync += [group.eq(0), base.eq(conv.param_base)]
        with m.Elif(self.done):
            m.d.sync += [group.eq(group + 1), word.eq(base >> per_word),
                         base.eq(base + Mux(layer.depthwise, vector // outputs, 1)),
                         choice.eq(base[:per_word])]
            with m.If(group + 1 == conv.groups):
                m.d.sync += [group.eq(0), base.eq(conv.param_base)]
        m.d.comb += [
            onward.eq(Cat((piece + 1)[:exact_log2(parts)], word[exact_log2(parts):])),
            self.params.enable.eq(self.done | (full & layer.depthwise)),
            self.params.address.eq(Mux(self.done, base >> per_word, onward)),
        ]

        # Lanes, then the table or a register beside it, then the queue.
        inside = Signal(requantize.LATENCY + 1)      # which pipeline stages hold a piece
        m.d.sync += inside.eq(Cat(full, inside))
        m.d.comb += [
            queue.w_en.eq(inside[-1]),
            self.o.valid.eq(queue.r_rdy),
            self.o.p.eq(queue.r_data),
            queue.r_en.eq(self.o.valid & self.o.ready),
            self.table.enable.eq(1),
        ]

        results = []
        for number in range(drain):
            m.submodules[f"lane_{number}"] = lane = Requantizer(self.bounds)
            requant = self.params.data[number]
            if number < outputs and drain > outputs:
                requant = Signal(Requant, name=f"requant_{number}")
                with m.Switch(choice):
                    for which in range(drain // outputs):
                        with m.Case(which):
                            m.d.comb += requant.eq(self.params.data[which * outputs + number])
            m.d.comb += [
                lane.enable.eq(1 if number < outputs else layer.depthwise),
                lane.acc.eq(held[0][number]),
                lane.requant.eq(requant),
                lane.zero_out.eq(layer.zero_out),
                lane.low.eq(layer.low),
                lane.high.eq(layer.high),
            ]
            y = Signal(8, name=f"y_{number}", reset_less=True)
            m.d.sync += y.eq(lane.y)
            if number < outputs:
                m.d.comb += self.table.address[number].eq(lane.y)
                y = Mux(layer.table, self.table.data[number], y)
            results.append(y)
        m.d.comb += queue.w_data.eq(Cat(results))

        return m

    def _captured(self, k, lane, parts, transformed):
        """What lane ``lane`` of piece ``k`` takes when a sum is done."""
        pixels, drain = self.unit.pixels, self.unit.drain
        found = 0
        if lane < self.unit.outputs:
            if k < pixels:
                found = self.acc[k][lane]
            if self.unit.transform and k < OUTPUTS * pixels:
                pair  = (self.acc, self.odd_acc)[k % OUTPUTS][k // OUTPUTS]
                found = Mux(transformed, pair[lane], found)
        if k < self.depthwise_pieces:
            deep  = self.depthwise_acc[k // parts][k % parts * drain + lane]
            found = Mux(self.layer.depthwise, deep, found) if lane < self.unit.outputs else deep
        return found
