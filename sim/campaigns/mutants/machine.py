"""The whole chip with many mutants in it, one switched on at a time."""

from amaranth.hdl import Fragment, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

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
        Number of the active mutant, from 1; 0: none.
    restart : In(1)
        Resets the machine, so that nothing is left of what another mutant did. Both are registered:
        Verilator evaluates twice what depends on an input.
    """

    def __init__(self, config, mutants):
        self.mutants = mutants
        self.machine = SimTop(config)
        members = self.machine.signature.members
        super().__init__({**members, "mutant": In(16), "restart": In(1)})
        for name in members:
            setattr(self, name, getattr(self.machine, name))

    def elaborate(self, platform):
        machine = Fragment.get(self.machine, platform)
        active  = {mutant: Signal(name=f"mutant_{number}")
                   for number, mutant in enumerate(self.mutants, start=1)}
        missing = set(self.mutants) - apply(machine, active)
        assert not missing, f"there is no place for {min(missing)}"

        m = Module()
        restart = Signal()
        m.d.sync += restart.eq(self.restart)
        m.submodules.machine = ResetInserter(restart)(machine)
        for number, signal in enumerate(active.values(), start=1):
            m.d.sync += signal.eq(self.mutant == number)
        return m
