"""The order of work: groups of passes, frame by frame, each unit doing its own in turn.

Rows are pulled: a pass asks the ring of each operand for the rows under its kernel, the ring asks
the fills, the gate or the pass before, these ask the maps, and a map that is not there yet asks the
pass that makes it. Attention maps so come into being as the decoder's gate asks for their rows.
"""

from itertools import chain, zip_longest

from amaranth.lib import data

from golden import integer
from hw.compiler.emit import Span
from hw.compiler.errors import CompileError, or_set
from hw.compiler.groups import group, pulled, sources
from hw.compiler.lend import Prices, able, deal_channels, deal_rows, shares
from hw.compiler.machine import FrameRows, Order
from hw.compiler.maps import Ring
from hw.compiler.pack import pack_requant, padded_channels
from hw.compiler.unit import TARGETS, PartRun, Wanted
from hw.isa import FORMS, Engine, FillMode, LoadTarget, Opcode, Source, Target, Traffic

FILL = Opcode.FILL      # slow to look up on its type
FEW_AHEAD = 2           # rows of a map read in passing that are made early: nobody waits for them
MOST_VECTORS = (1 << data.Layout.cast(FORMS[FILL])["vectors"].width) - 1     # of a pixel


def emit_frames(machine):
    """Emit every frame, in the order of the machine."""
    groups = group(machine)
    machine.lay_out(groups)
    begin  = next((index for index, found in enumerate(groups) if found.unit == "decoder"),
                  len(groups))
    front, rest = groups[:begin], groups[begin:]
    ahead  = _ahead(machine.schedule.order, front, rest)
    frames = [FrameRun(machine, groups, index) for index in range(machine.frames)]
    frames[0].run_all(front)
    for frame, following in zip(frames, [*frames[1:], None], strict=True):
        for number, found in enumerate(rest):
            if following and number in ahead:
                following.run_all(ahead[number])
            frame.run(found)
        frame.finish()
        if following and len(rest) in ahead:
            following.run_all(ahead[len(rest)])


def _ahead(order, front, rest):
    """Which groups of the next frame go ahead of each of this one's; those after its last one
    have its number plus one."""
    decoder = [index for index, found in enumerate(rest) if found.unit == "decoder"]
    if order == Order.LATE and decoder:
        return {[-1, *decoder][-2] + 1: front}
    if order == Order.EARLY and rest:
        begin = next((index for index, found in enumerate(front) if found.unit != "encoder"),
                     len(front))
        return {0: front[:begin], len(rest): front[begin:]}
    return {len(rest): front}


class FrameRun:
    """One frame: its maps, and how many passes have still to read each."""

    def __init__(self, machine, groups, index):
        self.machine, self.index = machine, index
        self.network = machine.network
        self.maps    = {self.network.graph.input: FrameRows(machine, index)}
        self.seen    = {}       # name -> rows that have been observed
        self.lazy    = []       # groups whose rows are still being pulled
        self.left    = {}
        self.last    = [item.tensor.name for found in groups for item in found.passes
                        if item.tensor.name in self.network.outputs][-1]
        for found in groups:
            for item in found.passes:
                for name in sources(self.network, item):
                    self.left[name] = self.left.get(name, 0) + 1

    def run_all(self, groups):
        for found in groups:
            self.run(found)
        self.finish()

    def run(self, found):
        """Emit one group: to its end, or if it makes an attention map, as far as others pull."""
        if len(self.machine.begins) == self.index:
            self.machine.begins.append(self.machine.emitter.retired(Engine))
        unit = self.machine.units[found.unit]
        used = {found.unit, *(item.unit for item in found.passes)}
        for name, other in self.machine.units.items():
            if name in used and other.open is not None:
                other.open.finish()
        run = GroupRun(self, found)
        if run.lazy:
            unit.open = run
            self.lazy.append(run)
        else:
            run.finish()
            for waiting in list(self.lazy):
                if all(self.left[name] == 0 for name in waiting.makes):
                    waiting.finish()

    def finish(self):
        for run in list(self.lazy):
            run.finish()

    def ended(self, run):
        """A group is done: what nobody reads any more goes, and what is spilled makes room."""
        if run in self.lazy:
            self.lazy.remove(run)
        for item in run.group.passes:
            for name in sources(self.network, item):
                self.left[name] -= 1
        making = {name for other in self.lazy for name in other.makes}
        for name, found in list(self.maps.items()):
            if name in making:
                continue
            if found.complete and not self.left.get(name):
                found.free()
                del self.maps[name]
            elif found.complete:
                found.evict()

    def observed(self, name, y):
        """Whether row ``y`` of tensor ``name`` has been seen before; now it has."""
        rows = self.seen.setdefault(name, set())
        if y in rows:
            return True
        rows.add(y)
        return False


class GroupRun:
    """A group set up on its unit, and on those that lend, for one frame."""

    def __init__(self, frame, found):
        self.frame, self.group = frame, found
        self.machine = machine = frame.machine
        self.network = machine.network
        self.unit    = machine.units[found.unit]
        self.makes   = [item.tensor.name for item in found.passes
                        if item.tensor.name not in found.inside]
        self.lazy    = pulled(machine, found)
        self.gates   = {}       # gate -> (parameter base, span), while this group runs
        self.held    = []
        self.units   = [self.unit, *(machine.units[name] for name in found.lenders
                                     if machine.units[name].open is None)]
        self.passes  = {}       # tensor -> its pass, or the first piece, on its own unit
        self.shares  = {}       # tensor -> its pass, or its pieces, on every unit that shares it
        for item in found.passes:
            if item.tensor.name not in found.inside:
                frame.maps[item.tensor.name] = self._sink(item)
        for item in found.passes:
            name = item.tensor.name
            self.shares[name] = [PassRun(self, piece, unit)
                                 for piece in (shares(item) if found.lenders else (item,))
                                 for unit in dict.fromkeys((*self.units, machine.units[item.unit]))
                                 if able(machine, piece, unit.name)]
            self.passes[name] = self.shares[name][0]
        for unit in self.units:
            self._rings(unit)
        for run in self.passes.values():
            for operand, ring in zip(run.item.operands, run.rings, strict=True):
                if operand in found.inside:
                    self.passes[operand].ring = ring
        if found.stays:
            for unit in self.units:
                self._load(unit)
            if found.lenders:
                self.prices = Prices(machine, chain(*self.shares.values()))
            for name in self.makes:
                frame.maps[name].producer = self._producer(name)
            self._early()

    def runs_on(self, unit):
        """What of this group a unit computes."""
        return [run for shares in self.shares.values() for run in shares if run.unit is unit]

    def _rings(self, unit):
        """Row memory of a unit for the operands of what it computes."""
        runs   = self.runs_on(unit)
        wanted = [ring for run in runs for ring in run.wanted()]
        rings  = iter(unit.rings(wanted, f"Input of {self.group.name}"))
        for run in runs:
            run.rings = [next(rings) for _ in run.item.operands]

    def _producer(self, name):
        if not self.group.lenders:
            return self.passes[name].make_row
        return deal_rows(self.machine, self.shares[name], self.prices, make_row)

    def _passes_on(self, item):
        """Whether what a pass makes is read by others of this group alone, as it passes."""
        name = item.tensor.name
        return (self.group.lenders and self.group.stays and name not in self.machine.spill
                and name not in self.network.outputs
                and self.frame.left.get(name, 0) == sum(
                    sources(self.network, other).count(name) for other in self.group.passes) > 0)

    def _sink(self, item):
        machine, frame = self.machine, self.frame
        if item.alpha:
            return AlphaRows(machine, item)
        lent = self.group.lenders and self.group.stays
        ahead, rows = machine.schedule.passing
        if self._passes_on(item):
            made = machine.passing_map(item, rows)
        else:
            block = (rows if lent else 1) if self.group.stays else machine.block_rows(item)
            made  = machine.map(item, frame=frame.index, block=block,
                                ends_frame=item.tensor.name == frame.last,
                                waits=item.unit != self.group.unit)
        if lent and any(item.tensor.name in sources(self.network, other)
                        for other in self.group.passes):
            made.ahead = ahead
        elif item.tensor.name in machine.spill and any(
                item.tensor.name in sources(self.network, other)
                for found in (self.group, *(run.group for run in frame.lazy))
                for other in found.passes):
            made.ahead = FEW_AHEAD
        return made

    def _load(self, unit):
        """All weights and parameters of what a unit computes of the group, side by side."""
        runs = self.runs_on(unit)
        if not runs:
            return
        words, params = unit.words([run.item for run in runs])
        held = [(unit.weights, unit.weights.take(words, self.group.name)),
                (unit.params, unit.params.take(params, self.group.name))]
        self.held += held
        weight, param = (base for _, base in held)
        for run in runs:
            for part in run.parts:
                packed = part.packed
                param  = -(-param // packed.group_params) * packed.group_params
                part.load(0, packed.groups, weight, param)
                weight += packed.groups * packed.group_words
                param  += packed.groups * packed.group_params

    def early(self, name):
        """Whether an inside tensor can be made before anything else of this group: all it needs
        was made before the decoder's latest work, which others wait for."""
        maps, made = self.frame.maps, self.network.made
        return self.lazy and all(source in maps and maps[source].complete
                                 and not maps[source].spilled
                                 and not (source in made and made[source].unit == "decoder")
                                 for source in sources(self.network, self.passes[name].item))

    def _early(self):
        for name in self.group.inside:
            ring = self.passes[name].ring
            if self.early(name) and ring.slots == self.passes[name].item.tensor.height:
                for y in range(ring.slots):
                    ring.get(y)

    def finish(self):
        """Make every row now, and give the unit's memories back."""
        if self.group.stays:
            # The last one pulls the others. What joined only to read rows in passing keeps pace.
            ends  = [item for item in self.group.passes if item.tensor.name in self.makes]
            pace  = [item for item in ends if item.unit != self.group.unit]
            steps = self.group.last.tensor.height if pace else 1
            ahead = self.machine.schedule.passing[0]
            for step in range(1, steps + 1):
                for item in (*(item for item in reversed(ends) if item not in pace), *pace):
                    height = item.tensor.height
                    self.frame.maps[item.tensor.name].ensure(
                        min(step * height // steps - 1 + ahead * (item in pace), height - 1))
            for item in ends:
                self.frame.maps[item.tensor.name].producer = None
        else:
            stream(self, self.shares[self.makes[0]])
        self._complete()
        for heap, base in self.held:
            heap.give(base)
        for base, _ in self.gates.values():
            self.machine.gates.give(base)
        if self.unit.open is self:
            self.unit.open = None
        self.frame.ended(self)

    def _complete(self):
        """Make the rows that nobody asked for (behind a 1x1 kernel of stride 2, say) of tensors
        that are in row memory only, so that every tensor exists as a whole."""
        own = [run for run in chain(*self.shares.values()) if run.unit.name == run.item.unit]
        for run in reversed(own):
            for operand, ring in zip(run.item.operands, run.rings, strict=True):
                passing = [leaf for leaf in self.network.leaves(operand)
                           if leaf in self.group.inside or leaf not in self.network.made
                           and leaf in self.network.moves]
                for y in range(self.network.tensors[operand].height if passing else 0):
                    if any(y not in self.frame.seen.get(leaf, ()) for leaf in passing):
                        ring.get(y)

    def gate_params(self, move):
        """Where the gate's parameters are, loaded when first asked for."""
        if move.name not in self.gates:
            machine, gate = self.machine, move.layer
            vector, lanes = machine.config.vector, machine.config.gate_lanes
            layout = self.network.layouts[gate.skip]
            positions, channels = padded_channels(layout, vector)
            blob = pack_requant(gate.name, gate.bias.numpy(), gate.multiplier, gate.shift,
                                positions=positions, channels=channels, vector=vector)
            address = machine.place_once(blob, f"parameters of {gate.name}")
            base = machine.gates.take(channels // lanes, f"Gate {gate.name!r}")
            span = Span(machine.gates.name, base, base + channels // lanes)
            machine.emitter.emit(
                Engine.LOAD_ATTENTION, Opcode.LOAD,
                {"traffic": Traffic.WEIGHTS, "target": LoadTarget.GATE_PARAMS, "offchip": address,
                 "beats": channels, "base": base}, layer=move.id, writes=[span])
            machine.charge(move.id, channels)
            self.gates[move.name] = base, span
        return self.gates[move.name]


class PassRun:
    """A pass set up on its unit: its parts, and a ring of rows for each operand."""

    def __init__(self, run, item, unit):
        self.run, self.item = run, item
        self.frame   = run.frame
        self.machine = machine = run.machine
        self.unit    = unit
        name = item.tensor.name
        self.ring   = None      # the reader's, if it holds nothing else
        if name in run.group.inside:
            self.sink = None
            reader  = next(found for found in run.group.passes
                           if any(name in run.network.leaves(operand)
                                  for operand in found.operands))
            operand = next(operand for operand in reader.operands
                           if name in run.network.leaves(operand))
            target, vectors, packed = Target.ROW, machine.vectors(operand), False
        else:
            self.sink = sink = run.frame.maps[name]
            target  = Target.ALPHA if item.alpha else TARGETS[sink.ring.memory]
            vectors, packed = sink.vectors, sink.packed
        self.parts   = [PartRun(unit, item, part, target, out_vectors=vectors, packed=packed)
                        for part in item.parts]
        self.rings   = []
        self.heights = [run.network.tensors[operand].height for operand in item.operands]

    def wanted(self):
        """Height, words, least number and producer of the rows of each operand."""
        for index, operand in enumerate(self.item.operands):
            tensor = self.run.network.tensors[operand]
            yield Wanted(tensor.height, self.unit.row_words(self.item, operand),
                         self.machine.least(self.item, index), self._assembling(operand),
                         operand in self.run.group.inside and self.run.early(operand))

    def _assembling(self, operand):
        """What brings row ``y`` of an operand to its place: every leaf beside the others."""
        network, stride, offset = self.run.network, self.machine.vectors(operand), 0
        steps = []
        for leaf in network.leaves(operand):
            steps.append((self._bringing(leaf, stride, offset), leaf, offset))
            offset += self.machine.vectors(leaf)

        def produce(y, address, span):
            for bring, leaf, offset in steps:
                if bring is None:
                    self.run.passes[leaf].make(y, address + offset, [span])
                else:
                    bring(y, address, span)

        return produce

    def _bringing(self, leaf, stride, offset):
        network = self.run.network
        if leaf in self.run.group.inside:
            return None
        move = network.moves.get(leaf) if leaf not in network.made else None
        if move is None:
            return self._filling(leaf, FillMode.COPY, 0, leaf, stride, offset)
        if isinstance(move.layer, integer.Gate):
            return self._gating(move, stride, offset)
        mode = FillMode.POOL if isinstance(move.layer, integer.MaxPool) else FillMode.UP
        source = network.stored(leaf)[0]
        return self._filling(source, mode, move.id, leaf, stride, offset)

    def _filling(self, source, mode, tap, leaf, stride, offset):
        frame, load, fill, emit = (self.frame, self.unit.load, self.unit.fill,
                                   self.machine.emitter.emit)
        pools, doubles = mode is FillMode.POOL, mode is FillMode.UP

        def produce(y, address, span):
            found = frame.maps[source]
            width = found.tensor.width
            where, base, read = found.get(2 * y if pools else y // 2 if doubles else y, load)
            base2, reads = 0, [read]
            if pools:
                _, base2, read = found.get(2 * y + 1, load)
                width = width // 2 * 2
                reads.append(read)
            emit(fill, FILL,
                 {"source": where, "mode": mode, "src_base": base, "src_base2": base2,
                  "width": width, "vectors": found.vectors, "dst_base": address,
                  "dst_stride": stride, "dst_vector": offset},
                 layer=tap if tap and not frame.observed(leaf, y) else 0, row=y, reads=reads,
                 writes=[span])

        def in_line(y, address, span):
            found = frame.maps[source]
            where, base, read = found.get(y, load)
            total = found.tensor.width * found.vectors
            most  = MOST_VECTORS // found.vectors * found.vectors
            for start in range(0, total, most):
                emit(fill, FILL,
                     {"source": where, "mode": mode, "src_base": base + start, "width": 1,
                      "vectors": min(most, total - start), "dst_base": address + start},
                     row=y, reads=[read], writes=[span])

        return in_line if self.item.columns else produce

    def _gating(self, move, stride, offset):
        gate, frame, machine = move.layer, self.frame, self.machine
        tensors = self.run.network.tensors
        skip    = tensors[gate.skip]
        same    = tensors[gate.alpha].width == skip.width

        def produce(y, address, span):
            base, held = self.run.gate_params(move)
            maps = frame.maps
            _, alpha_address, alpha_span = maps[gate.alpha].get(y if same else y // 2,
                                                                Engine.LOAD_ATTENTION)
            _, skip_address, skip_span = maps[gate.skip].get(y, Engine.LOAD_ATTENTION)
            machine.emitter.emit(
                Engine.GATE, Opcode.GATE,
                {"skip_base": skip_address, "alpha_base": alpha_address, "width": skip.width,
                 "vectors": machine.vectors(gate.skip), "param_base": base, "dst_base": address,
                 "dst_stride": stride, "dst_vector": offset, "zero_out": gate.zero_point,
                 "low": gate.low, "high": gate.high,
                 "zero_alpha": tensors[gate.alpha].zero_point, "zero_skip": skip.zero_point,
                 "wide": tensors[gate.alpha].channels > 1, "same": same},
                layer=0 if frame.observed(move.name, y) else move.id, row=y,
                reads=[skip_span, alpha_span, held], writes=[span])

        return produce

    def make_row(self, y):
        """Row ``y`` to where the map wants it."""
        make_row([self], y)

    def sources(self):
        """The maps from which the tensor is made."""
        return [self.frame.maps[source] for source in sources(self.run.network, self.item)]

    def make(self, y, address, spans):
        """Row ``y`` to a place in the row memory of this unit."""
        self.emit(y, self.places_of(y), address, spans)

    def places_of(self, y):
        """Per part that makes row ``y``, the places of the rows under its kernel."""
        return [(run, self.places(run.part, y)) for run in self.parts if run.part.makes(y)]

    def places(self, part, y):
        rings = self.rings
        return [place and rings[place[0]].get(place[1])
                for place in part.sources(y, self.heights)]

    def emit(self, y, places, address, spans, *, alpha=0, tapped=None, after=None):
        """What makes row ``y`` of :meth:`places_of` it."""
        if tapped is None:
            tapped = self.frame.observed(self.item.tensor.name, y)
        for run, found in places:
            run.row(y, found, address, spans, alpha_base=alpha, tapped=tapped, after=after)

    def plan(self, channels, rest, rows):
        """Plan the tiles of a range of channels, None for all; and of those of the range ``rest``,
        of which this unit makes some ``rows`` only."""
        self._plans = [(run, self.unit.tiles(self.item, run.part, some), made)
                       for some, made in ((channels, range(self.item.tensor.height)), (rest, rows))
                       if made and some != range(0) for run in self.parts]
        self._held  = None

    def tiles(self, placed, beside):
        """Emit rows to their places, a tile of weights in each iteration; ``beside`` are those who
        make the other channels."""
        whole = len(self._plans) == 1 and len(self._plans[0][1]) == 1
        for run, tiles, rows in self._plans:
            for first, groups in tiles:
                if self._held is None:
                    self._held = self._load_tile(run, first, groups)
                for y, (address, spans, alpha) in placed.items():
                    if y in rows and run.part.makes(y):
                        run.row(y, self.places(run.part, y), address, spans, alpha_base=alpha,
                                beside=beside)
                if not whole:
                    self.end()
                yield

    def end(self):
        """Give back the memory of the latest tile."""
        for heap, base in self._held or ():
            heap.give(base)
        self._held = None

    def _load_tile(self, run, first, groups):
        unit, packed = self.unit, run.packed
        what   = f"Layer {self.item.name!r}"
        weight = unit.weights.take(groups * packed.group_words, what)
        slack  = unit.alignment(packed)
        param  = unit.params.take(groups * packed.group_params + slack, what)
        run.load(first, groups, weight, -(-param // packed.group_params) * packed.group_params)
        return (unit.weights, weight), (unit.params, param)


def make_row(runs, y):
    """Row ``y`` to where the map wants it, each of ``runs`` making a piece of it."""
    first     = runs[0]
    machine   = first.machine
    timetable = machine.emitter.timetable
    places    = [run.places_of(y) for run in runs]
    address, spans, alpha = first.sink.claim(y)
    tapped = first.frame.observed(first.item.tensor.name, y)
    after  = machine.emitter.users(spans) if len(runs) > 1 else None
    for run, found in zip(runs, places, strict=True):
        run.emit(y, found, address, spans, alpha=alpha, tapped=tapped, after=after)
    first.sink.stored(y)
    if machine.schedule.lend and not first.item.alpha:
        first.sink.times.append(max(timetable.end(run.unit.conv) for run in runs))


def stream(run, shares):
    """Every row of the one pass of a group, block by block, the weights of each part passing
    through in tiles; ``shares`` are the pass on every unit that may make some of its channels."""
    machine, sink = run.machine, shares[0].sink
    item  = shares[0].item
    dealt, rest = deal_channels(machine, shares)
    dealt  = [(share, channels, rows) for share, (channels, rows) in zip(shares, dealt, strict=True)
              if channels is None or channels or rows]
    shares = [share for share, *_ in dealt]
    for share, channels, rows in dealt:
        share.plan(channels, rest, rows)
    height = item.tensor.height
    block  = min(machine.block_rows(item), height)
    beside = machine.emitter.retired(share.unit.conv for share in shares)
    for start in range(0, height, block):
        ys     = range(start, min(start + block, height))
        placed = {y: sink.claim(y) for y in ys}
        for _ in zip_longest(*(share.tiles(placed, beside) for share in shares)):
            pass
        for y in ys:
            sink.stored(y)
        sink.made = ys.stop
    for share in shares:
        share.end()
    if machine.schedule.lend:
        done = max(machine.emitter.timetable.end(share.unit.conv) for share in shares)
        sink.times = [done] * height


class AlphaRows:
    """A one-channel attention map: rows in the attention unit's store, made on demand, and a copy
    on chip for the monitor."""

    packed  = True
    vectors = 1
    spilled = False

    def __init__(self, machine, item):
        self.machine, self.tensor = machine, item.tensor
        self.words  = -(-item.tensor.width // machine.config.vector)
        self.copy   = machine.alpha_copy(item.tensor)
        height      = item.tensor.height
        slots       = min(height, max(machine.alpha.largest() // 2 // self.words, 1))
        if height * self.words <= machine.alpha.largest():
            slots = height
        self.ring   = Ring(machine.alpha.name, machine.alpha.take(slots * self.words,
                                                                  item.tensor.name),
                           self.words, slots)
        self.made     = 0
        self.producer = None

    @property
    def complete(self):
        return self.made == self.tensor.height

    def claim(self, y):
        copy = self.copy + y * self.words
        address, span = self.ring.claim(y)
        return copy, [Span("onchip", copy, copy + self.words), span], address

    def stored(self, y):
        pass

    def ensure(self, y):
        while self.made <= y:
            self.made += 1
            self.producer(self.made - 1)

    def get(self, y, _load):
        self.ensure(y)
        if not self.ring.holds(y):
            if self.producer is None:
                enough = self.tensor.height * self.words
                raise CompileError(
                    f"Attention map {self.tensor.name!r} needs {enough} words of the alpha store "
                    f"at once, which has {self.machine.alpha.words}; use a smaller frame"
                    f"{or_set('alpha_words', enough)}")
            self.producer(y)
        return Source.ONCHIP, *self.ring.place(y)

    def ready(self, share):
        """As in :class:`hw.compiler.maps.Map`; only the gate asks, and it is not shared."""
        return 0

    def evict(self):
        pass

    def free(self):
        self.machine.alpha.give(self.ring.base)
