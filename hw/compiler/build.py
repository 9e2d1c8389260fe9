"""From graph to program: find the plan that fits and costs least."""

import gc
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

from golden import integer
from hw.compiler.errors import CompileError, NoRoom
from hw.compiler.flow import emit_frames
from hw.compiler.groups import readers_of
from hw.compiler.lend import PASSING
from hw.compiler.machine import Machine, Order, Schedule
from hw.compiler.maps import Map
from hw.compiler.memory import arrange
from hw.compiler.ops import Pass, lower, needed_rows
from hw.compiler.program import Program, TapLayer
from hw.isa import CONVS, INSTRUCTION_BYTES, Engine, Opcode, Traffic

PATIENCE = 2            # plans no better than the best before the search ends
SEARCHED_FRAMES = 2     # a longer stream repeats what the second frame does
SCHEDULES = (           # the next ones where none of these fits
    (Schedule(Order.EARLY), Schedule(Order.LATE), Schedule(Order.LATE, Map.FEW_READ_SLOTS)),
    (Schedule(Order.LATE, spill_copies=2),),
    (Schedule(Order.APART, spill_copies=1),),
    (Schedule(Order.APART, Map.LEAST_READ_SLOTS, spill_copies=1),))
FIRST_APART = 2         # of them, in which no frame begins before the end of another
KEPT_SHARES = (4, 8, 16, None)  # of on-chip memory, for rows of spilled maps, where units lend
OBSERVED    = (Opcode.CONV, Opcode.FILL, Opcode.GATE)  # what taps record
FEW_PARKED  = 1         # maps; the encoder does not reach them, so with more other plans are tried
LENT_BYTES  = 1.1       # times the off-chip bytes that lending may take
GREATLY     = 0.55      # times the cycles of another plan: where lending may take ..
GREATLY_BYTES = 1.4     # .. so many times the bytes
CLEARLY     = 0.8       # times the cycles of a first plan: what no other spilling makes up for


def compile_network(graph, config, *, frames=1, pure=False, live=False):
    """Compile ``graph`` for ``config`` and a stream of ``frames`` frames. In a ``live`` one, whose
    frames come one by one, no mask waits for a later frame: if it would in the cheapest plan, each
    frame follows the one before.

    Spills what a memory has no room for, the largest and longest-lived maps first, until a plan
    fits; then tries to spill more, and takes the cheapest plan: where on-chip memory is nearly
    full, weights are fetched once per block of rows, and spilling a map may save more than it
    costs. Of the orders in which frames overlap the cheaper is taken; where none fits, frames
    overlap less, and fewer rows of what is spilled are held at a time.

    Units compute shares of each other's layers (:mod:`hw.compiler.lend`), one frame after the
    other, where masks then come in fewer cycles and hardly more bytes are moved; not if it should
    be ``pure``.

    Raises
    ------
    CompileError
        If a layer is unsupported, or no plan fits; the message is that of the last one tried.
    """
    if frames < 1:
        raise CompileError(f"Number of frames must be positive, not {frames!r}")
    networks = [lower(graph)]
    with _uncollected(networks):
        best = _best(networks, config, frames, pure)
        if live and best.emitter.waits_ahead():
            best = _best(networks, config, frames, pure, apart=True)
        return finish(best)


def _best(networks, config, frames, pure, apart=False):
    """The machine with everything emitted that takes fewest cycles. A single frame tells first
    whether lending certainly makes masks come sooner, so that the search without can be spared, or
    certainly not, so that no stream need be lent."""
    network = networks[0]
    alone   = None if pure else _first_alone(network, config)
    lending = alone and _lowered(network.graph, lend=True)
    if lending:
        networks.append(lending)
    single  = lending and lent(lending, alone[1], 1)
    schedules = SCHEDULES[FIRST_APART:] if apart or frames == 1 else SCHEDULES
    if not single:
        return _unlent(network, config, frames, schedules, begin=alone)

    def stream():
        return single if frames == 1 else lent(lending, alone[1], frames)

    # No order of frames makes masks come sooner than the busiest engine has done its part of one.
    sooner = (CLEARLY * interval(alone[1]) if frames == 1 else
              max(alone[1].emitter.timetable.busy))
    if interval(single) < sooner:
        mixed = stream()
        if mixed and worth(mixed, alone[1]):
            return mixed
    best = _unlent(network, config, frames, schedules, begin=alone)
    if cost(single) >= cost(best):
        return best
    if frames == 1 and best.spill != alone[1].spill:
        single = lent(lending, best, 1)
    mixed = stream()
    return mixed if mixed and cost(mixed) < cost(best) and worth(mixed, best) else best


def _lowered(graph, **how):
    """What units run for a graph where more is copied; None if that makes more layers than can be
    named."""
    try:
        return lower(graph, **how)
    except CompileError:
        return None


def _first_alone(network, config):
    """Cost and machine of the first plan that fits for a single frame in which no unit lends; None
    if none does."""
    for schedule, in SCHEDULES[FIRST_APART:]:
        try:
            return cheapest(network, config, 1, schedule, patience=0)
        except CompileError:
            continue
    return None


def _unlent(network, config, frames, tried, *, begin=None):
    """The machine of the cheapest plan in which no unit lends, of the first of the schedules
    ``tried`` that fit. ``begin``, if given, is the first that fits for a single frame."""
    for schedules in tried:
        plans, spills = [], {}
        for schedule in schedules:
            try:
                if schedule.order in spills:        # only rows that are read differ
                    plans.append(plan(network, config, frames, spills[schedule.order], schedule))
                    continue
                known = frames == 1 and begin and begin[1].schedule == schedule
                found = cheapest(network, config, min(frames, SEARCHED_FRAMES), schedule,
                                 begin=begin if known else None)
                spills[schedule.order] = found[1].spill
                if frames > SEARCHED_FRAMES:
                    found = plan(network, config, frames, found[1].spill, schedule)
                plans.append(found)
            except CompileError as reason:
                error = reason
        if plans:
            best = min(plans, key=lambda found: found[0])[1]
            return _spared(network, best) if best.spill else best
    raise error


def _spared(network, best):
    """Of a plan that spills, and of what it becomes when on-chip memory is spared, the cheapest."""
    config, frames = best.config, best.frames

    def tried(network, spill, make=plan, **changes):
        """Take another plan if it is cheaper; whether there is room for it."""
        nonlocal best
        try:
            found = make(network, config, frames, spill, replace(best.schedule, **changes))[1]
        except CompileError:
            return False
        best = min(best, found, key=cost)
        return True

    def first(network, config, frames, spill, schedule):
        return cheapest(network, config, frames, schedule, patience=0, spill=spill)

    if any(network.made[name].unit == "decoder" for name in best.spill):
        tried(network, best.spill, first, sparing=True)
        for name in reversed(spillable(network)) if best.schedule.sparing else ():
            if name in best.spill - best.unread:
                tried(network, best.spill - {name})
    pooled = _pooled(best)
    copied = pooled and _lowered(network.graph, pooled=pooled)
    if copied:
        tried(replace(copied, planned=network.planned), best.spill)
    if frames == 1:
        any(tried(best.network, best.spill, kept_words=best.onchip.words // share)
            for share in KEPT_SHARES[:-1])
    return best


def _pooled(machine):
    """Pooled maps for which spilled ones are loaded: a copy of such a map takes a quarter of the
    room, and is made while the rows of the other pass by."""
    loaded = {unit: {layer for opcode, fields, layer, *_ in machine.emitter.streams[of.load]
                     if opcode is Opcode.LOAD and fields["traffic"] is Traffic.SPILL}
              for unit, of in machine.units.items()}
    return tuple(move.name for move in machine.network.moves.values()
                 if isinstance(move.layer, integer.MaxPool)
                 and machine.network.made[move.layer.input].id in loaded[move.layer.unit])


@contextmanager
def _uncollected(networks):
    """Without Python's garbage collector. A plan is a hundred thousand small objects that all live
    until it is compared, and looking through them again and again takes a third of the time. What
    was planned for ``networks`` is let go of at the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for machine in (machine for network in networks for machine in network.planned):
            machine.emitter.forget()
        if enabled:
            gc.enable()


def lent(network, machine, frames):
    """The machine in which units lend, with everything emitted for ``frames`` frames; None if there
    is no room for it. Rather than spill it parks maps in feedback memory; of what both spill it
    keeps as many rows as there is room for."""
    config, schedule, best = machine.config, replace(machine.schedule, lend=True), None
    for passing in PASSING:
        found = _parking(network, config, frames, replace(schedule, passing=passing))
        if found and (best is None or cost(found) < cost(best)):
            best = found
        if best and sum(item.parked for item in best.network.passes) <= FEW_PARKED:
            break
    if best:
        return best
    for share in KEPT_SHARES if machine.spill else ():
        kept = machine.onchip.words // share if share else 0
        try:
            return plan(network, config, frames, machine.spill,
                        replace(schedule, kept_words=kept))[1]
        except CompileError:
            continue
    return None


def _parking(network, config, frames, schedule):
    """The machine in which nothing is spilled, and as few maps as possible are parked in feedback
    memory: those in the way, in the order in which they would be spilled; None if there is no room
    for that."""
    names, lending, room = (), network, config.feedback_words
    while True:
        try:
            return plan(lending, config, frames, (), schedule)[1]
        except NoRoom as reason:
            fitting = {}
            for name in spillable(network):
                tensor = network.tensors[name]
                words  = network.planned[-1].map_words(tensor) * tensor.height
                if (name in (reason.wanted, *reason.live) and name not in names and words <= room
                        and parkable(network, name)):
                    fitting[name] = words
            if not fitting:
                return None
            # What the encoder does not read passes by on its way, and is never on chip as a whole.
            name  = min(fitting, key=lambda name: any(
                item.unit == "encoder" for item in readers_of(network)[name]))
            names, room = (*names, name), room - fitting[name]
        except CompileError:
            return None
        lending = _lowered(network.graph, lend=True, parked=names)
        if lending is None:
            return None
        lending = replace(lending, planned=network.planned)


def parkable(network, name):
    """Whether a copy of a tensor in feedback memory, which the encoder does not reach, can serve
    all who read it after the encoder: they read it as it is or upsampled, or a gate weighs it."""
    readers = readers_of(network).get(name, [])
    later   = [item for item in readers if item.unit != "encoder"]
    moves   = [network.moves.get(leaf) for item in later for operand in item.operands
               for leaf in network.leaves(operand)
               if name in network.stored(leaf) and operand != name]
    return (later != [] and readers[-len(later):] == later
            and all(move and (isinstance(move.layer, integer.Upsample)
                              or isinstance(move.layer, integer.Gate) and move.layer.alpha != name)
                    for move in moves))


def worth(lending, machine):
    """Whether what units gain by lending is worth the bytes that it moves more, each frame."""
    gains = interval(lending) < GREATLY * interval(machine)
    return (moved(lending) * machine.frames
            <= (GREATLY_BYTES if gains else LENT_BYTES) * moved(machine) * lending.frames)


def cost(machine):
    """Cycles from mask to mask, and vectors that are moved meanwhile."""
    return interval(machine) + moved(machine) / machine.frames


def interval(machine):
    """Estimated cycles from mask to mask, or to the mask of a single frame."""
    done = machine.emitter.timetable.masks
    return (done[-1] - done[0]) / (len(done) - 1) if len(done) > 1 else done[0]


def moved(machine):
    """Vectors between the machine and off-chip memory, those of the program too."""
    program = sum(len(stream) for stream in machine.emitter.streams.values())
    return sum(machine.beats.values()) + -(-program * INSTRUCTION_BYTES // machine.config.vector)


def plan(network, config, frames, spill, schedule):
    """Cost, and the machine with everything emitted. Where on-chip memory would have room, but not
    in one piece, a first machine tells how long what is in it lives, a second has it arranged; and
    what the first stores, but never loads, the next does not store."""
    def emitted(unread, places=None):
        machine = Machine(network, config, frames, frozenset(spill), schedule, places, unread)
        network.planned.append(machine)
        emit_frames(machine)
        if machine.onchip.strayed:
            places = arrange(machine.onchip.lives, machine.onchip.words) or {}
            return emitted(unread, places)
        return machine

    machine = emitted(())
    if machine.stored > machine.loaded:
        try:
            machine = emitted(machine.stored - machine.loaded)
        except CompileError:
            pass            # without the stores, rows came in another order
    return machine.emitter.timetable.masks[-1] + sum(machine.beats.values()), machine


def cheapest(network, config, frames, schedule, *, patience=PATIENCE, begin=None, spill=()):
    """Cost and machine of the plan that spills what pays; or of the first that fits, without
    ``patience``. That one may be given, to ``begin`` with, or what all plans ``spill``."""
    largest = spillable(network)
    best, worse = begin, 0
    spill = [*(begin[1].spill if begin else spill)]
    found = begin
    while True:
        left = [name for name in largest if name not in spill]
        try:
            found = found or plan(network, config, frames, spill, schedule)
        except NoRoom as reason:
            if reason.alone and reason.wanted in left:
                left = [reason.wanted]
            left = [name for name in left if name in (reason.wanted, *reason.live)]
            if not left:
                if best is not None:
                    return best
                raise
        else:
            if best is None or found[0] < best[0]:
                best, worse = found, 0
            elif found is not begin:
                worse += 1
            if worse == patience or not left:
                return best
        found = None
        spill.append(left[0])


def spillable(network):
    """Tensors that may go off chip, the largest and longest-lived first."""
    order = {item: index for index, item in enumerate(network.passes)}
    until = {name: order[readers[-1]] for name, readers in readers_of(network).items()}

    def weight(item):
        tensor = item.tensor
        return (tensor.channels * tensor.height * tensor.width
                * (until[tensor.name] - order[item]))

    candidates = [item for item in network.passes
                  if item.tensor.name in until and not item.alpha
                  and item.tensor.name not in network.outputs]
    return [item.tensor.name for item in sorted(candidates, key=weight, reverse=True)]


def finish(machine):
    """Assemble the streams and describe the result."""
    network, config, image = machine.network, machine.config, machine.image
    base    = image.reserve(0, "program")
    program = machine.emitter.assemble(base, {item.id: item.name for item in network.layers})
    image.place(program, "program")
    ends    = machine.emitter.timetable.ends
    frame   = network.graph.tensors[network.graph.input]
    makers  = conv_units(machine)
    return Program(
        image=image.data, program_base=base, program_bytes=len(program),
        frames=machine.frames,
        layers=tuple(describe(network, item, makers) for item in network.layers),
        layer_bytes={layer: beats * config.vector for layer, beats in machine.beats.items()},
        layer_traffic=layer_traffic(machine),
        compulsory_bytes=len(program) + machine.frames * (
            parameter_bytes(network) + frame.channels * frame.height * frame.width
            + sum(network.tensors[name].channels * network.tensors[name].height
                  * network.tensors[name].width for name in network.outputs)),
        estimated_cycles=machine.emitter.timetable.masks[-1],
        timetable={engine: ends[engine] for engine in Engine},
        layer_spans=layer_spans(machine, ends),
        blocks=tuple(machine.onchip.history + machine.feedback.history),
        occupancy={"onchip_capacity": config.onchip_bytes + config.feedback_bytes,
                   "onchip_peak": (machine.onchip.footprint + machine.feedback.footprint)
                   * config.vector,
                   "offchip_peak": image.end},
        spilled=tuple(sorted(machine.spill - machine.unread)),
        frames_at=machine.frames_at, frame_bytes=machine.frame_bytes,
        frame_row_bytes=machine.frame_row, outputs=machine.outputs, vector=config.vector,
        writable=machine.writable, frame_rows=frame_rows(machine))


def frame_rows(machine):
    """Layer id -> engine -> rows that it makes in each frame, where that depends on the frame:
    units lend, and one frame is emitted after the other."""
    found = {}
    if not machine.schedule.lend or machine.frames == 1:
        return found
    for engine, stream in machine.emitter.streams.items():
        edges = [*(begin[engine] for begin in machine.begins), len(stream)]
        for frame, (start, stop) in enumerate(pairwise(edges)):
            for opcode, _, layer, row, _ in stream[start:stop]:
                if opcode in OBSERVED:
                    made = found.setdefault(layer, {}).setdefault(
                        engine, [[] for _ in range(machine.frames)])
                    made[frame].append(row)
    return found


def layer_traffic(machine):
    """Layer id -> class of traffic -> off-chip bytes, all frames."""
    found = {}
    for stream in machine.emitter.streams.values():
        for opcode, fields, layer, _, _ in stream:
            if opcode in (Opcode.LOAD, Opcode.STORE):
                classes = found.setdefault(layer, {})
                classes[fields["traffic"]] = (classes.get(fields["traffic"], 0)
                                              + fields["beats"] * machine.config.vector)
    return found


def layer_spans(machine, ends):
    """Layer id -> cycles in which its array, or the gate, is done with its first and last row."""
    spans = {}
    for engine in (*CONVS, Engine.GATE):
        for index, (opcode, _, layer, _, _) in enumerate(machine.emitter.streams[engine]):
            if opcode in (Opcode.CONV, Opcode.GATE):
                done = ends[engine][index + 1]
                spans[layer] = spans.get(layer, (done, done))[0], done
    return spans


def conv_units(machine):
    """Unit -> ids of the layers of which it computes rows."""
    conv = Opcode.CONV
    return {name: {layer for opcode, _, layer, _, _ in machine.emitter.streams[unit.conv]
                   if opcode is conv} for name, unit in machine.units.items()}


def describe(network, item, makers):
    """A layer for taps and report; ``makers`` are :func:`conv_units`."""
    tensor = item.tensor
    unit   = item.unit if isinstance(item, Pass) else item.layer.unit
    macs   = item.macs if isinstance(item, Pass) else 0
    lent   = tuple(name for name, made in makers.items() if name != unit and item.id in made)
    return TapLayer(item.id, item.name, unit, macs, tensor.name, tensor.channels, tensor.height,
                    tensor.width, network.layouts[tensor.name], lent, isinstance(item, Pass))


def parameter_bytes(network):
    """Weights of one byte, but for kernel rows of zeros, 8 bytes of requantisation per channel, and
    the tables."""
    total, tables = 0, set()
    for layer in network.graph.layers:
        if isinstance(layer, integer.Conv | integer.TransposedConv):
            total += needed_rows(layer.weight.numpy())[1].size + 8 * len(layer.bias)
        if isinstance(layer, integer.Gate):
            total += 8 * len(layer.bias)
        if isinstance(layer, integer.Sum):
            total += 8
        if isinstance(layer, integer.Lookup):
            tables.add(bytes(layer.table.numpy()))
    return total + 256 * len(tables)
