# amaranth: UnusedElaboratable=no
import random

from amaranth import *
from amaranth.sim import Simulator

from hw.attention.alpha_rows import AlphaRows
from hw.isa import LAYER_SLOTS, Opcode, Target

CLEAR = "clear"


def layer(slot, width, target):
    return "layer", {"opcode": Opcode.LAYER, "slot": slot, "width_out": width, "target": target}


def conv(slot, number, row, base):
    return "conv", {"opcode": Opcode.CONV, "slot": slot, "layer": number, "row": row,
                    "out_base": base}


def events(cycles):
    """``cycles``: what retires in each, or None; ``CLEAR`` resets the block, as a run does that
    begins; with a third value, False, it is only offered. Returns (cycle, layer, row, base,
    width)."""
    clear     = Signal()
    dut, seen = AlphaRows(), []

    async def drive(ctx):
        for cycle, instruction in enumerate([*cycles, None, None]):
            ctx.set(clear, instruction is CLEAR)
            ctx.set(dut.retired, 0)
            if instruction not in (None, CLEAR):
                form, fields, *retires = instruction
                ctx.set(dut.retired, all(retires))
                ctx.set(dut.instruction[form], fields)
            if ctx.get(dut.o.valid):
                p = ctx.get(dut.o.p)
                seen.append((cycle, p.layer, p.row, p.base, p.width))
            await ctx.tick()

    sim = Simulator(ResetInserter(clear)(dut))
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    sim.run()
    return seen


def test_only_alpha_rows_are_announced():
    assert events([
        layer(3, 32, Target.ALPHA), layer(4, 64, Target.ROW), layer(15, 17, Target.ALPHA), None,
        conv(4, 9, 1, 100), conv(3, 8, 2, 200), conv(15, 7, 4095, 0xABCDE), None,
        conv(3, 8, 3, 204),
    ]) == [(6, 8, 2, 200, 32), (7, 7, 4095, 0xABCDE, 17), (9, 8, 3, 204, 32)]


def test_a_slot_may_be_written_again():
    assert events([
        layer(0, 32, Target.ALPHA), conv(0, 1, 0, 5), layer(0, 16, Target.ONCHIP), None,
        conv(0, 2, 0, 6), layer(0, 8, Target.ALPHA), conv(0, 3, 0, 7),
    ]) == [(2, 1, 0, 5, 32), (7, 3, 0, 7, 8)]


def test_an_offered_instruction_does_not_count_before_it_retires():
    assert events([layer(2, 8, Target.ALPHA), None, None, conv(2, 1, 1, 1), None, None]) == [
        (4, 1, 1, 1, 8)]


def test_slots_of_an_earlier_run_are_unknown():
    assert events([layer(2, 8, Target.ALPHA), conv(2, 1, 1, 1), None, CLEAR, conv(2, 1, 2, 1), None,
                   layer(2, 4, Target.ALPHA), conv(2, 1, 3, 1), None, None]) == [
        (2, 1, 1, 1, 8), (8, 1, 3, 1, 4)]


def test_any_instructions_in_any_order():
    """Fields of every width; other opcodes, offers that do not retire, and runs that begin."""
    rng, cycles, expected, slots = random.Random(4), [], [], {}
    for cycle in range(1500):
        slot, taken = rng.randrange(LAYER_SLOTS), rng.random() < 0.8
        other = rng.choice((Opcode.SYNC, Opcode.FILL, Opcode.ROWS))
        match rng.choices(("clear", "layer", "conv", "other"), (1, 15, 30, 10))[0]:
            case "clear":
                cycles.append(CLEAR)
                slots.clear()
            case "layer":
                target, width = rng.choice((Target.ALPHA, *Target)), rng.randrange(1 << 11)
                cycles.append((*layer(slot, width, target), taken))
                if taken:
                    slots[slot] = target is Target.ALPHA, width
            case "conv":
                fields = rng.randrange(1 << 8), rng.randrange(1 << 12), rng.randrange(1 << 20)
                cycles.append((*conv(slot, *fields), taken))
                alpha, width = slots.get(slot, (False, 0))
                if taken and alpha:
                    expected.append((cycle + 1, *fields, width))
            case "other":
                form, fields = rng.choice((layer(slot, 1, Target.ALPHA), conv(slot, 1, 1, 1)))
                cycles.append((form, {**fields, "opcode": other}))
    assert events(cycles) == expected
    assert len(expected) > 100
