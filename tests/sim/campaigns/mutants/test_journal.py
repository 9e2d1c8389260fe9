"""An answer counts as long as what it depends on is the same, and no longer."""

import pytest

from sim.campaigns.mutants import blocks, journal
from sim.campaigns.mutants.journal import Journal
from sim.campaigns.mutants.sites import Mutant

MUTANT = Mutant("hw/memory/part.py", 3, (0,), "inverted")
OWN    = "tests/hw/memory/test_part.py"
OTHER  = "tests/hw/memory/test_other.py"
PROOF  = "hw/prove/memory/part.py"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "ROOT", tmp_path)
    monkeypatch.setattr(blocks, "TESTS", tmp_path / "tests")
    for name in (MUTANT.file, OWN, OTHER, PROOF, "hw/memory/unrelated.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    def again(changed=None):
        """The journal as a later run finds it, after a file was changed."""
        if changed:
            (tmp_path / changed).write_text("changed")
        journal._content.cache_clear()
        return Journal(tmp_path / "out" / "rtl.jsonl")
    return again


@pytest.mark.parametrize("stage, found, ends_with", [
    ("frames", "unet: wrong bytes", [MUTANT.file]),
    ("same", "nothing changes", [MUTANT.file]),
    ("tests", f"{OWN}::test_it", [MUTANT.file, OWN]),
    ("tests", "hang", [MUTANT.file, OWN]),
    ("tests", None, [MUTANT.file, OWN]),
    ("neighbours", None, [MUTANT.file, OTHER]),
    ("proofs", f"{PROOF}::memory.part.holds", [MUTANT.file, PROOF]),
    ("proofs", None, [MUTANT.file, PROOF]),
])
@pytest.mark.parametrize("changed", [MUTANT.file, OWN, OTHER, PROOF, "hw/memory/unrelated.py"])
def test_an_answer_ends_with_what_it_depends_on(tree, stage, found, ends_with, changed):
    tree().put(MUTANT, stage, found)
    kept = tree()
    assert kept.knows(MUTANT, stage) and kept.found(MUTANT, stage) == found
    assert tree(changed).knows(MUTANT, stage) is (changed not in ends_with)


def test_the_first_stage_that_found_something_counts(tree):
    kept = tree()
    assert kept.outcome(MUTANT) == (None, None)
    kept.put(MUTANT, "frames", None)
    assert kept.outcome(MUTANT) == (None, None)
    kept.put(MUTANT, "neighbours", "hang")
    kept.put(MUTANT, "tests", f"{OWN}::test_it")
    assert tree().outcome(MUTANT) == ("tests", f"{OWN}::test_it")
