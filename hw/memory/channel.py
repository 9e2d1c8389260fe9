"""One load channel: checks an instruction, asks for its bursts, and directs its beats."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.interfaces import EngineSignature, load_layout
from hw.isa import Cause, Error, LoadTarget, Traffic
from hw.memory.bursts import BurstSplitter, burst_layout

BEATS_BITS = 20
"""Width of ``beats`` and ``base`` in LOAD and STORE."""

MAX_BEATS = (1 << BEATS_BITS) - 1


class LoadChannel(wiring.Component):
    """Control of the LOAD stream of one unit; :class:`hw.memory.load.LoadEngines` moves the data.

    An instruction takes two cycles to be checked, then its bursts are on offer. It retires in the
    cycle after its last beat was delivered, once it has ``landed``. Causes: ``ISSUE`` for a
    delivered beat (an expanded beat: each of its words), ``CONFLICT`` and ``BACKPRESSURE`` for one
    that on-chip memory or the unit refuses, ``FILL_DRAIN`` while checking and retiring, else
    ``OFFCHIP``.

    ``BAD_ADDRESS`` without any access: no beats; an off-chip address off the beat or a run beyond
    the memory; words beyond the target's memory; a target the unit has not; ``expand`` to any
    target but on-chip memory. ``AXI_READ``: a beat came with an error. After either the channel
    asks for nothing, drops what arrives, and holds ``error`` until reset.

    Parameters
    ----------
    config : hw.config.Config
    unit : str
        ``encoder``, ``attention`` or ``decoder``.
    window : int
        Most beats in a burst.

    Members
    -------
    engine : Out(EngineSignature())
    bursts : Out(stream.Signature(burst_layout(...)))
    arrived, arrived_error, data : In
        A beat of this channel lies in the beat register.
    taken : Out(1)
        It has been delivered or dropped, this cycle.
    o : Out(stream.Signature(load_layout(...)))
    word : Out(stream.Signature(range(onchip_words)))
        On-chip address that ``part`` of the beat (all of it unless ``expand``) shall go to.
    landed : In(1)
        No word is still on its way to on-chip memory.
    expand, part : Out
    traffic : Out(Traffic)
    frame_started : Out(1)
        The first beat of a LOAD with ``frame_start`` was delivered.
    """

    def __init__(self, *, config, unit, window):
        if unit not in config.units:
            raise ValueError(f"Unit must be one of {', '.join(config.units)}, not {unit!r}")
        self.config       = config
        self.unit         = unit
        self.window       = window
        self.address_bits = config.offchip_address_width - exact_log2(config.vector)
        self.parts        = config.vector // 4

        super().__init__({
            "engine":        Out(EngineSignature()),
            "bursts":        Out(stream.Signature(burst_layout(
                address_width=self.address_bits, window=window))),
            "arrived":       In(1),
            "arrived_error": In(1),
            "data":          In(config.vector * 8),
            "taken":         Out(1),
            "o":             Out(stream.Signature(load_layout(vector=config.vector))),
            "word":          Out(stream.Signature(range(config.onchip_words))),
            "landed":        In(1),
            "expand":        Out(1),
            "part":          Out(range(self.parts)),
            "traffic":       Out(Traffic),
            "frame_started": Out(1),
        })

    def _targets(self):
        """Depth in words and beats per word of every target that the unit has."""
        unit    = self.config.units[self.unit]
        targets = {
            LoadTarget.WEIGHTS: (unit.weight_words, unit.outputs),
            LoadTarget.PARAMS:  (unit.params, unit.outputs),
        }
        if self.unit == "attention":
            targets[LoadTarget.GATE_PARAMS] = (self.config.gate_param_words,
                                               self.config.gate_lanes)
        return targets

    def elaborate(self, platform):
        m = Module()

        config    = self.config
        load      = self.engine.i.p.load
        byte_bits = exact_log2(config.vector)

        m.submodules.splitter = splitter = BurstSplitter(
            address_width=self.address_bits, beats=MAX_BEATS, window=self.window)
        failed = Signal()
        m.d.comb += [
            splitter.i.p.address.eq(load.offchip[byte_bits:]),
            splitter.i.p.beats.eq(load.beats),
            self.bursts.p.eq(splitter.o.p),
            self.bursts.valid.eq(splitter.o.valid & ~failed),
            splitter.o.ready.eq(self.bursts.ready & ~failed),
            self.traffic.eq(load.traffic),
        ]

        # Check, in two steps: the ends of both runs, then the limits.
        offchip_end = Signal(33 - byte_bits)
        target_end  = Signal(BEATS_BITS + exact_log2(self.parts) + 1)
        limit       = Signal.like(target_end)      # zero where nothing is legal
        legal       = Signal()
        with m.Switch(load.target):
            with m.Case(LoadTarget.ONCHIP):
                m.d.comb += limit.eq(config.onchip_words)
                m.d.sync += target_end.eq(load.base + Mux(
                    load.expand, load.beats << exact_log2(self.parts), load.beats))
            with m.Case(LoadTarget.TABLE):
                m.d.comb += limit.eq(256 // config.vector)
                m.d.sync += target_end.eq(load.beats)
            for target, (words, beats_per_word) in self._targets().items():
                with m.Case(target):
                    round_up = load.beats + (beats_per_word - 1)
                    m.d.comb += limit.eq(words)
                    m.d.sync += target_end.eq(load.base + (round_up >> exact_log2(beats_per_word)))
        m.d.sync += offchip_end.eq(load.offchip[byte_bits:] + load.beats)
        m.d.comb += legal.eq((load.beats != 0)
                             & (load.offchip[:byte_bits] == 0)
                             & (offchip_end <= config.offchip_words)
                             & (limit != 0) & (target_end <= limit)
                             & ~(load.expand & (load.target != LoadTarget.ONCHIP)))

        # Where the next beat, or part of one, goes.
        index     = Signal(BEATS_BITS)
        address   = Signal(BEATS_BITS)
        onchip    = Signal()
        delivered = Signal()
        ends_beat = Signal()
        last      = Signal()
        wanted    = Signal()
        m.d.comb += [
            onchip.eq(load.target == LoadTarget.ONCHIP),
            self.expand.eq(load.expand),
            ends_beat.eq(~(onchip & load.expand) | self.part.all()),
            last.eq(index == (load.beats - 1)[:BEATS_BITS]),
            self.o.p.target.eq(load.target),
            self.o.p.base.eq(load.base),
            self.o.p.index.eq(index),
            self.o.p.data.eq(self.data),
            self.word.p.eq(address),
            self.o.valid.eq(wanted & ~onchip),
            self.word.valid.eq(wanted & onchip),
            delivered.eq(wanted & Mux(onchip, self.word.ready, self.o.ready)),
            self.taken.eq(Mux(wanted, delivered & ends_beat, self.arrived)),
        ]
        with m.If(delivered):
            m.d.sync += address.eq(address + 1)
            m.d.sync += self.part.eq(Mux(ends_beat, 0, self.part + 1))
            m.d.sync += index.eq(index + ends_beat)
            m.d.comb += self.frame_started.eq(load.frame_start & (index == 0) & (self.part == 0))

        m.d.comb += self.engine.cause.eq(Cause.FILL_DRAIN)
        with m.FSM():
            with m.State("Idle"):
                m.d.sync += [index.eq(0), address.eq(load.base), self.part.eq(0)]
                with m.If(self.engine.i.valid):
                    m.next = "Check"
            with m.State("Check"):
                m.d.comb += splitter.i.valid.eq(legal)
                m.next = "Move"
                with m.If(~legal):
                    m.d.sync += self.engine.error.eq(Error.BAD_ADDRESS)
                    m.d.sync += failed.eq(1)
                    m.next = "Failed"
            with m.State("Move"):
                m.d.comb += wanted.eq(self.arrived & ~self.arrived_error)
                with m.If(delivered):
                    m.d.comb += self.engine.cause.eq(Cause.ISSUE)
                    with m.If(last & ends_beat):
                        m.next = "Retire"
                with m.Elif(wanted):
                    m.d.comb += self.engine.cause.eq(
                        Mux(onchip, Cause.CONFLICT, Cause.BACKPRESSURE))
                with m.Else():
                    m.d.comb += self.engine.cause.eq(Cause.OFFCHIP)
                with m.If(self.arrived & self.arrived_error):
                    m.d.sync += self.engine.error.eq(Error.AXI_READ)
                    m.d.sync += failed.eq(1)
                    m.next = "Failed"
            with m.State("Retire"):
                m.d.comb += self.engine.i.ready.eq(self.landed)
                with m.If(self.landed):
                    m.next = "Idle"
            with m.State("Failed"):
                m.d.comb += self.engine.cause.eq(Cause.NO_WORK)

        return m
