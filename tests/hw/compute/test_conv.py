# amaranth: UnusedElaboratable=no

import numpy as np
import pytest

from hw.isa import Cause, Error, Opcode, Target
from tests.hw.compute.bench import Bench

SHAPES = {
    "encoder":   [(1, 8, 2), (2, 8, 2), (4, 16, 4), (2, 8, 8), (4, 8, 1)],
    "attention": [(1, 8, 2), (1, 16, 8)],
    "decoder":   [(2, 8, 4), (4, 16, 8)],
}
CASES = [(name, *shape) for name, shapes in SHAPES.items() for shape in shapes]


def destinations(name):
    choices = [(Target.ROW, 0), (Target.ONCHIP, 0), (Target.ONCHIP, 1)]
    if name == "decoder":
        choices += [(Target.FEEDBACK, 0), (Target.FEEDBACK, 1)]
    if name == "attention":
        choices += [(Target.ALPHA, 1)]
    return choices


async def run_and_check(bench, ctx, layer, conv):
    causes, error = await bench.run(ctx, Opcode.LAYER, layer)
    assert (causes, error) == ({Cause.FILL_DRAIN: 1}, Error.NONE)
    memory, taps = bench.expect(layer, conv)
    bench.taps.clear()
    causes, error = await bench.run(ctx, Opcode.CONV, conv)
    assert error == Error.NONE
    for port in bench.ports:
        assert np.array_equal(bench.memory[port], memory[port]), f"{port}: {layer} {conv}"
    bench.memory["row"] = memory["row"]
    bench.check_rows(ctx)
    assert sorted(bench.taps) == (sorted(taps) if conv["layer"] else [])
    assert causes[Cause.ISSUE] == bench.steps(layer, conv)
    return causes


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name, pixels, vector, outputs", CASES)
def test_random_rows_match_numpy(name, pixels, vector, outputs, stall):
    bench = Bench(name, pixels=pixels, vector=vector, outputs=outputs, stall=stall, seed=pixels)

    async def rows(ctx):
        for target, packed in destinations(name) * 2:
            layer, conv = bench.draw_layer(target=target, packed=packed)
            causes = await run_and_check(bench, ctx, layer, conv)
            assert set(causes) <= {Cause.ISSUE, Cause.CONFLICT, Cause.BACKPRESSURE,
                                   Cause.FILL_DRAIN}
            per_sum = layer["kernel_h"] * layer["kernel_w"] * layer["vectors"]
            if per_sum >= pixels and (stall == 0 or target == Target.ROW):
                ragged = layer["width_out"] % pixels != 0
                assert (causes.total()
                        == bench.steps(layer, conv) + bench.engine.overhead - ragged)
                assert set(causes) == {Cause.ISSUE, Cause.FILL_DRAIN}

    bench.simulate(rows)
