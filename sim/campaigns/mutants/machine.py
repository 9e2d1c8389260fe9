"""The whole chip with many mutants in it, one switched on at a time."""

from functools import reduce
from operator import xor

from amaranth.hdl import Cat, Fragment, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.campaigns.mutants.sites import apply
from sim.top import SimTop

__all__ = ["MutantTop"]


class MutantTop(wiring.Component):
    """:class:`sim.top.SimTop` with every mutant of a list in it.

    Parameters
    ----------
    config : hw.config.Config
    mutants : list of sim.campaigns.mutants.sites.Mutant

    Members
    -------
    mutant : In(16)
        Number of the active mutant, from 1; 0: none. It is registered: Verilator evaluates twice
        what depends on an input.
    heard : Out(32)
        A sum over all that the monitor and every tap ever said, each in its order.
    """

    def __init__(self, config, mutants):
        self.mutants = mutants
        self.machine = SimTop(config)
        members = self.machine.signature.members
        super().__init__({**members, "mutant": In(16), "heard": Out(32)})
        for name in members:
            setattr(self, name, getattr(self.machine, name))

    def elaborate(self, platform):
        machine = Fragment.get(self.machine, platform)
        active  = {mutant: Signal(name=f"mutant_{number}")
                   for number, mutant in enumerate(self.mutants, start=1)}
        missing = set(self.mutants) - apply(machine, active)
        assert not missing, f"there is no place for {min(missing)}"

        m = Module()
        m.submodules.machine = machine
        for number, signal in enumerate(active.values(), start=1):
            m.d.sync += signal.eq(self.mutant == number)

        chip, sums = self.machine.chip, []
        stream     = chip.monitor
        said       = [(tap.valid, tap.p) for tap in chip.taps]
        said.append((stream.tvalid & stream.tready, Cat(stream.tdata, stream.tlast, stream.tuser)))
        for number, (valid, what) in enumerate(said):
            bits   = Value.cast(what)
            folded = reduce(xor, (bits[at:at + 32] for at in range(0, len(bits), 32)))
            sums.append(total := Signal(32, name=f"heard_{number}"))
            with m.If(valid):
                m.d.sync += total.eq((Cat(total[-1], total[:-1]) ^ folded) + 1)
        m.d.comb += self.heard.eq(reduce(xor, (each.rotate_left(number)
                                               for number, each in enumerate(sums))))
        return m
