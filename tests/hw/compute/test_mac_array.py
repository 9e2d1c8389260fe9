# amaranth: UnusedElaboratable=no
import re

import numpy as np
import pytest

from hw.compute.mac_array import MacArray, tree_stages
from tests.support import simulate


def run(dut, steps):
    """Feed ``(valid, first, last, x, w)`` per cycle; returns ``{cycle: acc}`` where ``done``."""
    results = {}

    async def bench(ctx):
        for cycle in range(len(steps) + dut.latency + 1):
            if ctx.get(dut.done):
                results[cycle] = [[ctx.get(value) for value in row] for row in dut.acc]
            valid, first, last, x, w = steps[min(cycle, len(steps) - 1)]
            ctx.set(dut.valid, valid and cycle < len(steps))
            ctx.set(dut.first, first)
            ctx.set(dut.last, last)
            for port, values in ((dut.x, x), (dut.w, w)):
                for row, row_values in zip(port, values, strict=True):
                    for target, value in zip(row, row_values, strict=True):
                        ctx.set(target, int(value))
            await ctx.tick()

    simulate(dut, bench)
    return results


def test_extreme_operands_are_exact():
    dut = MacArray(pixels=1, vector=8, outputs=2)
    x, w = [[255] * 8], [[-128] * 8, [127] * 8]
    steps = [(1, at == 0, at == 2, x, w) for at in range(3)]
    assert run(dut, steps) == {2 + dut.latency: [[-255 * 128 * 24, 255 * 127 * 24]]}


@pytest.mark.parametrize("pixels, vector, outputs", [(1, 8, 1), (2, 8, 4), (2, 16, 2), (1, 32, 1)])
def test_random_sums_with_idle_cycles(pixels, vector, outputs):
    rng = np.random.default_rng(vector)
    dut = MacArray(pixels=pixels, vector=vector, outputs=outputs)
    steps, expected = [], {}
    for length in (1, 1, 2, 3, 7, 1, 4):
        total = np.zeros((pixels, outputs), int)
        for at in range(length):
            for valid in (0,) * rng.integers(0, 3) + (1,):
                x = rng.integers(0, 256, (pixels, vector))
                w = rng.integers(-128, 128, (outputs, vector))
                steps.append((valid, at == 0, at == length - 1, x, w))
            total += x @ w.T
        expected[len(steps) - 1 + dut.latency] = total.tolist()
    assert run(dut, steps) == expected


@pytest.mark.parametrize("vector, stages", [(1, 0), (2, 0), (4, 1), (8, 1), (16, 2), (32, 2)])
def test_tree_leaves_at_most_two_sums(vector, stages):
    assert tree_stages(vector) == stages
    assert MacArray(pixels=1, vector=vector, outputs=1).latency == 3 + stages


@pytest.mark.parametrize("name", ["pixels", "vector", "outputs"])
def test_sizes_must_be_positive(name):
    sizes = {"pixels": 1, "vector": 8, "outputs": 1, name: 0}
    with pytest.raises(ValueError, match="^" + re.escape(
            f"MAC array {name} must be positive, not 0") + "$"):
        MacArray(**sizes)
