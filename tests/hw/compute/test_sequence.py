# amaranth: UnusedElaboratable=no
import random
import re

import pytest

from hw.compute.sequence import StepSequencer
from tests.support import simulate

LAYER = {"vectors": 2, "kernel_h": 2, "kernel_w": 3, "pad_left": 1, "width_in": 5, "width_out": 5}
CONV  = {"groups": 2, "weight_base": 7,
         "rows": [{"valid": 1, "base": 20}, {"valid": 0, "base": 0}, {}]}


def expected(pixels, layer, conv):
    """Per step: first, last, weight address, and each lane's row address or None for padding."""
    for block in range(-(-layer["width_out"] // pixels)):
        weight = conv["weight_base"]
        for _ in range(conv["groups"]):
            turns = [(ky, kx, vec) for ky in range(layer["kernel_h"])
                     for kx in range(layer["kernel_w"]) for vec in range(layer["vectors"])]
            for turn in turns:
                ky, kx, vec = turn
                lanes = []
                for lane in range(pixels):
                    x = (block * pixels + lane) * (1 + layer.get("stride2", 0)) + kx \
                        - layer["pad_left"]
                    row = conv["rows"][ky]
                    lanes.append((x % pixels, row["base"] + x // pixels * layer["vectors"] + vec)
                                 if row["valid"] and 0 <= x < layer["width_in"] else None)
                yield turn == turns[0], turn == turns[-1], weight, lanes
                weight += 1


def run(dut, layer, conv, *, stall=0.0, seed=0):
    """Steps as ``expected`` gives them, and the number of cycles with ``busy``."""
    steps, cycles, bad = [], [0], [False]
    chance = random.Random(seed)

    async def bench(ctx):
        ctx.set(dut.layer, layer)
        ctx.set(dut.conv, conv)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        while ctx.get(dut.busy) or ctx.get(dut.valid):
            ctx.set(dut.room, chance.random() >= stall)
            assert ctx.get(dut.completes) <= ctx.get(dut.room)
            cycles[0] += ctx.get(dut.busy)
            await ctx.tick()
            bad[0] |= bool(ctx.get(dut.bad))
            if ctx.get(dut.valid):
                banks = [(ctx.get(dut.rotation) + lane) % dut.pixels for lane in range(dut.pixels)]
                steps.append((bool(ctx.get(dut.first)), bool(ctx.get(dut.last)),
                              ctx.get(dut.weight_address),
                              [(bank, ctx.get(dut.row_address[bank]))
                               if ctx.get(dut.inside) >> bank & 1 else None for bank in banks]))
        await ctx.tick()
        bad[0] |= bool(ctx.get(dut.bad))

    simulate(dut, bench)
    return steps, cycles[0], bad[0]


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("pad_left", [0, 1, 2, 3])
@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_steps_follow_the_loop_nest(pixels, pad_left, stall):
    dut = StepSequencer(pixels=pixels, row_words=64, weight_words=64)
    layer = {**LAYER, "pad_left": pad_left, "stride2": int(pixels == 1)}
    wanted = list(expected(pixels, layer, CONV))
    steps, cycles, bad = run(dut, layer, CONV, stall=stall, seed=pad_left)
    assert steps == wanted
    assert cycles == len(wanted) if stall == 0 else cycles > len(wanted)
    assert not bad


@pytest.mark.parametrize("fields, bad", [
    ({"weight_base": 40}, False),
    ({"weight_base": 41}, True),
    ({"rows": [{"valid": 1, "base": 58}, {}, {}]}, False),
    ({"rows": [{"valid": 1, "base": 59}, {}, {}]}, True),
    ({"rows": [{"valid": 0, "base": 1000}, {}, {}]}, False),
])
def test_bad_only_past_the_end(fields, bad):
    dut = StepSequencer(pixels=2, row_words=64, weight_words=64)
    assert run(dut, LAYER, {**CONV, **fields})[2] == bad


@pytest.mark.parametrize("pixels", [0, 3])
def test_pixels_must_be_a_power_of_two(pixels):
    with pytest.raises(ValueError, match="^" + re.escape(
            f"Sequencer pixels must be a power of two, not {pixels}") + "$"):
        StepSequencer(pixels=pixels, row_words=64, weight_words=64)


@pytest.mark.parametrize("name", ["row_words", "weight_words"])
def test_depths_must_be_positive(name):
    with pytest.raises(ValueError, match=f"^Sequencer {name} must be positive, not 0$"):
        StepSequencer(**{"pixels": 1, "row_words": 64, "weight_words": 64, name: 0})
