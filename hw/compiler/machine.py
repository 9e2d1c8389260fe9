"""Everything that lives while one program is emitted: memories, units, the off-chip image."""

from hw.compiler.emit import Emitter
from hw.compiler.errors import CompileError
from hw.compiler.maps import STORE_OF, Map, Ring
from hw.compiler.memory import Heap, OffchipImage
from hw.compiler.unit import Unit
from hw.isa import LoadTarget, Opcode, Traffic

FRAME_BYTES_PER_PIXEL = 4
FRAME_SLOTS           = 8
MASK_SLOTS            = 8


class Machine:
    """What stages share.

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
        self._frame_rows()
        for stage in network.stages:
            self.alpha_copy(stage.learn.tensor)
        self.mask_at = self.onchip.take(self.mask_slots * self.mask_words, "mask rows")

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
