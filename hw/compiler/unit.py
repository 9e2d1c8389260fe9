"""One compute unit while a program is emitted: its memories, its parts, its instructions."""

from dataclasses import dataclass
from itertools import takewhile

from amaranth.lib import data

from hw.compiler.emit import NOBODY, Span
from hw.compiler.errors import CompileError, or_set
from hw.compiler.estimate import OVERHEAD, group_cycles
from hw.compiler.maps import Ring
from hw.compiler.memory import Heap
from hw.compiler.pack import pack_dense, pack_depthwise, pack_lines
from hw.compute.transform import COLUMNS, OUTPUTS
from hw.isa import (
    FORMS,
    KERNEL_ROWS,
    LAYER_SLOTS,
    Engine,
    LoadTarget,
    Opcode,
    Target,
    Traffic,
)


@dataclass(frozen=True)
class Wanted:
    """A ring of rows: of a map of ``height`` rows of ``words`` words, at least ``least``; all of
    them if it should be ``whole``. ``produce`` is :class:`hw.compiler.maps.Ring`'s."""
    height:  int
    words:   int
    least:   int
    produce: object
    whole:   bool


MOST_GROUPS = (1 << data.Layout.cast(FORMS[Opcode.CONV])["groups"].width) - 1   # of one CONV
CONV    = Opcode.CONV       # slow to look up on its type
PADDING = (0, 0)            # no row, for a CONV
TARGETS = {"onchip": Target.ONCHIP, "feedback": Target.FEEDBACK}


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
        self.weights = Heap(f"{name}.weights", self.config.weight_words,
                            knob=f"{name}.weight_words")
        self.params  = Heap(f"{name}.params", self.config.params, knob=f"{name}.params")
        self.open    = None         # the group that uses the memories
        self.table   = None         # what the lookup table holds
        self._slot   = 0
        self._costs  = {}           # part -> cycles of a row
        self._packed = {}           # part -> Packed
        self.placed  = {}           # part -> addresses of its weights and parameters off chip

    def memories(self):
        """Name and words of each memory, for the emitter."""
        return {self.rows: self.config.row_words, self.weights.name: self.config.weight_words,
                self.params.name: self.config.params, f"{self.name}.table": 1}

    def row_words(self, item, operand):
        """Words per bank of one row of an operand of a pass in row memory."""
        width = self.machine.network.tensors[operand].width
        return (width if item.columns else -(-width // self.config.banks)
                ) * self.machine.vectors(operand)

    def packed(self, item, part):
        """A part's weights and parameters, packed once for all plans of a network."""
        if part not in self._packed:
            if part.bound is not None and not self.machine.config.channel_bounds:
                raise CompileError(
                    f"Layer {item.name!r} has a bound for each channel (normalisation after ReLU), "
                    f"which this machine's requantisers lack; give them some, "
                    f"SET=channel_bounds=true")
            network, vector, outputs = self.machine.network, self.machine.config.vector, \
                self.config.outputs
            layout = network.layouts[item.operands[0]]
            if part.lines:
                pack, how = pack_lines, {"span": self.span(item, part)}
            elif item.depthwise:
                taps = self.config.depthwise_taps(part.stride)
                if part.clamp and part.weight.shape[3] > taps:
                    raise CompileError(
                        f"Layer {item.name!r} interpolates, for which the {self.name}'s depthwise "
                        f"steps of {taps} columns are too narrow; give it more outputs, "
                        f"SET={self.name}.outputs=2")
                pack, how = pack_depthwise, {"taps": taps}
            else:
                pack, how = pack_dense, {"transformed": self.transforms(item, part)}
            key = part, layout, vector, outputs, *how.values()
            if key not in network.packed:
                network.packed[key] = pack(item.name, part, layout=layout, vector=vector,
                                           outputs=outputs, **how)
            self._packed[part] = network.packed[key]
            self.machine.packed.append((self, item, part))
        return self._packed[part]

    def span(self, item, part):
        """How many vectors of a pixel are interpolated at a time, since all weights must be there:
        of a row one, which takes long enough, and of a column as many as can be."""
        turns, _, taps, _ = part.weight.shape
        words = self.config.weight_words // (turns * taps)
        if words < 1:
            raise CompileError(
                f"Layer {item.name!r} interpolates with {turns * taps} weight words, and the "
                f"{self.name} has {self.config.weight_words}; use a smaller map"
                f"{or_set(f'{self.name}.weight_words', turns * taps)}")
        params = self.config.params * self.config.outputs // self.machine.config.vector
        most   = min(words, params, self.machine.vectors(item.operands[0]))
        return most if part.columns else 1

    def place(self, item, part):
        """Give a part's weights and parameters their places off chip."""
        machine, packed = self.machine, self._packed[part]
        self.placed[part] = (machine.place_once(packed.weights, f"weights of {item.name}"),
                             machine.image.place(packed.params, f"parameters of {item.name}"))

    def addresses(self, item, part, first, groups):
        """Where the weights and the parameters of ``groups`` groups of a part from ``first`` on lie
        off chip. Where units lend, each finds there what it loads, and nothing else."""
        packed = self.packed(item, part)
        slices = []
        for blob, words in ((packed.weights, packed.group_words),
                            (packed.params, packed.group_params)):
            size = words * self.config.outputs * self.machine.config.vector
            slices.append((blob, first * size, (first + groups) * size))
        if part in self.placed:
            return [address + start
                    for address, (_, start, _) in zip(self.placed[part], slices, strict=True)]
        return [self.machine.place_once(blob[start:stop], f"{what} of {item.name}")
                for what, (blob, start, stop) in zip(("weights", "parameters"), slices,
                                                     strict=True)]

    def transforms(self, item, part):
        """Whether rows of a dense part are made two pixels at a time: if they can be, and that
        takes fewer cycles."""
        if not (self.config.transform and part.weight.shape[3] == len(COLUMNS)
                and part.stride == 1 and not part.spread and not part.clamp):
            return False
        plain, transformed = (
            group_cycles(self.shape(item, part, transformed), self.config,
                         self.machine.config.vector) for transformed in (False, True))
        return transformed < plain

    def shape(self, item, part, transformed):
        """The fields of a part's LAYER that say how many steps its rows take."""
        kernel_h, kernel_w = part.weight.shape[2:]
        return {"vectors": self.machine.vectors(item.operands[0]), "kernel_h": kernel_h,
                "kernel_w": kernel_w, "stride2": part.stride == 2, "width_out": part.width,
                "depthwise": item.depthwise, "transformed": transformed,
                "doubled": self.doubled(item, part) if transformed else 0}

    def doubled(self, item, part):
        """How many of the first vectors of a part's input have equal pixels 0 and 1, 2 and 3 and so
        on, and lanes whose inner two pixels are such pairs."""
        network = self.machine.network
        if part.pad_left % OUTPUTS == 0:
            return 0
        return min(sum(self.machine.vectors(leaf) for leaf in
                       takewhile(network.upsampled, network.leaves(operand)))
                   for operand in item.operands)

    def words(self, items):
        """Weight words and parameter groups that passes need together, wherever these begin. A plan
        that spares memory takes all parameter groups, from the first on, where that is enough."""
        found  = [self.packed(item, part) for item in items for part in item.parts]
        words  = sum(packed.groups * packed.group_words for packed in found)
        params = sum(packed.groups * packed.group_params + self.alignment(packed)
                     for packed in found)
        if params > self.config.params and self.machine.schedule.sparing:
            least = 0
            for packed in found:
                least = (-(-least // packed.group_params) + packed.groups) * packed.group_params
            params = max(least, self.config.params)
        return words, params

    @staticmethod
    def alignment(packed):
        """Parameter groups lost before a part whose parameters begin at a whole vector."""
        return packed.group_params - 1

    def cost(self, item, y):
        """Cycles that row ``y`` of what a dense pass makes takes on this unit, by the estimate."""
        return sum(self._cost(item, part) for part in item.parts if part.makes(y))

    def _cost(self, item, part):
        if part not in self._costs:
            packed = self.packed(item, part)
            self._costs[part] = OVERHEAD + packed.groups * group_cycles(
                self.shape(item, part, packed.transformed), self.config, self.machine.config.vector)
        return self._costs[part]

    def tiles(self, item, part, channels=None):
        """Runs of groups, as (first, count), such that two fit the memories: of all output
        channels, or of a range of them whose ends are multiples of ``outputs`` or the last one."""
        packed = self.packed(item, part)
        if part.lines:
            return [(0, packed.groups)]
        begin, end = (0, packed.groups) if channels is None else (
            channels.start // self.config.outputs, -(-channels.stop // self.config.outputs))
        words  = (self.config.weight_words - self.weights.used()) // 2 // packed.group_words
        params = (self.config.params - self.params.used()) // 2 // (
            packed.group_params + self.alignment(packed))
        limit  = min(words, params, MOST_GROUPS)
        if limit < 1:
            enough = max(self.config.weight_words, self.weights.used() + 2 * packed.group_words)
            groups = max(self.config.params, self.params.used() + 2 * (
                packed.group_params + self.alignment(packed)))
            both   = or_set(f"{self.name}.weight_words", enough) and or_set(
                f"{self.name}.params", groups)
            raise CompileError(
                f"Layer {item.name!r} needs {packed.group_words} weight words and "
                f"{packed.group_params} parameter groups at a time; two of those exceed the "
                f"{self.name}'s {self.config.weight_words} and {self.config.params}; use a "
                "narrower network" + (both and f", or SET='{self.name}.weight_words={enough} "
                                               f"{self.name}.params={groups}'"))
        count = -(-(end - begin) // limit)
        size  = -(-(end - begin) // count)
        return [(first, min(size, end - first)) for first in range(begin, end, size)]

    def slot(self):
        self._slot = (self._slot + 1) % LAYER_SLOTS
        return self._slot

    def rings(self, wanted, what):
        """Rings in row memory, from address 0: of those that are ``whole`` all rows, if there is
        room, then of each as many as there is room for, evenly.

        Raises
        ------
        CompileError
            If not even the ``least`` rows of each fit.
        """
        limit = self.config.row_words
        slots = [min(ring.height, ring.least) for ring in wanted]
        total = sum(count * ring.words for count, ring in zip(slots, wanted, strict=True))
        if total > limit:
            raise CompileError(f"{what} needs {total} words of {self.rows}, which has {limit}; use "
                               f"a smaller network{or_set(f'{self.name}.row_words', total)}")
        for index, ring in enumerate(wanted):
            rest = (ring.height - slots[index]) * ring.words
            if ring.whole and total + rest <= limit:
                slots[index] = ring.height
                total += rest
        grown = True
        while grown:
            grown = False
            for index, ring in enumerate(wanted):
                if slots[index] < ring.height and total + ring.words <= limit:
                    slots[index] += 1
                    total += ring.words
                    grown = True
        base, rings = 0, []
        for count, ring in zip(slots, wanted, strict=True):
            rings.append(Ring(self.rows, base, ring.words, count, ring.produce))
            base += count * ring.words
        return rings


class PartRun:
    """One part set up on a unit: descriptor written, weights loaded in one piece or in tiles.

    ``target`` is where rows go; ``out_vectors`` the vectors per output pixel there.
    """

    def __init__(self, unit, item, part, target, *, out_vectors, packed=False):
        self.unit, self.item, self.part = unit, item, part
        self.packed = unit.packed(item, part)
        self.slot = unit.slot()
        self.begin = sum(map(unit.machine.vectors, item.before))    # first vector of the piece
        source = unit.machine.network.tensors[item.operands[0]]
        self._layer = {
            **unit.shape(item, part, self.packed.transformed),
            "slot": self.slot, "pad_left": part.pad_left,
            "width_in": 1 if part.columns else source.width,
            "zero_in": item.zero_in, "zero_out": item.zero_out, "low": item.low,
            "high": item.high, "target": target, "out_stride": out_vectors, "packed": packed,
            "table": item.table is not None, "spread": part.spread, "odd": part.odd,
            "clamp": part.clamp}
        self._describe(target)

    def _describe(self, target):
        """Write the descriptor; rows from here on go to ``target``."""
        self._target = target
        self.unit.machine.emitter.emit(self.unit.conv, Opcode.LAYER,
                                       self._layer | {"target": target}, layer=self.item.id)

    def load(self, first, groups, weights, params):
        """Bring in ``groups`` groups from ``first`` to the given addresses."""
        unit, packed, outputs = self.unit, self.packed, self.unit.config.outputs
        machine = unit.machine
        weights_at, params_at = unit.addresses(self.item, self.part, first, groups)
        self.first, self.groups = first, groups
        self.weight_base, self.param_base = weights, params
        self.reads = []
        for target, heap, base, size, address in (
                (LoadTarget.WEIGHTS, unit.weights, weights, groups * packed.group_words,
                 weights_at),
                (LoadTarget.PARAMS, unit.params, params, groups * packed.group_params,
                 params_at)):
            self.reads.append(Span(heap.name, base, base + size))
            machine.emitter.emit(
                unit.load, Opcode.LOAD,
                {"traffic": Traffic.WEIGHTS, "target": target, "offchip": address,
                 "beats": size * outputs, "base": base},
                layer=self.item.id, writes=self.reads[-1:])
            machine.charge(self.item.id, size * outputs)
        if self.item.table is not None:
            self._load_table()

    def _load_table(self):
        unit, machine = self.unit, self.unit.machine
        table = bytes(self.item.table.numpy().tobytes())
        span  = Span(f"{unit.name}.table", 0, 1)
        self.reads.append(span)
        if unit.table != table:
            unit.table = table
            machine.emitter.emit(
                unit.load, Opcode.LOAD,
                {"traffic": Traffic.WEIGHTS, "target": LoadTarget.TABLE,
                 "offchip": machine.place_once(table, f"table of {self.item.name}"),
                 "beats": 256 // machine.config.vector, "base": 0},
                layer=self.item.id, writes=[span])
            machine.charge(self.item.id, 256 // machine.config.vector)

    def row(self, y, sources, address, spans, *, alpha_base=0, tapped=False, beside=NOBODY,
            after=None):
        """Output row ``y`` from the row-memory places ``sources`` to ``address``; ``spans`` are
        the words that it writes; of ``beside`` and ``after`` see
        :meth:`hw.compiler.emit.Emitter.emit`. A row that was ``tapped`` is not observed again."""
        unit = self.unit
        if self._target in TARGETS.values() and TARGETS[spans[0].memory] is not self._target:
            self._describe(TARGETS[spans[0].memory])
        first = self.first if self.item.depthwise else 0
        rows, reads = [], self.reads.copy()
        for place in sources:
            if place is None:
                rows.append(PADDING)
            else:
                address_of, span = place
                rows.append((1, address_of + first))
                reads.append(span)
        what = {"layer": 0 if tapped else self.item.id, "row": y, "reads": reads, "writes": spans,
                "beside": beside, "after": after}
        if not self.part.lines:
            self._conv(rows, what, weight_base=self.weight_base, groups=self.groups,
                       first=self.begin + self.first, out_base=address, alpha_base=alpha_base)
            return
        vectors, lines = unit.machine.vectors(self.item.operands[0]), self.part.lines
        if not self.part.columns:
            self._line(lines[y], [row for _, row in rows], vectors, what, out_base=address)
            return
        (_, row), = rows
        for column, line in enumerate(lines):
            self._line(line, [row + source * vectors for source in line.sources], vectors, what,
                       out_base=address + column * vectors, column=column)

    def _line(self, line, places, vectors, what, **fields):
        """A row or column that is interpolated, as many vectors at a time as there are weights."""
        base = self.weight_base + line.turn * self.packed.turn_words
        for first in range(0, vectors, self.groups):
            self._conv([(1, place + first) for place in places], what, weight_base=base,
                       first=first, groups=min(self.groups, vectors - first), **fields)

    def _conv(self, rows, what, **fields):
        conv, emit = self.unit.conv, self.unit.machine.emitter.emit
        if len(rows) > KERNEL_ROWS:
            emit(conv, Opcode.ROWS, {"rows": rows[KERNEL_ROWS:]}, layer=what["layer"],
                 row=what["row"])
        emit(conv, CONV, {"slot": self.slot, "rows": rows[:KERNEL_ROWS],
                          "param_base": self.param_base, **fields}, **what)
