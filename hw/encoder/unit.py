"""Encoder Compute Unit: rows of on-chip memory in, rows of on-chip memory out."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from hw.compute.unit import ComputeUnit

PORTS = ("conv", "fill", "load", "read_onchip", "write_onchip", "tap_conv", "tap_fill")


class EncoderUnit(wiring.Component):
    """The plain compute unit: its maps come from on-chip memory and go there.

    Parameters
    ----------
    config : hw.config.Config

    Members
    -------
    conv, fill : Out(EngineSignature())
    load : In(stream.Signature(load_layout(...)))
    read_onchip : Out(MemoryRead(...))
    write_onchip : Out(MemoryWrite(...))
    tap_conv, tap_fill : Out(TapSignature(...))
    """

    def __init__(self, config):
        self.compute   = ComputeUnit(config=config, name="encoder")
        self.protected = self.compute.protected
        super().__init__({name: self.compute.signature.members[name] for name in PORTS})

    def elaborate(self, platform):
        m = Module()

        m.submodules.compute = compute = self.compute
        for name in PORTS:
            connect(m, getattr(compute, name), flipped(getattr(self, name)))

        return m
