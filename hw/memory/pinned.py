"""Controller, pads and SDRAM in place of the transaction-level memory. Simulation only."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.memory.axi import Axi4
from hw.memory.pads import SdramPads, simulation_ports
from hw.memory.sdram import Command, SdramController
from hw.memory.sdram_device import DOMAIN, Rule, SdramDevice
from hw.memory.traffic import COUNTER_BITS

__all__ = ["PinnedMemory", "SdramBehindPads"]


class SdramBehindPads(wiring.Component):
    """An :class:`hw.memory.sdram_device.SdramDevice` on the other side of the ports of a board's
    pads; its clock is ``sync``, turned around.

    Parameters
    ----------
    ports
        Of :func:`hw.memory.pads.simulation_ports`.
    device : SdramDevice
    """

    def __init__(self, ports, device):
        self.ports, self.device = ports, device
        super().__init__({})

    def elaborate(self, platform):
        m = Module()

        m.domains += ClockDomain(DOMAIN, local=True, reset_less=True)
        m.d.comb += ClockSignal(DOMAIN).eq(~ClockSignal())
        m.submodules.device = device = self.device

        ports, pins = self.ports, device.pins
        m.d.comb += [
            pins.command.eq(Mux(ports.cs.o & ports.clk_en.o,
                                Cat(ports.ras.o, ports.cas.o, ports.we.o), Command.NOP.value)),
            pins.ba.eq(ports.ba.o),
            pins.a.eq(ports.a.o),
            pins.dqm.eq(ports.dqm.o),
            pins.dq_o.eq(ports.dq.o),
            pins.dq_oe.eq(ports.dq.oe[0]),
            ports.dq.i.eq(pins.dq_i),
        ]
        return m


class PinnedMemory(wiring.Component):
    """What :class:`hw.memory.offchip.OffchipMemory` is to the chip, down to the SDRAM's pins.

    Parameters
    ----------
    config : hw.config.Config
        Its memory must be a plain SDRAM of its own clock.
    depth : int
        Beats; default ``config.offchip_words``.
    storage : str
    dram : hw.config.Dram
        What the memory demands, if not what the controller was told.
    id_width : int

    Members
    -------
    axi, load, dump, dump_first, dump_count, read_bytes, ...
        Those of :class:`hw.memory.offchip.OffchipMemory`, but for ``inject_error``.
    ready : Out(1)
    violations : Out(32)
    broken : Out(len(Rule))
        Those of :class:`hw.memory.sdram_device.SdramDevice`.
    """

    def __init__(self, *, config, depth=None, storage="array", dram=None, id_width=1):
        dram  = dram or config.dram
        depth = config.offchip_words if depth is None else depth
        self.config     = config
        self.controller = SdramController(config=config, depth=depth, id_width=id_width)
        self.device     = SdramDevice(dram=dram, size=depth * config.vector, storage=storage,
                                      period_ps=round(1e6 / config.clock_mhz), beat=config.vector)
        super().__init__({
            "axi": In(Axi4(data_width=config.vector * 8, id_width=id_width,
                           address_width=config.offchip_address_width)),
            "load":       In(1),
            "dump":       In(1),
            "dump_first": In(32),
            "dump_count": In(32),
            **{name: Out(COUNTER_BITS)
               for name in ("read_bytes", "written_bytes", "row_hits", "row_misses",
                            "refresh_cycles", "busy_cycles")},
            "ready":      Out(1),
            "violations": Out(32),
            "broken":     Out(len(Rule)),
        })

    def elaborate(self, platform):
        m = Module()

        controller, device, dram = self.controller, self.device, self.config.dram
        ports = simulation_ports(bits=dram.sdram_bits, banks=dram.banks)
        m.submodules.controller = controller
        m.submodules.pads       = pads = SdramPads(ports, bits=dram.sdram_bits, banks=dram.banks)
        m.submodules.sdram      = SdramBehindPads(ports, device)
        connect(m, flipped(self.axi), controller.axi)
        connect(m, controller.pins, pads.pins)

        m.d.comb += [
            *(getattr(device, name).eq(getattr(self, name))
              for name in ("load", "dump", "dump_first", "dump_count")),
            self.ready.eq(controller.ready),
            self.violations.eq(device.violations),
            self.broken.eq(device.broken),
            *(getattr(self, name).eq(getattr(controller, name))
              for name in ("read_bytes", "written_bytes", "row_hits", "row_misses",
                           "refresh_cycles", "busy_cycles")),
        ]
        return m
