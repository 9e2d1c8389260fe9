import random
from types import SimpleNamespace

from hw.compiler.memory import Block
from hw.config import TINY
from hw.isa import Engine
from sim.occupancy import live_bytes, over_time

TIMETABLE = {engine: list(range(0, 2000, 10)) for engine in Engine}


def seen(*blocks):
    return over_time(SimpleNamespace(blocks=blocks), TINY, TIMETABLE, source="trace")


def block(what, base, words, first, last, memory="onchip"):
    return Block(memory, what, base, words, {Engine.GATE: (first, last)})


def test_words_that_two_blocks_share_count_once():
    """With three frames, more was live at once than had ever belonged to a block."""
    found = seen(block("c1", 0, 16, 0, 9), block("c2", 4, 8, 5, 12), block("d1", 0, 4, 0, 20, "x"))
    assert found["peak"] == 20 * TINY.vector
    assert found["blocks"] == [
        {"name": "c1", "memory": "onchip", "bytes": 128, "first": 10, "last": 60},
        {"name": "d1", "memory": "x", "bytes": 32, "first": 10, "last": 210},
        {"name": "c1", "memory": "onchip", "bytes": 64, "first": 60, "last": 100},
        {"name": "c2", "memory": "onchip", "bytes": 64, "first": 60, "last": 130}]


def test_a_block_that_is_replaced_whole_ends():
    found = seen(block("c1", 4, 2, 0, 9), block("c2", 0, 8, 5, 7))
    assert [(one["name"], one["first"], one["last"]) for one in found["blocks"]] == [
        ("c1", 10, 60), ("c2", 60, 80)]


def test_live_never_exceeds_what_ever_belonged_to_a_block():
    for seed in range(20):
        rng    = random.Random(seed)
        blocks = [block(str(number), rng.randrange(40), rng.randrange(1, 30), first,
                        first + rng.randrange(40)) for number in range(30)
                  for first in [rng.randrange(100)]]
        used   = {word for one in blocks for word in range(one.base, one.base + one.words)}
        found  = seen(*blocks)
        assert 0 < found["peak"] <= len(used) * TINY.vector
        alone  = [sum(one.words for one in blocks
                      if one.uses[Engine.GATE][0] <= step < one.uses[Engine.GATE][1])
                  for step in range(150)]
        assert found["peak"] <= max(alone) * TINY.vector
        assert live_bytes(found["blocks"])[1].min() == 0
