"""Attention Compute Unit: decoder output and skip in, gated skip out to the decoder."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from hw.attention.alpha_rows import AlphaRows, AlphaRowSignature
from hw.attention.alpha_store import AlphaStore
from hw.attention.gate import GateEngine
from hw.compute.unit import ComputeUnit
from hw.isa import LoadTarget


class AttentionUnit(wiring.Component):
    """A compute unit whose convolutions make attention maps, their store, and the gate.

    Three engines run side by side: ``fill`` fetches rows of the skip (on-chip memory) and of the
    decoder's previous output (feedback memory), ``conv`` makes alpha of them, and ``gate``
    multiplies alpha with the skip. The compiler orders them by waits.

    Parameters
    ----------
    config : hw.config.Config

    Members
    -------
    conv, fill, gate : Out(EngineSignature())
    load : In(stream.Signature(load_layout(...)))
    read_onchip, read_skip : Out(MemoryRead(...))
        The fill's and the gate's port to on-chip memory.
    read_feedback : Out(MemoryRead(...))
    write_onchip : Out(MemoryWrite(...))
        Alpha rows, for the monitor, and what else the program puts there.
    gated : Out(stream.Signature(row_write_layout(...)))
        Gated skips, for the decoder's row memory.
    tap_conv, tap_fill, tap_gate : Out(TapSignature(...))
    alpha_row : Out(AlphaRowSignature())
    """

    def __init__(self, config):
        self.config  = config
        self.compute = ComputeUnit(config=config, name="attention")
        self.gating  = GateEngine(config)
        self.alpha   = AlphaStore(config)
        self.rows    = AlphaRows(protection=config.protects("slots"))
        self.protected = [*self.compute.protected, *self.gating.protected, *self.alpha.protected,
                          *self.rows.protected]

        compute, gate = self.compute.signature.members, self.gating.signature.members
        super().__init__({
            "conv":          compute["conv"],
            "fill":          compute["fill"],
            "gate":          gate["engine"],
            "load":          compute["load"],
            "read_onchip":   compute["read_onchip"],
            "read_skip":     gate["read_skip"],
            "read_feedback": compute["read_feedback"],
            "write_onchip":  compute["write_onchip"],
            "gated":         gate["write"],
            "tap_conv":      compute["tap_conv"],
            "tap_fill":      compute["tap_fill"],
            "tap_gate":      gate["tap"],
            "alpha_row":     Out(AlphaRowSignature()),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.compute    = compute    = self.compute
        m.submodules.alpha      = alpha      = self.alpha
        m.submodules.gate       = gate       = self.gating
        m.submodules.alpha_rows = alpha_rows = self.rows

        connect(m, compute.conv, flipped(self.conv))
        connect(m, compute.fill, flipped(self.fill))
        connect(m, gate.engine, flipped(self.gate))

        for_gate = self.load.p.target == LoadTarget.GATE_PARAMS
        m.d.comb += [
            compute.load.p.eq(self.load.p),
            gate.load.p.eq(self.load.p),
            compute.load.valid.eq(self.load.valid & ~for_gate),
            gate.load.valid.eq(self.load.valid & for_gate),
            self.load.ready.eq(Mux(for_gate, gate.load.ready, compute.load.ready)),
        ]

        connect(m, compute.read_onchip, flipped(self.read_onchip))
        connect(m, compute.read_feedback, flipped(self.read_feedback))
        connect(m, compute.write_onchip, flipped(self.write_onchip))
        connect(m, compute.write_alpha, alpha.write)

        connect(m, gate.read_skip, flipped(self.read_skip))
        connect(m, gate.read_alpha, alpha.read)
        connect(m, gate.write, flipped(self.gated))

        m.d.comb += [
            alpha_rows.retired.eq(self.conv.i.valid & self.conv.i.ready),
            alpha_rows.instruction.eq(self.conv.i.p),
        ]
        connect(m, alpha_rows.o, flipped(self.alpha_row))

        connect(m, compute.tap_conv, flipped(self.tap_conv))
        connect(m, compute.tap_fill, flipped(self.tap_fill))
        connect(m, gate.tap, flipped(self.tap_gate))

        return m
