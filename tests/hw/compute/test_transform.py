# amaranth: UnusedElaboratable=no
"""The transform's identity, its bounds, and both of its blocks against it."""

import itertools
import random

import numpy as np
import pytest

from hw.compute.transform import (
    COLUMNS,
    DOUBLED_STEPS,
    OUTPUTS,
    PIXEL,
    PRODUCT,
    STEPS,
    WEIGHT,
    PixelTransform,
    WeightTransform,
)
from tests.support import simulate


def pixels_of(d):
    """The pixel of each step, of four neighbouring pixels."""
    return [d[0] - d[2], d[1] - d[3], d[1] + d[2], d[2] - d[1]]


def weights_of(g):
    """The weight of each step, of a kernel row."""
    return [g[0], g[2], g[0] + g[1] + g[2], g[0] - g[1] + g[2]]


def twice_outputs(m):
    """Twice y0 and y1, of the products of the four steps."""
    return 2 * m[0] + m[2] + m[3], -2 * m[1] + m[2] - m[3]


def test_every_pair_of_basis_vectors_makes_both_pixels():
    """Both sides are linear in pixels and in weights, so this proves it for all of them."""
    for d, g in itertools.product(np.eye(4, dtype=int), np.eye(3, dtype=int)):
        m = [x * w for x, w in zip(pixels_of(d), weights_of(g), strict=True)]
        assert twice_outputs(m) == (2 * int(d[:3] @ g), 2 * int(d[1:] @ g))


def test_halves_of_both_sums_lose_the_same_bit():
    """Parities depend on the operands' parities alone."""
    for bits in itertools.product((0, 1), repeat=7):
        m = [x * w for x, w in zip(pixels_of(bits[:4]), weights_of(bits[4:]), strict=True)]
        assert m[2] % 2 == m[3] % 2


def test_equal_inner_pixels_need_no_last_step():
    assert DOUBLED_STEPS == STEPS - 1
    assert pixels_of([17, 200, 200, 3])[STEPS - 1] == 0


def test_shapes_hold_every_pixel_weight_and_product():
    """Extremes of linear functions are at corners, and those of products at corners of both."""
    corners = itertools.product(itertools.product((0, 255), repeat=4),
                                itertools.product((-128, 127), repeat=3))
    for d, g in corners:
        for x, w in zip(pixels_of(d), weights_of(g), strict=True):
            for value, shape in ((x, PIXEL), (w, WEIGHT), (x * w, PRODUCT)):
                assert -1 << shape.width - 1 <= value < 1 << shape.width - 1


def turns(rng, count):
    """Steps of ``count`` vectors, doubled or not, steps 2 and 3 waiting now and then."""
    for _ in range(count):
        last = rng.choice((STEPS, DOUBLED_STEPS))
        for step in range(last):
            yield from [(step, False)] * (rng.randint(0, 2) if step >= 2 else 0)
            yield step, True


@pytest.mark.parametrize("pixels, vector", [(1, 8), (2, 8), (4, 2)])
def test_pixels_of_every_step(pixels, vector):
    dut = PixelTransform(pixels=pixels, vector=vector)
    rng = random.Random(pixels)

    async def bench(ctx):
        windows, wanted = [None, None], None
        for step, moves in [*turns(rng, 40), (0, True)]:
            if step == 0:
                row = [[rng.randint(0, 255) for _ in range(vector)]
                       for _ in range(OUTPUTS * pixels + 2)]
                windows = row[:-2], row[2:]
            # In the cycle after step 0 and that after step 1, the second window must be there.
            window = windows[step > 0] if step < 3 else rng.sample(row, len(row))[:-2]
            ctx.set(dut.step, step)
            for port, values in zip(dut.window, window, strict=True):
                ctx.set(port, int.from_bytes(bytes(values), "little"))
            if wanted is not None:
                assert [[ctx.get(x) for x in lane] for lane in dut.x] == wanted
            wanted = None
            if moves:
                tiles  = [row[OUTPUTS * p:][:4] for p in range(pixels)]
                wanted = [[pixels_of([d[c] for d in tile])[step] for c in range(vector)]
                          for tile in tiles]
            await ctx.tick()

    simulate(dut, bench)


@pytest.mark.parametrize("outputs, vector", [(1, 8), (4, 2)])
def test_weights_of_every_step(outputs, vector):
    dut = WeightTransform(outputs=outputs, vector=vector)
    rng = random.Random(outputs)

    async def bench(ctx):
        for step, moves in turns(rng, 40):
            if step == 0:
                kernel = [[[rng.choice((-128, 127, rng.randint(-128, 127))) for _ in range(vector)]
                           for _ in range(outputs)] for _ in range(3)]
            ctx.set(dut.step, step)
            word = kernel[COLUMNS[min(step, 2)]]
            for lane, values in zip(dut.word, word, strict=True):
                for port, value in zip(lane, values, strict=True):
                    ctx.set(port, value)
            if moves:
                assert [[ctx.get(w) for w in lane] for lane in dut.w] == [
                    [weights_of([row[o][c] for row in kernel])[step] for c in range(vector)]
                    for o in range(outputs)]
            await ctx.tick()

    simulate(dut, bench)
