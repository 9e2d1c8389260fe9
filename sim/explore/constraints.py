"""Constraints: comparisons of metrics and knobs, read as Python's grammar has them and worked out
here. Nothing of a file is ever run."""

import ast
import operator
from dataclasses import dataclass, field

__all__ = ["Constraint", "Unusable"]

MOST_TEXT = 200
UNITS     = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BINARY    = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
             ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
COMPARED  = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
             ast.Eq: operator.eq, ast.NotEq: operator.ne}


class Unusable(ValueError):
    """An expression cannot be a constraint; the message ends a sentence that begins with it."""


@dataclass(frozen=True)
class Constraint:
    """``text``, such as ``mac_lanes <= 1024`` or ``encoder.outputs * 2 >= decoder.outputs and
    onchip_bytes < 2 * MiB``; ``names`` are those of metrics and knobs in it.

    Raises
    ------
    Unusable
        If it is none.
    """
    text:  str
    names: frozenset = field(init=False)
    _root: ast.expr  = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if len(self.text) > MOST_TEXT:
            raise Unusable(f"is longer than {MOST_TEXT} characters")
        try:
            root = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise Unusable("cannot be read; write it like mac_lanes <= 1024") from None
        if not _is_truth(root):
            raise Unusable("compares nothing; write it like mac_lanes <= 1024")
        names = set()
        _walk(root, names)
        object.__setattr__(self, "names", frozenset(names))
        object.__setattr__(self, "_root", root)

    def holds(self, known):
        """Whether it does, where names have the values ``known``. What divides by zero does not.

        Raises
        ------
        Unusable
            If it compares numbers with texts.
        """
        try:
            return bool(_value(self._root, known))
        except ZeroDivisionError:
            return False
        except TypeError:
            raise Unusable("mixes numbers and texts") from None

    def __reduce__(self):
        return Constraint, (self.text,)


def _is_truth(node):
    return (isinstance(node, ast.Compare | ast.BoolOp)
            or isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _dotted(node):
    """The name that a node is, ``decoder.outputs``; None if it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else None
    return inner and f"{inner}.{node.attr}"


def _walk(node, names):
    """Collect names, and refuse whatever is neither number, name, sum nor comparison."""
    name = _dotted(node)
    if name:
        if name not in UNITS:
            names.add(name)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, str, bool):
        pass
    elif isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        _walk(node.left, names)
        _walk(node.right, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        _walk(node.operand, names)
    elif isinstance(node, ast.BoolOp):
        for each in node.values:
            _walk(each, names)
    elif isinstance(node, ast.Compare) and all(type(each) in COMPARED for each in node.ops):
        for each in (node.left, *node.comparators):
            _walk(each, names)
    else:
        raise Unusable(f"has {ast.unparse(node)!r}, and takes no more than numbers, names, "
                       "+ - * / // %, comparisons, and, or, not")


def _value(node, known):
    name = _dotted(node)
    if name:
        return UNITS[name] if name in UNITS else known[name]
    match node:
        case ast.Constant():
            return node.value
        case ast.BinOp():
            return BINARY[type(node.op)](_number(_value(node.left, known)),
                                         _number(_value(node.right, known)))
        case ast.UnaryOp():
            value = _value(node.operand, known)
            return not value if isinstance(node.op, ast.Not) else -_number(value)
        case ast.BoolOp():
            each = (_value(one, known) for one in node.values)
            return all(each) if isinstance(node.op, ast.And) else any(each)
    left = _value(node.left, known)
    for compared, other in zip(node.ops, node.comparators, strict=True):
        right = _value(other, known)
        if isinstance(left, str) != isinstance(right, str):
            raise TypeError
        if not COMPARED[type(compared)](left, right):
            return False
        left = right
    return True


def _number(value):
    """Neither texts, which could be multiplied without end, nor anything else."""
    if not isinstance(value, int | float):
        raise TypeError
    return value
