# amaranth: UnusedElaboratable=no
"""What :class:`ComputeUnit` adds to its parts: which ports a unit has, and who writes first."""

import re

import pytest

from hw.compute.unit import ComputeUnit
from hw.isa import Opcode, Target
from tests.hw.compute.bench import small_config
from tests.support import simulate

COMMON = {"conv", "fill", "load", "read_onchip", "write_onchip", "tap_conv", "tap_fill"}


@pytest.mark.parametrize("name, own", [
    ("encoder",   set()),
    ("attention", {"read_feedback", "write_alpha"}),
    ("decoder",   {"read_feedback", "write_feedback", "gated"}),
])
def test_ports(name, own):
    unit = ComputeUnit(config=small_config(name, pixels=1), name=name)
    assert set(unit.signature.members) == COMMON | own


def test_unknown_unit():
    with pytest.raises(ValueError, match="^" + re.escape(
            "Unit must be one of encoder, attention, decoder, not 'gate'") + "$"):
        ComputeUnit(config=small_config("encoder"), name="gate")


async def offer(ctx, port, opcode, **fields):
    ctx.set(port.i.p, {opcode.name.lower(): {"opcode": opcode, **fields}})
    ctx.set(port.i.valid, 1)


async def retire(ctx, port):
    while not ctx.get(port.i.ready):
        await ctx.tick()
    await ctx.tick()
    ctx.set(port.i.valid, 0)


def test_convolution_writes_before_gate_before_fill():
    unit = ComputeUnit(config=small_config("decoder", pixels=1, outputs=8), name="decoder")
    conv = {"slot": 0, "groups": 1, "rows": [{"valid": 0}] * 3, "out_base": 100}

    async def bench(ctx):
        ctx.set(unit.read_onchip.address.ready, 1)
        ctx.set(unit.read_onchip.data, 0x0505050505050505)
        await offer(ctx, unit.conv, Opcode.LAYER, slot=0, vectors=1, kernel_h=1, kernel_w=1,
                    width_in=9, width_out=9, low=7, high=7, target=Target.ROW, out_stride=1)
        await ctx.tick()
        await offer(ctx, unit.conv, Opcode.CONV, **conv)
        ctx.set(unit.gated.p, {"bank": 0, "address": 50, "data": 6, "mask": 1})
        ctx.set(unit.gated.valid, 1)
        busy = written = 0
        while not ctx.get(unit.conv.i.ready):
            busy += not ctx.get(unit.gated.ready)
            await ctx.tick()
        assert busy == 3                # three of the convolution's nine pixels, in four banks
        ctx.set(unit.conv.i.valid, 0)
        rows = unit.rows.banks[0].data
        assert [ctx.get(rows[100 + word]) for word in range(4)] == [0x0707070707070707] * 3 + [0]
        assert ctx.get(rows[50]) == 6

        # The gate holds the port, so the fill waits; then its row lands.
        await offer(ctx, unit.fill, Opcode.FILL, width=1, vectors=1, dst_base=3, dst_stride=1)
        answer = [0, 0]
        for _ in range(40):
            answer.append(ctx.get(unit.read_onchip.address.valid))
            await ctx.tick()
            ctx.set(unit.read_onchip.data_valid, answer.pop(0))
            written += ctx.get(unit.fill.i.ready)
        assert not written
        assert ctx.get(rows[3]) == 0
        ctx.set(unit.gated.valid, 0)
        await retire(ctx, unit.fill)
        assert ctx.get(rows[3]) == 0x0505050505050505

    simulate(unit, bench)
