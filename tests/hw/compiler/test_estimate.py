"""Cycles from waits and lengths alone."""

from dataclasses import replace

from hw.compiler.emit import Emitter, Span
from hw.compiler.estimate import LATENCY, OVERHEAD, Timetable, group_cycles
from hw.config import TINY
from hw.isa import Engine, FillMode, Opcode


def test_a_store_waits_for_the_fill_and_the_fill_for_the_load():
    emitter = Emitter({"onchip": 64, "rows": 64}, Timetable(TINY))
    load    = {"beats": 10, "expand": 1}
    fill    = {"mode": FillMode.UP, "width": 4, "vectors": 3}
    emitter.emit(Engine.LOAD_DECODER, Opcode.LOAD, load, writes=[Span("onchip", 0, 20)])
    emitter.emit(Engine.DECODER_FILL, Opcode.FILL, fill, reads=[Span("onchip", 0, 20)],
                 writes=[Span("rows", 0, 24)])
    emitter.emit(Engine.STORE_DECODER, Opcode.STORE, {"beats": 5, "frame_end": True},
                 reads=[Span("rows", 0, 24)])
    emitter.emit(Engine.STORE, Opcode.STORE, {"beats": 1, "frame_end": True})
    # Ten beats of 8 bytes make twenty words; four pixels of three vectors are written twice.
    assert sorted(emitter.timetable.masks) == [
        1 + LATENCY, (20 + LATENCY) + (24 + OVERHEAD) + (5 + LATENCY)]


def test_the_array_needs_a_cycle_per_step():
    emitter = Emitter({"onchip": 64}, Timetable(TINY))
    layer   = {"slot": 3, "kernel_h": 3, "kernel_w": 3, "vectors": 2, "width_out": 5,
               "depthwise": 0, "stride2": 0, "transformed": 0, "doubled": 0}
    emitter.emit(Engine.ENCODER_CONV, Opcode.LAYER, layer)
    emitter.emit(Engine.ENCODER_CONV, Opcode.CONV, {"slot": 3, "groups": 4},
                 writes=[Span("onchip", 0, 8)])
    emitter.emit(Engine.STORE, Opcode.STORE, {"beats": 8, "frame_end": True},
                 reads=[Span("onchip", 0, 8)])
    # Five pixels on two lanes are three groups of 4 x 18 steps; a LAYER takes three cycles.
    assert emitter.timetable.masks == [3 + 3 * 4 * 18 + OVERHEAD + 8 + LATENCY]


def test_the_transform_makes_two_pixels_in_four_steps_or_three():
    unit  = replace(TINY.encoder, transform=True)       # two lanes of pixels
    layer = {"kernel_h": 3, "kernel_w": 3, "vectors": 5, "width_out": 9, "depthwise": 0,
             "stride2": 0, "transformed": 1, "doubled": 2}
    assert group_cycles(layer, unit, TINY.vector) == 3 * 3 * (2 * 3 + 3 * 4)
    # One kernel row of one vector has fewer steps than pixels to drain.
    layer |= {"kernel_h": 1, "vectors": 1, "doubled": 1}
    assert group_cycles(layer, unit, TINY.vector) == 3 * 4
