"""Step sequencer: the loop nest of one CONV instruction, one MAC step per cycle."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.compute.layer import LAYER
from hw.compute.transform import DOUBLED_STEPS, OUTPUTS, STEPS
from hw.isa import FORMS, KERNEL_ROWS, MAX_KERNEL, KernelRow, Opcode

EXTENT = 20
"""Bits of a computed word address: enough that no legal instruction overflows it unnoticed."""

MORE_ROWS = data.ArrayLayout(KernelRow, MAX_KERNEL - KERNEL_ROWS)
"""The kernel rows of a ROWS instruction."""


class StepSequencer(wiring.Component):
    """Addresses of every MAC step of one output row, in the order of the array.

    Nested loops, outermost first: groups of ``unit.pixels`` output pixels; groups of
    ``unit.outputs`` output channels; kernel rows; kernel columns; input vectors. Depthwise: groups
    of output pixels; vectors of channels; kernel rows; chunks of ``unit.depthwise_taps(stride)``
    kernel columns. Transformed: groups of twice as many pixels; groups of output channels; kernel
    rows; input vectors; the steps of :mod:`hw.compute.transform`, fewer for the first
    ``layer.doubled`` vectors. Weight words follow each other in this order, and begin again with
    every group of pixels; step 3 of a vector takes no new one. There is no bubble between any two
    steps.

    ``start`` takes ``layer``, ``conv`` and ``more_rows``, which must hold until ``busy`` falls.
    From the next cycle on, ``busy`` is high and every cycle issues one step, whose addresses and
    markers appear in registers one cycle later. Only the last step of a sum waits for ``room``.
    ``issues`` is high in the cycle of a step, ``completes`` in that of a sum's last step.

    A step reads ``unit.banks`` consecutive input pixels, of which the first lies in bank
    ``rotation``, the next one in bank ``(rotation + 1) % banks`` and so on. ``row_address[b]`` is
    where bank ``b`` reads, ``inside[b]`` whether its pixel exists, and ``left[b]`` whether it lies
    before the row; ``exists`` says that there is a row at all. With ``layer.clamp``, bank 0 or the
    bank of the row's last pixel read that pixel while others are past that end of the row, by
    less than ``banks`` pixels on the left and at most as many on the right. ``bad`` says that a
    step would read outside the row or weight memory; it comes one more cycle later.

    Parameters
    ----------
    unit : hw.config.UnitConfig

    Members
    -------
    start, room : In(1)
    layer : In(LAYER)
    conv : In(FORMS[Opcode.CONV])
    more_rows : In(MORE_ROWS)
    busy, issues, completes : Out(1)
    valid, first, last : Out(1)
        ``first`` and ``last`` step of one sum.
    step : Out(range(STEPS))
        Of the transform; of other layers 0. As the addresses, that of a step that waits as well.
    rotation : Out(range(banks))
    exists : Out(1)
    inside, left : Out(banks)
    row_address : Out(range(row_words)).array(banks)
    weight_address : Out(range(weight_words))
    bad : Out(1)
    """

    def __init__(self, *, unit):
        self.unit = unit

        super().__init__({
            "start":          In(1),
            "room":           In(1),
            "layer":          In(LAYER),
            "conv":           In(FORMS[Opcode.CONV]),
            "more_rows":      In(MORE_ROWS),
            "busy":           Out(1),
            "issues":         Out(1),
            "completes":      Out(1),
            "valid":          Out(1),
            "first":          Out(1),
            "last":           Out(1),
            "step":           Out(range(STEPS)),
            "rotation":       Out(range(unit.banks)),
            "exists":         Out(1),
            "inside":         Out(unit.banks),
            "left":           Out(unit.banks),
            "row_address":    Out(range(unit.row_words)).array(unit.banks),
            "weight_address": Out(range(unit.weight_words)),
            "bad":            Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        layer, conv, unit = self.layer, self.conv, self.unit
        pixels, banks     = unit.pixels, unit.banks
        bits              = exact_log2(banks)

        # Loop counters, and which of them are in their last turn.
        vec              = Signal(7)
        column           = Signal(4)
        row              = Signal(3)
        group            = Signal(8)
        block            = Signal(11)
        last_block       = Signal(11)
        turn             = Signal(range(STEPS))      # step of the transform
        transformed      = Signal()
        again            = Signal()                  # the next step has the same vector
        width            = Signal(2)                 # columns to the next step's window
        next_column      = Signal(4)
        fresh            = Signal()                  # the next step begins a sum
        row_ends         = Signal()                  # last vector of the last kernel column
        sum_ends         = Signal()
        block_ends       = Signal()
        tap_ends         = Signal()
        taps = Mux(layer.depthwise, Mux(layer.stride2, unit.depthwise_taps(2),
                                        unit.depthwise_taps(1)), 1)
        if unit.transform:
            last_turn = Mux(vec < layer.doubled, DOUBLED_STEPS - 1, STEPS - 1)
            m.d.comb += [
                transformed.eq(layer.transformed),
                again.eq(transformed & (turn != last_turn)),
            ]
            taps = Mux(transformed, OUTPUTS, taps)
        m.d.comb += [
            width.eq(taps),
            next_column.eq(column + width),
            tap_ends.eq(~again & (layer.depthwise | (vec + 1 == layer.vectors))),
            row_ends.eq(tap_ends & (transformed | (next_column >= layer.kernel_w))),
            sum_ends.eq(row_ends & (row + 1 == layer.kernel_h)),
            block_ends.eq(sum_ends & (group + 1 == conv.groups)),
            self.issues.eq(self.busy & (self.room | ~sum_ends)),
            self.completes.eq(self.issues & sum_ends),
        ]

        # A row of the map is a row of words of ``banks`` pixels each. ``word`` is the one that
        # holds the first pixel of the step, ``offset`` its address less the kernel row's base,
        # ``phase`` the bank of that pixel. Each also has the value that a kernel row starts with,
        # and ``offset`` those of a kernel column and a group of pixels. Left of the map both are
        # negative. No step goes on by more than ``banks`` pixels, so at most to the next word.
        word                 = Signal(signed(14))
        row_word             = Signal(signed(14))
        offset               = Signal(signed(EXTENT))
        row_offset           = Signal(signed(EXTENT))
        tap_offset           = Signal(signed(EXTENT))
        block_offset         = Signal(signed(EXTENT))
        phase                = Signal(bits)
        row_phase            = Signal(bits)
        weight               = Signal(EXTENT)
        next_phase           = Signal(bits + 1)      # of the next kernel column
        next_offset          = Signal(signed(EXTENT))
        block_phase          = Signal(bits + 1)      # of the next group of pixels
        block_word           = Signal(signed(14))
        next_block           = Signal(signed(EXTENT))
        group_offset         = Signal(signed(EXTENT))
        m.d.comb += [
            next_phase.eq(phase + width),
            next_offset.eq(tap_offset + Mux(next_phase[bits], layer.vectors, 0)),
            block_phase.eq(row_phase + Mux(layer.stride2 | transformed, 2 * pixels, pixels)),
            block_word.eq(row_word + block_phase[bits]),
            next_block.eq(block_offset + Mux(block_phase[bits], layer.vectors, 0)),
            group_offset.eq(row_offset + layer.depthwise),
        ]

        def begin_row(new_word, new_offset, new_phase):
            return [word.eq(new_word), offset.eq(new_offset), tap_offset.eq(new_offset),
                    phase.eq(new_phase)]

        def begin_vector():
            """Back from the second window to the first one, of the next vector."""
            return [word.eq(row_word), offset.eq(tap_offset + 1), tap_offset.eq(tap_offset + 1),
                    phase.eq(row_phase)]

        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1), fresh.eq(1),
                vec.eq(0), column.eq(0), row.eq(0), group.eq(0), block.eq(0),
                last_block.eq((layer.width_out - 1).as_unsigned()
                              >> (exact_log2(pixels) + transformed)),
                turn.eq(0),
                weight.eq(conv.weight_base),
            ]
            with m.Switch(layer.pad_left):
                for pad in range(1 << len(layer.pad_left)):
                    with m.Case(pad):
                        words, start_phase = divmod(-pad, banks)
                        start_offset = -sum([layer.vectors] * -words)
                        m.d.sync += [row_word.eq(words), row_offset.eq(start_offset),
                                     block_offset.eq(start_offset), row_phase.eq(start_phase)]
                        m.d.sync += begin_row(words, start_offset, start_phase)
        with m.Elif(self.issues):
            m.d.sync += [vec.eq(vec + 1), offset.eq(offset + 1), weight.eq(weight + 1)]
            m.d.sync += fresh.eq(sum_ends)
            if unit.transform:
                with m.If(transformed & ~again):
                    m.d.sync += turn.eq(0)
                    m.d.sync += begin_vector()
                with m.If(again):
                    m.d.sync += [turn.eq(turn + 1), vec.eq(vec), offset.eq(offset)]
                with m.If(again & (turn == 0)):
                    m.d.sync += [word.eq(word + next_phase[bits]), offset.eq(next_offset),
                                 phase.eq(next_phase[:bits])]
                with m.If(again & (turn == DOUBLED_STEPS - 1)):
                    m.d.sync += weight.eq(weight)
            with m.If(tap_ends):
                m.d.sync += [vec.eq(0), column.eq(next_column), word.eq(word + next_phase[bits]),
                             offset.eq(next_offset), tap_offset.eq(next_offset),
                             phase.eq(next_phase[:bits])]
            with m.If(row_ends):
                m.d.sync += [column.eq(0), row.eq(row + 1)]
                m.d.sync += begin_row(row_word, row_offset, row_phase)
            with m.If(sum_ends):
                m.d.sync += [row.eq(0), group.eq(group + 1), row_offset.eq(group_offset)]
                m.d.sync += begin_row(row_word, group_offset, row_phase)
            with m.If(block_ends):
                m.d.sync += [group.eq(0), block.eq(block + 1), weight.eq(conv.weight_base)]
                m.d.sync += [row_word.eq(block_word), row_offset.eq(next_block),
                             block_offset.eq(next_block), row_phase.eq(block_phase[:bits])]
                m.d.sync += begin_row(block_word, next_block, block_phase[:bits])
                m.d.sync += self.busy.eq(block != last_block)

        # Addresses. Banks before the first pixel's hold the pixels of the next word; past the end
        # of a clamped row, a bank reads the pixel of the word before.
        kernel_row = Signal(KernelRow)
        with m.Switch(row):
            for number, candidate in enumerate((*conv.rows, *self.more_rows)):
                with m.Case(number):
                    m.d.comb += kernel_row.eq(candidate)
        before, here, there = (Signal(signed(EXTENT + 2), name=name)
                               for name in ("before", "here", "there"))
        m.d.comb += [
            here.eq(kernel_row.base + offset),
            there.eq(here + layer.vectors),
            before.eq(here - layer.vectors),
        ]

        inside       = Signal(banks)
        left         = Signal(banks)
        address      = [Signal(EXTENT, name=f"address_{number}") for number in range(banks)]
        word_address = Signal(EXTENT)
        for number in range(banks):
            follows = Signal(name=f"follows_{number}")
            beyond  = Signal(name=f"beyond_{number}")
            clamped = Signal(name=f"clamped_{number}")
            pixel   = Signal(signed(16), name=f"pixel_{number}")
            m.d.comb += [
                follows.eq(number < phase),
                pixel.eq(Cat(Const(number, bits), word + follows).as_signed()),
                left[number].eq(pixel < 0),
                beyond.eq(pixel >= layer.width_in),
                inside[number].eq(kernel_row.valid & ~left[number] & ~beyond),
                clamped.eq(beyond & layer.clamp),
            ]
            m.d.sync += address[number].eq(Mux(follows, Mux(clamped, here, there),
                                               Mux(clamped, before, here)))
            m.d.comb += self.row_address[number].eq(address[number])
        m.d.comb += self.weight_address.eq(word_address)

        m.d.sync += [
            self.valid.eq(self.issues),
            self.first.eq(fresh),
            self.last.eq(sum_ends),
            self.step.eq(turn),
            self.rotation.eq(phase),
            self.exists.eq(kernel_row.valid),
            self.inside.eq(inside),
            self.left.eq(left),
            word_address.eq(weight),
            self.bad.eq(self.valid & (
                (word_address >= unit.weight_words)
                | Cat(exists & (value >= unit.row_words)
                      for exists, value in zip(self.inside, address)).any())),
        ]

        return m
