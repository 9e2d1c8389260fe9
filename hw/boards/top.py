"""Chip, SDRAM controller and the host's link, wired together: all of a board but its clock."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from hw.boards.link import MEMORY_COUNTERS, Link
from hw.boards.rows import MonitorRows
from hw.boards.uart import BAUD, UartReceiver, UartTransmitter
from hw.memory.pads import SdramPads
from hw.memory.sdram import SdramController
from hw.memory.share import AxiShare
from hw.top import Chip

__all__ = ["QUIET_SECONDS", "BoardTop"]

QUIET_SECONDS = 0.01        # longer than any pause that a computer makes inside a frame


class BoardTop(wiring.Component):
    """Everything behind the pins, in the domain ``sync`` of ``config.clock_mhz``.

    Parameters
    ----------
    config : hw.config.Config
        Its memory must be a plain SDRAM of its own clock.
    sdram
        Ports, as :class:`hw.memory.pads.SdramPads` takes them.
    baud, quiet : int
        Of the link: its speed, and the cycles after which a broken request is forgotten.
    chip : wiring.Component
        With the ``axi``, ``control``, ``irq`` and ``monitor`` of :class:`hw.top.Chip`, which it is
        by default.

    Members
    -------
    rx : In(1)
    tx : Out(1)
    leds : Out(8)
        Memory ready, a request came, one was dropped, interrupt; and the upper half counts seconds.
    """

    def __init__(self, config, sdram, *, baud=BAUD, quiet=None, chip=None):
        self.config   = config
        self.ports    = sdram
        self.clock_hz = round(config.clock_mhz * 1e6)
        self.baud     = baud
        self.quiet    = quiet or round(self.clock_hz * QUIET_SECONDS)
        self.chip     = chip or Chip(config)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "leds": Out(8)})

    def elaborate(self, platform):
        m = Module()

        config, dram, chip = self.config, self.config.dram, self.chip
        m.submodules.chip  = chip       # its taps stay open
        m.submodules.share = share = AxiShare(chip.axi.signature)
        m.submodules.memory = memory = SdramController(
            config=config, id_width=share.memory.signature.id_width)
        m.submodules.pads  = pads = SdramPads(self.ports, bits=dram.sdram_bits, banks=dram.banks)
        m.submodules.link  = link = Link(chip.axi.signature, quiet=self.quiet)
        m.submodules.rows  = rows = MonitorRows()
        pace = {"clock_hz": self.clock_hz, "baud": self.baud}
        m.submodules.receiver    = receiver    = UartReceiver(**pace)
        m.submodules.transmitter = transmitter = UartTransmitter(**pace)

        connect(m, chip.axi, share.managers[0])
        connect(m, link.axi, share.managers[1])
        connect(m, share.memory, memory.axi)
        connect(m, memory.pins, pads.pins)
        connect(m, link.control, chip.control)
        connect(m, receiver.o, link.i)
        connect(m, link.o, transmitter.i)
        connect(m, chip.monitor, rows.i)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            link.irq.eq(chip.irq),
            link.ready.eq(memory.ready),
            rows.done.eq(link.rows_done),
            rows.address.eq(link.rows_address),
            link.rows_level.eq(rows.level),
            link.rows_word.eq(rows.word),
            *(port.eq(getattr(memory, name))
              for port, name in zip(link.memory_counters, MEMORY_COUNTERS)),
        ]

        second  = Signal(range(self.clock_hz))
        seconds = Signal(4)
        with m.If(second == 0):
            m.d.sync += [second.eq(self.clock_hz - 1), seconds.eq(seconds + 1)]
        with m.Else():
            m.d.sync += second.eq(second - 1)
        seen, lost = Signal(), Signal()
        with m.If(receiver.o.valid):
            m.d.sync += seen.eq(~seen)
        with m.If(link.dropped):
            m.d.sync += lost.eq(1)
        m.d.comb += self.leds.eq(Cat(memory.ready, seen, lost, chip.irq, seconds))

        return m
