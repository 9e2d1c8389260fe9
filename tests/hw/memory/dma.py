"""Load channels, store channels and on-chip memory, as the chip joins them."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.isa import INSTRUCTION, LOADS, STORES
from hw.memory.axi import Axi4, read_half, write_half
from hw.memory.banked import BankedMemory
from hw.memory.load import FETCH_LAYOUT, LoadEngines
from hw.memory.stores import StoreEngines


class Dma(wiring.Component):
    """Everything between AXI and on-chip memory; the units' own streams are open."""

    def __init__(self, *, config, window):
        self.config = config
        self.window = window
        super().__init__({
            "loads":    In(stream.Signature(INSTRUCTION)).array(len(LOADS)),
            "stores":   In(stream.Signature(INSTRUCTION)).array(len(STORES)),
            "requests": In(stream.Signature(32)),
            "answers":  Out(stream.Signature(FETCH_LAYOUT)),
            "axi":      Out(Axi4(data_width=config.vector * 8,
                                 address_width=config.offchip_address_width)),
            "errors":   Out(1),
            "idle":     Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        config = self.config
        m.submodules.load   = load   = LoadEngines(config=config, window=self.window)
        m.submodules.stores = stores = StoreEngines(config)
        m.submodules.onchip = onchip = BankedMemory(
            depth=config.onchip_words, vector=config.vector, lanes=config.onchip_lanes,
            banks=config.onchip_banks, readers=len(STORES), writers=1)
        connect(m, load.axi, read_half(flipped(self.axi)))
        connect(m, stores.axi, write_half(flipped(self.axi)))
        connect(m, load.w, onchip.w[0])
        connect(m, flipped(self.requests), load.requests)
        connect(m, load.answers, flipped(self.answers))
        for number, port in enumerate(stores.reads):
            connect(m, port, onchip.r[number])
        engines = [*zip(self.loads, load.engines, strict=True),
                   *zip(self.stores, stores.engines, strict=True)]
        for port, engine in engines:
            connect(m, flipped(port), engine.i)
        m.d.comb += [
            self.errors.eq(Cat(engine.error.as_value().any() for _, engine in engines).any()),
            self.idle.eq(load.idle & stores.idle),
        ]
        return m
