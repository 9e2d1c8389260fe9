"""The registers of an SDRAM's pins, on a board and in a simulation."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In

from hw.memory.sdram import ADDRESS_PINS, SdramPins

__all__ = ["SdramPads", "simulation_ports"]


def simulation_ports(*, bits, banks):
    """What stands for the pads in a simulation: a port for each pin of ``SDRAMResource``."""
    widths = {"clk": 1, "clk_en": 1, "cs": 1, "ras": 1, "cas": 1, "we": 1,
              "ba": (banks - 1).bit_length(), "a": ADDRESS_PINS, "dqm": bits // 8}
    return SimpleNamespace(**{name: io.SimulationPort("o", width, name=f"sdram_{name}")
                              for name, width in widths.items()},
                           dq=io.SimulationPort("io", bits, name="sdram_dq"))


class SdramPads(wiring.Component):
    """One register at each pin, and a clock that is ours turned around, so that the memory samples
    in the middle of what it is shown.

    Parameters
    ----------
    ports
        ``clk``, ``clk_en``, ``cs``, ``ras``, ``cas``, ``we``, ``ba``, ``a``, ``dqm`` and ``dq``, as
        ``platform.request("sdram", dir="-")`` or :func:`simulation_ports` gives them.
    bits, banks : int

    Members
    -------
    pins : In(SdramPins(...))
    """

    def __init__(self, ports, *, bits, banks):
        self.ports = ports
        super().__init__({"pins": In(SdramPins(bits=bits, banks=banks))})

    def elaborate(self, platform):
        m = Module()

        ports, pins = self.ports, self.pins
        command = Value.cast(pins.command)
        for name, value in {"clk_en": C(1), "cs": C(1), "ras": command[0], "cas": command[1],
                            "we": command[2], "ba": pins.ba, "a": pins.a, "dqm": pins.dqm}.items():
            m.submodules[name] = pad = io.FFBuffer("o", getattr(ports, name))
            m.d.comb += pad.o.eq(value)
        m.submodules.dq = dq = io.FFBuffer("io", ports.dq)
        m.d.comb += [dq.o.eq(pins.dq_o), dq.oe.eq(pins.dq_oe), pins.dq_i.eq(dq.i)]
        if platform is not None:        # in a simulation the memory turns the clock itself
            m.submodules.clk = clk = io.DDRBuffer("o", ports.clk)
            m.d.comb += [clk.o[0].eq(0), clk.o[1].eq(1)]

        return m
