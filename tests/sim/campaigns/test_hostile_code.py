"""Spoiled programs: how they are made, and a small sample of them on the RTL."""

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from rich.console import Console

from hw.config import TINY
from hw.isa import FORMS, INSTRUCTION_BYTES, STORES, Engine, Opcode, StreamHeader
from sim.campaigns.hostile_code import NETWORKS, bases, main, outcome, spoil, table
from sim.campaigns.mutations import KINDS, mutate
from sim.interpreter import Interpreter


@cache
def good():
    return bases()


def instructions(base, engine):
    def word(address):
        return int.from_bytes(base.image[address:address + INSTRUCTION_BYTES], "little")

    header = StreamHeader.from_bits(word(base.program_base + engine * INSTRUCTION_BYTES))
    return [word(header.address + index * INSTRUCTION_BYTES) for index in range(header.count)]


def test_the_good_programs_use_every_engine():
    used = {engine for base in good() for engine in Engine if instructions(base, engine)}
    assert used == set(Engine)
    assert len(good()) == len(NETWORKS)


def test_programs_write_inside_their_window_and_all_of_it():
    for base in good():
        written = np.zeros(TINY.offchip_bytes, bool)
        for engine in STORES:
            for word in instructions(base, engine):
                store = FORMS[Opcode.STORE].from_bits(word)
                if store.opcode == Opcode.STORE:
                    written[store.offchip:store.offchip + store.beats * TINY.vector] = True
        places = np.flatnonzero(written)
        assert base.writable[0] == places[0]
        assert base.writable[1] == places[-1] + 1
        after = Interpreter(TINY, base.image)
        after.run(base.program_base)
        before = np.frombuffer(base.image, np.uint8)
        same   = after.offchip[:len(before)] == before
        assert same[~written[:len(before)]].all()


def test_a_seed_gives_one_mutant_and_leaves_the_good_program_alone():
    base = good()[0]
    kept = replace(base)
    for seed in range(300):
        one, two = (mutate(base, random.Random(seed)) for _ in range(2))
        assert (one.kind, one.what, one.image, one.program_base) == (
            two.kind, two.what, two.image, two.program_base)
        assert len(one.image) == len(base.image)
    assert base == kept


def test_every_kind_spoils_something():
    for kind, spoils in KINDS.items():
        spoiled = 0
        for seed in range(60):
            mutant = mutate(good()[seed % len(NETWORKS)], _Fixed(seed, kind))
            assert mutant.kind == kind
            spoiled += (mutant.image, mutant.program_base) != (
                mutant.base.image, mutant.base.program_base)
        assert spoiled > 30, f"{kind}: {spoils.__doc__}"


class _Fixed(random.Random):
    """Picks ``kind`` first."""

    def __init__(self, seed, kind):
        super().__init__(seed)
        self._kind = kind

    def choice(self, values):
        kind, self._kind = self._kind, None
        return super().choice(values) if kind is None else kind


def test_the_table_has_a_row_for_each_kind_and_fits():
    cases = [{"kind": kind, "error": error, "kept": kept, "faults": []} for kind in KINDS
             for error, kept in (("NONE", True), ("NONE", False), ("STALLED", False),
                                 ("BAD_OPCODE", False))]
    assert [outcome(case) for case in cases[:4]] == ["same", "other", "watchdog", "error"]
    console = Console(width=80, record=True, quiet=False, file=None)
    with console.capture() as shown:
        console.print(table(cases))
    lines = shown.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].split() == ["all", *(str(len(KINDS) * n) for n in (4, 1, 1, 1, 1, 0))]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--n", "0"], "N must be positive, not 0"),
    (["--seed", "-1"], "SEED must not be negative, not -1"),
])
def test_what_cannot_be_done_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.cosim
def test_spoiled_programs_on_the_chip():
    """A sample of ``make hostile-code``; the command itself, with its table, on one case more."""
    cases = spoil(60, 0)
    assert [case["case"] for case in cases] == list(range(60))
    assert [case for case in cases if case["faults"]] == []
    assert {outcome(case) for case in cases} == {"same", "other", "error", "watchdog"}


@pytest.mark.cosim
def test_a_stray_write_is_seen_where_the_window_is_open():
    """Seed 53 stores over its weights, seed 55 over its frame."""
    cases = spoil(3, 53, protected=False)
    assert "words outside its window were written" in cases[0]["faults"][0]
    assert "words outside its window were written" in cases[2]["faults"][0]
    assert spoil(3, 53)[0]["error"] == "WRITE_PROTECTED"
