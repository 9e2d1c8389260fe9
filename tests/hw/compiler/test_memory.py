"""Places that the compiler gives to blocks."""

import random

import pytest

from hw.compiler.errors import CompileError, NoRoom
from hw.compiler.memory import Heap, OffchipImage, arrange


def test_blocks_of_one_name_alternate():
    heap  = Heap("rows", 100)
    bases = []
    for _ in range(4):
        bases.append(heap.take(30, "tile"))
        heap.give(bases[-1])
    assert bases == [0, 30, 0, 30]


def test_a_new_block_goes_where_one_ended_longest_ago():
    heap = Heap("rows", 90)
    a, b, c = (heap.take(30, name) for name in "abc")
    for base in (b, a, c):
        heap.give(base)
    assert heap.take(30, "d") == b


def test_top_and_bottom():
    heap = Heap("feedback", 96)
    assert heap.take(32, "d2", top=False) == 0
    assert heap.take(64, "d3", top=True) == 32
    heap.give(0)
    assert heap.take(16, "d1", top=True) == 16
    assert heap.largest() == 16


def test_full_memory_says_what_is_in_it():
    heap = Heap("onchip", 64)
    heap.take(40, "c1")
    with pytest.raises(CompileError, match="^c2 needs 30 words of onchip; of its 64 these are in "
                                           "use: c1 40$"):
        heap.take(30, "c2")
    assert heap.footprint == heap.used() == 40


def test_footprint_counts_places_that_are_free_again():
    heap = Heap("onchip", 64)
    for name in ("c1", "c2"):
        heap.give(heap.take(20, name))
    assert (heap.footprint, heap.used()) == (40, 0)


def test_image_places_blobs_behind_each_other():
    image = OffchipImage(256)
    assert image.reserve(10, "frames") == 0
    assert image.place(b"abc", "weights") == 64
    assert bytes(image.data[64:67]) == b"abc"
    with pytest.raises(CompileError, match="^masks needs off-chip memory up to byte 328; this "
                                           "machine has 256; use fewer frames or a smaller "
                                           "network, or SET=offchip_bytes=512$"):
        image.reserve(200, "masks")


def test_history_has_the_first_and_the_last_use_of_every_block():
    heap = Heap("m", 8)
    base = heap.take(4, "old")
    for engine, index in (("a", 3), ("b", 5), ("a", 9)):
        heap.touch(base + 3, engine, index)
    heap.give(base)
    heap.touch(heap.take(8, "new"), "a", 11)
    old, new = heap.history
    assert (old.memory, old.what, old.base, old.words) == ("m", "old", base, 4)
    assert old.uses == {"a": (3, 9), "b": (5, 5)}
    assert new.uses == {"a": (11, 11)}


def test_blocks_of_a_memory_with_a_grain_do_not_share_it():
    """Rows that began in the middle of eight words waited for those of the map beside them: a lent
    frame of attunet-ct took 12.0 M cycles instead of 9.3 M."""
    heap = Heap("onchip", 64, align=8)
    assert [heap.take(words, name) for words, name in ((14, "alpha"), (3, "beta"), (8, "c1"))] == [
        0, 16, 24]
    assert heap.used() == 32


def blocks(heap):
    """Two maps that wait, with what passes between them, in the order in which they come and go."""
    first = heap.take(20, "first")
    small = heap.take(30, "small")
    heap.take(20, "second")
    heap.give(small)
    heap.give(first)
    return heap.take(60, "large")


def test_what_only_lacks_room_in_one_piece_strays_beyond_the_end_and_is_arranged():
    with pytest.raises(CompileError, match="^large needs 60 words of onchip; of its 80 these are "):
        blocks(Heap("onchip", 80))
    heap = Heap("onchip", 80, beyond=80)
    assert blocks(heap) >= 80 and heap.strayed
    assert [(life.what, life.start, life.stop) for life in heap.lives] == [
        ("first", 1, 5), ("small", 2, 4), ("second", 3, float("inf")), ("large", 6, float("inf"))]
    places = arrange(heap.lives, 80)
    again  = Heap("onchip", 80, places=places)
    assert blocks(again) == places["large"][0] <= 20 and not again.strayed


def test_what_does_not_fit_at_all_does_not_stray():
    heap = Heap("onchip", 80, beyond=80)
    heap.take(40, "c1")
    with pytest.raises(NoRoom):
        heap.take(41, "c2")
    heap.take(10, "c2")
    heap.give(0)
    assert heap.take(50, "c3") >= 80
    with pytest.raises(NoRoom):             # although there are 40 free words at 0
        heap.take(21, "c4")


@pytest.mark.parametrize("seed", range(10))
def test_arranged_blocks_that_live_together_lie_apart(seed):
    chance = random.Random(seed)
    heap   = Heap("onchip", 1000, beyond=1000)
    live   = []
    for index in range(60):
        try:
            live.append(heap.take(chance.randint(1, 200), f"map{index % 7}"))
        except NoRoom:
            while live and chance.random() < 0.8:
                heap.give(live.pop(chance.randrange(len(live))))
    most   = sum(life.words for life in heap.lives)
    places = {what: iter(bases) for what, bases in arrange(heap.lives, most).items()}
    placed = [(next(places[life.what]), life) for life in heap.lives]
    for index, (base, life) in enumerate(placed):
        for other_base, other in placed[:index]:
            if other.stop > life.start:
                assert base >= other_base + other.words or other_base >= base + life.words
    assert arrange(heap.lives, max(life.words for life in heap.lives)) is None


def test_a_refusal_names_what_would_do():
    heap = Heap("gate.params", 32, knob="gate_param_words")
    heap.take(8, "gated1")
    with pytest.raises(NoRoom) as refused:
        heap.take(30, "gated2")
    assert str(refused.value) == (
        "gated2 needs 30 words of gate.params; of its 32 these are in use: gated1 8; use a "
        "narrower network, or SET=gate_param_words=38")
