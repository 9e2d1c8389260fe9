from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.interfaces import tap_layout
from hw.isa import Engine
from sim.names import SIMULATORS
from sim.taps import HEADER_BYTES, first_mismatch, golden_name, read_tensors
from sim.top import recorder

VECTOR = 8
LAYER  = SimpleNamespace(id=3, tensor="c1", channels=6, height=2, width=5)


def record(value, *, layer=3, row, column, channel, count=4):
    """One record; ``value(channel, row, column)`` is the byte of an element."""
    head = tap_layout(vector=VECTOR).const({"layer": layer, "row": row, "column": column,
                                            "channel": channel, "count": count}).as_bits()
    data = bytes(value(channel + k, row, column) if k < count else 0xEE for k in range(VECTOR))
    return head.to_bytes(HEADER_BYTES, "little") + data


def value_of(frame):
    return lambda channel, row, column: (channel * 50 + row * 20 + column * 3 + frame) % 256


def records(frame=0):
    return [record(value_of(frame), row=row, column=column, channel=channel)
            for row in range(2) for column in range(5) for channel in (0, 4)]


def expected(frame=0):
    return np.fromfunction(np.vectorize(value_of(frame)), (6, 2, 5), dtype=int).astype(np.uint8)


def test_frames_of_units_that_lend(tmp_path):
    """What each makes differs from frame to frame: here the encoder all of the first and the lower
    row of the others, the decoder the rest; at the end of a frame and the beginning of the next it
    may be the same row."""
    def rows_of(frame, row):
        return [part for part, (y, *_) in zip(records(frame), (
            (row, column, channel) for row in range(2) for column in range(5)
            for channel in (0, 4)), strict=True) if y == row]

    encoder = [*records(0), *rows_of(1, 1), *rows_of(2, 1)]
    decoder = [*rows_of(1, 0), *rows_of(2, 0)]
    (tmp_path / "encoder_conv.tap").write_bytes(b"".join(encoder))
    (tmp_path / "decoder_conv.tap").write_bytes(b"".join(decoder))
    made  = {3: {Engine.ENCODER_CONV: [[0, 1], [1], [1]], Engine.DECODER_CONV: [[], [0], [0]]}}
    found = read_tensors(tmp_path, (LAYER,), frames=3, vector=VECTOR, frame_rows=made)
    for frame, one in enumerate(found):
        assert (one.frame, one.problem) == (frame, None)
        np.testing.assert_array_equal(one.values, expected(frame))
    made[3][Engine.DECODER_CONV] = [[0], [0], []]
    found = read_tensors(tmp_path, (LAYER,), frames=3, vector=VECTOR, frame_rows=made)
    assert [one.problem is None for one in found] == [False, True, False]


def read(folder, parts, frames=1, layers=(LAYER,)):
    (folder / "encoder_conv.tap").write_bytes(b"".join(parts))
    return read_tensors(folder, layers, frames=frames, vector=VECTOR)


def test_tensor_is_rebuilt(tmp_path):
    one, = read(tmp_path, records())
    assert (one.name, one.frame, one.problem) == ("c1", 0, None)
    np.testing.assert_array_equal(one.values, expected())


def test_other_layers_and_partial_last_record_are_left_out(tmp_path):
    other = record(lambda *_: 1, layer=4, row=0, column=0, channel=0)
    one, = read(tmp_path, [other, *records(), other[:9]])
    assert one.problem is None
    np.testing.assert_array_equal(one.values, expected())


def test_frames_follow_each_other(tmp_path):
    found = read(tmp_path, records(0) + records(1), frames=2)
    assert [one.frame for one in found] == [0, 1]
    for frame, one in enumerate(found):
        assert one.problem is None
        np.testing.assert_array_equal(one.values, expected(frame))


def test_missing_element(tmp_path):
    parts = records()
    del parts[7]        # row 0, column 3, channels 4..5
    one, = read(tmp_path, parts)
    assert one.problem == ("2 elements of c1 never written in frame 0; the first is channel 4, "
                           "row 0, column 3")


def test_element_written_twice(tmp_path):
    parts = records()
    one, = read(tmp_path, [*parts, parts[-2]])
    assert one.problem == ("4 elements of c1 written more than once in frame 0; the first is "
                           "channel 0, row 1, column 4")


def test_element_outside(tmp_path):
    outside = record(lambda *_: 1, row=2, column=0, channel=0)
    one, = read(tmp_path, [*records(), outside])
    assert one.problem == "4 elements written outside of c1 in frame 0"


def test_layer_without_records(tmp_path):
    one, = read(tmp_path, [])
    assert one.problem.startswith("60 elements of c1 never written in frame 0")


def test_copies_are_known_by_what_they_copy():
    known = {"c1", "x_stored"}
    assert golden_name("c1_unparked", known) == "c1"
    assert golden_name("c1_stored_parked", known) == "c1"
    assert golden_name("x_stored", known) == "x_stored"


def test_first_mismatch_goes_by_rows():
    got, want = expected().copy(), expected()
    assert first_mismatch("c1", got, want) is None
    got[0, 1, 0] ^= 1
    got[5, 0, 4] ^= 1
    assert first_mismatch("c1", got, want) == {
        "layer": "c1", "channel": 5, "row": 0, "column": 4,
        "expected": int(want[5, 0, 4]), "got": int(want[5, 0, 4]) ^ 1}


class Recorded(wiring.Component):
    """Shows a tap's payload to a recorder."""
    valid:   In(1)
    payload: In(tap_layout(vector=VECTOR))

    def elaborate(self, platform):
        m = Module()
        m.submodules.recorder = recorder("encoder_conv", self.valid, self.payload)
        return m


@pytest.mark.cosim
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_recorder_writes_what_the_reader_reads(cosimulate, tmp_path, simulator):
    from sim.top import SOURCES
    folder = tmp_path / "taps (of a run)"
    folder.mkdir()
    cosimulate(Recorded(), "tests.sim.bench_taps", simulator=simulator, sources=SOURCES[1:],
               plusargs=[f"+taps={folder}"])
    one, = read_tensors(folder, (LAYER,), frames=1, vector=VECTOR)
    assert one.problem is None
    np.testing.assert_array_equal(one.values, expected())


@pytest.mark.cosim
def test_recorder_is_silent_without_its_plusarg(cosimulate, tmp_path):
    from sim.top import SOURCES
    cosimulate(Recorded(), "tests.sim.bench_taps", sources=SOURCES[1:])
    assert not list(tmp_path.rglob("*.tap"))
