import random
from statistics import fmean

import pytest

from sim.explore.hypervolume import progress

CORNERS = [(0, 4), (4, 0), (2, 2), None, (4, 4)]


def test_shares_of_the_box():
    """By hand, of the box from 0 to 4: what each adds that those before it do not reach."""
    found = progress(CORNERS, [])
    assert found["evaluations"] == [1, 2, 3, 4, 5]
    assert found["search"] == pytest.approx([0, 0, 0.25, 0.25, 0.25], abs=0.01)
    assert found["random"] == [None] * 5
    assert progress([(0, 0), *CORNERS], [])["search"][0] == 1


def test_by_chance_is_the_mean_of_all_orders():
    """Of machines in every order, against the shares of hundreds of orders."""
    chance = random.Random(1)
    drawn  = [None if chance.random() < 0.3 else (chance.random(), chance.random(), chance.random())
              for _ in range(12)]
    orders = []
    for _ in range(400):
        chance.shuffle(drawn)
        orders.append(progress(drawn, drawn)["search"])
    assert progress(drawn, drawn)["random"] == pytest.approx(
        [fmean(each) for each in zip(*orders, strict=True)], abs=0.02)
    assert orders[0][-1] == progress(drawn, drawn)["random"][-1]


def test_fewer_may_be_drawn_than_searched():
    found = progress([(1, 2), (2, 1), (3, 3), (1, 1)], [(3, 3), (2, 2)])
    assert [share is None for share in found["random"]] == [False, False, True, True]


@pytest.mark.parametrize("searched", [[], [None, None], [(3, 5)], [(3, 5), (3, 5)]])
def test_nothing_to_tell_apart(searched):
    assert progress(searched, searched) is None


def test_what_is_the_same_for_all_does_not_count():
    assert progress([(0, 7), (2, 7), (4, 7)], [])["search"] == [1, 1, 1]
