"""Step sequencer: the loop nest of one CONV instruction, one MAC step per cycle."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.compute.layer import LAYER
from hw.isa import FORMS, KERNEL_ROWS, Opcode

EXTENT = 20
"""Bits of a computed word address: enough that no legal instruction overflows it unnoticed."""


class StepSequencer(wiring.Component):
    """Addresses of every MAC step of one output row, in the order of the array.

    Nested loops, outermost first: groups of ``pixels`` output pixels; groups of ``outputs`` output
    channels; kernel rows; kernel columns; input vectors. There is no bubble between any two steps.

    ``start`` takes ``layer`` and ``conv``, which must hold until ``busy`` falls. From the next
    cycle on, ``busy`` is high and every cycle issues one step, whose addresses and markers appear
    in registers one cycle later. Only the last step of a sum waits for ``room``. ``issues`` is
    high in the cycle of a step, ``completes`` in that of a sum's last step.

    Output pixel ``p`` of a step needs input pixel ``start + p``, which lies in bank
    ``(rotation + p) % pixels``: ``row_address[b]`` is where bank ``b`` reads, and ``inside[b]``
    whether that pixel exists, or padding takes its place. ``bad`` says that a step would read
    outside the row or weight memory; it comes one more cycle later.

    Parameters
    ----------
    pixels, row_words, weight_words : int

    Members
    -------
    start, room : In(1)
    layer : In(LAYER)
    conv : In(FORMS[Opcode.CONV])
    busy, issues, completes : Out(1)
    valid, first, last : Out(1)
        ``first`` and ``last`` step of one sum.
    rotation : Out(range(pixels))
    inside : Out(pixels)
    row_address : Out(range(row_words)).array(pixels)
    weight_address : Out(range(weight_words))
    bad : Out(1)
    """

    def __init__(self, *, pixels, row_words, weight_words):
        if pixels < 1 or pixels & (pixels - 1):
            raise ValueError(f"Sequencer pixels must be a power of two, not {pixels!r}")
        for name, value in (("row_words", row_words), ("weight_words", weight_words)):
            if value < 1:
                raise ValueError(f"Sequencer {name} must be positive, not {value!r}")
        self.pixels       = pixels
        self.row_words    = row_words
        self.weight_words = weight_words

        super().__init__({
            "start":          In(1),
            "room":           In(1),
            "layer":          In(LAYER),
            "conv":           In(FORMS[Opcode.CONV]),
            "busy":           Out(1),
            "issues":         Out(1),
            "completes":      Out(1),
            "valid":          Out(1),
            "first":          Out(1),
            "last":           Out(1),
            "rotation":       Out(range(max(pixels, 2))),
            "inside":         Out(pixels),
            "row_address":    Out(range(row_words)).array(pixels),
            "weight_address": Out(range(weight_words)),
            "bad":            Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        layer, conv, pixels = self.layer, self.conv, self.pixels
        bits = exact_log2(pixels)

        # Loop counters, and which of them are in their last turn.
        vec, column, row = Signal(7), Signal(2), Signal(2)
        group, block     = Signal(8), Signal(11)
        last_block       = Signal(11)
        fresh            = Signal()                  # the next step begins a sum
        row_ends         = Signal()                  # last vector of the last kernel column
        sum_ends         = Signal()
        block_ends       = Signal()
        tap_ends         = Signal()
        m.d.comb += [
            tap_ends.eq(vec + 1 == layer.vectors),
            row_ends.eq(tap_ends & (column + 1 == layer.kernel_w)),
            sum_ends.eq(row_ends & (row + 1 == layer.kernel_h)),
            block_ends.eq(sum_ends & (group + 1 == conv.groups)),
            self.issues.eq(self.busy & (self.room | ~sum_ends)),
            self.completes.eq(self.issues & sum_ends),
        ]

        # A row of the map is a row of words of ``pixels`` pixels each. ``word`` is the one that
        # holds the first pixel of the step, ``offset`` its address less the kernel row's base,
        # ``phase`` the bank of that pixel. Each also has the value that a kernel row starts with,
        # and ``offset`` the one of a kernel column. Left of the map both are negative.
        word,   row_word   = Signal(signed(14)), Signal(signed(14))
        offset, row_offset = Signal(signed(EXTENT)), Signal(signed(EXTENT))
        tap_offset         = Signal(signed(EXTENT))
        phase,  row_phase  = Signal(range(max(pixels, 2))), Signal(range(max(pixels, 2)))
        weight             = Signal(EXTENT)
        crosses            = Signal()                # the next kernel column is in the next word
        m.d.comb += crosses.eq(phase == pixels - 1)

        def begin_row(new_word, new_offset, new_phase):
            return [word.eq(new_word), offset.eq(new_offset), tap_offset.eq(new_offset),
                    phase.eq(new_phase)]

        next_word   = row_word + 1 + layer.stride2
        next_offset = row_offset + (layer.vectors << layer.stride2)

        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1), fresh.eq(1),
                vec.eq(0), column.eq(0), row.eq(0), group.eq(0), block.eq(0),
                last_block.eq((layer.width_out - 1).as_unsigned() >> bits),
                weight.eq(conv.weight_base),
            ]
            with m.Switch(layer.pad_left):
                for pad in range(4):
                    with m.Case(pad):
                        words, start_phase = divmod(-pad, pixels)
                        start_offset = -sum([layer.vectors] * -words)
                        m.d.sync += [row_word.eq(words), row_offset.eq(start_offset),
                                     row_phase.eq(start_phase)]
                        m.d.sync += begin_row(words, start_offset, start_phase)
        with m.Elif(self.issues):
            m.d.sync += [vec.eq(vec + 1), offset.eq(offset + 1), weight.eq(weight + 1)]
            m.d.sync += fresh.eq(sum_ends)
            with m.If(tap_ends):
                m.d.sync += [vec.eq(0), column.eq(column + 1)]
                with m.If(crosses):
                    m.d.sync += [word.eq(word + 1), tap_offset.eq(offset + 1), phase.eq(0)]
                with m.Else():
                    m.d.sync += [offset.eq(tap_offset), phase.eq(phase + 1)]
            with m.If(row_ends):
                m.d.sync += [column.eq(0), row.eq(row + 1)]
                m.d.sync += begin_row(row_word, row_offset, row_phase)
            with m.If(sum_ends):
                m.d.sync += [row.eq(0), group.eq(group + 1)]
            with m.If(block_ends):
                m.d.sync += [group.eq(0), block.eq(block + 1), weight.eq(conv.weight_base)]
                m.d.sync += [row_word.eq(next_word), row_offset.eq(next_offset)]
                m.d.sync += begin_row(next_word, next_offset, row_phase)
                m.d.sync += self.busy.eq(block != last_block)

        # Addresses. Banks before the first pixel's hold the pixels of the next word.
        kernel_row = Signal(conv.rows[0].shape())
        with m.Switch(row):
            for number in range(KERNEL_ROWS):
                with m.Case(number):
                    m.d.comb += kernel_row.eq(conv.rows[number])
        here, there = Signal(signed(EXTENT + 1)), Signal(signed(EXTENT + 1))
        m.d.comb += [here.eq(kernel_row.base + offset), there.eq(here + layer.vectors)]

        inside       = Signal(pixels)
        address      = [Signal(EXTENT, name=f"address_{number}") for number in range(pixels)]
        word_address = Signal(EXTENT)
        for number in range(pixels):
            follows = Signal(name=f"follows_{number}")
            pixel   = Signal(signed(16), name=f"pixel_{number}")
            m.d.comb += [
                follows.eq(number < phase),
                pixel.eq(Cat(Const(number, bits), word + follows).as_signed()),
                inside[number].eq(kernel_row.valid & (pixel >= 0) & (pixel < layer.width_in)),
            ]
            m.d.sync += address[number].eq(Mux(follows, there, here))
            m.d.comb += self.row_address[number].eq(address[number])
        m.d.comb += self.weight_address.eq(word_address)

        m.d.sync += [
            self.valid.eq(self.issues),
            self.first.eq(fresh),
            self.last.eq(sum_ends),
            self.rotation.eq(phase),
            self.inside.eq(inside),
            word_address.eq(weight),
            self.bad.eq(self.valid & (
                (word_address >= self.weight_words)
                | Cat(exists & (value >= self.row_words)
                      for exists, value in zip(self.inside, address)).any())),
        ]

        return m
