# amaranth: UnusedElaboratable=no
"""The harness: what it must refuse, find and print. The properties are in test_proofs.py."""

import re

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.prove import __main__ as command
from hw.prove import bench, examine


class Counter(wiring.Component):
    """Counts to ``limit`` and starts again."""

    enable: In(1)
    count:  Out(4)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.count.eq(self.count + 1)
            with m.If(self.count == 9):
                m.d.sync += self.count.eq(0)
        return m

    @staticmethod
    def limit():
        return 9


MUTANT = (Counter.elaborate, "self.count == 9", "self.count == 10")


@pytest.fixture
def catalogue(monkeypatch, tmp_path):
    """An empty catalogue, and a folder of its own to work in."""
    monkeypatch.setattr(examine, "BUILD", tmp_path / "prove")
    monkeypatch.setattr(bench, "PROPERTIES", {})
    monkeypatch.setattr(examine, "catalogue", lambda: bench.PROPERTIES)
    return bench.PROPERTIES


def state(limit, cover=9, mutant=MUTANT, **how):
    @bench.prove(mutant, **how)
    def stays_below(b):
        """The count stays below the limit."""
        dut = b.block(Counter())
        b.check(dut.count < limit, f"below {limit}")
        b.cover(dut.count == cover)
    return next(iter(bench.PROPERTIES))


@pytest.mark.parametrize("how", [{}, {"steps": 20}, {"method": "smt", "depth": 3},
                                 {"method": "induction", "depth": 2}])
def test_holds(catalogue, how):
    result = examine.examine(state(10, **how))
    assert result.shown, result.explanation
    assert result.unbounded == ("steps" not in how)


@pytest.mark.parametrize("how", [{}, {"steps": 20}, {"method": "smt", "steps": 20},
                                 {"method": "induction", "depth": 12}])
def test_refuted_with_a_trace(catalogue, how, tmp_path):
    result = examine.examine(state(9, **how), out=tmp_path / "found")
    assert result.outcome == "REFUTED"
    assert "below 9" in result.explanation and "dut.count=9" in result.explanation
    text = next((tmp_path / "found").glob("*.txt")).read_text()
    assert text.splitlines()[0].endswith("does not hold: The count stays below the limit.")
    assert re.search(r"cycle +9 .*dut.count=9", text)
    assert "$var" in next((tmp_path / "found").glob("*.vcd")).read_text()


def test_bounded_says_nothing_beyond_its_steps(catalogue):
    assert examine.examine(state(9, steps=5, cover=3)).outcome == "blind"


def test_what_is_not_inductive_is_undecided(catalogue):
    """True, but 10 and 11, which are never reached, would be followed by 12."""
    assert examine.examine(state(12, method="induction", depth=2)).outcome == "undecided"


def test_vacuous(catalogue):
    assert examine.examine(state(10, cover=12)).outcome == "vacuous"


def test_blind_to_its_mutant(catalogue):
    assert examine.examine(state(12)).outcome == "blind"


def test_mutants_must_match_the_source_once(catalogue):
    with pytest.raises(ValueError, match=r"^'count == 99' must occur once in Counter.elaborate, "
                                         r"not 0 times$"):
        examine.examine(state(10, mutant=(Counter.elaborate, "count == 99", "0")))


def test_mutants_leave_the_block_as_it_was(catalogue):
    examine.examine(state(10))
    assert Counter.elaborate is MUTANT[0]


def test_a_mutant_of_a_static_method_leaves_it_static():
    before = vars(Counter)["limit"]
    with bench.Mutant(Counter.limit, "9", "8").applied():
        assert Counter.limit() == 8
    assert vars(Counter)["limit"] is before and Counter().limit() == 9


def test_what_was_shown_is_kept(catalogue, monkeypatch):
    first = examine.examine(state(10))
    monkeypatch.setattr(examine.solve, "solve", lambda *_, **__: pytest.fail("solved again"))
    assert examine.examine(first.name) == first


def test_needs_a_statement_a_check_and_a_cover(catalogue):
    with pytest.raises(ValueError, match=r"must say what it states$"):
        bench.prove(MUTANT)(lambda b: None)

    @bench.prove(MUTANT)
    def empty(b):
        """Nothing."""
    with pytest.raises(ValueError, match=r"must check and cover something$"):
        examine.examine(next(iter(catalogue)))


def test_table_fits_80_columns(capsys):
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "memory.arbiter.nobody_starves, unbounded" in lines
    assert max(map(len, lines)) <= 80
    assert len(command.row("x" * 99, "to 80 steps", "9999.9", "unconfirmed!!")) <= 80


@pytest.mark.parametrize("arguments, message", [
    (["--only", "absent"], r"^error: No property matches 'absent'; .*\n$"),
    (["--jobs", "0"],       r"^error: Jobs must be positive, not 0\n$"),
    (["--only", "arbiter", "--out", __file__], r"^error: OUT must be a folder, .* is a file\n$"),
])
def test_refusals(capsys, arguments, message):
    assert command.main(arguments) == 2
    assert re.match(message, capsys.readouterr().err)
