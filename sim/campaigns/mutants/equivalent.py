"""Mutants that are none: a proof, for every state and every input, that nothing changes.

One part of the chip at a time, the fragment that holds the statement. Whatever comes from other
parts, memories among them, is free. First Yosys' SAT solver, in one step: all registers are free,
too, and the next value of each and each signal that another part reads must be the same with the
mutant and without. Then, of states that are reached from reset (property-directed reachability),
and with all that lies inside the part, or the whole block of the chip in which it lies: what one
part never says to another is known there. Then in every run from reset: the two have registers of
their own, and only what another part reads must be the same.

What differs only in states that need other blocks' help to be out of reach is not found out.
"""

import tempfile
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import C, Cat, ClockSignal, Fragment, ResetSignal, Signal
from amaranth.hdl._ast import Assign, SignalDict, SignalSet, Switch
from amaranth.hdl._ir import Instance
from amaranth.hdl._mem import MemoryInstance
from amaranth.hdl._xfrm import StatementTransformer, ValueTransformer

from hw.prove.bench import Bench
from hw.prove.solve import SolverError, model, solve
from sim.campaigns.mutants.sites import apply

__all__ = ["Prover"]

SECONDS = 40        # for one part of the chip, one way
BLOCK   = 3         # how many levels down blocks are: the simulation, the chip, its blocks


class Prover:
    """Proves mutants of ``chip``, a fragment, equivalent.

    Parameters
    ----------
    chip : Fragment
        It is not changed.
    ports : iterable of Signal
        What the world outside reads of it.
    """

    def __init__(self, chip, ports):
        self._parts  = []       # depth first, so that what lies inside a part follows it
        self._ends   = []       # for each, the number of the first behind it that is not inside
        self._blocks = []       # and that of the block in which it lies
        self._add(chip, [])
        self._read   = [_read_by(part) for part in self._parts]
        self._ports  = SignalSet(ports)

    def _add(self, part, around):
        around = [*around, len(self._parts)]
        self._parts.append(part)
        self._ends.append(None)
        self._blocks.append(around[:BLOCK][-1])
        for inner, *_ in part.subfragments:
            self._add(inner, around)
        self._ends[around[-1]] = len(self._parts)

    def in_any_state(self, mutant):
        """Whether nothing changes with ``mutant`` in any part that has it; False also where that
        was not shown in time. To be called in a process of its own: Yosys ends it at any error."""
        return self._all(_same, mutant)

    def in_any_run(self, mutant):
        """The same of the states that these parts reach, by themselves or with all inside them; or
        of any state of the blocks that they belong to, which comes last, as Yosys may end there."""
        return (self._all(_same, mutant, self._inside)
                or self._all(_same_where_reached, mutant)
                or self._all(_same_where_reached, mutant, self._inside)
                or self._all(_same_from_reset, mutant)
                or self._all(_same, mutant, lambda index: self._inside(self._blocks[index])))

    def _inside(self, index):
        return range(index, self._ends[index])

    def _all(self, same, mutant, around=lambda index: range(index, index + 1)):
        """Whether all parts with ``mutant`` in them are the ``same`` with it, each together with
        those ``around`` it: numbers of parts, of which two either share none, or one has all."""
        regions = [around(index) for index, part in enumerate(self._parts)
                   if type(part) is Fragment and apply(_copy([part]), {mutant: C(1, 1)})]
        regions = [each for each in dict.fromkeys(regions)
                   if not any(each.start in other and each != other for other in regions)]
        for region in regions:
            parts = [part for part in self._parts[region.start:region.stop]
                     if type(part) is Fragment]
            right, wrong = _copy(parts), _copy(parts)
            apply(wrong, {mutant: C(1, 1)})
            seen = SignalSet(self._ports)
            for other, read in enumerate(self._read):
                if other not in region or type(self._parts[other]) is not Fragment:
                    seen.update(read)
            if not same(right.statements, wrong.statements, seen):
                return False
        return bool(regions)


def _copy(parts):
    """A fragment with the statements of all ``parts``."""
    copy = Fragment()
    for part in parts:
        for domain, statements in part.statements.items():
            copy.add_statements(domain, *statements)
    return copy


def _read_by(part):
    """Signals whose values ``part`` uses."""
    read = SignalSet()
    if isinstance(part, MemoryInstance):
        for port in (*part._read_ports, *part._write_ports):
            values = [port._addr, port._en]
            if port in part._write_ports:
                values.append(port._data)
            for value in values:
                read.update(value._rhs_signals())
    elif isinstance(part, Instance):
        for value, kind in part.ports.values():
            if kind == "i" and not isinstance(value, ClockSignal | ResetSignal):
                read.update(value._rhs_signals())
    else:
        for statements in part.statements.values():
            read.update(_rhs(statements))
    return read


def _rhs(statements):
    found = SignalSet()
    for statement in statements:
        found.update(statement._rhs_signals())
    return found


def _lhs(statements):
    found = SignalSet()
    for statement in statements:
        found.update(statement._lhs_signals())
    return found


class _Replace(ValueTransformer, StatementTransformer):
    """Signals of a mapping by others: those that are assigned, and those that are read."""

    def __init__(self, assigned, read):
        self._assigned, self._read, self._now = assigned, read, read

    def on_Signal(self, value):
        return self._now.get(value, value)

    def on_Assign(self, statement):
        read = self.on_value(statement.rhs)
        self._now = self._assigned
        # Which bits are assigned may depend on signals, too; those are read, but none of ours is
        # both such an index and assigned by the same statement.
        to = self.on_value(statement.lhs)
        self._now = self._read
        return Assign(to, read)

    def on_Switch(self, statement):
        cases = [(patterns, [self.on_statement(each) for each in body], where)
                 for patterns, body, where in statement.cases]
        return Switch(self.on_value(statement.test), cases)


def _same(statements, mutated, seen):
    """Whether two sets of statements drive the same values."""
    fragment, differ, _ = _miter(statements, mutated, seen)
    if differ is None:
        return True
    free = SignalSet(_rhs(fragment.statements["comb"])) - _lhs(fragment.statements["comb"])
    text, _ = rtlil.convert_fragment(
        fragment, ports={"differ": (differ, None), **{
            f"free_{index}": (signal, None) for index, signal in enumerate(free)}},
        name="top", emit_src=False)
    return _proved(text)


def _miter(statements, mutated, seen):
    """Both sets in one fragment; the signal that says that they drive different values, None where
    there are none to drive; and the next value of each register as the first set has it."""
    differ = []
    combs = _lhs(statements.get("comb", ()))
    syncs = SignalSet()
    for domain, each in statements.items():
        if domain != "comb":
            syncs.update(_lhs(each))
    copies = []
    fragment = Fragment()
    for number, these in enumerate((statements, mutated)):
        comb = SignalDict((signal, Signal.like(signal, name=f"comb_{number}_{index}"))
                          for index, signal in enumerate(combs))
        following = SignalDict((signal, Signal.like(signal, name=f"next_{number}_{index}"))
                               for index, signal in enumerate(syncs))
        for signal, later in following.items():
            fragment.add_statements("comb", later.eq(signal))
            if signal in comb:      # some of its bits are a register
                fragment.add_statements("comb", comb[signal].eq(signal))
        for domain, each in these.items():
            replace = _Replace(comb if domain == "comb" else following, comb)
            fragment.add_statements("comb", *(replace.on_statement(s) for s in each))
        copies.append((comb, following))
    (comb, following), (comb_wrong, following_wrong) = copies
    for signal in syncs:
        differ.append(following[signal] != following_wrong[signal])
    for signal in combs:
        if signal in seen:
            differ.append(comb[signal] != comb_wrong[signal])
    if not differ:
        return fragment, None, following
    out = Signal(name="differ")
    fragment.add_statements("comb", out.eq(Cat(differ).any()))
    return fragment, out, following


def _proved(text):
    from pyosys import libyosys

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "top.il"
        path.write_text(text)
        result = Path(scratch) / "result"
        design = libyosys.Design()
        for command in (f"read_rtlil {path}", "proc -norom", "opt -full", "wreduce", "opt -full",
                        f"tee -q -o {result} sat -timeout {SECONDS} -prove differ 0 top"):
            libyosys.run_pass(command, design)
        return "SUCCESS!" in result.read_text()


def _same_where_reached(statements, mutated, seen):
    """The same in every state that the first set of statements reaches from reset; False also where
    that was not shown in time."""
    if set(statements) - {"comb", "sync"}:
        return False
    fragment, differ, following = _miter(statements, mutated, seen)
    if differ is None:
        return True
    for signal, later in following.items():
        fragment.add_statements("sync", signal.eq(later))
    return _always(fragment, differ == 0)


def _same_from_reset(statements, mutated, seen):
    """Whether, from reset and in every run, all that is ``seen`` of two sets of statements has the
    same values; False also where that was not shown in time."""
    both, copies = Fragment(), []
    if set(statements) - {"comb", "sync"}:
        return False
    driven = SignalSet()
    for each in statements.values():
        driven.update(_lhs(each))
    for number, these in enumerate((statements, mutated)):
        copy = SignalDict((signal, Signal.like(signal, name=f"copy_{number}_{index}"))
                          for index, signal in enumerate(driven))
        replace = _Replace(copy, copy)
        for domain, each in these.items():
            both.add_statements(domain, *(replace.on_statement(s) for s in each))
        copies.append(copy)
    one, other = copies
    return _always(both, Cat(one[signal] != other[signal]
                             for signal in driven if signal in seen) == 0)


def _always(fragment, holds):
    """Whether ``holds`` is shown in every cycle from reset, whatever comes in."""
    bench, free = Bench(), SignalSet()
    for each in fragment.statements.values():
        free.update(_rhs(each))
    for each in fragment.statements.values():
        free = free - _lhs(each)
    bench.inputs = {f"free_{index}": signal for index, signal in enumerate(free)}
    bench.m.submodules.both = fragment
    bench.check(holds, "the two are the same")
    bench.fragment = Fragment.get(bench.m, None)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return solve(model(bench, goal="holds"), folder=Path(folder), method="pdr", steps=None,
                         depth=1, seconds=SECONDS).holds is True
        except SolverError:
            return False
