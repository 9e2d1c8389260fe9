"""Units that compute shares of each other's layers: what they make, and when they are asked to."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from golden import integer
from golden.models import load_graph
from hw.compiler import build, compile_network
from hw.compiler.build import (
    LENT_BYTES,
    cheapest,
    finish,
    interval,
    moved,
    parkable,
    plan,
    worth,
)
from hw.compiler.groups import group
from hw.compiler.lend import CHUNK, PASSING, Dealer, deal_channels, prices
from hw.compiler.machine import Order, Schedule
from hw.compiler.ops import lower
from hw.config import KIB, REFERENCE, TINY
from hw.isa import CONVS, Engine, Opcode, Source, Traffic
from tests.hw.compiler.test_compile import ROOMY, assert_tensors, execute

SMALL = replace(TINY, name="small", onchip_bytes=32 * KIB)
ALONE = Schedule(Order.APART, spill_copies=1)


@pytest.fixture(scope="module")
def graph():
    return load_graph("elec4848", size=32, width=4)


def lent(graph, config, *, spill=None, frames=1):
    """The machine in which units lend."""
    network = lower(graph)
    if spill is None:
        spill = cheapest(network, config, 1, ALONE)[1].spill
    return build.lent(lower(graph, lend=True), plan(network, config, 1, spill, ALONE)[1], frames)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config, spill", [(TINY, None), (TINY, ("c1",)), (SMALL, ())],
                         ids=["room", "one-spilled", "little-room"])
def test_every_tensor_in_any_order(graph, config, spill, seed):
    program = finish(lent(graph, config, spill=spill))
    frame   = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8,
                            generator=torch.Generator().manual_seed(seed))
    golden  = integer.run(graph, frame)
    machine, _ = execute(program, config, [frame], seed=seed)
    assert_tensors(program, machine, golden)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("parked, spill, frames", [
    (("c2",), (), 1), (("c1", "c3"), (), 1), (("c2",), ("c1",), 1), (("c1",), (), 2)])
def test_parked_maps_are_what_they_were(graph, parked, spill, frames, seed):
    network = lower(graph, lend=True, parked=parked)
    machine = plan(network, TINY, frames, spill, replace(ALONE, lend=True))[1]
    program = finish(machine)
    assert {block.what for block in machine.feedback.history} == {f"{it}_parked" for it in parked}
    images  = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8,
                             generator=torch.Generator().manual_seed(seed + index))
               for index in range(frames)]
    golden  = [integer.run(graph, image) for image in images]
    ran, masks = execute(program, TINY, images, seed=seed)
    for mask, tensors in zip(masks, golden, strict=True):
        assert torch.equal(mask, tensors["mask"][0])
    if frames == 1:
        assert_tensors(program, ran, *golden)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("passing", PASSING)
@pytest.mark.parametrize("parked", [(), ("c2", "d2")], ids=["", "parked"])
def test_separable_frames(parked, passing, seed):
    """Depthwise passes of the attention unit keep pace with the decoder's group; what is gated goes
    straight to the decoder, which alone reads it. Rows of large maps are shared, but not with the
    decoder."""
    graph   = load_graph("elec4848-ds", size=32, width=8)
    network = lower(graph, lend=True, parked=parked)
    machine = plan(network, ROOMY, 1, (), replace(ALONE, lend=True, passing=passing))[1]
    program = finish(machine)
    assert not any(name.startswith("gated") for name in network.made)
    groups  = {item.name: found for found in group(machine) for item in found.passes}
    assert groups["d3"] is groups["g4_normal_dw"] is groups["g4_down_dw"]
    # The decoder once made attention maps, which only the RTL refused.
    lenders = {layer.name: set(layer.lenders) for layer in program.layers}
    assert not any(lenders[name] for name in lenders if name.endswith("_logit"))
    assert not any("decoder" in lenders[name] for name in lenders if name.endswith("_dw"))
    assert not lenders["encoding_dw"] and lenders["d4_dw"] and lenders["d4a_dw"]
    # Of its rows the decoder makes the vectors that are gated, and others the rest.
    made = {engine: {fields["first"]: fields["groups"] for opcode, fields, layer, *_ in stream
                     if opcode == Opcode.CONV and layer == network.made["d4a_dw"].id}
            for engine, stream in machine.emitter.streams.items()}
    assert made[Engine.DECODER_CONV][2] == 1 and made[Engine.ENCODER_CONV] == {0: 2}
    frame   = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8,
                            generator=torch.Generator().manual_seed(seed))
    ran, _  = execute(program, ROOMY, [frame], seed=seed)
    assert_tensors(program, ran, integer.run(graph, frame))


@pytest.mark.parametrize("frames", [1, 3])
def test_separable_frames_are_lent(frames):
    """A frame once took 6.7 M cycles, and a stream 3.44 times the compulsory bytes: c1."""
    program = compile_network(load_graph("elec4848-ds"), REFERENCE, frames=frames)
    assert {"c2_parked", "d2_parked"} < {layer.name for layer in program.layers}
    assert program.spilled == ()
    assert program.estimated_cycles < 3.15e6 * frames
    moved = sum(program.layer_bytes.values()) + program.program_bytes
    assert moved < 1.4 * program.compulsory_bytes


def test_lending_is_worth_more_bytes_where_it_halves_the_cycles(monkeypatch):
    monkeypatch.setattr(build, "interval", lambda machine: machine.cycles)
    monkeypatch.setattr(build, "moved", lambda machine: machine.bytes)

    def machine(cycles, moved):
        return type("Machine", (), {"cycles": cycles, "bytes": moved, "frames": 1})()

    assert worth(machine(90, 110), machine(100, 100))
    assert not worth(machine(90, 120), machine(100, 100))
    assert worth(machine(50, 130), machine(100, 100))
    assert not worth(machine(50, 150), machine(100, 100))


def test_who_reads_a_parked_map(graph):
    """The encoder is done before it is parked, and does not reach feedback memory; so what has a
    stride of 2 is made before, by all; the gate reads on chip what passes by."""
    network = lower(graph, lend=True, parked=("c2",))
    assert network.made["e3a"].operands == lower(graph, lend=True).made["e3a"].operands
    assert network.made["g3_down"].operands == ("c2",)
    assert network.moves["gated3"].layer.skip == "c2_unparked"
    names = [item.name for item in network.passes]
    assert names.index("c2_parked") == names.index("e3a") + 1
    assert names.index("g3_down") == names.index("c2") + 1
    assert names.index("c2_unparked") == names.index("gated3_stored") - 1
    machine = plan(network, TINY, 1, (), replace(ALONE, lend=True))[1]
    lenders = {item.name: found.lenders for found in group(machine) for item in found.passes}
    assert lenders["g3_down"] == lenders["g2_down"] == ("encoder", "decoder")


def test_what_can_be_parked(graph):
    """What is read by others than the encoder; not attention maps."""
    network = lower(graph, lend=True)
    assert [name for name in ("c1", "c2", "c3", "c4", "e1a", "encoding", "d1", "alpha1")
            if parkable(network, name)] == ["c1", "c2", "c3", "c4", "encoding", "d1"]


@pytest.mark.parametrize("frames", [1, 3])
def test_a_frame_for_which_there_is_no_room_parks_rather_than_spills(frames):
    """c1 of the full frame once went off chip: 1.37 times the compulsory bytes, 1.40 in a stream.
    And streams parked d2 as well, which the encoder does not reach: 12.64 M cycles a frame."""
    program = compile_network(load_graph("elec4848"), REFERENCE, frames=frames)
    assert {"c2_parked", "c2_unparked"} < {layer.name for layer in program.layers}
    assert not {"d2_parked"} & {layer.name for layer in program.layers}
    assert program.spilled == ()
    assert program.estimated_cycles < 11.8e6 * frames
    moved = sum(program.layer_bytes.values()) + program.program_bytes
    assert moved < 1.11 * program.compulsory_bytes


def test_every_unit_makes_a_share_of_the_large_layers(graph):
    program = finish(lent(graph, TINY))
    shared  = {layer.name: {layer.unit, *layer.lenders}
               for layer in program.layers if layer.lenders}
    assert {"e1a", "c1", "c2", "d1a", "d4a", "g4_down"} <= shared.keys()
    assert shared["c1"] == {"encoder", "attention", "decoder"}
    # What only one unit can do: attention maps, and what the gate hands to the decoder.
    assert not {"g1_logit", "g4_logit", "gated1", "gated4_stored"} & shared.keys()


def test_nothing_is_loaded_twice_of_a_layer_whose_channels_are_shared(graph):
    pure  = plan(lower(graph), TINY, 1, (), ALONE)[1]
    mixed = lent(graph, TINY, spill=())
    beats = {machine: {name: machine.beats.get(id_, 0) for id_, name in
                       ((item.id, item.name) for item in machine.network.layers)}
             for machine in (pure, mixed)}
    assert beats[mixed]["encoding"] == beats[pure]["encoding"]
    assert beats[mixed]["d1"] == beats[pure]["d1"]
    # Of rows that are shared, every unit loads all weights.
    assert beats[mixed]["c1"] > beats[pure]["c1"]


def test_rows_of_a_spilled_map_are_kept_where_there_is_room(graph, monkeypatch):
    monkeypatch.setattr(build, "_parking", lambda *_: None)
    machine = lent(graph, TINY, spill=("c1",))
    stored  = [row for engine in machine.emitter.streams.values()
               for opcode, fields, _, row, _ in engine
               if opcode == Opcode.STORE and fields["traffic"] == Traffic.SPILL]
    assert machine.schedule.kept_words > 0
    kept = machine.schedule.kept_words // machine.map_words(machine.network.made["c1"].tensor)
    assert stored == list(range(32 - kept))


def test_nobody_lends_where_it_moves_more_bytes_or_in_a_stream_or_if_told_so(graph):
    """A frame of ``tiny`` would take fewer cycles, and 18 % more bytes."""
    pure, mixed = plan(lower(graph), TINY, 1, (), ALONE)[1], lent(graph, TINY, spill=())
    assert interval(mixed) < interval(pure) and moved(mixed) > LENT_BYTES * moved(pure)
    assert not any(layer.lenders for layer in compile_network(graph, TINY).layers)
    assert not any(layer.lenders for layer in compile_network(graph, TINY, frames=2).layers)


def test_a_stream_is_lent_where_masks_come_sooner(monkeypatch):
    """One frame after the other, on every lane: a network of which one unit does most gains."""
    monkeypatch.setattr(build, "moved", lambda machine: 0)
    graph   = load_graph("unet-busi", size=32, width=4)
    program = compile_network(graph, TINY, frames=2)
    assert any(layer.lenders for layer in program.layers)
    pure    = compile_network(graph, TINY, frames=2, pure=True)
    assert not any(layer.lenders for layer in pure.layers)
    assert program.estimated_cycles < pure.estimated_cycles
    frames  = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8,
                             generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    _, masks = execute(program, TINY, frames, seed=1)
    for frame, mask in zip(frames, masks, strict=True):
        assert torch.equal(mask, integer.run(graph, frame)[graph.output][0])


def test_a_frame_that_gains_is_lent_unless_it_should_be_pure(graph, monkeypatch):
    """Of two plans the faster is taken, if it moves hardly more bytes."""
    monkeypatch.setattr(build, "moved", lambda machine: 0)
    mixed = compile_network(graph, TINY)
    pure  = compile_network(graph, TINY, pure=True)
    assert any(layer.lenders for layer in mixed.layers)
    assert not any(layer.lenders for layer in pure.layers)
    assert mixed.estimated_cycles < pure.estimated_cycles


def test_a_frame_that_clearly_gains_spares_the_search_without_lending(graph, monkeypatch):
    monkeypatch.setattr(build, "moved", lambda machine: 0)
    mixed = compile_network(graph, TINY)
    monkeypatch.setattr(build, "CLEARLY", 0)
    assert compile_network(graph, TINY).image == mixed.image
    monkeypatch.undo()
    monkeypatch.setattr(build, "moved", lambda machine: 0)
    monkeypatch.setattr(build, "_unlent", None)
    assert compile_network(graph, TINY).image == mixed.image


def test_a_stream_is_not_lent_if_a_single_frame_takes_longer_than_its_interval(graph, monkeypatch):
    frames = []
    make   = build.lent
    monkeypatch.setattr(build, "lent", lambda graph, machine, count: (
        frames.append(count), make(graph, machine, count))[1])
    monkeypatch.setattr(build, "interval", lambda machine: 10**9 if machine.schedule.lend else 1)
    compile_network(graph, TINY, frames=2)
    assert frames == [1]


def test_pure_is_the_mapping_of_figure_10(graph):
    """The gated skip goes straight to the decoder, and its output back to it."""
    program = compile_network(graph, TINY, pure=True)
    machine = plan(lower(graph), TINY, 1, (), ALONE)[1]
    assert program.image == finish(machine).image
    fills = [fields for opcode, fields, *_ in machine.emitter.streams[CONVS[2] - 1]
             if opcode == Opcode.FILL]
    assert {fields["source"] for fields in fills} == {Source.FEEDBACK, Source.ONCHIP}
    assert not any(name.startswith("gated") for name in machine.network.made)


class Run:
    """A pass on a unit that needs ``cost`` cycles for a row."""

    def __init__(self, cost, outputs, engine, graph):
        network = lower(graph)
        self.item  = network.made["c1"]
        self.unit  = type("Unit", (), {
            "conv": engine, "fill": engine, "cost": lambda _, item, y: cost,
            "config": replace(TINY.encoder, outputs=outputs, drain=max(outputs, 2))})()
        self.made  = []

    def sources(self):
        return []


class Clock:
    """A machine of which only the time is known."""

    def __init__(self, **ends):
        self.emitter = self.timetable = self
        self._ends = ends

    def end(self, engine):
        return self._ends[engine]


def test_rows_go_to_who_is_done_first(graph):
    slow, fast = Run(30, 2, "slow", graph), Run(10, 4, "fast", graph)
    clock  = Clock(slow=0, fast=0)
    dealer = Dealer(clock, [slow, fast], {slow.unit: 1 / 4, fast.unit: 3 / 4})
    for y in range(8 * CHUNK):
        dealer.run(y).made.append(y)
        clock._ends["slow"] = 30 * len(slow.made)
        clock._ends["fast"] = 10 * len(fast.made)
    assert len(fast.made) == 3 * len(slow.made) == 6 * CHUNK
    assert sorted(slow.made + fast.made) == list(range(8 * CHUNK))
    assert all(y % CHUNK == 0 or y - 1 in slow.made for y in slow.made)


def test_rows_wait_for_who_makes_them_at_less_cost(graph):
    """For a while: a unit that others find dear takes its row, if it is early enough."""
    dear, cheap = Run(30, 2, "dear", graph), Run(10, 4, "cheap", graph)
    shares = {dear.unit: 0.6, cheap.unit: 0.4}
    alike  = CHUNK * (30 - 10)          # both would be done at the same time
    for wait, taken in ((0, cheap), (alike + 1, cheap), (100 * alike, dear)):
        assert Dealer(Clock(dear=0, cheap=wait), [dear, cheap], shares).run(0) is taken


@pytest.mark.parametrize("seed", range(10))
def test_at_the_prices_all_is_done_as_soon_as_it_can_be(seed):
    """As soon as whole passes dealt in any way, and then some of them in parts."""
    rng   = np.random.default_rng(seed)
    costs = rng.integers(10, 100, (6, 3)).astype(float)
    costs[rng.random((6, 3)) < 0.2] = np.inf
    costs[:, seed % 3] = rng.integers(10, 100, 6)
    begin = rng.integers(0, 50, 3)
    found = prices(costs, begin)
    assert found.sum() == pytest.approx(1)
    least = found @ begin + (costs * found).min(axis=1).sum()
    # No way to deal whole passes is done before, and one in steps of a tenth hardly after.
    best  = np.inf
    for dealt in product(range(3), repeat=6):
        loads = begin + [sum(costs[i, unit] for i, unit in enumerate(dealt) if unit == which)
                         for which in range(3)]
        best  = min(best, loads.max())
    assert best >= least - 1e-6
    grid = [np.array(move) / 40 for move in product(range(1, 40), repeat=3) if sum(move) == 40]
    assert least >= max(each @ begin + (costs * each).min(axis=1).sum() for each in grid) * 0.995


def test_channels_are_dealt_by_speed_and_by_what_waits(graph):
    slow, fast = Run(30, 2, "slow", graph), Run(10, 4, "fast", graph)
    channels = slow.item.parts[0].weight.shape[0]
    none = range(0)
    assert deal_channels(Clock(slow=0, fast=0), [slow]) == ([(None, none)], none)
    found, rest = deal_channels(Clock(slow=10**9, fast=0), [slow, fast])
    assert [block for block, _ in found] == [range(0, 0), range(0, channels)] and not rest
    found, rest = deal_channels(Clock(slow=0, fast=10**9), [slow, fast])
    assert [block for block, _ in found] == [range(0, channels), range(channels, channels)]
    assert not rest and not any(rows for _, rows in found)


def test_rows_of_the_last_block_are_dealt_where_blocks_do_not_come_out_even():
    graph = load_graph("elec4848", size=32, width=32)
    dealt = [last_block_dealt(graph, np.random.default_rng(seed)) for seed in range(12)]
    assert {True, False} == set(dealt)


def last_block_dealt(graph, rng):
    """Whether it is, for some units and what they still have to do."""
    costs = [int(cost) for cost in rng.integers(10_000, 90_000, 3)]
    runs  = [Run(cost, 4, name, graph) for cost, name in zip(costs, "abc", strict=True)]
    start = dict(zip("abc", (int(end) for end in rng.integers(0, 900_000, 3)), strict=True))
    found, rest = deal_channels(Clock(**start), runs)
    item  = runs[0].item
    made  = [(channel, row) for block, rows in found
             for channels, some in ((block, range(item.tensor.height)), (rest, rows))
             for channel in channels for row in some]
    assert sorted(made) == list(product(range(32), range(item.tensor.height)))
    block = [cost * item.tensor.height / 8 for cost in costs]      # cycles of four channels

    def done(parts):
        """When all are, who take so many blocks each."""
        return max(start[name] + cycles * part for name, cycles, part
                   in zip("abc", block, parts, strict=True) if part)

    ends  = {name: start[name] + cycles * (len(mine) / 4 + len(rows) / item.tensor.height)
             for name, cycles, (mine, rows) in zip("abc", block, found, strict=True)}
    whole = min(done(parts) for parts in product(range(9), repeat=3) if sum(parts) == 8)
    last  = max(ends[name] for name, (mine, rows) in zip("abc", found, strict=True) if mine or rows)
    assert last <= whole + max(costs)
    if rest:
        shared = [ends[name] for name, (_, rows) in zip("abc", found, strict=True) if rows]
        assert max(shared) - min(shared) <= 2 * max(costs)         # rows are whole
        assert last < whole
    return bool(rest)


def test_the_last_block_is_not_dealt_for_little():
    graph = load_graph("elec4848", size=32, width=32)
    runs  = [Run(cost, 4, name, graph) for cost, name in zip((5, 7, 9), "abc", strict=True)]
    found, rest = deal_channels(Clock(a=0, b=0, c=0), runs)
    assert not rest and sum(len(block) for block, _ in found) == 32
