# amaranth: UnusedElaboratable=no
import re

import numpy as np
import pytest

from hw.compute.mac_array import MacArray, tree_stages
from tests.support import simulate


def run(dut, steps, depthwise=False):
    """Feed ``(valid, first, last, x, w)`` per cycle; returns ``{cycle: sums}`` where ``done``."""
    results = {}

    async def bench(ctx):
        ctx.set(dut.depthwise, depthwise)
        for cycle in range(len(steps) + dut.latency + 1):
            if ctx.get(dut.done):
                results[cycle] = [[ctx.get(value) for value in row]
                                  for row in (dut.depthwise_acc if depthwise else dut.acc)]
            valid, first, last, x, w = steps[min(cycle, len(steps) - 1)]
            ctx.set(dut.valid, valid and cycle < len(steps))
            ctx.set(dut.first, first)
            ctx.set(dut.last, last)
            for pixel, columns in zip(dut.x, x, strict=True):
                for column, values in zip(pixel, columns, strict=True):
                    for target, value in zip(column, values, strict=True):
                        ctx.set(target, int(value))
            for row, values in zip(dut.w, w, strict=True):
                for target, value in zip(row, values, strict=True):
                    ctx.set(target, int(value))
            await ctx.tick()

    simulate(dut, bench)
    return results


def test_extreme_operands_are_exact():
    dut = MacArray(pixels=1, vector=8, outputs=2, taps=1)
    x, w = [[[255] * 8]], [[-128] * 8, [127] * 8]
    steps = [(1, at == 0, at == 2, x, w) for at in range(3)]
    assert run(dut, steps) == {2 + dut.latency: [[-255 * 128 * 24, 255 * 127 * 24]]}


def test_extreme_depthwise_operands_are_exact():
    dut = MacArray(pixels=1, vector=2, outputs=4, taps=3)
    x, w = [[[255] * 2] * 3], [[-128, 127]] * 3 + [[99, 99]]
    steps = [(1, at == 0, at == 6, x, w) for at in range(7)]
    assert run(dut, steps, depthwise=True) == {
        6 + dut.depthwise_latency: [[-255 * 128 * 21, 255 * 127 * 21]]}


def random_steps(rng, dut, total):
    """Sums of random operands with idle cycles between; their steps, and ``{last step: sum}``."""
    steps, expected = [], {}
    for length in (1, 1, 2, 3, 7, 1, 4):
        sums = 0
        for at in range(length):
            for valid in (0,) * rng.integers(0, 3) + (1,):
                x = rng.integers(0, 256, (dut.pixels, dut.taps, dut.vector))
                w = rng.integers(-128, 128, (dut.outputs, dut.vector))
                steps.append((valid, at == 0, at == length - 1, x, w))
            sums = sums + total(x, w)
        expected[len(steps) - 1] = sums.tolist()
    return steps, expected


SHAPES = [(1, 8, 1, 1), (2, 8, 4, 3), (2, 16, 2, 2), (1, 32, 1, 1), (2, 8, 4, 2)]


@pytest.mark.parametrize("pixels, vector, outputs, taps", SHAPES)
def test_random_sums_with_idle_cycles(pixels, vector, outputs, taps):
    dut = MacArray(pixels=pixels, vector=vector, outputs=outputs, taps=taps)

    def total(x, w):
        """Columns without pixels of their own take those of column 0."""
        own = [min(o, taps) % taps for o in range(outputs)]
        return np.einsum("poc,oc->po", x[:, own], w)

    steps, expected = random_steps(np.random.default_rng(vector), dut, total)
    assert run(dut, steps) == {last + dut.latency: sums for last, sums in expected.items()}


@pytest.mark.parametrize("pixels, vector, outputs, taps", SHAPES)
def test_random_depthwise_sums_with_idle_cycles(pixels, vector, outputs, taps):
    dut = MacArray(pixels=pixels, vector=vector, outputs=outputs, taps=taps)
    steps, expected = random_steps(np.random.default_rng(vector), dut,
                                   lambda x, w: np.einsum("poc,oc->pc", x, w[:taps]))
    assert run(dut, steps, depthwise=True) == {
        last + dut.depthwise_latency: sums for last, sums in expected.items()}


@pytest.mark.parametrize("vector", [1, 8, 16])
def test_transformed_steps_make_two_pixels(vector):
    """Sums of random pixels over several vectors, one of them doubled, with idle cycles between."""
    pixels, outputs, rng = 2, 2, np.random.default_rng(vector)
    dut     = MacArray(pixels=pixels, vector=vector, outputs=outputs, taps=2, transform=True)
    results = []

    async def bench(ctx):
        async def tick():
            await ctx.tick()
            if ctx.get(dut.done):
                results.append([[ctx.get(value) for value in row]
                                for port in (dut.acc, dut.odd_acc) for row in port])

        for _ in range(5):
            vectors = int(rng.integers(1, 4))
            d = rng.integers(0, 256, (vectors, 4, pixels, vector))
            g = rng.integers(-128, 128, (vectors, 3, outputs, vector))
            d[0, 2] = d[0, 1]
            g[-1, :, 0], d[-1, 1:3, 0] = -128, 255
            y = [np.einsum("vkpc,vkoc->po", d[:, at:at + 3], g) for at in (0, 1)]
            wanted.append(np.concatenate(y).tolist())
            for v in range(vectors):
                x = d[v, 0] - d[v, 2], d[v, 1] - d[v, 3], d[v, 1] + d[v, 2], d[v, 2] - d[v, 1]
                w = g[v, 0], g[v, 2], g[v].sum(axis=0), g[v, 0] - g[v, 1] + g[v, 2]
                for step in range(4 if v else 3):
                    ctx.set(dut.step, step)
                    ctx.set(dut.first, v == 0 and step == 0)
                    ctx.set(dut.last, v == vectors - 1 and step == (3 if v else 2))
                    for lane, values in zip(dut.x, x[step], strict=True):
                        for column in lane:
                            for port, value in zip(column, values, strict=True):
                                ctx.set(port, int(value))
                    for lane, values in zip(dut.w, w[step], strict=True):
                        for port, value in zip(lane, values, strict=True):
                            ctx.set(port, int(value))
                    for valid in (0,) * rng.integers(0, 2) + (1,):
                        ctx.set(dut.valid, valid)
                        await tick()
        ctx.set(dut.valid, 0)
        for _ in range(dut.latency):
            await tick()

    wanted = []
    simulate(dut, bench)
    assert results == wanted


@pytest.mark.parametrize("vector, stages", [(1, 0), (2, 0), (4, 1), (8, 1), (16, 2), (32, 2)])
def test_tree_leaves_at_most_two_sums(vector, stages):
    assert tree_stages(vector) == stages
    assert MacArray(pixels=1, vector=vector, outputs=1, taps=1).latency == 3 + stages


@pytest.mark.parametrize("name", ["pixels", "vector", "outputs"])
def test_sizes_must_be_positive(name):
    sizes = {"pixels": 1, "vector": 8, "outputs": 1, "taps": 1, name: 0}
    with pytest.raises(ValueError, match="^" + re.escape(
            f"MAC array {name} must be positive, not 0") + "$"):
        MacArray(**sizes)


@pytest.mark.parametrize("outputs, taps, most", [(2, 3, 2), (8, 4, 3), (4, 0, 3)])
def test_taps_are_columns_of_the_array(outputs, taps, most):
    with pytest.raises(ValueError, match=f"^MAC array taps must be 1 to {most}, not {taps}$"):
        MacArray(pixels=1, vector=8, outputs=outputs, taps=taps)
