"""A board in simulation: the board's own top, an SDRAM at its pins, a program that runs both."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.boards.top import BoardTop
from hw.memory.offchip import MODEL_SOURCES
from hw.memory.pads import simulation_ports
from hw.memory.pinned import SdramBehindPads
from hw.memory.sdram_device import SdramDevice
from hw.verilog import export
from sim.errors import SimulationError
from sim.simulators import Harness, build

__all__ = ["BIT", "SimBoard", "build_board", "running"]

MAIN  = Path(__file__).with_name("board_main.cpp")
BIT   = 4               # cycles of a bit on the serial line: faster than on the board
QUIET = 4000            # cycles


class SimBoard(wiring.Component):
    """:class:`hw.boards.top.BoardTop` and the memory on the other side of its pads.

    Parameters
    ----------
    config : hw.config.Config
    chip : wiring.Component
        As :class:`hw.boards.top.BoardTop` takes it.

    Members
    -------
    rx, tx
        The serial line, ``BIT`` cycles a bit.
    violations : Out(32)
        Of :class:`hw.memory.sdram_device.SdramDevice`.
    """

    def __init__(self, config, chip=None):
        self.config = config
        self.chip   = chip
        super().__init__({"rx": In(1), "tx": Out(1), "violations": Out(32)})

    def elaborate(self, platform):
        m = Module()

        config, dram = self.config, self.config.dram
        ports  = simulation_ports(bits=dram.sdram_bits, banks=dram.banks)
        device = SdramDevice(dram=dram, size=config.offchip_bytes, beat=config.vector,
                             period_ps=round(1e6 / config.clock_mhz))
        clock_hz = round(config.clock_mhz * 1e6)
        m.submodules.board  = board = BoardTop(config, ports, baud=clock_hz // BIT, quiet=QUIET,
                                               chip=self.chip)
        m.submodules.memory = SdramBehindPads(ports, device)
        m.d.comb += [board.rx.eq(self.rx), self.tx.eq(board.tx),
                     self.violations.eq(device.violations)]

        return m


def build_board(config, chip=None):
    """The simulation of a board, made now or kept from before."""
    return build("verilator", export(SimBoard(config, chip), name="top", reset=False), top="top",
                 sources=MODEL_SOURCES[:1], harness=Harness(MAIN, lambda *_: None, "board"))


@contextmanager
def running(built):
    """Run it; gives the name of its serial line.

    Raises
    ------
    SimulationError
        At the end, if its memory's data sheet was violated.
    """
    with subprocess.Popen([str(built.folder / "simulate"), f"+bit={BIT}"], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            said, _ = process.communicate()     # the end of its input is its end
    *rules, count = said.splitlines()
    if process.returncode or int(count):
        raise SimulationError(f"The board's memory was violated {count} times: {' '.join(rules)}")
