"""Drain: finished accumulators, one pixel per cycle, through requantiser lanes and the table."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.compute import requantize
from hw.compute.layer import LAYER
from hw.compute.requantize import Requantizer
from hw.isa import FORMS, Opcode, Requant

LATENCY = 1 + requantize.LATENCY + 1 + 1
"""Cycles from ``done`` to the first pixel's bytes: capture, requantiser, table, queue."""


class Drain(wiring.Component):
    """Second set of accumulators, emptied while the array works on the next sums.

    Captures ``acc`` when ``done`` is high; from the next cycle on, one pixel per cycle enters the
    requantiser lanes, and :data:`LATENCY` cycles after ``done`` the bytes of pixel 0 are on offer
    at ``o``, then those of pixel 1 and so on, for every one of ``pixels``. With ``layer.table``
    byte 0 is looked up in the table.

    Nothing of this can stall. Instead, room is set aside when the last step of a sum is issued:
    that is allowed, and announced by ``reserve``, while ``room`` is high. It is low for the cycles
    in which the sum before it will drain, and while the queue behind ``o`` might overflow; the
    queue is deep enough that this needs a consumer that refuses. ``done`` must follow ``reserve``
    by ``delay`` cycles.

    Captures follow the order of :class:`hw.compute.sequence.StepSequencer`, so the parameter word
    counts from ``conv.param_base`` to the last of ``conv.groups``, over and over; ``start`` begins
    a row.

    Parameters
    ----------
    pixels, outputs, param_words, delay : int

    Members
    -------
    start, reserve : In(1)
    room : Out(1)
    layer : In(LAYER)
    conv : In(FORMS[Opcode.CONV])
    done : In(1)
    acc : In(signed(32)).array(pixels, outputs)
    params, table : Out
        Read ports: ``enable``, ``address`` and one cycle later ``data``.
    o : Out(stream.Signature(data.ArrayLayout(8, outputs)))
    """

    def __init__(self, *, pixels, outputs, param_words, delay):
        for name, value in (("pixels", pixels), ("outputs", outputs),
                            ("param_words", param_words), ("delay", delay)):
            if value < 1:
                raise ValueError(f"Drain {name} must be positive, not {value!r}")
        self.pixels  = pixels
        self.outputs = outputs
        # Pixels between their reservation and its return, if one is taken in every cycle.
        self.queue_depth = 1 << ceil_log2(delay + LATENCY + 2 * pixels)

        def port(depth, content):
            return Out(wiring.Signature({
                "enable":  Out(1),
                "address": Out(range(depth)),
                "data":    content,
            }))

        super().__init__({
            "start":   In(1),
            "reserve": In(1),
            "room":    Out(1),
            "layer":   In(LAYER),
            "conv":    In(FORMS[Opcode.CONV]),
            "done":    In(1),
            "acc":     In(signed(32)).array(pixels, outputs),
            "params":  port(param_words, In(Requant).array(outputs)),
            "table":   port(256, In(8)),
            "o":       Out(stream.Signature(data.ArrayLayout(8, outputs))),
        })

    def elaborate(self, platform):
        m = Module()

        layer, conv, pixels = self.layer, self.conv, self.pixels
        m.submodules.queue = queue = SyncFIFO(width=8 * self.outputs, depth=self.queue_depth)

        # Reservations: pixels that the queue can still promise to hold, and the time in which the
        # held set is taken.
        free  = Signal(range(self.queue_depth + 1), init=self.queue_depth)
        taken = Signal(range(pixels))
        m.d.comb += self.room.eq((free >= pixels) & (taken == 0))
        m.d.sync += free.eq(free + queue.r_en - Mux(self.reserve, pixels, 0))
        with m.If(self.reserve):
            m.d.sync += taken.eq(pixels - 1)
        with m.Elif(taken != 0):
            m.d.sync += taken.eq(taken - 1)

        # The captured set moves down by one pixel per cycle; its lowest pixel is on offer.
        held = [[Signal(signed(32), name=f"held_{p}_{o}", reset_less=True)
                 for o in range(self.outputs)] for p in range(pixels)]
        for above, here, source in zip(held[1:] + held[-1:], held, self.acc):
            m.d.sync += [register.eq(Mux(self.done, fresh, old))
                         for register, fresh, old in zip(here, source, above)]
        full  = Signal()
        pixel = Signal(range(max(pixels, 2)))
        with m.If(self.done):
            m.d.sync += [full.eq(1), pixel.eq(0)]
        with m.Elif(full):
            m.d.sync += [full.eq(pixel != pixels - 1), pixel.eq(pixel + 1)]

        # Parameters are read at the capture, and stay on the port while the set drains.
        group = Signal(8)
        with m.If(self.start):
            m.d.sync += group.eq(0)
        with m.Elif(self.done):
            m.d.sync += group.eq(Mux(group + 1 == conv.groups, 0, group + 1))
        m.d.comb += [
            self.params.enable.eq(self.done),
            self.params.address.eq(conv.param_base + group),
        ]

        # Lanes, then the table or a register beside it, then the queue.
        inside = Signal(requantize.LATENCY + 1)      # which pipeline stages hold a pixel
        m.d.sync += inside.eq(Cat(full, inside))
        m.d.comb += [
            queue.w_en.eq(inside[-1]),
            self.o.valid.eq(queue.r_rdy),
            self.o.p.eq(queue.r_data),
            queue.r_en.eq(self.o.valid & self.o.ready),
        ]

        y = [Signal(8, name=f"y_{o}", reset_less=True) for o in range(self.outputs)]
        for o in range(self.outputs):
            m.submodules[f"lane_{o}"] = lane = Requantizer()
            m.d.comb += [
                lane.enable.eq(1),
                lane.acc.eq(held[0][o]),
                lane.requant.eq(self.params.data[o]),
                lane.zero_out.eq(layer.zero_out),
                lane.low.eq(layer.low),
                lane.high.eq(layer.high),
            ]
            m.d.sync += y[o].eq(lane.y)
        m.d.comb += [
            self.table.enable.eq(1),
            self.table.address.eq(m.submodules.lane_0.y),
            queue.w_data.eq(Cat(Mux(layer.table, self.table.data, y[0]), y[1:])),
        ]

        return m
