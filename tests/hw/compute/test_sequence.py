# amaranth: UnusedElaboratable=no
import random

import pytest

from hw.compute.sequence import StepSequencer
from hw.config import UnitConfig
from tests.support import simulate

LAYER = {"vectors": 2, "kernel_h": 2, "kernel_w": 3, "pad_left": 1, "width_in": 5, "width_out": 5,
         "stride2": 0, "depthwise": 0, "clamp": 0, "transformed": 0, "doubled": 0}
CONV  = {"groups": 2, "weight_base": 7,
         "rows": [{"valid": 1, "base": 20}, {"valid": 0, "base": 0}, {"valid": 1, "base": 4}]}
NONE  = [{"valid": 0, "base": 0}] * 4


def make(*, pixels=2, outputs=2, row_words=64, weight_words=64, transform=False):
    return StepSequencer(unit=UnitConfig(pixels=pixels, outputs=outputs, drain=outputs, params=4,
                                         row_words=row_words, weight_words=weight_words,
                                         transform=transform))


def place(unit, layer, row, x, vec):
    """Bank and address of a pixel's vector."""
    return x % unit.banks, row["base"] + x // unit.banks * layer["vectors"] + vec


def expected(unit, layer, conv, more_rows):
    """Per step: first, last, weight address, and for each pixel of the window that a lane takes,
    where it is read, or None for padding."""
    stride = 1 + layer["stride2"]
    taps   = unit.depthwise_taps(stride) if layer["depthwise"] else 1
    for block in range(-(-layer["width_out"] // unit.pixels)):
        weight = conv["weight_base"]
        for group in range(conv["groups"]):
            vectors = [group] if layer["depthwise"] else range(layer["vectors"])
            turns = [(ky, kx, vec) for ky in range(layer["kernel_h"])
                     for kx in range(0, layer["kernel_w"], taps) for vec in vectors]
            for turn in turns:
                ky, kx, vec = turn
                row   = [*conv["rows"], *more_rows][ky]
                reads = {}
                for pixel in {lane * stride + tap for lane in range(unit.pixels)
                              for tap in range(taps)}:
                    x = block * unit.pixels * stride + kx - layer["pad_left"] + pixel
                    if row["valid"] and layer["clamp"]:
                        x = min(max(x, 0), layer["width_in"] - 1)
                    exists = row["valid"] and 0 <= x < layer["width_in"]
                    reads[pixel] = place(unit, layer, row, x, vec) if exists else None
                yield turn == turns[0], turn == turns[-1], weight, reads
                weight += 1


def run(dut, layer, conv, more_rows=NONE, *, stall=0.0, seed=0):
    """Steps as ``expected`` gives them, the number of cycles with ``busy``, and whether one was
    bad."""
    steps, cycles, bad = [], [0], [False]
    chance = random.Random(seed)
    unit   = dut.unit
    stride = 1 + layer["stride2"]
    taps   = unit.depthwise_taps(stride) if layer["depthwise"] else 1
    last   = (layer["width_in"] - 1) % unit.banks

    def source(ctx, pixel):
        """Bank and address that give pixel ``pixel`` of the window, as the engine selects them."""
        bank = (ctx.get(dut.rotation) + pixel) % unit.banks
        if not ctx.get(dut.inside) >> bank & 1:
            if not (ctx.get(dut.exists) and layer["clamp"]):
                return None
            bank = 0 if ctx.get(dut.left) >> bank & 1 else last
        return bank, ctx.get(dut.row_address[bank])

    async def bench(ctx):
        ctx.set(dut.layer, layer)
        ctx.set(dut.conv, conv)
        ctx.set(dut.more_rows, more_rows)
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
                steps.append((bool(ctx.get(dut.first)), bool(ctx.get(dut.last)),
                              ctx.get(dut.weight_address),
                              {lane * stride + tap: source(ctx, lane * stride + tap)
                               for lane in range(unit.pixels) for tap in range(taps)}))
        await ctx.tick()
        bad[0] |= bool(ctx.get(dut.bad))

    simulate(dut, bench)
    return steps, cycles[0], bad[0]


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("pad_left", range(7))
@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_steps_follow_the_loop_nest(pixels, pad_left, stall):
    for stride2 in (0, 1):
        layer  = {**LAYER, "pad_left": pad_left, "stride2": stride2}
        dut    = make(pixels=pixels)
        wanted = list(expected(dut.unit, layer, CONV, NONE))
        steps, cycles, bad = run(dut, layer, CONV, stall=stall, seed=pad_left)
        assert steps == wanted
        assert cycles == len(wanted) if stall == 0 else cycles > len(wanted)
        assert not bad


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4), (7, 7), (5, 2)])
@pytest.mark.parametrize("stride2", [0, 1])
@pytest.mark.parametrize("pixels, outputs", [(1, 1), (1, 8), (2, 2), (2, 4), (4, 4), (4, 1)])
def test_depthwise_steps_take_several_kernel_columns(pixels, outputs, stride2, kernel):
    layer = {**LAYER, "depthwise": 1, "stride2": stride2, "kernel_h": kernel[0],
             "kernel_w": kernel[1], "pad_left": kernel[1] // 2, "vectors": 3}
    more_rows = [{"valid": number != 1, "base": 3 * number} for number in range(4)]
    dut    = make(pixels=pixels, outputs=outputs, weight_words=256)
    wanted = list(expected(dut.unit, layer, CONV, more_rows))
    steps, cycles, bad = run(dut, layer, CONV, more_rows)
    assert steps == wanted
    assert cycles == len(wanted)
    assert not bad


@pytest.mark.parametrize("width", range(1, 10))
@pytest.mark.parametrize("pixels, outputs", [(1, 1), (1, 4), (2, 2), (4, 4)])
def test_clamped_windows_see_the_first_and_last_pixel(pixels, outputs, width):
    layer = {**LAYER, "clamp": 1, "width_in": width, "width_out": width}
    dut   = make(pixels=pixels, outputs=outputs)
    for depthwise, columns, pad_left in ((0, 3, 1), (1, 2, 0), (1, 2, 1)):
        fields = {**layer, "depthwise": depthwise, "kernel_w": columns, "pad_left": pad_left}
        assert run(dut, fields, CONV)[0] == list(expected(dut.unit, fields, CONV, NONE))
        dut = make(pixels=pixels, outputs=outputs)


def expected_transformed(unit, layer, conv):
    """Per step: first, last, its number, weight address, and where each pixel of its window is
    read, or None for padding; step 3 reads no window."""
    pixels = 2 * unit.pixels
    for block in range(-(-layer["width_out"] // pixels)):
        for group in range(conv["groups"]):
            weight = conv["weight_base"] + group * layer["kernel_h"] * layer["vectors"] * 3
            turns  = [(ky, vec, step) for ky in range(layer["kernel_h"])
                      for vec in range(layer["vectors"])
                      for step in range(3 if vec < layer["doubled"] else 4)]
            for turn in turns:
                ky, vec, step = turn
                row   = conv["rows"][ky]
                reads = {}
                for pixel in range(pixels):
                    x = block * pixels - layer["pad_left"] + pixel + (2 if step else 0)
                    exists = row["valid"] and 0 <= x < layer["width_in"]
                    reads[pixel] = place(unit, layer, row, x, vec) if exists else None
                if step == 0:
                    at = weight
                    weight += 3
                yield turn == turns[0], turn == turns[-1], step, at + min(step, 2), (
                    reads if step < 3 else None)


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("doubled", [0, 1, 2])
@pytest.mark.parametrize("pad_left", range(4))
@pytest.mark.parametrize("pixels, outputs", [(1, 2), (1, 8), (2, 2), (4, 4)])
def test_transformed_vectors_have_two_windows_and_three_weights(pixels, outputs, pad_left, doubled,
                                                                stall):
    layer  = {**LAYER, "pad_left": pad_left, "transformed": 1, "doubled": doubled,
              "width_in": 11, "width_out": 13 - pad_left}
    dut    = make(pixels=pixels, outputs=outputs, transform=True)
    chance = random.Random(pad_left)
    steps, cycles = [], 0

    def window(ctx):
        for pixel in range(2 * pixels):
            bank = (ctx.get(dut.rotation) + pixel) % dut.unit.banks
            yield pixel, ((bank, ctx.get(dut.row_address[bank]))
                          if ctx.get(dut.inside) >> bank & 1 else None)

    async def bench(ctx):
        nonlocal cycles
        ctx.set(dut.layer, layer)
        ctx.set(dut.conv, CONV)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        while ctx.get(dut.busy) or ctx.get(dut.valid):
            ctx.set(dut.room, chance.random() >= stall)
            cycles += ctx.get(dut.busy)
            await ctx.tick()
            found = (bool(ctx.get(dut.first)), bool(ctx.get(dut.last)), ctx.get(dut.step),
                     ctx.get(dut.weight_address), dict(window(ctx)) if ctx.get(dut.step) < 3
                     else None)
            if ctx.get(dut.valid):
                steps.append(found)
            elif ctx.get(dut.busy):     # a step that waits shows what it will
                assert found == wanted[len(steps)]

    wanted = list(expected_transformed(dut.unit, layer, CONV))
    simulate(dut, bench)
    assert steps == wanted
    assert cycles == len(wanted) if stall == 0 else cycles > len(wanted)


@pytest.mark.parametrize("fields, bad", [
    ({"weight_base": 40}, False),
    ({"weight_base": 41}, True),
    ({"rows": [{"valid": 1, "base": 60}, {}, {}]}, False),
    ({"rows": [{"valid": 1, "base": 61}, {}, {}]}, True),
    ({"rows": [{"valid": 0, "base": 1000}, {}, {}]}, False),
    ({"weight_base": 1 << 14}, True),
    ({"weight_base": 1 << 15}, True),
    ({"rows": [{"valid": 1, "base": 1 << 14}, {}, {}]}, True),
])
def test_bad_only_past_the_end(fields, bad):
    assert run(make(), LAYER, {**CONV, **fields})[2] == bad
