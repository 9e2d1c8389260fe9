"""The chip with the ports that block designs expect: names of AXI as vendors spell them."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.top import Chip

__all__ = ["BUSES", "Ip"]

BUSES = {"control": "s_axi", "axi": "m_axi", "monitor": "m_axis"}
"""Port of :class:`hw.top.Chip` -> prefix of its signals."""

CACHEABLE = 0b0011      # normal memory, whose accesses an interconnect may merge and buffer
ATTRIBUTES = {"cache": (4, CACHEABLE), "prot": (3, 0)}
"""Of every burst: bits and value. Interconnects ask for them; the chip's own bus has none."""


class Ip(wiring.Component):
    """:class:`hw.top.Chip` behind ``aclk`` and ``aresetn``, without its taps.

    Parameters
    ----------
    config : hw.config.Config
    chip : wiring.Component
        Another one in its place, for a test.

    Members
    -------
    aclk : In(1)
    aresetn : In(1)
        Synchronous, low for at least a cycle; all three buses are reset with it.
    interrupt : Out(1)
        High as long as an enabled bit of IRQ_STATUS is.
    s_axi_* : AXI4-Lite subordinate
        The registers of :mod:`hw.control.regmap`.
    m_axi_* : AXI4 manager
        Off-chip memory.
    m_axis_* : AXI4-Stream
        The attention monitor: a byte a pixel, ``tuser`` its layer and row.
    """

    def __init__(self, config, chip=None):
        self.config = config
        self.chip   = Chip(config) if chip is None else chip
        members = self.chip.signature.members
        super().__init__({
            "aclk":      In(1),
            "aresetn":   In(1),
            "interrupt": Out(1),
            **{f"{prefix}_{name}": member.flow(Shape.cast(member.shape).width)
               for bus, prefix in BUSES.items()
               for name, member in members[bus].signature.members.items()},
            **{f"m_axi_{channel}{name}": Out(bits)
               for channel in ("ar", "aw") for name, (bits, _) in ATTRIBUTES.items()},
        })

    def elaborate(self, platform):
        m = Module()

        m.domains.sync = sync = ClockDomain()
        m.submodules.chip = chip = self.chip
        m.d.comb += [sync.clk.eq(self.aclk), sync.rst.eq(~self.aresetn),
                     self.interrupt.eq(chip.irq)]
        for bus, prefix in BUSES.items():
            inside = getattr(chip, bus)
            for name in inside.signature.members:
                ours, its = getattr(self, f"{prefix}_{name}"), Value.cast(getattr(inside, name))
                out = self.signature.members[f"{prefix}_{name}"].flow is Out
                m.d.comb += ours.eq(its) if out else its.eq(ours)
        m.d.comb += [getattr(self, f"m_axi_{channel}{name}").eq(value)
                     for channel in ("ar", "aw") for name, (_, value) in ATTRIBUTES.items()]

        return m

