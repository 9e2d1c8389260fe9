"""The chip of figure 10: units, memories, controller and monitor, wired as the data flows."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.attention.unit import AttentionUnit
from hw.config import MEMORIES
from hw.control.controller import CentralController
from hw.control.regmap import ADDRESS_BITS
from hw.control.trace import TraceSignature
from hw.decoder.unit import DecoderUnit
from hw.encoder.unit import EncoderUnit
from hw.interfaces import TapSignature
from hw.isa import LOADS, STORES, Engine
from hw.memory.axi import Axi4, AxiLite, read_half, write_half
from hw.memory.banked import BankedMemory
from hw.memory.load import LoadEngines
from hw.memory.protected import errors
from hw.memory.stores import StoreEngines
from hw.monitor.monitor import AttentionMonitor, MonitorStream

ONCHIP_READERS = ("encoder", "attention", "gate", "decoder", "store", "store_decoder", "monitor")
ONCHIP_WRITERS = ("load", "encoder", "attention", "decoder")
TAPS = ("encoder_fill", "encoder_conv", "attention_fill", "attention_conv", "gate", "decoder_fill",
        "decoder_conv")


class Chip(wiring.Component):
    """The whole accelerator.

    Parameters
    ----------
    config : hw.config.Config
    trace : bool
        Show every event, for a simulation.

    Members
    -------
    axi : Out(Axi4(...))
        Off-chip memory.
    control : In(AxiLite(...))
        The registers of :mod:`hw.control.regmap`.
    irq : Out(1)
    monitor : Out(MonitorStream())
        What the attention monitor was told to watch.
    taps : Array of Out(TapSignature(...)), in the order of ``TAPS``
        Simulation only; left open on a chip.
    trace : Out(TraceSignature())
        Only with ``trace``.
    """

    def __init__(self, config, *, trace=False):
        self.config = config
        self.traced = trace
        super().__init__({
            "axi":     Out(Axi4(data_width=config.vector * 8,
                                address_width=config.offchip_address_width)),
            "control": In(AxiLite(address_width=ADDRESS_BITS)),
            "irq":     Out(1),
            "monitor": Out(MonitorStream()),
            "taps":    Out(TapSignature(vector=config.vector)).array(len(TAPS)),
            **({"trace": Out(TraceSignature())} if trace else {}),
        })

    def elaborate(self, platform):
        m = Module()

        config = self.config
        m.submodules.controller = controller = CentralController(
            config, onchip_readers=len(ONCHIP_READERS), onchip_writers=len(ONCHIP_WRITERS),
            trace=self.traced)

        # A run begins with everything that can hold work reset; memories keep their contents.
        reset = ResetInserter(controller.clear)
        load      = LoadEngines(config=config)
        stores    = StoreEngines(config)
        onchip    = BankedMemory(depth=config.onchip_words, vector=config.vector,
                                 lanes=config.onchip_lanes, banks=config.onchip_banks,
                                 readers=len(ONCHIP_READERS), writers=len(ONCHIP_WRITERS),
                                 background=1,      # the monitor, last of the readers
                                 pipelined=config.pipelined,
                                 protection=config.protects("onchip"))
        encoder   = EncoderUnit(config)
        attention = AttentionUnit(config)
        decoder   = DecoderUnit(config)
        monitor   = AttentionMonitor(config)
        m.submodules.load      = reset(load)
        m.submodules.stores    = reset(stores)
        m.submodules.onchip    = reset(onchip)
        m.submodules.encoder   = reset(encoder)
        m.submodules.attention = reset(attention)
        m.submodules.decoder   = reset(decoder)
        m.submodules.monitor   = monitor        # finishes the row that it is sending

        # Outside
        connect(m, flipped(self.control), controller.bus)
        connect(m, load.axi, read_half(flipped(self.axi)))
        connect(m, stores.axi, write_half(flipped(self.axi)))
        connect(m, monitor.o, flipped(self.monitor))
        m.d.comb += self.irq.eq(controller.irq)

        # Program: fetched through the load side, issued to the engines
        connect(m, controller.fetch_request, load.requests)
        connect(m, load.answers, controller.fetch_answer)
        engines = {
            **dict(zip(LOADS, load.engines)),
            **dict(zip(STORES, stores.engines)),
            Engine.ENCODER_FILL:   encoder.fill,
            Engine.ENCODER_CONV:   encoder.conv,
            Engine.ATTENTION_FILL: attention.fill,
            Engine.ATTENTION_CONV: attention.conv,
            Engine.GATE:           attention.gate,
            Engine.DECODER_FILL:   decoder.fill,
            Engine.DECODER_CONV:   decoder.conv,
        }
        for engine, port in engines.items():
            connect(m, port, controller.engines[engine])

        # On-chip memory
        reads  = (encoder.read_onchip, attention.read_onchip, attention.read_skip,
                  decoder.read_onchip, *stores.reads, monitor.read)
        writes = (load.w, encoder.write_onchip, attention.write_onchip, decoder.write_onchip)
        for number, port in enumerate(reads):
            connect(m, port, onchip.r[number])
            m.d.comb += controller.onchip_reads[number].eq(port.address.valid & port.address.ready)
        for number, port in enumerate(writes):
            connect(m, port, onchip.w[number])
            m.d.comb += controller.onchip_writes[number].eq(port.w.valid & port.w.ready)

        if config.protected:
            parts = [*controller.protected, *load.protected, *stores.protected, *onchip.protected,
                     *encoder.protected, *attention.protected, *decoder.protected,
                     *monitor.protected]
            corrected, uncorrectable = errors(parts, MEMORIES)
            m.d.comb += [controller.corrected.eq(corrected),
                         controller.uncorrectable.eq(uncorrectable)]

        # Data: parameters to the units, previous output and gated skips between them
        for stream, unit in zip(load.units, (encoder, attention, decoder)):
            connect(m, stream, unit.load)
        connect(m, attention.read_feedback, decoder.feedback)
        connect(m, attention.gated, decoder.gated)

        # Monitor
        connect(m, attention.alpha_row, monitor.alpha_row)
        settings = controller.monitor
        m.d.comb += [
            monitor.clear.eq(controller.clear),
            monitor.settings.enable.eq(settings.enable),
            monitor.settings.layer.eq(settings.layer),
            monitor.settings.x0.eq(settings.x0),
            monitor.settings.y0.eq(settings.y0),
            monitor.settings.width.eq(settings.width),
            monitor.settings.height.eq(settings.height),
            monitor.settings.decimate_log2.eq(settings.decimate),
            controller.monitor_sent.eq(monitor.rows_sent),
            controller.monitor_dropped.eq(monitor.rows_dropped),
        ]

        # Run state and counters
        m.d.comb += [
            load.abort.eq(controller.abort),
            stores.abort.eq(controller.abort),
            stores.writable.eq(controller.writable),
            controller.idle.eq(load.idle & stores.idle),
            controller.frame_started.eq(load.frame_started),
            controller.frame_ended.eq(stores.frame_ended),
            controller.read_bursts.eq(load.bursts),
            controller.written_bursts.eq(stores.bursts),
        ]
        for index, (read, written) in enumerate(zip(load.bytes, stores.bytes)):
            m.d.comb += controller.read_bytes[index].eq(read)
            m.d.comb += controller.written_bytes[index].eq(written)

        taps = (encoder.tap_fill, encoder.tap_conv, attention.tap_fill, attention.tap_conv,
                attention.tap_gate, decoder.tap_fill, decoder.tap_conv)
        for number, tap in enumerate(taps):
            connect(m, tap, flipped(self.taps[number]))
        if self.traced:
            connect(m, controller.trace, flipped(self.trace))

        return m


