"""Drain: finished accumulators, one pixel per cycle, through requantiser lanes and the table."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.compute import requantize
from hw.compute.layer import LAYER
from hw.compute.requantize import Requantizer
from hw.isa import FORMS, Opcode, Requant

LATENCY = 1 + requantize.LATENCY + 1
"""Moving cycles from ``take`` to the first pixel's bytes: capture, requantiser, table."""


class Drain(wiring.Component):
    """Second set of accumulators, emptied while the array works on the next sums.

    Captures ``acc`` in a cycle in which ``done`` and ``take`` are both high. ``take`` is high when
    the set is empty or gives up its last pixel. From the next cycle on, one pixel per cycle with
    ``move`` enters the requantiser lanes; :data:`LATENCY` such cycles after its capture, ``valid``
    offers the bytes ``y`` of pixel 0, then of pixel 1 and so on, for every one of ``pixels``.
    Everything past the capture is frozen while ``move`` is low.

    Captures follow the order of :class:`hw.compute.sequence.StepSequencer`, so the parameter word
    counts from ``conv.param_base`` to the last of ``conv.groups``, over and over; ``start`` begins
    a row. With ``layer.table`` byte 0 is looked up in the table.

    Parameters
    ----------
    pixels, outputs, param_words : int

    Members
    -------
    start, move : In(1)
    layer : In(LAYER)
    conv : In(FORMS[Opcode.CONV])
    done : In(1)
    acc : In(signed(32)).array(pixels, outputs)
    take : Out(1)
    params, table : Out
        Read ports: ``enable``, ``address`` and one cycle later ``data``.
    valid : Out(1)
    y : Out(8).array(outputs)
    """

    def __init__(self, *, pixels, outputs, param_words):
        for name, value in (("pixels", pixels), ("outputs", outputs),
                            ("param_words", param_words)):
            if value < 1:
                raise ValueError(f"Drain {name} must be positive, not {value!r}")
        self.pixels  = pixels
        self.outputs = outputs

        def port(depth, data):
            return Out(wiring.Signature({
                "enable":  Out(1),
                "address": Out(range(depth)),
                "data":    data,
            }))

        super().__init__({
            "start":  In(1),
            "move":   In(1),
            "layer":  In(LAYER),
            "conv":   In(FORMS[Opcode.CONV]),
            "done":   In(1),
            "acc":    In(signed(32)).array(pixels, outputs),
            "take":   Out(1),
            "params": port(param_words, In(Requant).array(outputs)),
            "table":  port(256, In(8)),
            "valid":  Out(1),
            "y":      Out(8).array(outputs),
        })

    def elaborate(self, platform):
        m = Module()

        layer, conv, pixels = self.layer, self.conv, self.pixels

        # The captured set moves down by one pixel per cycle; its lowest pixel is on offer.
        held    = [[Signal(signed(32), name=f"held_{p}_{o}") for o in range(self.outputs)]
                   for p in range(pixels)]
        full    = Signal()
        pixel   = Signal(range(max(pixels, 2)))
        capture = Signal()
        m.d.comb += [
            self.take.eq(~full | (self.move & (pixel == pixels - 1))),
            capture.eq(self.done & self.take),
        ]
        with m.If(capture):
            m.d.sync += [full.eq(1), pixel.eq(0)]
            m.d.sync += [register.eq(value) for registers, values in zip(held, self.acc)
                         for register, value in zip(registers, values)]
        with m.Elif(self.move & full):
            m.d.sync += pixel.eq(pixel + 1)
            m.d.sync += [register.eq(value) for registers, values in zip(held, held[1:])
                         for register, value in zip(registers, values)]
            with m.If(pixel == pixels - 1):
                m.d.sync += full.eq(0)

        # Parameters are read at the capture, and stay on the port while the set drains.
        group = Signal(8)
        with m.If(self.start):
            m.d.sync += group.eq(0)
        with m.Elif(capture):
            m.d.sync += group.eq(Mux(group + 1 == conv.groups, 0, group + 1))
        m.d.comb += [
            self.params.enable.eq(capture),
            self.params.address.eq(conv.param_base + group),
        ]

        # Lanes. They rest when nothing is inside.
        inside = Signal(requantize.LATENCY)      # which pipeline stages hold a pixel
        active = Signal()
        m.d.comb += active.eq(self.move & (full | inside.any()))
        with m.If(self.move):
            m.d.sync += [inside.eq(Cat(full, inside)), self.valid.eq(inside[-1])]

        bytes_ = []
        for o in range(self.outputs):
            m.submodules[f"lane_{o}"] = lane = Requantizer()
            m.d.comb += [
                lane.enable.eq(active),
                lane.acc.eq(held[0][o]),
                lane.requant.eq(self.params.data[o]),
                lane.zero_out.eq(layer.zero_out),
                lane.low.eq(layer.low),
                lane.high.eq(layer.high),
            ]
            byte = Signal(8, name=f"byte_{o}")
            with m.If(self.move & inside[-1]):
                m.d.sync += byte.eq(lane.y)
            bytes_.append(byte)

        m.d.comb += [self.table.enable.eq(self.move & inside[-1]),
                     self.table.address.eq(m.submodules.lane_0.y)]
        m.d.comb += [y.eq(byte) for y, byte in zip(self.y, bytes_)]
        with m.If(layer.table):
            m.d.comb += self.y[0].eq(self.table.data)

        return m
