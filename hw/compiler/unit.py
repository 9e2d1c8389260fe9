"""One compute unit while a program is emitted: its memories, its layers, its instructions."""

from hw.compiler.emit import Span
from hw.compiler.errors import CompileError
from hw.compiler.maps import Ring
from hw.compiler.memory import Heap
from hw.compiler.pack import pack_layer
from hw.isa import LAYER_SLOTS, Engine, FillMode, LoadTarget, Opcode, Source, Target, Traffic

TARGETS = {Source.ONCHIP: Target.ONCHIP, Source.FEEDBACK: Target.FEEDBACK, None: Target.ROW}


class Unit:
    """The compiler's view of the encoder, attention or decoder unit.

    Parameters
    ----------
    machine : hw.compiler.machine.Machine
    name : str
        ``encoder``, ``attention`` or ``decoder``.
    """

    def __init__(self, machine, name):
        self.machine = machine
        self.name    = name
        self.config  = machine.config.units[name]
        self.load, self.fill, self.conv = (
            Engine[f"{kind}_{name}".upper() if kind == "load" else f"{name}_{kind}".upper()]
            for kind in ("load", "fill", "conv"))
        self.rows    = f"{name}.rows"
        self.weights = Heap(f"{name}.weights", self.config.weight_words)
        self.params  = Heap(f"{name}.params", self.config.param_words)
        self._held      = []
        self._gathered  = {}        # memory -> where the next of the layers gathered goes
        self._rows_used = 0         # rings of a stage lie one after another
        self._table  = None
        self._slot   = 0
        self._packed = {}       # layer name -> (Packed, weights address, params address)

    def memories(self):
        """Name and words of each memory, for the emitter."""
        return {self.rows: self.config.row_words, self.weights.name: self.config.weight_words,
                self.params.name: self.config.param_words, f"{self.name}.table": 1}

    def take(self, heap, words, what):
        """Words of one of the unit's memories, until :meth:`release`."""
        if heap in self._gathered:
            base = self._gathered[heap]
            self._gathered[heap] += words
            return base
        base = heap.take(words, what)
        self._held.append((heap, base))
        return base

    def give(self, heap, base):
        self._held.remove((heap, base))
        heap.give(base)

    def gather(self, *layers):
        """Place the parameters of ``layers``, which :meth:`stays` found to fit, side by side; to be
        loaded in this order, by a unit that holds nothing."""
        what = " and ".join(layer.name for layer in layers)
        self._gathered = {
            self.weights: self.take(self.weights, self.words(*layers), what),
            self.params:  self.take(self.params, sum(self.packed(layer)[0].groups
                                                     for layer in layers), what)}

    def release(self):
        """Everything that the unit has been told so far is done with its memories."""
        self._gathered = {}
        self._rows_used = 0
        for heap, base in self._held:
            heap.give(base)
        self._held.clear()

    def row_words(self, width, vectors):
        """Words per bank of one row in row memory."""
        return -(-width // self.config.pixels) * vectors

    def window_words(self, layer):
        """Words per bank of the input rows under one output row."""
        return layer.kernel[0] * self.row_words(layer.source.width,
                                                self.packed(layer)[0].vectors)

    def packed(self, layer):
        """The layer's parameters and where they lie off chip; packed and placed once."""
        if layer.name not in self._packed:
            packed = pack_layer(layer, vector=self.machine.config.vector,
                                outputs=self.config.outputs)
            image = self.machine.image
            self._packed[layer.name] = (
                packed, image.place(packed.weights, f"weights of {layer.name}"),
                image.place(packed.params, f"parameters of {layer.name}"))
        return self._packed[layer.name]

    def words(self, *layers):
        """Weight words that the layers need together."""
        return sum(packed.groups * packed.group_words
                   for packed, _, _ in map(self.packed, layers))

    def stays(self, *layers):
        """Whether the layers' weights fit together, so that rows can stream through them."""
        params = sum(self.packed(layer)[0].groups for layer in layers)
        return self.words(*layers) <= self.config.weight_words and params <= self.config.param_words

    def tiles(self, layer):
        """Runs of output groups, as (first, count), such that two fit what the weight memory has
        left."""
        packed, _, _ = self.packed(layer)
        limit = min((self.config.weight_words - self.weights.used()) // 2 // packed.group_words,
                    (self.config.param_words - self.params.used()) // 2)
        if limit < 1:
            raise CompileError(
                f"Layer {layer.name!r} needs {packed.group_words} weight words per "
                f"{self.config.outputs} output channels; two of those exceed the {self.name}'s "
                f"{self.config.weight_words}; use a larger preset or a narrower network")
        count = -(-packed.groups // limit)
        size  = -(-packed.groups // count)
        return [(first, min(size, packed.groups - first))
                for first in range(0, packed.groups, size)]

    def ring(self, height, row_words, produce, *, budget, least=3, what=""):
        """A ring in row memory of as many rows as ``budget`` words allow."""
        least = min(least, height)
        left  = self.config.row_words - self._rows_used
        slots = min(height, max(min(budget, left) // row_words, least))
        if slots * row_words > left:
            raise CompileError(f"{what} needs {slots} rows of {row_words} words of {self.rows}, "
                               f"which has {left} of {self.config.row_words} left; use a larger "
                               "preset or a smaller network")
        base = self._rows_used
        self._rows_used += slots * row_words
        return Ring(self.rows, base, row_words, slots, produce)

    def filling(self, source_map, *, mode=FillMode.COPY, tap=0, stride=None, vector=0):
        """A ``produce`` for :meth:`ring`: rows of a map, copied, pooled or upsampled. ``tap`` is
        the layer id under which the first copy of each row is observed."""
        machine, vectors, tapped = self.machine, source_map.vectors, set()

        def produce(y, address, span):
            rows = {FillMode.COPY: (y,), FillMode.POOL: (2 * y, 2 * y + 1),
                    FillMode.UP: (y // 2,)}[mode]
            found = [source_map.get(row, self.load) for row in rows]
            machine.emitter.emit(
                self.fill, Opcode.FILL,
                {"source": found[0][0], "mode": mode, "src_base": found[0][1],
                 "src_base2": found[-1][1] if mode == FillMode.POOL else 0,
                 "width": source_map.tensor.width, "vectors": vectors, "dst_base": address,
                 "dst_stride": stride or vectors, "dst_vector": vector},
                layer=0 if y in tapped else tap, row=y,
                reads=[span_ for _, _, span_ in found], writes=[span])
            tapped.add(y)

        return produce

    def slot(self):
        self._slot = (self._slot + 1) % LAYER_SLOTS
        return self._slot


class Layer:
    """One convolution set up on a unit: descriptor written, weights loaded tile by tile.

    ``target`` is where rows go; ``out_vectors`` the vectors per output pixel there.
    """

    def __init__(self, unit, layer, target, *, out_vectors, packed=False):
        self.unit, self.layer = unit, layer
        self.packed, self.weights_at, self.params_at = unit.packed(layer)
        self.slot   = unit.slot()
        self.groups = None      # none loaded
        machine     = unit.machine
        kernel_h, kernel_w = layer.kernel
        unit.machine.emitter.emit(
            unit.conv, Opcode.LAYER,
            {"slot": self.slot, "vectors": self.packed.vectors, "kernel_h": kernel_h,
             "kernel_w": kernel_w, "stride2": layer.conv.stride == 2,
             "pad_left": layer.conv.padding[1], "width_in": layer.source.width,
             "width_out": layer.tensor.width, "zero_in": layer.source.zero_point,
             "zero_out": machine.graph.tensors[layer.conv.name].zero_point,
             "low": layer.conv.low, "high": layer.conv.high, "target": target,
             "out_stride": out_vectors, "packed": packed, "table": layer.table is not None},
            layer=layer.id)

    def load(self, first=0, groups=None):
        """Bring in ``groups`` output groups from ``first``."""
        unit, packed, outputs = self.unit, self.packed, self.unit.config.outputs
        machine, vector = unit.machine, unit.machine.config.vector
        self.first, self.groups = first, groups or packed.groups
        words = self.groups * packed.group_words
        self.weight_base = unit.take(unit.weights, words, f"Layer {self.layer.name!r}")
        self.param_base  = unit.take(unit.params, self.groups, f"Layer {self.layer.name!r}")
        self.reads = []
        for target, allocator, base, size, address in (
                (LoadTarget.WEIGHTS, unit.weights, self.weight_base, words,
                 self.weights_at + first * packed.group_words * outputs * vector),
                (LoadTarget.PARAMS, unit.params, self.param_base, self.groups,
                 self.params_at + first * outputs * vector)):
            self.reads.append(Span(allocator.name, base, base + size))
            machine.emitter.emit(
                unit.load, Opcode.LOAD,
                {"traffic": Traffic.WEIGHTS, "target": target, "offchip": address,
                 "beats": size * outputs, "base": base},
                layer=self.layer.id, writes=self.reads[-1:])
            machine.charge(self.layer.id, size * outputs)
        if self.layer.table is not None:
            self._load_table()

    def unload(self):
        """The next tile may take this one's place, once it has been used."""
        self.unit.give(self.unit.weights, self.weight_base)
        self.unit.give(self.unit.params, self.param_base)
        self.groups = None

    def _load_table(self):
        unit, machine = self.unit, self.unit.machine
        table = bytes(self.layer.table.numpy().tobytes())
        span  = Span(f"{unit.name}.table", 0, 1)
        self.reads.append(span)
        if unit._table != table:
            unit._table = table
            machine.emitter.emit(
                unit.load, Opcode.LOAD,
                {"traffic": Traffic.WEIGHTS, "target": LoadTarget.TABLE,
                 "offchip": machine.place_once(table, f"table of {self.layer.name}"),
                 "beats": 256 // machine.config.vector, "base": 0},
                layer=self.layer.id, writes=[span])
            machine.charge(self.layer.id, 256 // machine.config.vector)

    def tiles(self, ring, ys, place, done=lambda y: None):
        """Rows ``ys``, tile after tile; ``place(y)`` says where row ``y`` goes, and ``done(y)``
        is called when its last tile has been emitted. A single tile stays for the next call."""
        tiles = [(self.first, self.groups)] if self.groups else self.unit.tiles(self.layer)
        for first, groups in tiles:
            if not self.groups:
                self.load(first, groups)
            for y in ys:
                self.row(y, self.window(ring, y), *place(y))
                if (first, groups) == tiles[-1]:
                    done(y)
            if len(tiles) > 1:
                self.unload()

    def window(self, ring, y):
        """The rows of ``ring`` under output row ``y``; None where the map ends."""
        top, height = self.layer.conv.padding[0], self.layer.source.height
        rows = [y * self.layer.conv.stride - top + ky for ky in range(self.layer.kernel[0])]
        return [ring.get(row) if 0 <= row < height else None for row in rows]

    def row(self, y, sources, address, spans, *, alpha_base=0):
        """Output row ``y`` from the row-memory places ``sources`` to ``address``; ``spans`` are
        the words that it writes."""
        unit   = self.unit
        unit.machine.emitter.emit(
            unit.conv, Opcode.CONV,
            {"slot": self.slot,
             "rows": [{"valid": 0, "base": 0} if place is None else
                      {"valid": 1, "base": place[0]} for place in sources],
             "weight_base": self.weight_base, "param_base": self.param_base,
             "groups": self.groups, "out_base": address, "first": self.first,
             "alpha_base": alpha_base},
            layer=self.layer.id, row=y,
            reads=[*self.reads, *(place[1] for place in sources if place is not None)],
            writes=spans)
