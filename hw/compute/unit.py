"""One compute unit: row memory, convolution engine and fill engine, wired up."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, connect, flipped

from hw.compute.conv import ConvEngine
from hw.compute.fill import FillEngine
from hw.compute.row_memory import RowMemory
from hw.interfaces import row_write_layout

FEEDBACK_READERS = ("attention", "decoder")
"""The units that fetch rows of the decoder's previous output."""


class ComputeUnit(wiring.Component):
    """Encoder, attention or decoder unit: rows come in through ``fill`` (or ``gated``), are
    convolved by ``conv`` in the order of the program, and leave for the memories or stay as rows
    of the next layer.

    The two engines run side by side. Of writes to one bank of the row memory in the same cycle,
    that of the convolution goes first, then that of the gate, then that of the fill.

    Parameters
    ----------
    config : hw.config.Config
    name : str
        ``"encoder"``, ``"attention"`` or ``"decoder"``.

    Members
    -------
    conv, fill : Out(EngineSignature())
    load : In(stream.Signature(load_layout(...)))
        Weights, requantisation parameters and table.
    gated : In(stream.Signature(row_write_layout(...)))
        Decoder only: rows of the gate, of ``vector // outputs`` lanes.
    read_onchip : Out(MemoryRead(...))
    read_feedback : Out(MemoryRead(...))
        Attention and decoder only.
    write_onchip, write_feedback, write_alpha : Out(MemoryWrite(...))
        The last two only in the decoder and the attention unit. See
        :class:`hw.compute.write.Writer`.
    tap_conv, tap_fill : Out(TapSignature(...))
    """

    def __init__(self, *, config, name):
        self.conv_engine = ConvEngine(config=config, name=name)
        self.config = config
        self.name   = name
        self.unit   = unit = config.units[name]
        self.lanes  = config.vector // unit.outputs
        self.fill_engine = FillEngine(config, unit, name in FEEDBACK_READERS)
        self.rows   = RowMemory(banks=unit.banks, depth=unit.row_words, vector=config.vector,
                                lanes=self.lanes, writers=3 if name == "decoder" else 2,
                                protection=config.protects("rows"))
        self.protected = [*self.rows.protected, *self.conv_engine.protected,
                          *self.fill_engine.protected]

        conv, fill = self.conv_engine.signature.members, self.fill_engine.signature.members
        members = {
            "conv":        conv["engine"],
            "fill":        fill["engine"],
            "load":        conv["load"],
            "read_onchip": fill["read_onchip"],
            "tap_conv":    conv["tap"],
            "tap_fill":    fill["tap"],
        }
        if name in FEEDBACK_READERS:
            members["read_feedback"] = fill["read_feedback"]
        for port in ("write_onchip", "write_feedback", "write_alpha"):
            if port in conv:
                members[port] = conv[port]
        if name == "decoder":
            members["gated"] = In(stream.Signature(row_write_layout(
                banks=unit.banks, depth=unit.row_words, vector=config.vector,
                lanes=self.lanes)))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()

        m.submodules.rows = rows = self.rows
        m.submodules.conv = conv = self.conv_engine
        m.submodules.fill = fill = self.fill_engine

        connect(m, conv.engine, flipped(self.conv))
        connect(m, fill.engine, flipped(self.fill))
        connect(m, flipped(self.load), conv.load)

        connect(m, fill.read_onchip, flipped(self.read_onchip))
        if self.name in FEEDBACK_READERS:
            connect(m, fill.read_feedback, flipped(self.read_feedback))

        writers = [conv.write_row, fill.write]
        if self.name == "decoder":
            writers.insert(1, flipped(self.gated))
        for number, writer in enumerate(writers):
            connect(m, writer, rows.writes[number])
        connect(m, conv.read_row, rows.read)

        connect(m, conv.write_onchip, flipped(self.write_onchip))
        if self.name == "decoder":
            connect(m, conv.write_feedback, flipped(self.write_feedback))
        if self.name == "attention":
            connect(m, conv.write_alpha, flipped(self.write_alpha))

        connect(m, conv.tap, flipped(self.tap_conv))
        connect(m, fill.tap, flipped(self.tap_fill))

        return m
