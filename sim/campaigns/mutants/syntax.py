"""Faults in Python: where compiler and integer arithmetic can be wrong, and how; puts one there.

A mutant is one small change of one file's syntax tree: another operator, a constant one higher, a
condition the other way round, a statement that is gone. What only speaks to people (messages of
errors, docstrings, annotations) and what checks itself (assertions) is left alone.
"""

import ast
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

from sim.campaigns.mutants.sites import REMOVED, ROOT, Mutant

__all__ = ["FILES", "sites", "switch_on"]

FILES = sorted(path.relative_to(ROOT).as_posix() for path in (
    ROOT / "golden" / "arithmetic.py", ROOT / "golden" / "integer.py",
    *(ROOT / "hw" / "compiler").glob("*.py")))
"""The integer arithmetic and the compiler."""

OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
         ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
         ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
         ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
         ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
         ast.In: ast.NotIn, ast.NotIn: ast.In}
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%",
         ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.And: "and",
         ast.Or: "or", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==",
         ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}

FOR_PEOPLE = (ast.Assert, ast.JoinedStr, ast.ImportFrom, ast.Import)
PROJECT    = ("golden", "hw", "sim", "tests")


def sites(files=FILES):
    """Every mutant that there is in ``files``, sorted. ``path`` counts nodes."""
    found = set()
    for file in files:
        for index, node in enumerate(_nodes(_tree(file))):
            found.update(Mutant(file, node.lineno, (index,), how) for how in _modes(node))
    return sorted(found)


def switch_on(mutant):
    """From now on, whoever imports the mutant's file gets the mutant; the project is imported anew.
    To be called in a process of its own."""
    tree   = ast.parse((ROOT / mutant.file).read_text())
    target = list(_nodes(tree))[mutant.path[0]]
    tree   = ast.fix_missing_locations(_Change(target, mutant.how).visit(tree))
    kept   = SourceFileLoader.get_code

    def get_code(loader, name):
        if Path(loader.path) == ROOT / mutant.file:
            return compile(tree, loader.path, "exec")
        return kept(loader, name)

    SourceFileLoader.get_code = get_code
    for name in [name for name in sys.modules if name.split(".")[0] in PROJECT]:
        del sys.modules[name]


@cache
def _tree(file):
    return ast.parse((ROOT / file).read_text())


def _nodes(node):
    """Everything in a tree that runs and computes, in the order of the text."""
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or (
                isinstance(node, ast.Raise) or name == "msg"):
            continue
        for each in child if isinstance(child, list) else [child]:
            if isinstance(each, ast.AST) and not isinstance(each, FOR_PEOPLE):
                if hasattr(each, "lineno"):
                    yield each
                yield from _nodes(each)


def _modes(node):
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OTHER:
            yield _became(op)
        case ast.Compare(ops=[op, *_]) if type(op) in OTHER:
            yield _became(op)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "without its sign"
        case ast.Constant(value=bool()):
            yield "the other"
        case ast.Constant(value=int()):
            yield "one more"
        case ast.If() | ast.IfExp() | ast.While():
            yield "condition the other way round"
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
            yield REMOVED
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield REMOVED


def _became(op):
    return f"{SIGNS[type(op)]} became {SIGNS[OTHER[type(op)]]}"


class _Change(ast.NodeTransformer):
    """A tree with one node changed."""

    def __init__(self, target, how):
        self._target, self._how = target, how

    def visit(self, node):
        if node is not self._target:
            return self.generic_visit(node)
        if self._how == REMOVED:
            return ast.copy_location(ast.Pass(), node)
        if self._how == "without its sign":
            return node.operand
        if self._how == "one more":
            node.value += 1
        elif self._how == "the other":
            node.value = not node.value
        elif self._how == "condition the other way round":
            node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
        elif isinstance(node, ast.Compare):
            node.ops[0] = OTHER[type(node.ops[0])]()
        else:
            node.op = OTHER[type(node.op)]()
        return node
