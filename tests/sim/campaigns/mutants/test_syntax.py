"""Mutants of Python: each is another program, and whoever imports the file gets it."""

import ast

import pytest

from sim.campaigns.mutants import syntax
from sim.campaigns.mutants.asking import ask
from sim.campaigns.mutants.sites import REMOVED

TEXT = '''"""Doubles, 1."""
LIMIT = 3


def double(x: 4 = None):
    """2 * x"""
    assert x < 5
    if not x > LIMIT:
        raise ValueError(f"more than {6}" + "7")
    print(-x)
    return x * 2
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(syntax, "ROOT", tmp_path)
    (tmp_path / "double.py").write_text(TEXT)
    syntax._tree.cache_clear()
    return "double.py"


def test_what_can_be_wrong_and_not_what_speaks_to_people(file):
    assert [(mutant.line, mutant.how) for mutant in syntax.sites([file])] == [
        (2, "one more"), (8, "condition the other way round"), (8, "without its sign"),
        (8, "> became >="), (9, REMOVED), (10, REMOVED), (10, "without its sign"),
        (11, "* became +"), (11, "one more")]


def test_each_mutant_is_another_program(file):
    texts = {TEXT}
    for mutant in syntax.sites([file]):
        tree   = ast.parse(TEXT)
        target = list(syntax._nodes(tree))[mutant.path[0]]
        texts.add(ast.unparse(syntax._Change(target, mutant.how).visit(tree)))
    assert len(texts) == 10


def rounded(mutant):
    """Of a half, with ``mutant``."""
    import sys
    sys.modules.pop("golden.arithmetic", None)
    if mutant:
        syntax.switch_on(mutant)
    import torch

    from golden.arithmetic import requantise
    return requantise(torch.tensor([[[1]]]), torch.tensor([1]), torch.tensor([1]), zero_point=0,
                      low=0, high=255).item()


def test_whoever_imports_the_file_gets_the_mutant():
    lines = (syntax.ROOT / "golden" / "arithmetic.py").read_text().splitlines()
    line  = next(number for number, text in enumerate(lines, start=1) if "+= half" in text)
    gone  = next(mutant for mutant in syntax.sites(["golden/arithmetic.py"])
                 if mutant.line == line and mutant.how == REMOVED)
    assert dict(ask(rounded, [None, gone], seconds=60)) == {None: 1, gone: 0}
