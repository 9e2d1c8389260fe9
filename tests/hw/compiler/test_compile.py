"""Whole networks through the compiler: what the program means, run in any order that its waits
allow, is what the golden model says, tensor by tensor."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from golden import integer
from golden.images import read_image
from golden.models import load_graph
from golden.networks import MODELS
from golden.quantize import quantize
from hw.compiler import CompileError, compile_network
from hw.compiler.build import finish, plan, spillable
from hw.compiler.machine import Order, Schedule
from hw.compiler.maps import Map
from hw.compiler.memory import OffchipImage
from hw.compiler.ops import lower
from hw.compiler.unit import Unit
from hw.config import EDGE, KIB, REFERENCE, TINY
from hw.isa import CONVS, Opcode, Traffic
from sim.campaigns.fuzz import Case, interpreted
from sim.compare import compare_tensors
from sim.interpreter import Deadlock, Interpreter
from sim.taps import golden_name


@pytest.fixture(scope="module")
def graph():
    return load_graph("elec4848", size=32, width=4)


def execute(program, config, frames, *, seed=0):
    machine = Interpreter(config, program.image)
    for index, frame in enumerate(frames):
        blob  = program.pack_frame(frame)
        start = program.frame_address(index)
        machine.offchip[start:start + len(blob)] = np.frombuffer(blob, np.uint8)
    machine.run(program.program_base, seed=seed)
    masks = [program.unpack_mask(machine.offchip[program.mask_address(index):]
                                 [:program.mask_bytes].tobytes())
             for index in range(len(frames))]
    return machine, masks


def assert_tensors(program, machine, golden):
    """Every tap of a single frame against the golden tensor; none missing, none twice."""
    for layer in program.layers:
        expected_CHW = golden[golden_name(layer.tensor, golden)].numpy()
        got_CHW = np.zeros_like(expected_CHW)
        written = np.zeros_like(expected_CHW, dtype=int)
        for y in range(layer.height):
            for channel, columns, out_WC in machine.taps[layer.id, y]:
                count = min(out_WC.shape[1], layer.channels - channel)
                got_CHW[channel:channel + count, y, columns] = out_WC[:, :count].T
                written[channel:channel + count, y, columns] += 1
        assert (written == 1).all(), layer
        np.testing.assert_array_equal(got_CHW, expected_CHW, err_msg=layer.name)


SMALL = replace(
    TINY, name="small", onchip_bytes=8 * KIB, feedback_bytes=1 * KIB,
    encoder=replace(TINY.encoder, weight_words=512, row_words=64),
    attention=replace(TINY.attention, weight_words=320, row_words=128),
    decoder=replace(TINY.decoder, weight_words=384, row_words=128))
WIDE = replace(
    TINY, name="wide", vector=16, gate_lanes=4,
    encoder=replace(TINY.encoder, pixels=4, outputs=4, drain=4),
    attention=replace(TINY.attention, outputs=8, drain=8),
    decoder=replace(TINY.decoder, pixels=1, outputs=16, drain=16))
ROOMY = replace(
    TINY, name="roomy", onchip_bytes=512 * KIB, alpha_words=4096,
    **{unit: replace(getattr(TINY, unit), weight_words=8192, params=512, row_words=2048)
       for unit in ("encoder", "attention", "decoder")})
NARROW = replace(
    TINY, name="narrow", gate_lanes=1,
    encoder=replace(TINY.encoder, pixels=1, outputs=1, drain=1, weight_words=4096, params=128),
    attention=replace(TINY.attention, outputs=1, drain=2, weight_words=2048, params=128),
    decoder=replace(TINY.decoder, pixels=4, outputs=2, drain=2, weight_words=2048))


@pytest.mark.parametrize("config", [TINY, EDGE, REFERENCE, SMALL, WIDE, NARROW],
                         ids=lambda config: config.name)
def test_every_tensor_of_a_frame(graph, config):
    program = compile_network(graph, config)
    frame   = read_image("phantom:3", 32)
    golden  = integer.run(graph, frame)
    machine, masks = execute(program, config, [frame], seed=1)
    assert_tensors(program, machine, golden)
    assert torch.equal(masks[0], golden["mask"][0])


def layers(program, config):
    """The LAYER instructions of a program by the name of what they make."""
    machine = Interpreter(config, program.image)
    names   = {layer.id: layer.name for layer in program.layers}
    streams = machine._fetch(program.program_base)
    return {names[i.layer]: i for engine in CONVS for i in streams[engine]
            if i.opcode == Opcode.LAYER}


@pytest.mark.parametrize("config", [TINY, EDGE], ids=lambda config: config.name)
def test_three_columns_are_transformed_where_the_unit_can(graph, config):
    """And of the decoder's first convolutions, the upsampled vectors are said to be doubled."""
    program  = compile_network(graph, config)
    network  = lower(graph)
    found    = layers(program, config)
    made     = {item.name: item for item in network.passes}
    for name, i in found.items():
        unit = config.units[made[name].unit]
        # A map that one group of pixels covers would only take longer.
        assert i.transformed == (unit.transform and (i.kernel_w, i.stride2) == (3, 0)
                                 and i.width_out > unit.pixels), name
    for name, i in found.items():
        up = [leaf for leaf in network.leaves(made[name].operands[0]) if network.upsampled(leaf)]
        assert i.doubled == (i.transformed and sum(
            -(-network.tensors[leaf].channels // config.vector) for leaf in up))
    assert sum(i.doubled > 0 for i in found.values()) == (4 if config is TINY else 0)


def test_pixels_that_are_said_to_be_doubled_must_be(graph, monkeypatch):
    monkeypatch.setattr(Unit, "doubled",
                        lambda unit, item, part: unit.machine.vectors(item.operands[0]))
    program = compile_network(graph, TINY)
    with pytest.raises(ValueError, match="^Layer [0-9]+ has unequal pixels in its first [0-9]+ "
                                         "vectors, which are said to be doubled$"):
        execute(program, TINY, [read_image("phantom:3", 32)])


def test_a_layer_too_short_for_the_drain_is_not_transformed():
    """One vector under one kernel row: four steps cannot hide eight pixels, three of each four."""
    graph   = load_graph("elec4848", size=32, width=4)
    network = lower(graph)
    machine = plan(network, REFERENCE, 1, (), Schedule(Order.APART))[1]
    item    = next(item for item in network.passes if item.name == "c1")
    unit    = machine.units["encoder"]
    flat    = replace(item.parts[0], weight=item.parts[0].weight[:, :, :1])
    assert unit.transforms(item, item.parts[0])
    assert not unit.transforms(item, flat)


def test_small_memories_spill(graph):
    assert compile_network(graph, SMALL).spilled
    assert not compile_network(graph, TINY).spilled


def test_three_levels_that_could_be_fused(graph):
    """Weights of three encoder levels fit and c1 and c2 are spilled: room was once reserved for two
    levels only, and the third ran past the end of weight memory in the second frame."""
    config  = replace(TINY, onchip_bytes=8 * KIB, feedback_bytes=1 * KIB,
                      encoder=replace(TINY.encoder, weight_words=768))
    program = compile_network(graph, config, frames=2)
    assert {"c1", "c2"} <= set(program.spilled)
    frames  = [read_image(f"phantom:{index}", 32) for index in range(2)]
    _, masks = execute(program, config, frames)
    for frame, mask in zip(frames, masks, strict=True):
        assert torch.equal(mask, integer.run(graph, frame)["mask"][0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda config: config.name)
def test_overlapping_frames_in_any_order(graph, config, seed):
    program = compile_network(graph, config, frames=3)
    frames  = [read_image(f"phantom:{index}", 32) for index in range(3)]
    _, masks = execute(program, config, frames, seed=seed)
    for frame, mask in zip(frames, masks, strict=True):
        assert torch.equal(mask, integer.run(graph, frame)["mask"][0])


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("depth", [1, 4])
def test_every_order_of_frames(graph, order, depth):
    """The compiler takes the cheapest; all of them have to be right."""
    if depth == 1:                      # one group of the decoder
        graph = quantize(MODELS["elec4848"](size=32, width=4, depth=1).eval(),
                         [read_image("phantom:9", 32)])
    program = finish(plan(lower(graph), TINY, 3, (), Schedule(order))[1])
    frames  = [read_image(f"phantom:{index}", 32) for index in range(3)]
    _, masks = execute(program, TINY, frames, seed=depth)
    for frame, mask in zip(frames, masks, strict=True):
        assert torch.equal(mask, integer.run(graph, frame)["mask"][0])


@pytest.mark.parametrize("schedule", [Schedule(Order.LATE, spill_copies=2),
                                      Schedule(Order.APART, Map.LEAST_READ_SLOTS, spill_copies=1)])
def test_schedules_for_little_memory(graph, schedule):
    """Several frames through the same off-chip space, spilled maps read through few rows."""
    spilled = ("c1", "c2", "d3")
    program = finish(plan(lower(graph), TINY, 4, spilled, schedule)[1])
    frames  = [read_image(f"phantom:{index}", 32) for index in range(4)]
    for seed in range(3):
        _, masks = execute(program, TINY, frames, seed=seed)
        for frame, mask in zip(frames, masks, strict=True):
            assert torch.equal(mask, integer.run(graph, frame)["mask"][0])


@pytest.mark.parametrize("frames, spilled, schedule", [
    (1, (), Schedule(Order.APART, spill_copies=1)),
    (1, ("c1", "c2", "d3"), Schedule(Order.APART, spill_copies=1)),
    (4, ("c1", "c2", "c4"), Schedule(Order.LATE))])
def test_nothing_that_is_only_read_lies_where_the_program_may_write(
        graph, frames, spilled, schedule):
    """Weights once lay between spilled maps, so that a bad program could overwrite them."""
    machine = plan(lower(graph), TINY, frames, spilled, schedule)[1]
    program = finish(machine)
    first, limit = program.writable
    written = np.zeros(limit, bool)
    moves   = [fields | {"opcode": opcode} for stream in machine.emitter.streams.values()
               for opcode, fields, *_ in stream if opcode in (Opcode.LOAD, Opcode.STORE)]
    for move in moves:
        end = move["offchip"] + move["beats"] * TINY.vector
        if move["opcode"] == Opcode.STORE:
            written[move["offchip"]:end] = True
        elif move["traffic"] == Traffic.SPILL:
            assert first <= move["offchip"] and end <= limit, move
        else:
            assert end <= first or move["offchip"] >= limit, move
    assert program.program_base >= limit
    places = np.flatnonzero(written)
    assert (places[0], places[-1] + 1) == (first, limit)
    assert np.diff(places).max() <= OffchipImage.ALIGN      # maps begin at its multiples


@pytest.mark.parametrize("frames", [1, 2])
def test_what_is_only_read_while_it_passes_is_not_stored(frames):
    """4 MB a frame of `attunet-nuclei` once went off chip, and never came back."""
    graph   = load_graph("attunet-nuclei", size=32, width=4)
    machine = plan(lower(graph), TINY, frames, ("alpha3", "c1"), Schedule(Order.APART))[1]
    program = finish(machine)
    spilled = {opcode: {layer for stream in machine.emitter.streams.values()
                        for code, fields, layer, *_ in stream
                        if code == opcode and fields["traffic"] == Traffic.SPILL}
               for opcode in (Opcode.LOAD, Opcode.STORE)}
    assert spilled[Opcode.STORE] == spilled[Opcode.LOAD] == {machine.network.made["c1"].id}
    assert program.spilled == ("c1",)
    pictures = [read_image(f"phantom:{index}", 32) for index in range(frames)]
    ran, masks = execute(program, TINY, pictures, seed=frames)
    for picture, mask in zip(pictures, masks, strict=True):
        assert torch.equal(mask, integer.run(graph, picture)["mask"][0])
    if frames == 1:
        assert_tensors(program, ran, integer.run(graph, pictures[0]))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("frames, feedback, pooled", [
    (1, 2, ()), (1, 1, ("p2",)), (2, 1, ("p2",))])
def test_a_plan_that_spares_memory(frames, feedback, pooled, seed):
    """Linear upsampling where it is read, row by row; maps in two memories; a pooled copy instead
    of loading what it is made of."""
    config  = replace(TINY, name="sparing", feedback_bytes=feedback * KIB)
    graph   = load_graph("attunet-nuclei", size=32, width=4)
    passing = {"d2_up", "d3_up", "alpha2", "alpha3"}
    machine = plan(lower(graph, pooled=pooled), config, frames, {"c1", "c2", *passing},
                   Schedule(Order.APART, sparing=True))[1]
    program = finish(machine)
    assert machine.unread == passing and set(program.spilled) == {"c1", "c2"}
    inside = {block.what for block in machine.feedback.history}
    beside = {block.what.removesuffix(" (kept rows)") for block in machine.onchip.history
              if block.what.endswith("(kept rows)")}
    assert (inside & beside != set()) == (feedback < 2)
    images = [read_image(f"phantom:{index}", 32) for index in range(frames)]
    golden = [integer.run(graph, image) for image in images]
    ran, masks = execute(program, config, images, seed=seed)
    for mask, tensors in zip(masks, golden, strict=True):
        assert torch.equal(mask, tensors["mask"][0])
    if frames == 1:
        assert_tensors(program, ran, *golden)


@pytest.mark.parametrize("seed", [2, 26, 34])
def test_random_networks_that_spare_memory(seed):
    """In two of them, a group that reads what was to be made later is finished ahead of the
    decoder's first: rows were once missing."""
    graph   = Case(seed, widest=24, side=24).graph()
    network = lower(graph)
    config  = replace(ROOMY, feedback_bytes=1 * KIB)
    program = finish(plan(network, config, 1, spillable(network),
                          Schedule(Order.APART, spill_copies=1, sparing=True))[1])
    tensor  = graph.tensors[graph.input]
    image   = torch.randint(0, 256, (tensor.channels, tensor.height, tensor.width),
                            dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    outputs, tensors = interpreted(program, config, image, seed)
    golden   = {name: x.numpy() for name, x in integer.run(graph, image).items()}
    compared = compare_tensors([golden], [outputs], tensors)
    assert (compared["problems"], compared["mismatched"]) == ([], 0)


@pytest.mark.parametrize("frames", [1, 2])
def test_upsampled_maps_never_leave_the_chip(frames):
    """`attunet-nuclei` once moved 8.4 times its compulsory bytes: three maps of linear upsampling
    four to six times, and c2 three times. c1 (4 MiB) and c2 (2 MiB) go off chip and come back."""
    program = compile_network(load_graph("attunet-nuclei"), REFERENCE, frames=frames)
    names   = {layer.id: layer.name for layer in program.layers}
    spilled = {names[layer]: traffic[Traffic.SPILL] for layer, traffic in
               program.layer_traffic.items() if Traffic.SPILL in traffic}
    assert spilled == {"c1": 8 * KIB * KIB * frames, "c2": 4 * KIB * KIB * frames}
    moved = sum(program.layer_bytes.values()) + program.program_bytes
    assert moved < 2.5 * program.compulsory_bytes


@pytest.mark.parametrize("model, size, width, config, spilled, better", [
    ("elec4848-ds", 32, 8, TINY, {}, Order.EARLY),
    ("elec4848", 256, 32, REFERENCE, {Order.EARLY: ("c1", "c2"), Order.LATE: ("c1",)}, Order.LATE)])
def test_separable_frames_are_encoded_early_and_dense_ones_late(
        model, size, width, config, spilled, better):
    """By the estimate; of the dense one, earlier frames leave less room."""
    network = lower(load_graph(model, size, width))
    found   = {order: plan(network, config, 3, spilled.get(order, ()), Schedule(order))[0]
               for order in (Order.EARLY, Order.LATE)}
    assert min(found, key=found.get) == better


def test_a_program_without_its_waits_goes_wrong(graph):
    """The interpreter would not notice missing waits if it ran engines in a lucky order. (With the
    transform it stops at pixels that are not there yet, and so are not the pairs they should be.)
    """
    config  = replace(TINY, **{name: replace(unit, transform=False)
                               for name, unit in TINY.units.items()})
    program = compile_network(graph, config)
    image   = bytearray(program.image)
    for start in range(program.program_base + 12 * 32, len(image), 32):
        word = int.from_bytes(image[start:start + 32], "little")
        word &= ~(((1 << 66) - 1) << 24)
        image[start:start + 32] = word.to_bytes(32, "little")
    frame = read_image("phantom:3", 32)
    _, masks = execute(replace(program, image=bytes(image)), config, [frame])
    assert not torch.equal(masks[0], integer.run(graph, frame)["mask"][0])


def test_a_wait_that_never_comes_is_a_deadlock(graph):
    program = compile_network(graph, TINY)
    image   = bytearray(program.image)
    first   = program.program_base + 12 * 32
    word    = int.from_bytes(image[first:first + 32], "little") | ((1 << 18) - 1) << 28
    image[first:first + 32] = word.to_bytes(32, "little")
    with pytest.raises(Deadlock, match="^waiting: LOAD_ENCODER"):
        Interpreter(TINY, bytes(image)).run(program.program_base)


def test_a_program_is_the_same_in_every_process():
    """Nothing depends on the order of a set of names, which Python draws anew for each process."""
    code = """if True:
        import hashlib
        from golden.models import load_graph
        from hw.compiler import compile_network
        from hw.config import REFERENCE
        image = compile_network(load_graph("elec4848", 32, 8), REFERENCE).image
        print(hashlib.sha256(image).hexdigest())"""
    digests = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True,
                              env={**os.environ, "PYTHONHASHSEED": str(seed)}).stdout
               for seed in (0, 2)}
    assert len(digests) == 1


def test_compulsory_bytes_by_hand(graph):
    """Weights, 8 bytes of requantisation per channel, one table per distinct sigmoid."""
    program = compile_network(graph, TINY, frames=2)
    convs   = [layer for layer in graph.layers if isinstance(layer, integer.Conv)]
    gates   = [layer for layer in graph.layers if isinstance(layer, integer.Gate)]
    tables  = {layer.table.numpy().tobytes() for layer in graph.layers
               if isinstance(layer, integer.Lookup)}
    per_frame = (sum(conv.weight.numel() + 8 * len(conv.bias) for conv in convs)
                 + sum(8 * len(gate.bias) for gate in gates) + 256 * len(tables)
                 + 3 * 32 * 32 + 32 * 32)
    assert program.compulsory_bytes == program.program_bytes + 2 * per_frame


def test_bytes_of_a_layer_are_the_sum_of_their_classes(graph):
    program = compile_network(graph, SMALL, frames=2)
    assert program.layer_bytes.keys() == program.layer_traffic.keys()
    for layer, classes in program.layer_traffic.items():
        assert sum(classes.values()) == program.layer_bytes[layer]
    written = sum(classes.get(Traffic.MASK, 0) for classes in program.layer_traffic.values())
    assert written == 2 * program.mask_bytes


def test_blocks_are_maps_with_their_first_and_last_use(graph):
    program = compile_network(graph, TINY, frames=1)
    lives   = {block.what: tuple(
        pick(program.timetable[engine][uses[which] + 1] for engine, uses in block.uses.items())
        for which, pick in ((0, min), (1, max))) for block in program.blocks}
    assert {"frame rows", "c1", "c4", "encoding", "d1", "d3", "alpha4"} <= lives.keys()
    end = program.estimated_cycles
    assert all(0 < first <= last <= end for first, last in lives.values())
    # c1 waits for the last gate; c4 is done with after the first.
    assert lives["c4"][1] < lives["d1"][1] < lives["c1"][1]
    assert lives["c1"][0] < lives["c4"][0]
    first, last = program.layer_spans[program.layers[-1].id]
    assert lives["c1"][0] < first < last < end


def test_layers_carry_the_macs_of_the_model(graph):
    program = compile_network(graph, TINY)
    assert sum(layer.macs for layer in program.layers) == sum(integer.macs(graph).values())
    assert {layer.unit for layer in program.layers} == {"encoder", "attention", "decoder"}


def test_frames_must_be_positive(graph):
    with pytest.raises(CompileError, match="^Number of frames must be positive, not 0$"):
        compile_network(graph, TINY, frames=0)


def test_network_too_large_for_offchip_memory(graph):
    config = replace(TINY, offchip_bytes=128 * KIB)
    with pytest.raises(CompileError, match="has 131072; use fewer frames or a smaller network, or "
                                           "SET=offchip_bytes=262144$"):
        compile_network(graph, config)
    compile_network(graph, replace(config, offchip_bytes=262144))


def test_map_that_cannot_fit(graph):
    config = replace(TINY, onchip_bytes=1 * KIB, feedback_bytes=1 * KIB)
    with pytest.raises(CompileError, match="needs .* words of onchip; of its 128 these are in use"
                                           ".*; use a narrower network, or SET=onchip_bytes="):
        compile_network(graph, config)
    for _ in range(9):      # each time as much as the next block needs
        try:
            compile_network(graph, config)
            break
        except CompileError as error:
            name, size = str(error).rpartition("SET=")[2].split("=")
            assert int(size) > getattr(config, name)
            config = replace(config, **{name: int(size)})
    else:
        pytest.fail("nine times more is not enough")


def test_weights_that_cannot_fit(graph):
    config = replace(TINY, encoder=replace(TINY.encoder, weight_words=64))
    with pytest.raises(CompileError, match="^Layer .* needs .* weight words and 1 parameter "
                                           "groups at a time; two of those exceed the encoder's 64 "
                                           "and 64; use a narrower network, or "
                                           "SET='encoder.weight_words=") as refused:
        compile_network(graph, config)
    sizes = re.findall(r"encoder\.(\w+)=(\d+)", str(refused.value))
    assert [name for name, _ in sizes] == ["weight_words", "params"]
    enough = {name: int(size) for name, size in sizes}
    try:
        compile_network(graph, replace(TINY, encoder=replace(TINY.encoder, **enough)))
    except CompileError as error:           # a later layer is larger still
        assert "encoder's 64 and 64" not in str(error)


def test_a_skip_that_no_gate_weighs(graph):
    """A plain U-Net's level: the decoder reads the skip itself."""
    plain   = without_gate(graph)
    program = compile_network(plain, TINY)
    frame   = read_image("phantom:3", 32)
    golden  = integer.run(plain, frame)
    machine, masks = execute(program, TINY, [frame], seed=2)
    assert_tensors(program, machine, golden)
    assert torch.equal(masks[0], golden["mask"][0])


def without_gate(graph):
    """The graph with its first gate cut out, its skip passed on as it is."""
    names   = {"g1_normal", "g1_down", "g1_sum", "g1_logit", "alpha1", "gated1"}
    layers  = [layer for layer in graph.layers if layer.name not in names]
    layers  = [replace(layer, inputs=("d1_up", "c4")) if layer.name == "d1_concat" else layer
               for layer in layers]
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in names}
    return replace(graph, layers=tuple(layers), tensors=tensors)


def test_bounds_of_channels_need_requantisers_for_them():
    graph  = load_graph("attunet-ct", size=16, width=4)
    config = replace(TINY, channel_bounds=False)
    with pytest.raises(CompileError) as refused:
        compile_network(graph, config)
    assert str(refused.value) == (
        "Layer 'e1a' has a bound for each channel (normalisation after ReLU), which this machine's "
        "requantisers lack; give them some, SET=channel_bounds=true")
    assert compile_network(graph, replace(config, channel_bounds=True)).layers
