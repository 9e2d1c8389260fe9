"""Everything that lives while one program is emitted: memories, units, the off-chip image."""

from dataclasses import dataclass
from enum import Enum

from amaranth.lib import data

from hw.compiler.emit import Emitter, grain
from hw.compiler.errors import CompileError
from hw.compiler.estimate import Timetable
from hw.compiler.lend import PASSING
from hw.compiler.maps import Map, Ring
from hw.compiler.memory import Heap, OffchipImage
from hw.compiler.pack import padded_channels
from hw.compiler.unit import Unit
from hw.isa import FORMS, LoadTarget, Opcode, Traffic

FRAME_BYTES_PER_PIXEL = 4
FRAME_SLOTS           = 8
LENT_FRAME_SLOTS      = 24      # where several units work on rows at the same time
MIN_BLOCK             = 4
LONG                  = 6       # passes between those that make and read a map that waits
KEPT_SHARE            = 32      # of on-chip memory, at most, for a ring that stays


@dataclass(frozen=True)
class OutputArea:
    """Where the host finds a tensor: ``bytes`` per frame from ``base`` on, in rows of
    ``row_bytes``; pixels are ``vectors`` vectors or, ``packed``, one byte."""
    name:      str
    base:      int
    bytes:     int
    row_bytes: int
    layout:    tuple[int, ...]
    packed:    bool
    height:    int
    width:     int


class Order(Enum):
    """Where the groups of a frame that no decoder precedes stand in the streams of units that the
    frame before it uses too. Earlier needs more memory; where the encoder is slower than what it
    then precedes, earlier also takes longer."""

    EARLY = "encoder ahead of the first decoder group, the rest after the last"
    LATE  = "all ahead of the last decoder group and its gate"
    APART = "after the frame before"


@dataclass(frozen=True)
class Schedule:
    """What a plan gives a stream of frames: their order, rows of a spilled map that are on chip at
    most while it is read, and frames whose spilled maps lie off chip at once. With ``lend`` units
    compute rows and channels of each other's layers: see :mod:`hw.compiler.lend`, which also
    says what ``passing`` is. Of each spilled
    map, as many rows as fit ``kept_words`` of on-chip memory are not spilled. A plan ``sparing``
    on-chip memory makes spilled maps where they are read, if it can, and puts as many rows of the
    decoder's maps into feedback memory as that has room for."""
    order:        Order
    read_slots:   int = Map.READ_SLOTS
    spill_copies: int = 3
    lend:         bool = False
    kept_words:   int = 0
    passing:      tuple = PASSING[0]
    sparing:      bool = False


class Machine:
    """What passes share.

    Parameters
    ----------
    network : hw.compiler.ops.Network
    config : hw.config.Config
    frames : int
    spill : frozenset[str]
        Tensors that go off chip.
    schedule : Schedule
    places : dict, optional
        Where blocks of on-chip memory lie: see :class:`hw.compiler.memory.Heap`. Without, some may
        lie beyond its end; such a machine only tells how long they live.
    unread : collection of str
        Those of the tensors to spill that are read while they pass by, and so need not be stored.

    Attributes
    ----------
    stored, loaded : set[str]
        The spilled tensors of which rows went off chip, and came back.
    writable : tuple[int, int]
        First byte that the run writes off chip, and the first behind the last: outputs and
        spilled maps. Known after :meth:`lay_out`.
    """

    def __init__(self, network, config, frames, spill, schedule, places=None, unread=()):
        self.network, self.graph, self.config = network, network.graph, config
        self.frames, self.spill, self.schedule = frames, spill, schedule
        self.unread  = frozenset(unread)
        self.stored, self.loaded = set(), set()
        self.image    = OffchipImage(config.offchip_bytes)
        beyond        = config.onchip_words if places is None else 0
        self.onchip   = Heap("onchip", config.onchip_words, beyond=beyond, places=places,
                             align=grain(config.onchip_words), knob="onchip_bytes",
                             unit=config.vector)
        self.feedback = Heap("feedback", config.feedback_words,
                             align=grain(config.feedback_words), knob="feedback_bytes",
                             unit=config.vector)
        self.units    = {name: Unit(self, name) for name in config.units}
        self.alpha    = Heap("alpha", config.alpha_words, knob="alpha_words")
        self.gates    = Heap("gate.params", config.gate_param_words, knob="gate_param_words")
        memories = {"onchip": config.onchip_words + beyond, "feedback": config.feedback_words,
                    "alpha": config.alpha_words, "gate.params": config.gate_param_words,
                    "offchip": config.offchip_words}
        for unit in self.units.values():
            memories |= unit.memories()
        self.emitter  = Emitter(memories, Timetable(config))
        for heap in (self.onchip, self.feedback):
            self.emitter.watch(heap)
        self.begins   = []      # per frame: engine -> instructions of the frames before
        self.packed   = []      # (unit, item, part), in the order of packing
        self.beats    = {}      # layer id -> off-chip vectors moved
        self._areas   = {}      # spilled tensor, copy -> where it lies off chip
        self._blobs   = {}
        self._alpha_copies = {}
        self._vectors = {}
        self._kept    = {}      # spilled tensor -> where its ring lies in every frame
        self._top     = False
        self.readers  = {}      # tensor -> units that read it from shared memory, or "gate"
        for item in network.passes:
            for operand in item.operands:
                for leaf in network.leaves(operand):
                    found = network.stored(leaf)
                    for name in found:
                        reader = "gate" if len(found) > 1 else item.unit
                        self.readers.setdefault(name, set()).add(reader)

        for item in network.passes:
            for name in (*item.operands, item.tensor.name):
                self._check_fields(item, network.tensors[name])
        frame = self.graph.tensors[self.graph.input]
        if frame.channels > FRAME_BYTES_PER_PIXEL:
            raise CompileError(f"Frames have {frame.channels} channels; the loader expands at "
                               f"most {FRAME_BYTES_PER_PIXEL}; begin with fewer")
        beats = -(-frame.width * FRAME_BYTES_PER_PIXEL // config.vector)
        self.frame_row   = beats * config.vector
        self.frame_bytes = frame.height * self.frame_row
        self.frames_at   = self.image.reserve(frames * self.frame_bytes, f"{frames} frames")
        self.outputs     = tuple(self._output(name) for name in network.outputs)
        self._frame_rows(beats)
        for item in network.passes:
            if item.alpha:
                self.alpha_copy(item.tensor)

    def _check_fields(self, item, tensor):
        """Refuse a map whose sides or channels no instruction can say."""
        layer = data.Layout.cast(FORMS[Opcode.LAYER])
        for what, size, field in (("vectors of channels", self.vectors(tensor.name), "vectors"),
                                  ("columns", tensor.width, "width_in"),
                                  ("rows", tensor.height, "row")):
            most = (1 << layer[field].width) - 1
            if size > most:
                raise CompileError(f"Layer {item.name!r} has {size} {what} in {tensor.name!r}, and "
                                   f"an instruction holds up to {most}; use a smaller frame or "
                                   "fewer channels")

    def vectors(self, name):
        """Vectors per pixel of a tensor."""
        if name not in self._vectors:
            self._vectors[name] = padded_channels(self.network.layouts[name],
                                                  self.config.vector)[1] // self.config.vector
        return self._vectors[name]

    def least(self, item, operand):
        """Rows of an operand under one output row."""
        return max(max(offset for index, offset in part.rows if index == operand)
                   - min(offset for index, offset in part.rows if index == operand) + 1
                   for part in item.parts)

    def least_rows(self, items, unit):
        """Words of row memory, per bank, that passes need together at least in a unit."""
        return sum(min(self.network.tensors[operand].height, self.least(item, index))
                   * unit.row_words(item, operand)
                   for item in items for index, operand in enumerate(item.operands))

    def lay_out(self, groups):
        """Give places off chip to every spilled map that leaves the row memory of its group, right
        behind the outputs, and then to what was packed: so what the run writes is one piece, and
        holds nothing that it only reads."""
        for item in (item for found in groups for item in found.passes
                     if item.tensor.name in self.spill - self.unread
                     and item.tensor.name not in found.inside):
            name = item.tensor.name
            for copy in range(min(self.frames, self.schedule.spill_copies)):
                self._areas[name, copy] = self.image.reserve(
                    item.tensor.height * self.map_words(item.tensor) * self.config.vector,
                    f"{name} (spilled)")
        self.writable = self.outputs[0].base, self.image.end
        # Where units lend, each loads parts of it, which are placed when they are known.
        for unit, item, part in () if self.schedule.lend else self.packed:
            unit.place(item, part)

    def place_once(self, blob, what):
        """Byte address of a blob that several layers may share."""
        if blob not in self._blobs:
            self._blobs[blob] = self.image.place(blob, what)
        return self._blobs[blob]

    def charge(self, layer_id, beats):
        self.beats[layer_id] = self.beats.get(layer_id, 0) + beats

    def map_words(self, tensor, *, packed=False):
        """Words of one row in shared memory."""
        if packed:
            return -(-tensor.width // self.config.vector)
        return self.vectors(tensor.name) * tensor.width

    def block_rows(self, item):
        """Rows of a map that goes off chip computed at a time, weights streaming: as many as leave
        half of on-chip memory free."""
        height = item.tensor.height
        if item.tensor.name not in self.spill and not self._is_output(item.tensor.name):
            return height
        block, words = height, self.map_words(item.tensor)
        while block > MIN_BLOCK and block * words > self.onchip.largest() // 2:
            block = -(-block // 2)
        return block

    def _is_output(self, name):
        return name in self.network.outputs

    def map(self, item, *, frame, block, ends_frame, waits=False):
        """A new map for what a pass makes: in feedback memory if its readers can reach it there
        and there is room, else on chip; or off chip, ``block`` rows at a time, if the plan says so
        or the host reads it. ``waits`` says that it is made long before anyone reads it."""
        tensor = item.tensor
        name   = tensor.name
        slots  = min(tensor.height, max(block, Map.WRITE_SLOTS))
        if self._is_output(name):
            area = self.outputs[self.network.outputs.index(name)]
            return Map(self, item, heap=self.onchip, slots=slots, traffic=Traffic.MASK,
                       offchip=area.base + frame * area.bytes, packed=area.packed,
                       ends_frame=ends_frame)
        if name in self.unread:
            return self.passing_map(item, slots)
        if name in self.spill:
            return Map(self, item, heap=self.onchip, slots=slots,
                       offchip=self._areas[name, frame % self.schedule.spill_copies],
                       base=self._kept_ring(name, slots * self.map_words(tensor)),
                       kept=min(self.schedule.kept_words // self.map_words(tensor),
                                tensor.height))
        if item.parked:
            return Map(self, item, heap=self.feedback, slots=tensor.height)
        row  = self.map_words(tensor)
        room = self.feedback.largest() // row
        if (item.unit == "decoder" and not self.schedule.lend
                and not self.readers.get(name, set()) & {"gate", "encoder"}):
            if tensor.height <= room:
                # A pass's input and output live side by side: successive ones at opposite ends.
                self._top = not self._top
                return Map(self, item, heap=self.feedback, slots=tensor.height, top=self._top)
            if room and self.schedule.sparing:
                return Map(self, item, heap=self.feedback, slots=room, kept=tensor.height - room,
                           kept_heap=self.onchip)
        # Where everything is on chip, what lives long must not lie between what does not.
        top = waits or self._waits(name) if self.schedule.lend else None
        return Map(self, item, heap=self.onchip, slots=tensor.height, top=top)

    def _waits(self, name):
        """Whether a map is still read when many others have been made."""
        passes = list(self.network.passes)
        last   = max((index for index, item in enumerate(passes)
                      if any(name in self.network.stored(leaf) for operand in item.operands
                             for leaf in self.network.leaves(operand))), default=0)
        return last - passes.index(self.network.made[name]) > LONG

    def passing_map(self, item, slots):
        """A map of which only the latest ``slots`` rows are there, for those who read them while
        they pass."""
        return Map(self, item, heap=self.onchip, slots=min(slots, item.tensor.height),
                   top=False)

    def _kept_ring(self, name, words):
        """A place for the ring through which a spilled map is written, the same in every frame:
        the next frame is then not held up by whatever else lay there. None where it would take
        too much, or there is one frame only."""
        if self.frames == 1 or words > self.onchip.words // KEPT_SHARE:
            return None
        if name not in self._kept:
            self._kept[name] = self.onchip.take(words, f"{name} (rows in the making)")
        return self._kept[name]

    def _output(self, name):
        """Off-chip space for one output of every frame."""
        item   = self.network.made[name]
        tensor = item.tensor
        packed = (tensor.channels == 1 and not item.depthwise and not self.readers.get(name)
                  and not any(part.spread for part in item.parts))
        row    = self.map_words(tensor, packed=packed) * self.config.vector
        base   = self.image.reserve(self.frames * tensor.height * row, f"{name} of every frame")
        return OutputArea(name, base, tensor.height * row, row, self.network.layouts[name], packed,
                          tensor.height, tensor.width)

    def _frame_rows(self, beats):
        """The ring through which frames enter; row y of frame n is row n * height + y of it."""
        tensor = self.graph.tensors[self.graph.input]
        words  = beats * self.config.vector // FRAME_BYTES_PER_PIXEL
        slots  = min(tensor.height, LENT_FRAME_SLOTS if self.schedule.lend else FRAME_SLOTS)
        layer  = self.network.passes[0].id
        load   = self.units["encoder"].load
        begun  = set()

        def produce(y, address, span):
            self.emitter.emit(
                load, Opcode.LOAD,
                {"traffic": Traffic.FRAME, "target": LoadTarget.ONCHIP,
                 "offchip": self.frames_at + y * self.frame_row, "beats": beats, "base": address,
                 "expand": 1, "frame_start": y % tensor.height == 0 and y not in begun},
                layer=layer, row=y % tensor.height, writes=[span])
            begun.add(y)
            self.charge(layer, beats)

        self.frame_ring = Ring("onchip", self.onchip.take(slots * words, "frame rows"), words,
                               slots, produce)

    def alpha_copy(self, tensor):
        """On-chip words where the monitor finds an attention map, the same for every frame."""
        if tensor.name not in self._alpha_copies:
            words = tensor.height * -(-tensor.width // self.config.vector)
            self._alpha_copies[tensor.name] = self.onchip.take(words, tensor.name)
        return self._alpha_copies[tensor.name]


class FrameRows:
    """The incoming frame, in the shape of a :class:`hw.compiler.maps.Map`."""

    complete = True
    spilled  = True

    def __init__(self, machine, frame):
        self.machine = machine
        self.tensor  = machine.graph.tensors[machine.graph.input]
        self.vectors = machine.vectors(self.tensor.name)
        self.first   = frame * self.tensor.height
        self.last    = frame == machine.frames - 1

    def get(self, y, _load):
        return 0, *self.machine.frame_ring.get(self.first + y)

    def ready(self, share):
        """As in :class:`hw.compiler.maps.Map`."""
        return 0

    def evict(self):
        pass

    def free(self):
        if self.last:
            self.machine.onchip.give(self.machine.frame_ring.base)
