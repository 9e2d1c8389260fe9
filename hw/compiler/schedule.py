"""The order of work: which stage, tile and row each engine does next.

Shallow levels run *weights stay, rows stream*: both convolutions of a level are resident, and rows
are pulled through them on demand. Deep levels run *map stays, weights stream*: output channels in
tiles, each tile over the whole map, or where memory is short over blocks of its rows.

Frame n+1 is encoded, and its first gate computed, before the last decoder stage of frame n in every
stream that they share.
"""

from hw.compiler.emit import Emitter, Span
from hw.compiler.errors import CompileError
from hw.compiler.maps import STORE_OF, Map, Ring
from hw.compiler.memory import Heap, OffchipImage
from hw.compiler.pack import pack_requant
from hw.compiler.unit import TARGETS, Layer, Unit
from hw.isa import Engine, FillMode, LoadTarget, Opcode, Target, Traffic

FRAME_BYTES_PER_PIXEL = 4
FRAME_SLOTS           = 8
MASK_SLOTS            = 8
MIN_BLOCK             = 4


class Machine:
    """Everything that lives while one program is emitted.

    Parameters
    ----------
    network : hw.compiler.lower.Network
    config : hw.config.Config
    frames : int
    spill : frozenset[str]
        Tensors that go off chip.
    overlap : bool
        Whether a frame is encoded while the one before it is decoded.
    """

    def __init__(self, network, config, frames, spill, overlap=True):
        self.network, self.graph, self.config = network, network.graph, config
        self.frames, self.spill, self.overlap = frames, spill, overlap
        self.image    = OffchipImage(config.offchip_bytes)
        self.onchip   = Heap("onchip", config.onchip_words)
        self.feedback = Heap("feedback", config.feedback_words)
        self.units    = {name: Unit(self, name) for name in config.units}
        self.alpha    = Heap("alpha", config.alpha_words)
        self.gates    = Heap("gate.params", config.gate_param_words)
        memories = {"onchip": config.onchip_words, "feedback": config.feedback_words,
                    "alpha": config.alpha_words, "gate.params": config.gate_param_words,
                    "offchip": config.offchip_words}
        for unit in self.units.values():
            memories |= unit.memories()
        self.emitter  = Emitter(memories)
        self.beats    = {}      # layer id -> off-chip vectors moved
        self._areas   = {}
        self._blobs   = {}
        self._alpha_copies = {}

        frame, mask = self.graph.tensors[self.graph.input], network.head.tensor
        self.frame_row  = frame.width * FRAME_BYTES_PER_PIXEL
        self.mask_words = -(-mask.width // config.vector)
        if self.frame_row % config.vector:
            raise CompileError(f"A frame row of {frame.width} pixels is not a whole number of "
                               f"{config.vector}-byte vectors; use a width that is a multiple of "
                               f"{config.vector // FRAME_BYTES_PER_PIXEL}")
        self.mask_slots  = min(mask.height, MASK_SLOTS)
        self.frame_bytes = frame.height * self.frame_row
        self.mask_bytes  = mask.height * self.mask_words * config.vector
        self.frames_at   = self.image.reserve(frames * self.frame_bytes, f"{frames} frames")
        self.masks_at    = self.image.reserve(frames * self.mask_bytes, f"{frames} masks")
        self.frame_ring  = None

    def vectors(self, channels):
        return -(-channels // self.config.vector)

    def area(self, what, size, slot):
        """Byte address of off-chip space number ``slot`` for ``what``."""
        key = what, slot
        if key not in self._areas:
            self._areas[key] = self.image.reserve(size, what)
        return self._areas[key]

    def place_once(self, blob, what):
        """Byte address of a blob that several layers may share."""
        if blob not in self._blobs:
            self._blobs[blob] = self.image.place(blob, what)
        return self._blobs[blob]

    def charge(self, layer_id, beats):
        self.beats[layer_id] = self.beats.get(layer_id, 0) + beats

    def map(self, tensor, *, unit, frame, layer, block=Map.WRITE_SLOTS, feedback=None):
        """A new map for what ``unit`` writes: in feedback memory if there is room (at the ``top``
        or ``bottom``, as ``feedback`` says), else on chip, all of it; or spilled if the plan says
        so, ``block`` rows at a time."""
        spilled = tensor.name in self.spill
        slots   = min(tensor.height, max(block, Map.WRITE_SLOTS)) if spilled else tensor.height
        return self.ring_map(tensor, slots, unit=unit, frame=frame, layer=layer, spilled=spilled,
                             feedback=feedback)

    def ring_map(self, tensor, slots, *, unit, layer, frame=0, spilled=False, feedback=None):
        """As :meth:`map`, with ``slots`` rows."""
        heap, top = self.onchip, None
        if feedback and not spilled and slots * self.row_words(tensor) <= self.feedback.largest():
            heap, top = self.feedback, feedback == "top"
        return Map(self, tensor, heap=heap, slots=slots, spilled=spilled, frame=frame,
                   layer=layer, engine=STORE_OF[unit.name], top=top)

    def row_words(self, tensor):
        return self.vectors(tensor.channels) * tensor.width

    def block_rows(self, level, *, feedback):
        """Rows that a level with streamed weights computes at a time: as many as leave room for
        its intermediate map and its result."""
        height  = level.b.tensor.height
        mid     = self.row_words(level.a.tensor)
        out     = self.row_words(level.b.tensor)
        spilled = level.b.tensor.name in self.spill
        if feedback and height * (mid + (0 if spilled else out)) <= self.feedback.largest():
            return height
        block = height
        while block > MIN_BLOCK:
            kept = max(block, Map.WRITE_SLOTS) if spilled else height
            if mid_rows(block, height) * mid + kept * out <= self.onchip.largest():
                break
            block //= 2
        return block

    def run(self):
        """Emit every frame."""
        self._frame_rows()
        for stage in self.network.stages:
            self.alpha_copy(stage.learn.tensor)
        self.mask_at = self.onchip.take(self.mask_slots * self.mask_words, "mask rows")
        encoded = encode(self, 0)
        alpha   = first_gate(self, encoded)
        for frame in range(self.frames):
            previous, stages = encoded[-1], len(self.network.stages)
            for index in range(stages):
                skip = encoded[stages - 1 - index]
                if index == stages - 1 and frame + 1 < self.frames and self.overlap:
                    following = encode(self, frame + 1)
                    first     = first_gate(self, following)
                if index:
                    alpha = Gate(self, index, skip, previous)
                result = decode(self, index, frame, previous, skip, alpha)
                alpha.free()
                previous.free()
                skip.free()
                previous = result
            if frame + 1 < self.frames and not self.overlap:
                following = encode(self, frame + 1)
                first     = first_gate(self, following)
            if frame + 1 < self.frames:
                encoded, alpha = following, first

    def _frame_rows(self):
        """The ring through which frames enter; row y of frame n is row n * height + y of it."""
        tensor = self.graph.tensors[self.graph.input]
        words  = tensor.width * self.vectors(tensor.channels)
        if tensor.channels > FRAME_BYTES_PER_PIXEL:
            raise CompileError(f"Frames have {tensor.channels} channels; the loader expands at "
                               f"most {FRAME_BYTES_PER_PIXEL}")
        slots  = min(tensor.height, FRAME_SLOTS)
        unit   = self.units["encoder"]

        def produce(y, address, span):
            layer = self.network.levels[0].a.id
            self.emitter.emit(
                unit.load, Opcode.LOAD,
                {"traffic": Traffic.FRAME, "target": LoadTarget.ONCHIP,
                 "offchip": self.frames_at + y * self.frame_row,
                 "beats": self.frame_row // self.config.vector, "base": address, "expand": 1,
                 "frame_start": y % tensor.height == 0},
                layer=layer, row=y % tensor.height, writes=[span])
            self.charge(layer, self.frame_row // self.config.vector)

        self.frame_ring = Ring("onchip", self.onchip.take(slots * words, "frame rows"), words,
                               slots, produce)

    def alpha_copy(self, tensor):
        """On-chip words where the monitor finds an attention map, the same for every frame."""
        if tensor.name not in self._alpha_copies:
            words = tensor.height * -(-tensor.width // self.config.vector)
            self._alpha_copies[tensor.name] = self.onchip.take(words, tensor.name)
        return self._alpha_copies[tensor.name]

    def release_gate(self):
        """The gate's parameters have been used for the last time."""
        for base in list(self.gates.blocks):
            self.gates.give(base)


class FrameRows:
    """The incoming frame, in the shape of a :class:`hw.compiler.maps.Map`."""

    def __init__(self, machine, frame):
        self.machine = machine
        self.tensor  = machine.graph.tensors[machine.graph.input]
        self.vectors = machine.vectors(self.tensor.channels)
        self.first   = frame * self.tensor.height

    def get(self, y, _load):
        return 0, *self.machine.frame_ring.get(self.first + y)


def encode(machine, frame):
    """Emit the encoder's passes over one frame; returns the maps c1, c2, .. encoding."""
    unit, levels = machine.units["encoder"], machine.network.levels
    maps   = []
    source = FrameRows(machine, frame)
    chain  = []     # levels whose rows are still to be pulled by the level below them
    for index, level in enumerate(levels):
        stays  = unit.stays(level.a, level.b)
        block  = 1 if stays else machine.block_rows(level, feedback=False)
        result = machine.map(level.b.tensor, unit=unit, frame=frame, layer=level.b.id, block=block)
        fill   = unit_fill(unit, level, source)
        # A spilled map is best consumed while its rows pass by: fuse with the next level.
        below  = levels[index + 1:index + 2]
        group  = [layer for one in [*chain, level, *below] for layer in (one.a, one.b)]
        fused  = (bool(below) and result.spilled and unit.stays(*group)
                  and sum(map(unit.window_words, group)) <= unit.config.row_words)
        if stays and not chain:
            unit.gather(*(group if fused else (level.a, level.b)))
        share  = 2 * (len(chain) + 2 if fused else len(chain) + 1)
        if stays:
            pull_rows(machine, unit, level, fill, result, budget=unit.config.row_words // share)
        else:
            stream_weights(machine, unit, level, fill, result, block, feedback=None)
        chain = [*chain, level] if fused else []
        if not fused:
            result.ensure(level.b.tensor.height - 1)
            unit.release()
            for consumed in maps:
                consumed.evict()
        maps.append(result)
        source = result
    return maps


def unit_fill(unit, level, source):
    if level.pool is None:
        return unit.filling(source)
    return unit.filling(source, mode=FillMode.POOL, tap=level.pool.id)


def pull_rows(machine, unit, level, fill, result, *, budget):
    """Weights stay: conv a -> conv b row by row; ``result`` gets a producer."""
    vectors_in  = unit.packed(level.a)[0].vectors
    vectors_mid = machine.vectors(level.a.channels)
    a = Layer(unit, level.a, Target.ROW, out_vectors=vectors_mid)
    b = Layer(unit, level.b, TARGETS[result.source], out_vectors=result.vectors)
    a.load()
    b.load()
    height, width = level.a.tensor.height, level.a.tensor.width
    rows = unit.ring(height, unit.row_words(width, vectors_in), fill, budget=budget,
                     what=f"Input of {level.a.name}")

    def make_mid(y, address, span):
        a.row(y, a.window(rows, y), address, [span])

    mid = unit.ring(height, unit.row_words(width, vectors_mid), make_mid, budget=budget,
                    what=f"Input of {level.b.name}")
    result.producer = produce_to(b, mid, result)


def produce_to(layer, rows, result):
    """A producer that runs ``layer`` over ``rows`` into the map ``result``."""
    def produce(y):
        window = layer.window(rows, y)
        address, span = result.claim(y)
        layer.row(y, window, address, [span])
        result.stored(y)
    return produce


def mid_rows(block, height):
    """Rows kept between two 3x3 convolutions that run ``block`` rows at a time."""
    return height if block == height else min(block + 2, height)


def stream_weights(machine, unit, level, fill, result, block, *, feedback):
    """Map stays: conv a over a block of rows, tile after tile, then conv b likewise."""
    height = level.a.tensor.height
    mid = machine.ring_map(level.a.tensor, mid_rows(block, height), unit=unit, layer=level.a.id,
                           feedback=feedback)
    first  = Tiled(unit, level.a, fill, mid)
    second = Tiled(unit, level.b, unit.filling(mid), result)
    for start in range(0, height, block):
        stop = min(start + block, height)
        first.rows(min(stop + 1, height))
        second.rows(stop)
    mid.free()


class Tiled:
    """One convolution whose weights stream through the unit for every block of rows."""

    def __init__(self, unit, layer, fill, result):
        row = unit.row_words(layer.source.width, unit.packed(layer)[0].vectors)
        self.ring   = unit.ring(layer.source.height, row, fill, budget=unit.config.row_words // 2,
                                what=f"Input of {layer.name}")
        self.conv   = Layer(unit, layer, TARGETS[result.source], out_vectors=result.vectors)
        self.result = result

    def rows(self, stop):
        """Make the rows up to ``stop`` that are not made yet."""
        def place(y):
            address, span = self.result.claim(y)
            return address, [span]

        self.conv.tiles(self.ring, range(self.result.made, stop), place, self.result.stored)
        self.result.made = stop


class Gate:
    """One attention gate: rows of alpha on demand, in the attention unit's store.

    The skip is there long before the decoder's output. Where row memory holds all of the skip's
    branch, it is computed first: while the decoder works on what the other branch waits for.
    """

    def __init__(self, machine, index, skip, signal):
        self.machine = machine
        self.unit    = unit = machine.units["attention"]
        self.stage   = stage = machine.network.stages[index]
        tensor       = stage.learn.tensor
        self.height  = tensor.height
        self.words   = -(-tensor.width // machine.config.vector)
        self.base    = machine.alpha.take(self.height * self.words, tensor.name)
        self.copy    = machine.alpha_copy(tensor)
        self.made    = 0
        vectors      = machine.vectors(stage.normal.channels)
        row          = unit.row_words(tensor.width, vectors)
        self.stays   = unit.stays(stage.normal, stage.down, stage.learn)
        self.block   = 1 if self.stays else self._block(row, signal, skip)
        if self.stays:
            unit.gather(stage.normal, stage.down, stage.learn)
        inputs = self._inputs(signal, skip)
        kept   = {stage.normal: self.block, stage.down: self.block}
        early  = (self.stays and not skip.spilled
                  and inputs + (self.height + 1) * row <= unit.config.row_words)
        if early:
            kept[stage.down] = self.height
        spare = (unit.config.row_words - sum(kept.values()) * row) // 2
        self.branches = []
        for layer, source in ((stage.normal, signal), (stage.down, skip)):
            rows = unit.ring(source.tensor.height,
                             unit.row_words(source.tensor.width, source.vectors),
                             unit.filling(source), budget=spare, what=f"Input of {layer.name}")
            out  = unit.ring(self.height, row, None, budget=kept[layer] * row, least=1,
                             what=f"Output of {layer.name}")
            conv = Layer(unit, layer, Target.ROW, out_vectors=vectors)
            self.branches.append((conv, rows, out))
            if self.stays:
                conv.load()
        self.learn = Layer(unit, stage.learn, Target.ALPHA, out_vectors=1, packed=True)
        self.learn.load()
        if early:
            self._rows(*self.branches[1], range(self.height))

    def _inputs(self, *sources):
        """Words of three rows of each source."""
        return sum(3 * self.unit.row_words(source.tensor.width, source.vectors)
                   for source in sources)

    def _block(self, row, signal, skip):
        """Rows of both branches that row memory holds beside their inputs."""
        left = self.unit.config.row_words - self._inputs(signal, skip)
        return min(self.height, max(1, left // (2 * row)))

    def _make(self, start, stop):
        """Rows ``start`` to ``stop`` of alpha: both branches over them, then the sum's."""
        ys = range(start, stop)
        for conv, rows, out in self.branches:
            if not out.holds(start):
                self._rows(conv, rows, out, ys)
        for y in ys:
            self._learn(self.learn, y, [out.place(y) for _, _, out in self.branches])

    def _rows(self, conv, rows, out, ys):
        """Rows ``ys`` of one branch."""
        def place(y):
            address, span = out.claim(y)
            return address, [span]

        if self.stays:
            for y in ys:
                conv.row(y, conv.window(rows, y), *place(y))
        else:
            conv.tiles(rows, ys, place)

    def _learn(self, learn, y, places):
        copy, store = self.copy + y * self.words, self.base + y * self.words
        learn.row(y, places, copy, [Span("onchip", copy, copy + self.words),
                                    Span("alpha", store, store + self.words)], alpha_base=store)

    def get(self, y):
        """Address and span of row ``y`` in the alpha store."""
        while self.made <= y:
            start, self.made = self.made, min(self.made + self.block, self.height)
            self._make(start, self.made)
        address = self.base + y * self.words
        return address, Span("alpha", address, address + self.words)

    def finish(self):
        """Make every row now, and give the unit's memories back; alpha itself stays."""
        self.get(self.height - 1)
        self.unit.release()

    def free(self):
        self.machine.alpha.give(self.base)


def first_gate(machine, encoded):
    """The gate between encoder and decoder, whole: its inputs are."""
    gate = Gate(machine, 0, encoded[-2], encoded[-1])
    gate.finish()
    return gate


def decode(machine, index, frame, previous, skip, alpha):
    """Emit one decoder stage; returns its map. The last one ends in the mask, and has none."""
    unit, stage = machine.units["decoder"], machine.network.stages[index]
    result = decode_rows(machine, unit, stage, index, frame, previous, skip, alpha)
    alpha.finish()
    unit.release()
    machine.release_gate()
    return result


def decode_rows(machine, unit, stage, index, frame, previous, skip, alpha):
    last  = index == len(machine.network.stages) - 1
    fill  = concat_rows(machine, unit, stage, previous, skip, alpha)
    head  = [machine.network.head] if last else []
    stays = unit.stays(stage.a, stage.b, *head)
    if stays:
        unit.gather(stage.a, stage.b, *head)
    if last and stays:
        pull_rows_to_mask(machine, unit, stage, fill, frame)
        return None
    block  = 1 if stays else machine.block_rows(stage, feedback=True)
    # A stage's input and output live side by side: successive ones at opposite ends.
    here, there = ("top", "bottom") if (len(machine.network.stages) - index) % 2 == 0 else (
        "bottom", "top")
    result = machine.map(stage.b.tensor, unit=unit, frame=frame, layer=stage.b.id, block=block,
                         feedback=here)
    if stays:
        pull_rows(machine, unit, stage, fill, result, budget=unit.config.row_words // 3)
        result.ensure(stage.b.tensor.height - 1)
    else:
        stream_weights(machine, unit, stage, fill, result, block, feedback=there)
    if last:
        head_layer = machine.network.head
        rows = unit.ring(result.tensor.height, unit.row_words(result.tensor.width, result.vectors),
                         unit.filling(result), budget=unit.config.row_words // 2, least=1,
                         what=f"Input of {head_layer.name}")
        mask_rows(machine, unit, frame, rows)
        result.free()
        return None
    return result


def concat_rows(machine, unit, stage, previous, skip, alpha):
    """A ``produce`` for rows of [upsampled previous output, gated skip]."""
    up_vectors, skip_vectors = previous.vectors, skip.vectors
    stride = up_vectors + skip_vectors
    lanes  = machine.config.gate_lanes
    count  = skip_vectors * machine.config.vector
    params = machine.place_once(
        pack_requant(stage.gate.name, stage.gate.bias.numpy(), stage.gate.multiplier,
                     stage.gate.shift, channels=count, vector=machine.config.vector),
        f"parameters of {stage.gate.name}")
    base = machine.gates.take(count // lanes, f"Gate {stage.gate.name!r}")
    held = Span("gate.params", base, base + count // lanes)
    machine.emitter.emit(
        Engine.LOAD_ATTENTION, Opcode.LOAD,
        {"traffic": Traffic.WEIGHTS, "target": LoadTarget.GATE_PARAMS, "offchip": params,
         "beats": count, "base": base}, layer=stage.gated.id, writes=[held])
    machine.charge(stage.gated.id, count)
    up = unit.filling(previous, mode=FillMode.UP, tap=stage.up.id, stride=stride)
    tapped = set()

    def produce(y, address, span):
        up(y, address, span)
        alpha_address, alpha_span = alpha.get(y // 2)
        _, skip_address, skip_span = skip.get(y, Engine.LOAD_ATTENTION)
        machine.emitter.emit(
            Engine.GATE, Opcode.GATE,
            {"skip_base": skip_address, "alpha_base": alpha_address, "width": skip.tensor.width,
             "vectors": skip_vectors, "param_base": base, "dst_base": address,
             "dst_stride": stride, "dst_vector": up_vectors, "zero_out": stage.gate.zero_point,
             "low": stage.gate.low, "high": stage.gate.high},
            layer=0 if y in tapped else stage.gated.id, row=y,
            reads=[skip_span, alpha_span, held], writes=[span])
        tapped.add(y)

    return produce


def pull_rows_to_mask(machine, unit, stage, fill, frame):
    """The last stage, weights staying: conv a -> conv b -> head, rows never leaving the unit."""
    height, width = stage.b.tensor.height, stage.b.tensor.width
    vectors = machine.vectors(stage.b.channels)
    inside  = RowOutput(unit, height, unit.row_words(width, vectors), vectors, stage.b.name)
    pull_rows(machine, unit, stage, fill, inside, budget=unit.config.row_words // 3)
    mask_rows(machine, unit, frame, inside.ring)


class RowOutput:
    """A result in the unit's own row memory, in the shape :func:`pull_rows` writes to."""

    source = None

    def __init__(self, unit, height, row_words, vectors, name):
        self.vectors  = vectors
        self.producer = None
        self.ring     = unit.ring(height, row_words, self._produce, budget=2 * row_words, least=1,
                                  what=f"Output of {name}")

    def _produce(self, y, _address, _span):
        self.producer(y)

    def claim(self, y):
        return self.ring.claim(y)

    def stored(self, y):
        pass


def mask_rows(machine, unit, frame, rows):
    """Emit the head over ``rows``: one row of the mask after another, to off-chip memory."""
    head   = machine.network.head
    height = head.tensor.height
    conv   = Layer(unit, head, Target.ONCHIP, out_vectors=1, packed=True)
    conv.load()
    words  = machine.mask_words
    ring   = Ring("onchip", machine.mask_at, words, machine.mask_slots)
    for y in range(height):
        window = conv.window(rows, y)
        address, span = ring.claim(y)
        conv.row(y, window, address, [span])
        offchip = machine.masks_at + frame * machine.mask_bytes + y * words * machine.config.vector
        machine.emitter.emit(
            Engine.STORE_DECODER, Opcode.STORE,
            {"traffic": Traffic.MASK, "offchip": offchip, "beats": words, "base": address,
             "frame_end": y == height - 1},
            layer=head.id, row=y, reads=[span])
        machine.charge(head.id, words)
