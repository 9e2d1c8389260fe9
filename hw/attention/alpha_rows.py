"""Announces rows of attention maps as they are finished, for the monitor."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.isa import INSTRUCTION, LAYER_SLOTS, Opcode, Target
from hw.memory.protected import memory


def alpha_row_layout():
    """One finished row: ``width`` bytes of row ``row`` of ``layer``, from on-chip word ``base``."""
    return data.StructLayout({"layer": 8, "row": 12, "base": 20, "width": 11})


class AlphaRowSignature(wiring.Signature):
    """An event: nobody can hold it back."""

    def __init__(self):
        super().__init__({"valid": Out(1), "p": Out(alpha_row_layout())})


class AlphaRows(wiring.Component):
    """Reads along with the attention unit's convolution engine.

    Keeps the width and target of every layer slot, and pulses ``o.valid`` one cycle after a
    ``CONV`` that targets ``ALPHA`` retires: the row then lies in on-chip memory. Slots not written
    since reset target nothing.

    Parameters
    ----------
    protection : str
        Of the slots, one of ``hw.config.PROTECTIONS``.

    Members
    -------
    retired : In(1)
        ``instruction`` retires in this cycle.
    instruction : In(INSTRUCTION)
    o : Out(AlphaRowSignature())
    """

    retired:     In(1)
    instruction: In(INSTRUCTION)
    o:           Out(AlphaRowSignature())

    def __init__(self, *, protection="none"):
        slot = data.StructLayout({"alpha": 1, "width": 11})
        self.slots     = memory(protection, shape=slot, depth=LAYER_SLOTS)
        self.protected = [("slots", self.slots)]
        super().__init__()

    def elaborate(self, platform):
        m = Module()

        m.submodules.slots = slots = self.slots
        write, read = slots.write_port(), slots.read_port()

        layer, conv = self.instruction.layer, self.instruction.conv
        asked       = Signal()              # the slot of a CONV is being looked up
        known       = Signal(LAYER_SLOTS)   # slots written since reset
        with m.If(write.en):
            m.d.sync += known.bit_select(layer.slot, 1).eq(1)
        m.d.comb += [
            write.en.eq(self.retired & (layer.opcode == Opcode.LAYER)),
            write.addr.eq(layer.slot),
            write.data.alpha.eq(layer.target == Target.ALPHA),
            write.data.width.eq(layer.width_out),
            read.addr.eq(conv.slot),
        ]
        m.d.sync += asked.eq(self.retired & (conv.opcode == Opcode.CONV)
                             & known.bit_select(conv.slot, 1))
        with m.If(self.retired):
            m.d.sync += [
                self.o.p.layer.eq(conv.layer),
                self.o.p.row.eq(conv.row),
                self.o.p.base.eq(conv.out_base),
            ]
        m.d.comb += [
            self.o.valid.eq(asked & read.data.alpha),
            self.o.p.width.eq(read.data.width),
        ]

        return m
