"""Faults in the chip's own source: where one can be put, and how it gets there.

A mutant is one small mistake at one place of one line of ``hw/``: a bit of an expression inverted
or stuck, another operator, a statement that is gone. These are the modes of Yosys' ``mutate`` on
the source instead of the netlist, so that a mutant has a line to look at, and is the same one in a
whole chip, in a block alone, and in a block of another size. Where a line is elaborated more than
once (units, lanes, the turns of a loop) the mistake is in all of them, as it would be for a person
who typed it.

Amaranth keeps the place of every statement. Statements that a library made (FIFOs, ``connect``)
belong to the library's files, and are left alone.
"""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from amaranth.hdl import Const, Fragment
from amaranth.hdl._ast import (
    Assign,
    Concat,
    Operator,
    Part,
    Slice,
    Switch,
    SwitchValue,
)

__all__ = ["Mutant", "apply", "draw", "places", "sites"]

ROOT = Path(__file__).parents[3]

NOT_THE_CHIP = ("hw/memory/offchip.py", "hw/memory/dram.py", "hw/control/trace.py",
                "hw/cost/parts.py")
"""Of ``hw/``, what is simulated beside the chip."""

OTHER = {"+": "-", "-": "+", "==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">",
         "&": "|", "|": "&", "^": "|", "r|": "r&", "r&": "r|", "<<": ">>", ">>": "<<"}
"""The operator that somebody might have typed instead."""

REMOVED = "statement removed"


@dataclass(frozen=True, order=True)
class Mutant:
    """One mistake: ``how`` the value at ``path`` of the statements of a line is wrong.

    ``path`` leads from the value that a statement assigns or tests, by operand, to the place.
    """
    file: str
    line: int
    path: tuple
    how:  str

    def __str__(self):
        place = ".".join(map(str, self.path))
        return f"{self.file}:{self.line}" + (f" [{place}]" if place else "") + f" {self.how}"

    @property
    def block(self):
        return self.file.removeprefix("hw/").removesuffix(".py")


def sites(fragment):
    """Every mutant that there is in ``fragment`` and below it, sorted."""
    found = set()
    for statement in _statements(fragment):
        place = _place(statement)
        if place is None:
            continue
        if isinstance(statement, Assign):
            found.add(Mutant(*place, (), REMOVED))
        for path, value in _nodes(_value(statement)):
            found.update(Mutant(*place, path, how) for how in _modes(value))
    return sorted(found)


def places(fragment):
    """Files and lines of the chip's statements in ``fragment`` and below it."""
    return {_place(statement) for statement in _statements(fragment)} - {None}


def draw(mutants, count, seed):
    """``count`` of ``mutants``, spread over the files: each file's share follows the square root of
    how many it has, so that small blocks are looked at closely, too. Each file is drawn from by
    itself, so that a change in one does not change what is drawn from the others."""
    by_block = defaultdict(list)
    for mutant in mutants:
        by_block[mutant.block].append(mutant)
    weight = {block: len(found) ** 0.5 for block, found in by_block.items()}
    total  = sum(weight.values())
    drawn, rest = [], []
    for block, found in sorted(by_block.items()):
        random.Random(f"{seed} {block}").shuffle(found)
        share  = max(1, round(count * weight[block] / total))
        drawn += found[:share]
        rest  += found[share:]
    random.Random(seed).shuffle(rest)
    random.Random(seed).shuffle(drawn)
    return sorted((drawn + rest)[:count])


def apply(fragment, active):
    """Put mutants into ``fragment`` and all below it; returns those whose place was found. Parts
    that have been through this before are passed over.

    Parameters
    ----------
    active : dict
        From :class:`Mutant` to the one-bit value that switches it on.
    """
    by_place = defaultdict(list)
    for mutant, switch in active.items():
        by_place[mutant.file, mutant.line].append((mutant, switch))
    found = set()
    for part in _fragments(fragment):
        if getattr(part, "mutated", False):
            continue
        part.mutated = True
        for domain, statements in part.statements.items():
            part.statements[domain] = type(statements)(_rewritten(statements, by_place, found))
    return found


def _fragments(fragment):
    yield fragment
    for inner, *_ in fragment.subfragments:
        if type(inner) is Fragment:         # the others are instances and memories
            yield from _fragments(inner)


def _statements(fragment):
    def inside(statements):
        for statement in statements:
            yield statement
            if isinstance(statement, Switch):
                for _, body, _ in statement.cases:
                    yield from inside(body)

    for part in _fragments(fragment):
        for statements in part.statements.values():
            yield from inside(statements)


def _place(statement):
    """File and line, or None where they are not the chip's."""
    if not isinstance(statement, Assign | Switch) or statement.src_loc is None:
        return None
    path, line = statement.src_loc
    path = Path(path)
    if not path.is_relative_to(ROOT / "hw"):
        return None
    name = path.relative_to(ROOT).as_posix()
    return None if name in NOT_THE_CHIP else (name, line)


def _value(statement):
    return statement.rhs if isinstance(statement, Assign) else statement.test


def _children(value):
    match value:
        case Operator():
            return value.operands
        case Slice():
            return (value.value,)
        case Part():
            return (value.value, value.offset)
        case Concat():
            return tuple(value.parts)
        case SwitchValue():
            return (value.test, *(case for _, case in value.cases))
    return ()


def _rebuilt(value, children):
    match value:
        case Operator():
            return Operator(value.operator, children)
        case Slice():
            return Slice(children[0], value.start, value.stop)
        case Part():
            return Part(children[0], children[1], value.width, value.stride)
        case Concat():
            return Concat(children)
        case SwitchValue():
            patterns = (pattern for pattern, _ in value.cases)
            return SwitchValue(children[0], tuple(zip(patterns, children[1:], strict=True)))
    raise AssertionError(f"{value!r} has no children")


def _nodes(value, path=()):
    """Every value inside ``value`` that means something by itself, with the way to it: a field of a
    signal does, all of a signal of which a field is used does not."""
    field = isinstance(value, Slice) and not _children(value.value)
    if len(value) and (field or not isinstance(value, Slice | Concat)):
        yield path, value
    if field:
        return
    for index, child in enumerate(_children(value)):
        yield from _nodes(child, (*path, index))


def _modes(value):
    if len(value) == 1:
        modes = ["inverted", "stuck at 0", "stuck at 1"]
    else:
        modes = ["lowest bit inverted", "highest bit inverted", "lowest bit stuck at 0",
                 "highest bit stuck at 0"]
    if isinstance(value, Const):
        modes = [mode for mode in modes if "inverted" in mode]
    if isinstance(value, Operator) and value.operator in OTHER and (
            len(value.operands) > 1 or value.operator.startswith("r")):
        modes.append(f"{value.operator} became {OTHER[value.operator]}")
    return modes


def _mutated(value, how):
    """``value`` with the mistake, in its own shape."""
    shape, width = value.shape(), len(value)
    if " became " in how:
        operands = value.operands
        if OTHER[value.operator] in ("<<", ">>") and operands[1].shape().signed:
            operands = (operands[0], operands[1].as_unsigned())
        wrong = Operator(OTHER[value.operator], operands)
        wrong = (wrong + Const(0, shape))[:width] if len(wrong) < width else wrong[:width]
    else:
        mask  = 1 << (width - 1 if how.startswith("highest") else 0)
        plain = value.as_unsigned()
        wrong = {"inverted": plain ^ mask, "stuck at 0": plain & ~mask & (2**width - 1),
                 "stuck at 1": plain | mask}[
                     how.removeprefix("lowest bit ").removeprefix("highest bit ")][:width]
    return wrong.as_signed() if shape.signed else wrong


def _rewritten(statements, by_place, found):
    for statement in statements:
        mutants = by_place.get(_place(statement), ())
        value   = None
        if isinstance(statement, Assign | Switch):
            value = _wrong(_value(statement), (), mutants, found)
        if isinstance(statement, Switch):
            cases   = [(patterns, list(_rewritten(body, by_place, found)), where)
                       for patterns, body, where in statement.cases]
            again   = Switch(value, cases, src_loc=statement.src_loc)
        elif isinstance(statement, Assign) and value is not statement.rhs:
            again   = Assign(statement.lhs, value)
            again.src_loc = statement.src_loc
        else:
            again   = statement
        for mutant, switch in mutants:
            if mutant.how == REMOVED and isinstance(statement, Assign):
                found.add(mutant)
                again = Switch(switch, [("0", [again], None), (None, [], None)],
                               src_loc=statement.src_loc)
        yield again


def _wrong(value, path, mutants, found):
    """``value``, which lies at ``path``, with every mutant in it; the same object where there is
    none. A place that does not exist, or cannot go wrong that way, is passed over."""
    below = [(mutant, switch) for mutant, switch in mutants if mutant.path[:len(path)] == path]
    if not below:
        return value
    children = _children(value)
    again    = tuple(_wrong(child, (*path, index), below, found)
                     for index, child in enumerate(children))
    changed  = value
    if any(new is not old for new, old in zip(again, children, strict=True)):
        changed = _rebuilt(value, again)
    modes = _modes(value) if len(value) else ()
    for mutant, switch in below:
        if mutant.path == path and mutant.how in modes:
            found.add(mutant)
            changed = SwitchValue(switch, (("0", changed), (None, _mutated(value, mutant.how))))
    return changed
