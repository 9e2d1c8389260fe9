import pytest

from sim.explore.effects import effects


def rows(figure):
    return [{"knobs": {"a": a, "b": b, "c": 7}, "figures": {"latency": figure(a, b)}}
            for a in (1, 2) for b in (10, 20, 40)]


@pytest.mark.parametrize("figure, shares", [
    (lambda a, b: a, (1, 0)), (lambda a, b: b, (0, 1)), (lambda a, b: 5, (0, 0)),
    # Variances 9 / 4 and 2 / 3 * 4: 27 and 32 of 59.
    (lambda a, b: 3 * a + {10: 0, 20: 2, 40: 4}[b], (27 / 59, 32 / 59)),
    (lambda a, b: (a - 1.5) * (b - 70 / 3), (0, 0))])
def test_shares(figure, shares):
    """Of what is known by hand; what only the two together do is no one's."""
    found = effects(rows(figure), {"a": (1, 2), "b": (10, 20, 40), "c": (7,)}, ["latency"])
    assert [each["share"] for each in found["latency"].values()] == pytest.approx(shares)
    assert list(found["latency"]) == ["a", "b"]


def test_means_of_values_that_are_there():
    found = effects(rows(lambda a, b: a + b)[:4], {"a": (1, 2, 3)}, ["latency"])
    assert found["latency"]["a"]["means"] == [[1, 1 + 70 / 3, 3], [2, 12, 1]]
