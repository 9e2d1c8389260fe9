"""Mutants that are none: a proof, for every state and every input, that nothing changes.

One part of the chip at a time, the fragment that holds the statement. Whatever comes from other
parts, memories among them, is free. First Yosys' SAT solver, in one step: all registers are free,
too, and the next value of each and each signal that another part reads must be the same with the
mutant and without. Then property-directed reachability, in every run from reset: the two have
registers of their own, and only what another part reads must be the same.

What differs only in states that need the other parts' help to be out of reach is not found out.
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
        self._parts = list(_parts(chip))
        self._read  = [_read_by(part) for part in self._parts]
        self._ports = SignalSet(ports)

    def in_any_state(self, mutant):
        """Whether nothing changes with ``mutant`` in any part that has it; False also where that
        was not shown in time. To be called in a process of its own: Yosys ends it at any error."""
        return self._all(_same, mutant)

    def in_any_run(self, mutant):
        """The same of the states that these parts reach by themselves."""
        return self._all(_same_from_reset, mutant)

    def _all(self, same, mutant):
        touched = 0
        for index, part in enumerate(self._parts):
            if type(part) is not Fragment:
                continue
            wrong = Fragment()
            for domain, statements in part.statements.items():
                wrong.add_statements(domain, *statements)
            if not apply(wrong, {mutant: C(1, 1)}):
                continue
            touched += 1
            seen = SignalSet(self._ports)
            for other, read in enumerate(self._read):
                if other != index:
                    seen.update(read)
            if not same(part.statements, wrong.statements, seen):
                return False
        return touched > 0


def _parts(fragment):
    yield fragment
    for inner, *_ in fragment.subfragments:
        yield from _parts(inner)


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
        return True
    out = Signal(name="differ")
    fragment.add_statements("comb", out.eq(Cat(differ).any()))
    free = SignalSet(_rhs(fragment.statements["comb"])) - _lhs(fragment.statements["comb"])
    text, _ = rtlil.convert_fragment(
        fragment, ports={"differ": (out, None), **{
            f"free_{index}": (signal, None) for index, signal in enumerate(free)}},
        name="top", emit_src=False)
    return _proved(text)


def _proved(text):
    from pyosys import libyosys

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "top.il"
        path.write_text(text)
        result = Path(scratch) / "result"
        design = libyosys.Design()
        for command in (f"read_rtlil {path}", "proc", "opt -full", "wreduce", "opt -full",
                        f"tee -q -o {result} sat -timeout {SECONDS} -prove differ 0 top"):
            libyosys.run_pass(command, design)
        return "SUCCESS!" in result.read_text()


def _same_from_reset(statements, mutated, seen):
    """Whether, from reset and in every run, all that is ``seen`` of two sets of statements has the
    same values; False also where that was not shown in time."""
    bench, both, copies = Bench(), Fragment(), []
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
    free = SignalSet()
    for each in both.statements.values():
        free.update(_rhs(each))
    for each in both.statements.values():
        free = free - _lhs(each)
    bench.inputs = {f"free_{index}": signal for index, signal in enumerate(free)}
    bench.m.submodules.both = both
    bench.check(Cat(one[signal] != other[signal] for signal in driven if signal in seen) == 0,
                "what others read is the same")
    bench.fragment = Fragment.get(bench.m, None)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return solve(model(bench, goal="holds"), folder=Path(folder), method="pdr", steps=None,
                         depth=1, seconds=SECONDS).holds is True
        except SolverError:
            return False
