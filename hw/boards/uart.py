"""Asynchronous serial line: bytes to bits and back, 8N1."""

from math import gcd

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["BAUD", "UartReceiver", "UartTransmitter"]

BAUD         = 3_000_000    # the most that a ULX3S' FT231X does
BITS         = 10           # start, eight of data, lowest first, stop
LEAST_CYCLES = 4            # of a bit


class _Pace:
    """A tick each ``clock_hz / baud`` cycles on average, which need not be whole: an accumulator
    counts in the largest unit that both share."""

    def __init__(self, clock_hz, baud):
        if clock_hz < LEAST_CYCLES * baud:
            raise ValueError(f"{baud} baud need a clock of at least {LEAST_CYCLES * baud} Hz, not "
                             f"{clock_hz}")
        unit = gcd(clock_hz, baud)
        self.whole, self.step = clock_hz // unit, baud // unit
        self.count = Signal(range(self.whole + self.step))
        self.tick  = self.count >= self.whole - self.step

    def advance(self, m):
        m.d.sync += self.count.eq(Mux(self.tick, self.count + self.step - self.whole,
                                      self.count + self.step))


class UartTransmitter(wiring.Component):
    """Sends each byte of ``i``; the line rests high.

    Members
    -------
    i : In(stream.Signature(8))
    tx : Out(1)
    """

    def __init__(self, *, clock_hz, baud):
        self._pace = _Pace(clock_hz, baud)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()

        bits = Signal(BITS, init=-1)
        left = Signal(range(BITS + 1))
        m.d.comb += self.i.ready.eq(left == 0)
        m.d.sync += self.tx.eq(bits[0])
        with m.If(left == 0):
            m.d.sync += self._pace.count.eq(0)
            with m.If(self.i.valid):
                m.d.sync += [bits.eq(Cat(C(0, 1), self.i.p, C(1, 1))), left.eq(BITS)]
        with m.Else():
            self._pace.advance(m)
            with m.If(self._pace.tick):
                m.d.sync += [bits.eq(Cat(bits[1:], C(1, 1))), left.eq(left - 1)]

        return m


class UartReceiver(wiring.Component):
    """A byte at ``o`` for one cycle after each frame whose stop bit is high; others are dropped.
    Each bit is looked at in its middle.

    Members
    -------
    rx : In(1)
        Asynchronous.
    o : Out(stream.Signature(8, always_ready=True))
    """

    def __init__(self, *, clock_hz, baud):
        self._pace = _Pace(clock_hz, baud)
        super().__init__({"rx": In(1, init=1),
                          "o": Out(stream.Signature(8, always_ready=True))})

    def elaborate(self, platform):
        m = Module()

        pace = self._pace
        line = Signal(init=1)
        m.submodules.line = FFSynchronizer(self.rx, line, init=1)
        bits = Signal(BITS - 1)
        left = Signal(range(BITS + 1))
        m.d.sync += self.o.valid.eq(0)
        with m.If(left == 0):
            m.d.sync += pace.count.eq(pace.whole // 2)
            with m.If(~line):
                m.d.sync += left.eq(BITS)
        with m.Else():
            pace.advance(m)
            with m.If(pace.tick):
                m.d.sync += [bits.eq(Cat(bits[1:], line)), left.eq(left - 1)]
                with m.If((left == BITS) & line):       # no start bit after all
                    m.d.sync += left.eq(0)
                with m.If(left == 1):
                    m.d.sync += [self.o.p.eq(bits[1:]), self.o.valid.eq(line)]

        return m
