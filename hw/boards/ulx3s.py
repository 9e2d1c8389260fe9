"""The ULX3S with an ECP5-85F: its clock and its pins around :class:`hw.boards.top.BoardTop`."""

from amaranth import *
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from golden.errors import InputError
from hw.boards.top import BoardTop
from hw.boards.uart import BAUD

__all__ = ["CRYSTAL_MHZ", "Ulx3s", "platform", "pll_dividers"]

CRYSTAL_MHZ = 25
VCO_MHZ     = range(400, 801)       # ECP5 family data sheet, sysCLOCK PLL timing


def platform():
    """What amaranth-boards knows of the board."""
    return ULX3S_85F_Platform()


def pll_dividers(clock_mhz):
    """``(input, feedback, output)`` dividers of the PLL that make the crystal's clock
    ``clock_mhz``; the oscillator runs as slow as it may.

    Raises
    ------
    InputError
        If there are none.
    """
    for divided in range(1, 9):
        for feedback in range(1, 81):
            if CRYSTAL_MHZ * feedback != clock_mhz * divided:
                continue
            for output in range(1, 129):
                if VCO_MHZ.start <= clock_mhz * output < VCO_MHZ.stop:
                    return divided, feedback, output
    raise InputError(f"The board's PLL makes no {clock_mhz:g} MHz from {CRYSTAL_MHZ} MHz; take a "
                     "clock_mhz such as 25, 30, 37.5, 40 or 50")


class Pll(Elaboratable):
    """Drives the domain ``sync``, in reset until the clock is stable."""

    def __init__(self, clock_mhz):
        self.clock_mhz = clock_mhz

    def elaborate(self, platform):
        m = Module()

        divided, feedback, output = pll_dividers(self.clock_mhz)
        m.submodules.crystal = crystal = io.Buffer("i", platform.request("clk25", dir="-"))
        clock, locked = Signal(), Signal()
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=str(CRYSTAL_MHZ), a_FREQUENCY_PIN_CLKOP=f"{self.clock_mhz:g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_CLKI_DIV=divided, p_CLKFB_DIV=feedback, p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=output, p_CLKOP_CPHASE=output // 2,
            p_CLKOP_FPHASE=0, p_OUTDIVIDER_MUXA="DIVA", p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            i_CLKI=crystal.i, i_CLKFB=clock, i_RST=0, i_STDBY=0, i_PHASESEL0=0, i_PHASESEL1=0,
            i_PHASEDIR=0, i_PHASESTEP=0, i_PHASELOADREG=0, i_PLLWAKESYNC=0, i_ENCLKOP=0,
            o_CLKOP=clock, o_LOCK=locked)
        m.d.comb += ClockSignal().eq(clock)
        m.submodules.reset = ResetSynchronizer(~locked, domain="sync")

        return m


class Ulx3s(Elaboratable):
    """What is built for the board.

    Parameters
    ----------
    config : hw.config.Config
    baud : int
    chip : wiring.Component
        As :class:`hw.boards.top.BoardTop` takes it.
    """

    def __init__(self, config, *, baud=BAUD, chip=None):
        self.config = config
        self.baud   = baud
        self.chip   = chip
        pll_dividers(config.clock_mhz)
        config.dram.sdram(config.clock_mhz)

    def elaborate(self, platform):
        m = Module()

        m.domains.sync   = ClockDomain()
        m.submodules.pll = Pll(self.config.clock_mhz)
        m.submodules.top = top = BoardTop(self.config, platform.request("sdram", dir="-"),
                                          baud=self.baud, chip=self.chip)
        uart = platform.request("uart", dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [top.rx.eq(rx.i), tx.o.eq(top.tx)]
        for number in range(len(top.leds)):
            led = io.Buffer("o", platform.request("led", number, dir="-"))
            m.submodules[f"led_{number}"] = led
            m.d.comb += led.o.eq(top.leds[number])

        return m
