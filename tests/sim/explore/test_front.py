import random

import pytest

from sim.explore.front import dominates, front


def test_dominates():
    assert dominates((1, 2), (1, 3)) and dominates((0, 0), (1, 1))
    assert not dominates((1, 2), (1, 2)) and not dominates((1, 3), (2, 2))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_against_every_pair(count):
    chance = random.Random(count)
    names  = ["a", "b", "c"][:count]
    for _ in range(50):
        rows = [{"machine": number, "figures": {name: chance.randrange(6) for name in names}}
                for number in range(40)]
        points = {row["machine"]: tuple(row["figures"].values()) for row in rows}
        best   = {number for number, point in points.items()
                  if not any(dominates(other, point) for other in points.values())}
        found  = [row["machine"] for row in front(rows, names)]
        assert set(found) == best
        assert found == sorted(found, key=lambda number: (points[number], number))
