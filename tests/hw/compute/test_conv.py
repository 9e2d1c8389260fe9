# amaranth: UnusedElaboratable=no

import re

import numpy as np
import pytest

from hw.compute.conv import ConvEngine
from hw.config import TINY
from hw.isa import Cause, Error, LoadTarget, Opcode, Requant, Target
from tests.hw.compute.bench import Bench

SHAPES = {                 # pixels, vector, outputs, drain
    "encoder":   [(1, 8, 2, 2), (2, 8, 2, 8), (4, 16, 4, 16), (2, 8, 8, 8), (4, 8, 1, 1)],
    "attention": [(1, 8, 2, 4), (1, 16, 8, 8), (2, 8, 2, 2)],
    "decoder":   [(2, 8, 4, 8), (4, 16, 8, 16)],
}
CASES = [(name, *shape) for name, shapes in SHAPES.items() for shape in shapes]


def destinations(name):
    choices = [(Target.ROW, 0), (Target.ONCHIP, 0), (Target.ONCHIP, 1)]
    if name == "decoder":
        choices += [(Target.FEEDBACK, 0), (Target.FEEDBACK, 1)]
    if name == "attention":
        choices += [(Target.ALPHA, 1)]
    return choices


async def run_and_check(bench, ctx, layer, conv, more_rows=None):
    causes, error = await bench.run(ctx, Opcode.LAYER, layer)
    assert (causes, error) == ({Cause.FILL_DRAIN: 1}, Error.NONE)
    if more_rows is not None:
        bench.more_rows = more_rows
        causes, error = await bench.run(ctx, Opcode.ROWS, {"rows": more_rows})
        assert (causes, error) == ({Cause.FILL_DRAIN: 1}, Error.NONE)
    if layer["depthwise"]:
        bench.zero_unused(ctx, layer, conv)
    bench.double(ctx, layer, conv)
    memory, taps = bench.expect(layer, conv)
    bench.taps.clear()
    bench.landed.clear()
    causes, error = await bench.run(ctx, Opcode.CONV, conv)
    assert error == Error.NONE
    for port in bench.ports:
        assert np.array_equal(bench.memory[port], memory[port]), f"{port}: {layer} {conv}"
    gathers = bench.unit.gather and not layer["depthwise"]
    if layer["packed"] or gathers and layer["target"] != Target.ROW:
        assert set(bench.landed.values()) == {1}, "a word is written once"
    bench.memory["row"] = memory["row"]
    bench.check_rows(ctx)
    assert sorted(bench.taps) == (sorted(taps) if conv["layer"] else [])
    assert causes[Cause.ISSUE] == bench.steps(layer, conv)
    return causes


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name, pixels, vector, outputs, drain", CASES)
def test_random_rows_match_numpy(name, pixels, vector, outputs, drain, stall):
    bench = Bench(name, pixels=pixels, vector=vector, outputs=outputs, drain=drain, stall=stall,
                  seed=pixels)
    bench.simulate(random_rows(bench, [{}, {"depthwise": 1}, {"depthwise": 1}]))


@pytest.mark.parametrize("name, pixels, outputs, drain, stall", [
    ("encoder", 1, 2, 4, 0.0), ("encoder", 4, 1, 1, 0.0), ("encoder", 4, 1, 1, 0.5),
    ("attention", 1, 8, 8, 0.5), ("decoder", 2, 4, 8, 0.0), ("decoder", 2, 4, 8, 0.5)])
def test_random_rows_with_and_without_transform_match_numpy(name, pixels, outputs, drain, stall):
    bench = Bench(name, pixels=pixels, outputs=outputs, drain=drain, stall=stall, seed=outputs,
                  transform=True)
    bench.simulate(random_rows(bench, [{"transformed": 1}, {}, {"depthwise": 1},
                                       {"transformed": 1}]))


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("name, pixels, vector, outputs, drain", [
    ("encoder", 4, 16, 4, 16), ("encoder", 1, 8, 1, 2), ("attention", 1, 8, 2, 4),
    ("attention", 2, 8, 8, 8), ("decoder", 2, 8, 4, 8), ("decoder", 4, 8, 2, 2)])
def test_gathered_words_are_written_once(name, pixels, vector, outputs, drain, transform, stall):
    bench = Bench(name, pixels=pixels, vector=vector, outputs=outputs, drain=drain, stall=stall,
                  seed=outputs, transform=transform, gather=True)
    kinds = [{}, {"depthwise": 1}, {}, *([{"transformed": 1}] * 2 if transform else [])]
    bench.simulate(random_rows(bench, kinds))


@pytest.mark.parametrize("name, pixels, outputs, drain, stall", [
    ("encoder", 2, 2, 8, 0.0), ("encoder", 2, 2, 8, 0.5), ("decoder", 2, 4, 4, 0.5)])
def test_channels_have_bounds_of_their_own(name, pixels, outputs, drain, stall):
    """They reach the right lane in every order of draining: dense, depthwise and in pairs."""
    bench = Bench(name, pixels=pixels, outputs=outputs, drain=drain, stall=stall, seed=drain,
                  transform=True, bounds=True)
    bench.simulate(random_rows(bench, [{}, {"depthwise": 1}, {"transformed": 1}]))


def random_rows(bench, kinds):
    """A testbench: rows of layers of all ``kinds`` for every destination."""
    async def rows(ctx):
        for target, packed in destinations(bench.engine.name):
            for kind in kinds:
                if packed and kind.get("depthwise"):
                    continue
                layer, conv, more_rows = bench.draw_layer(target=target, packed=packed, **kind)
                causes = await run_and_check(bench, ctx, layer, conv, more_rows)
                assert set(causes) <= {Cause.ISSUE, Cause.CONFLICT, Cause.BACKPRESSURE,
                                       Cause.FILL_DRAIN}
                if bench.stall == 0 or target == Target.ROW:
                    assert causes.total() == bench.cycles(layer, conv), f"{layer} {conv}"
                    assert Cause.CONFLICT not in causes

    return rows


def layer_of(**fields):
    """A 3x2 convolution of five pixels, one vector each."""
    return {"slot": 5, "vectors": 1, "kernel_h": 2, "kernel_w": 3, "pad_left": 1, "width_in": 5,
            "width_out": 5, "zero_in": 9, "zero_out": 3, "low": 0, "high": 255,
            "target": Target.ONCHIP, "out_stride": 1, "stride2": 0, "packed": 0, "table": 0,
            "depthwise": 0, "spread": 0, "odd": 0, "clamp": 0, "transformed": 0, "doubled": 0,
            **fields}


def conv_of(**fields):
    return {"slot": 5, "layer": 7, "row": 2, "groups": 1, "alpha_base": 0, "weight_base": 0,
            "param_base": 0, "out_base": 0, "first": 0, "column": 0,
            "rows": [{"valid": 1, "base": base} for base in (0, 8, 16)], **fields}


def test_short_sums_wait_for_the_drain():
    bench = Bench("encoder", pixels=4, vector=8, outputs=2)
    layer = layer_of(kernel_h=1, kernel_w=1, pad_left=0, width_in=13, width_out=13)
    conv  = conv_of(groups=4)

    async def row(ctx):
        causes = await run_and_check(bench, ctx, layer, conv)
        # 16 sums of one step each drain for four cycles.
        assert causes[Cause.BACKPRESSURE] == 15 * 3
        assert causes.total() == 16 + 45 + bench.engine.overhead - 1

    bench.simulate(row)


def test_sums_as_long_as_their_drain_never_wait():
    bench = Bench("encoder", pixels=4, vector=8, outputs=2, row_words=64)
    layer = layer_of(vectors=4, kernel_h=1, kernel_w=1, pad_left=0, width_in=32, width_out=32)
    conv  = conv_of(groups=4)

    async def row(ctx):
        causes = await run_and_check(bench, ctx, layer, conv)
        assert causes == {Cause.ISSUE: 128, Cause.FILL_DRAIN: bench.engine.overhead}

    bench.simulate(row)


@pytest.mark.parametrize("doubled, steps", [(0, 4), (1, 3)])
def test_short_transformed_sums_wait_for_twice_the_pixels(doubled, steps):
    bench = Bench("encoder", pixels=4, vector=8, outputs=2, transform=True)
    layer = layer_of(kernel_h=1, width_in=14, width_out=13, transformed=1, doubled=doubled)

    async def row(ctx):
        causes = await run_and_check(bench, ctx, layer, conv_of(groups=4))
        # Two groups of eight pixels are 8 sums, which drain for eight cycles each.
        assert causes[Cause.BACKPRESSURE] == 7 * (8 - steps)
        assert causes.total() == 8 * steps + 7 * (8 - steps) + bench.engine.transform_overhead - 1

    bench.simulate(row)


@pytest.mark.parametrize("name, transform, gather", [
    ("encoder", False, False), ("attention", True, False), ("decoder", True, True)])
def test_a_pipelined_machine_keeps_a_refused_word_beside_the_next_one(name, transform, gather):
    """The array is told a word later, and no word is lost or written twice."""
    bench = Bench(name, pixels=2, outputs=2, drain=4, stall=0.6, seed=7, transform=transform,
                  gather=gather, pipelined=True)
    bench.simulate(random_rows(bench, [{"transformed": int(transform)}, {}, {"depthwise": 1}]))


def test_a_memory_that_refuses_is_a_conflict():
    bench = Bench("encoder", pixels=1, vector=8, outputs=2, stall=0.9)
    layer = layer_of(kernel_h=1, kernel_w=1, pad_left=0, width_in=13, width_out=13)

    async def row(ctx):
        causes = await run_and_check(bench, ctx, layer, conv_of(groups=4))
        assert causes[Cause.CONFLICT] > 100

    bench.simulate(row)


def test_add_is_a_convolution_of_two_rows():
    bench = Bench("attention", pixels=1, vector=8, outputs=2)
    bench.weights[:2] = 0
    bench.weights[0, 0, 3] = bench.weights[1, 0, 3] = 1
    bench.params[0][0] = (0, 1, 1)
    layer = layer_of(kernel_w=1, pad_left=0)

    async def row(ctx):
        a, b = (np.array([bench.pixel(base, 1, x)[3] for x in range(5)]) for base in (0, 8))
        await run_and_check(bench, ctx, layer, conv_of())
        assert (bench.memory["onchip"][:5, 0] == np.minimum((a + b + 1) // 2 + 3, 255)).all()

    bench.simulate(row)


@pytest.mark.parametrize("layer, conv", [
    ({"out_stride": 3}, {"first": 1020, "groups": 8}),
    ({"spread": 1, "odd": 1, "out_stride": 100}, {"out_base": 50})], ids=["channels", "stride"])
def test_the_highest_bits_of_an_address(layer, conv):
    bench = Bench("encoder")

    async def row(ctx):
        await run_and_check(bench, ctx, layer_of(**layer), conv_of(**conv))

    bench.simulate(row)


def test_loads_reach_weights_parameters_and_table():
    bench = Bench("decoder", pixels=2, vector=8, outputs=4)
    layer = layer_of(table=1)
    conv  = conv_of(weight_base=20, param_base=3, groups=2)

    async def rows(ctx):
        weights = bench.draw(12 * 4, 8)
        bench.weights[20:32] = weights.reshape(12, 4, 8).view(np.int8)
        await bench.load(ctx, LoadTarget.WEIGHTS, 20,
                         [int.from_bytes(beat.tobytes(), "little") for beat in weights])
        for word in (3, 4):
            bench.params[word] = [bench.draw_params() for _ in range(4)]
        await bench.load(ctx, LoadTarget.PARAMS, 3, [
            Requant.const({"bias": bias, "multiplier": multiplier, "shift": shift}).as_bits()
            for word in (3, 4) for bias, multiplier, shift in bench.params[word]])
        bench.table = bench.draw(256)
        await bench.load(ctx, LoadTarget.TABLE, 0, [
            int.from_bytes(part.tobytes(), "little") for part in bench.table.reshape(32, 8)])
        # For somebody else, or past the end: nothing changes.
        await bench.load(ctx, LoadTarget.GATE_PARAMS, 3, [0, 0, 0, 0])
        await bench.load(ctx, LoadTarget.WEIGHTS, 256, [0] * 4)
        await bench.load(ctx, LoadTarget.PARAMS, 64, [0] * 4)
        await run_and_check(bench, ctx, layer, conv)

    bench.simulate(rows)


IMPOSSIBLE = {
    "no_vectors":       ("encoder", {"vectors": 0}),
    "no_kernel_rows":   ("encoder", {"kernel_h": 0}),
    "no_kernel_column": ("encoder", {"kernel_w": 0}),
    "no_input":         ("encoder", {"width_in": 0}),
    "no_output":        ("encoder", {"width_out": 0}),
    "no_feedback":      ("encoder", {"target": Target.FEEDBACK}),
    "no_alpha":         ("decoder", {"target": Target.ALPHA, "packed": 1}),
    "packed_row":       ("encoder", {"target": Target.ROW, "packed": 1}),
    "unpacked_alpha":   ("attention", {"target": Target.ALPHA}),
    "packed_depthwise": ("encoder", {"packed": 1, "depthwise": 1}),
    "packed_spread":    ("encoder", {"packed": 1, "spread": 1}),
    "depthwise_table":  ("encoder", {"depthwise": 1, "table": 1}),
    "clamp_too_far":    ("encoder", {"clamp": 1, "pad_left": 4}),
    "no_transform":     ("encoder", {"transformed": 1}),
}
UNTRANSFORMABLE = {
    "two_columns":  {"kernel_w": 2},
    "four_columns": {"kernel_w": 4},
    "stride":       {"stride2": 1},
    "depthwise":    {"depthwise": 1},
    "spread":       {"spread": 1},
    "clamp":        {"clamp": 1},
}


@pytest.mark.parametrize("name, fields", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_layers_are_refused(name, fields):
    bench = Bench(name, pixels=1 if name == "attention" else 2, row_words=64, weight_words=16)

    async def refused(ctx):
        _, error = await bench.run(ctx, Opcode.LAYER, layer_of(**fields))
        assert error == Error.BAD_ADDRESS
        # It stays so until reset, whatever comes.
        _, error = await bench.run(ctx, Opcode.LAYER, layer_of())
        assert error == Error.BAD_ADDRESS

    bench.simulate(refused)


@pytest.mark.parametrize("fields", UNTRANSFORMABLE.values(), ids=UNTRANSFORMABLE)
def test_what_cannot_be_transformed_is_refused(fields):
    bench = Bench("encoder", row_words=64, weight_words=16, transform=True)

    async def refused(ctx):
        layer = layer_of(transformed=1)
        assert (await bench.run(ctx, Opcode.LAYER, layer))[1] == Error.NONE
        assert (await bench.run(ctx, Opcode.LAYER, layer | fields))[1] == Error.BAD_ADDRESS

    bench.simulate(refused)


STRAYS = {     # unit, layer, a first field that leads astray, and its last value that does not
    "row":      ("encoder", {}, {"rows": [{"valid": 1, "base": 63}] * 3}, 62),
    "weights":  ("encoder", {}, {"weight_base": 11, "groups": 1}, 10),
    "params":   ("encoder", {}, {"param_base": 15, "groups": 2}, 14),
    "vectors":  ("encoder", {"depthwise": 1}, {"param_base": 16}, 12),
    "onchip":   ("encoder", {}, {"out_base": 1020}, 1019),
    "write":    ("encoder", {"target": Target.ROW}, {"out_base": 63}, 62),
    "feedback": ("decoder", {"target": Target.FEEDBACK}, {"out_base": 1020}, 1019),
    "alpha":    ("attention", {"target": Target.ALPHA, "packed": 1}, {"alpha_base": 40}, 39),
    "copy":     ("attention", {"target": Target.ALPHA, "packed": 1}, {"out_base": 1024}, 1023),
    "far":      ("encoder", {"spread": 1, "odd": 1}, {"out_base": (1 << 20) - 1}, 1014),
    "far away": ("encoder", {"spread": 1, "odd": 1, "depthwise": 1},
                 {"out_base": (1 << 20) - 1}, 1014),
}


@pytest.mark.parametrize("name, layer, conv, last", STRAYS.values(), ids=STRAYS)
def test_addresses_outside_their_memory_stop_the_engine(name, layer, conv, last):
    sizes = {"pixels": 1 if name == "attention" else 2, "row_words": 64, "weight_words": 16,
             "params": 16}
    layer, good = layer_of(**layer), dict(conv)
    key = next(iter(conv))
    good[key] = [{"valid": 1, "base": last}] * 3 if key == "rows" else last

    bench = Bench(name, **sizes)

    async def fits(ctx):
        await run_and_check(bench, ctx, layer, conv_of(**good))

    bench.simulate(fits)

    bench = Bench(name, **sizes)

    async def strays(ctx):
        await bench.run(ctx, Opcode.LAYER, layer)
        before = {port: words.copy() for port, words in bench.memory.items()}
        _, error = await bench.run(ctx, Opcode.CONV, conv_of(**conv))
        assert error == Error.BAD_ADDRESS
        late = 0
        for _ in range(40):
            late += any(ctx.get(stream.valid) for stream, _ in bench.ports.values())
            await ctx.tick()
        assert late <= 1, "what follows is not written any more"
        # Words before the stray one may have landed, at the end of the memory; nothing wrapped.
        for port in bench.ports:
            assert (bench.memory[port][:39] == before[port][:39]).all()
        for bank, words in zip(bench.rows.banks, bench.memory["row"], strict=True):
            for at in (62, 63):
                words[at] = list(ctx.get(bank.data[at]).to_bytes(8, "little"))

    bench.simulate(strays)


REFUSED = {
    "no_groups":      ({}, {"groups": 0}),
    "unknown_slot":   ({}, {"slot": 6}),
    "groups_of_bits": ({"packed": 1}, {"groups": 2}),
    "broken_vector":  ({"depthwise": 1}, {"param_base": 2}),
}


@pytest.mark.parametrize("layer, conv", REFUSED.values(), ids=REFUSED)
def test_impossible_rows_are_refused(layer, conv):
    bench = Bench("encoder", row_words=64, weight_words=16)

    async def refused(ctx):
        await bench.run(ctx, Opcode.LAYER, layer_of(**layer))
        causes, error = await bench.run(ctx, Opcode.CONV, conv_of(**conv))
        assert error == Error.BAD_ADDRESS
        assert causes.total() == causes[Cause.FILL_DRAIN] <= 4

    bench.simulate(refused)


def test_layers_of_an_earlier_run_are_unknown():
    bench = Bench("encoder", row_words=64, weight_words=16)

    async def runs(ctx):
        for _ in range(2):
            await run_and_check(bench, ctx, layer_of(), conv_of())
            ctx.set(bench.clear, 1)
            await ctx.tick()
            ctx.set(bench.clear, 0)
        _, error = await bench.run(ctx, Opcode.CONV, conv_of())
        assert error == Error.BAD_ADDRESS

    bench.simulate(runs)


def test_unknown_unit():
    with pytest.raises(ValueError, match="^" + re.escape(
            "Unit must be one of encoder, attention, decoder, not 'gate'") + "$"):
        ConvEngine(config=TINY, name="gate")
