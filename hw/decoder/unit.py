"""Decoder Compute Unit, with the memory for its own previous output."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from hw.compute.unit import ComputeUnit
from hw.interfaces import MemoryRead
from hw.memory.banked import BankedMemory

PORTS = ("conv", "fill", "load", "gated", "read_onchip", "write_onchip", "tap_conv", "tap_fill")


class DecoderUnit(wiring.Component):
    """A compute unit and the feedback memory that its convolutions write.

    The feedback memory has one bank and two readers in rotation: the decoder's own fill, and the
    attention unit's through ``feedback``. Gated skips arrive in the row memory through ``gated``.

    Parameters
    ----------
    config : hw.config.Config

    Members
    -------
    conv, fill : Out(EngineSignature())
    load : In(stream.Signature(load_layout(...)))
    gated : In(stream.Signature(row_write_layout(...)))
    feedback : In(MemoryRead(...))
    read_onchip : Out(MemoryRead(...))
    write_onchip : Out(MemoryWrite(...))
    tap_conv, tap_fill : Out(TapSignature(...))
    """

    def __init__(self, config):
        self.compute  = ComputeUnit(config=config, name="decoder")
        self.memory   = BankedMemory(depth=config.feedback_words, vector=config.vector,
                                     lanes=config.feedback_lanes, banks=1, readers=2, writers=1,
                                     pipelined=config.pipelined,
                                     protection=config.protects("feedback"), name="feedback")
        self.protected = [*self.compute.protected, *self.memory.protected]
        members = {name: self.compute.signature.members[name] for name in PORTS}
        members["feedback"] = In(MemoryRead(depth=config.feedback_words, vector=config.vector))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()

        m.submodules.compute = compute = self.compute
        m.submodules.memory  = memory  = self.memory

        for name in PORTS:
            connect(m, getattr(compute, name), flipped(getattr(self, name)))
        connect(m, compute.write_feedback, memory.w[0])
        connect(m, compute.read_feedback, memory.r[0])
        connect(m, flipped(self.feedback), memory.r[1])

        return m
