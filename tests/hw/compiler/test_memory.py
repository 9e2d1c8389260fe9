"""Places that the compiler gives to blocks."""

import pytest

from hw.compiler.errors import CompileError
from hw.compiler.memory import Heap, OffchipImage


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
