"""Cuts a run of beats into bursts that stay inside aligned windows."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2


def run_layout(*, address_width, beats):
    """A run: ``beats`` beats (one at least) from beat address ``address``."""
    return data.StructLayout({"address": address_width, "beats": range(beats + 1)})


def burst_layout(*, address_width, window):
    """A burst of ``length + 1`` beats; ``last`` marks the end of its run."""
    return data.StructLayout({"address": address_width, "length": range(window), "last": 1})


class BurstSplitter(wiring.Component):
    """Cuts runs of beats at the multiples of ``window`` beats.

    A window that divides 4 KiB thus gives legal AXI bursts, all but the first and last of them
    aligned and full; a window of one DRAM row gives accesses to one row each.

    The first burst is on offer in the cycle after the run was accepted, then one a cycle. A run is
    accepted while no other is being cut: ``i.ready`` says that all bursts have been taken.

    Parameters
    ----------
    address_width : int
        Bits of a beat address.
    beats : int
        Most beats in a run.
    window : int
        Power of two.
    within : Value
        One less than a smaller window, at which to cut instead, where that is known at run time
        only; None: ``window`` it is.

    Members
    -------
    i : In(stream.Signature(run_layout(...)))
    o : Out(stream.Signature(burst_layout(...)))
    """

    def __init__(self, *, address_width, beats, window, within=None):
        if beats < 1:
            raise ValueError(f"Number of beats must be positive, not {beats!r}")
        if window < 2 or window & (window - 1):
            raise ValueError(f"Window must be a power of two of at least 2, not {window!r}")
        if exact_log2(window) > address_width:
            raise ValueError(f"Window ({window}) must fit the address width ({address_width})")
        self.address_width = address_width
        self.beats         = beats
        self.window        = window
        self.within        = within

        super().__init__({
            "i": In(stream.Signature(run_layout(address_width=address_width, beats=beats))),
            "o": Out(stream.Signature(burst_layout(address_width=address_width, window=window))),
        })

    def elaborate(self, platform):
        m = Module()

        offset_bits = exact_log2(self.window)
        address     = Signal(self.address_width)
        left        = Signal(range(self.beats))      # beats - 1 still to hand out
        room        = Signal(offset_bits)            # beats - 1 from `address` to the window's end

        onward      = Cat(C(0, offset_bits), address[offset_bits:] + 1)
        m.d.comb += room.eq(~address[:offset_bits])
        if self.within is not None:
            m.d.comb += room.eq(~address[:offset_bits] & self.within)
            onward = address + room + 1

        m.d.comb += [
            self.i.ready.eq(~self.o.valid),
            self.o.p.address.eq(address),
            self.o.p.last.eq(left <= room),
            self.o.p.length.eq(Mux(self.o.p.last, left, room)),
        ]

        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.p.address),
                left.eq(self.i.p.beats - 1),
                self.o.valid.eq(1),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                address.eq(onward),
                left.eq(left - room - 1),
                self.o.valid.eq(~self.o.p.last),
            ]

        return m
