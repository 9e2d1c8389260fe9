"""The Pareto front: the machines of which none is better in one thing and worse in nothing."""

__all__ = ["dominates", "front"]


def dominates(one, other):
    """Whether the figures ``one`` are nowhere larger than ``other``, and somewhere smaller."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def front(rows, objectives):
    """Those of ``rows`` that none of the others dominates, the smallest in the first objective
    first. Equal ones are all on it."""
    ordered = sorted(rows, key=lambda row: (_figures(row, objectives), row["machine"]))
    found   = []
    for row in ordered:         # what could dominate a row is ahead of it
        figures = _figures(row, objectives)
        if not any(dominates(_figures(other, objectives), figures) for other in found):
            found.append(row)
    return found


def _figures(row, objectives):
    return tuple(row["figures"][name] for name in objectives)
