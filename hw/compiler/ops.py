"""From the integer graph to what the units run: passes of the MAC arrays, and moves of data."""

from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch

from golden import arithmetic, integer
from hw.compiler.errors import CompileError
from hw.control.counters import LEDGER_LAYERS
from hw.isa import MAX_KERNEL

COPIED = STORED, PACKED, ALPHA, PARKED, UNPARKED = (        # ends of names of copies
    "_stored", "_packed", "_alpha", "_parked", "_unparked")
EXACT = (1 << 14, 14)       # multiplier and shift of a factor of 1
CEILING = 1 << 8            # in a bound: it is one from above
MADE   = WeakKeyDictionary()    # graph -> (parts of its layers by name, what they are packed as)
SPREAD = 2                  # columns and rows of an upsampled map per one of its source


@dataclass(frozen=True)
class Line:
    """A row or column that is interpolated: the rows or columns under each kernel row, and which
    ``turn`` of the part's weights they meet there."""
    sources: tuple
    turn:    int


@dataclass(frozen=True, eq=False)
class Part:
    """What CONV instructions with one layer descriptor and one set of weights make of a tensor.

    Row ``y`` is made if ``y % step == phase``; kernel row k then reads row
    ``y // step * stride + rows[k][1]`` of operand ``rows[k][0]``; past the map's end that is
    padding, or with ``clamp`` the last row. Of a row, it makes ``width`` pixels: all, or, with
    ``spread``, every other one from ``odd`` on.

    Of interpolation, ``lines`` are the rows or, with ``columns``, the columns that it makes, and
    ``weight`` has turns for outputs, each for all channels. Columns are made one by one, each as a
    map of one pixel. ``bound`` holds the bounds of channels that have some, with ``CEILING`` where
    they are such.
    """
    weight:     np.ndarray      # int8 [outputs, inputs, kernel_h, kernel_w]; depthwise: inputs 1
    bias:       np.ndarray      # int64, input zero points folded in
    multiplier: np.ndarray
    shift:      np.ndarray
    rows:       tuple
    pad_left:   int
    width:      int
    stride:     int  = 1
    step:       int  = 1
    phase:      int  = 0
    spread:     bool = False
    odd:        int  = 0
    clamp:      bool = False
    lines:      tuple = ()
    columns:    bool = False
    bound:      np.ndarray | None = None

    def makes(self, y):
        return y % self.step == self.phase

    def sources(self, y, heights):
        """(operand, row) under each kernel row; None for padding."""
        if self.lines and not self.columns:
            return [(0, row) for row in self.lines[y].sources]
        first = y // self.step * self.stride
        found = []
        for operand, offset in self.rows:
            row, height = first + offset, heights[operand]
            if self.clamp:
                row = min(max(row, 0), height - 1)
            found.append((operand, row) if 0 <= row < height else None)
        return found

    @property
    def reach(self):
        """Rows of its operand between the first and the last that one output row reads."""
        offsets = [offset for _, offset in self.rows]
        return max(offsets) - min(offsets) + 1


@dataclass(frozen=True, eq=False)
class Pass:
    """A tensor that a MAC array makes. ``operands`` are the tensors whose rows it reads, each of
    them assembled in row memory; ``table`` is looked up after requantisation."""
    id:        int
    name:      str
    unit:      str
    tensor:    integer.Tensor
    operands:  tuple
    parts:     tuple
    depthwise: bool
    zero_in:   int
    zero_out:  int
    low:       int
    high:      int
    table:     object = None
    macs:      int    = 0
    alpha:     bool   = False       # one channel for the attention unit's own store
    parked:    bool   = False       # a copy in feedback memory, for those who read much later
    pieces:    tuple  = ()          # where units lend: passes of which each makes a part of it
    before:    tuple  = ()          # of a piece: what others read whose vectors come first

    @property
    def columns(self):
        """Whether it interpolates columns: these lie one behind the other in row memory."""
        return self.parts[0].columns


@dataclass(frozen=True, eq=False)
class Move:
    """A tensor made while data move (pooling, nearest upsampling, gating)."""
    id:     int
    layer:  object
    tensor: integer.Tensor

    @property
    def name(self):
        return self.tensor.name


@dataclass(frozen=True, eq=False)
class Network:
    """``passes`` in topological order; ``made`` maps a tensor to the pass that makes it, and
    ``moves`` to what moves it; ``layouts`` gives the channel counts of the runs of channels that
    begin at whole vectors; ``outputs`` are what the host reads; ``copies`` are stored copies that
    take a tensor's place in rows where it would lie beside others; ``packed`` keeps what
    :meth:`hw.compiler.unit.Unit.packed` has made of a part, for all machines; ``planned`` are the
    machines for which something was emitted."""
    graph:   integer.IntegerGraph
    tensors: dict
    passes:  tuple
    moves:   dict
    made:    dict
    layouts: dict
    outputs: tuple
    copies:  dict = field(default_factory=dict)
    packed:  dict = field(default_factory=dict)
    planned: list = field(default_factory=list)

    @property
    def layers(self):
        """Everything that has an id, in the order of the ids."""
        return sorted([*self.passes, *self.moves.values()], key=lambda item: item.id)

    def leaves(self, name):
        """The tensors that lie side by side in a row of ``name``."""
        return leaves(self.graph, self.made, name, self.copies)

    def upsampled(self, leaf):
        """Whether a leaf's rows are doubled by the fill that brings them."""
        return (leaf not in self.made and leaf in self.moves
                and isinstance(self.moves[leaf].layer, integer.Upsample))

    def stored(self, leaf):
        """The tensors in shared memory from which a leaf is filled."""
        if leaf in self.made or leaf not in self.moves:
            return [leaf]
        layer = self.moves[leaf].layer
        if isinstance(layer, integer.Gate):
            return [layer.skip, layer.alpha]
        return [layer.input]


def leaves(graph, made, name, copies):
    """The tensors that lie side by side in a row of ``name``."""
    layer = graph.layer(name) if name not in made else None
    if isinstance(layer, integer.Concat):
        return [leaf for part in layer.inputs
                for leaf in leaves(graph, made, copies.get(part, part), copies)]
    return [name]


def lower(graph, *, lend=False, parked=(), pooled=()):
    """What the units run for ``graph``. With ``lend`` gated skips are stored, so that not only the
    decoder can read them; and of the tensors to be ``parked`` those who do not read at once read
    copies.

    Raises
    ------
    CompileError
        If a layer cannot run; names it, the reason, and what would.
    """
    return _Lowering(graph, lend, parked, pooled).network()


@dataclass
class _Lowering:
    graph:   integer.IntegerGraph
    lend:    bool = False
    parked:  tuple = ()
    pooled:  tuple = ()
    passes:  list = field(default_factory=list)
    moves:   dict = field(default_factory=dict)
    made:    dict = field(default_factory=dict)
    layouts: dict = field(default_factory=dict)
    added:   dict = field(default_factory=dict)
    copies:  dict = field(default_factory=dict)

    def __post_init__(self):
        self.readers = {}
        for layer in self.graph.layers:
            for name in layer.inputs:
                self.readers.setdefault(name, []).append(layer)
        self.tensors = dict(self.graph.tensors)
        self.macs    = integer.macs(self.graph)
        self.parts, self.packed = MADE.setdefault(self.graph, ({}, {}))
        self.next_id = 1

    def network(self):
        graph = self.graph
        for layer in graph.layers:
            getattr(self, f"_{type(layer).__name__.lower()}")(layer)
        outputs = tuple(self._stored(name, "decoder") for name in graph.outputs)
        for name in self.parked:
            self._park(name)
        for item in [item for item in self.passes if self.lend and item.depthwise]:
            self._keep_as(item, pieces=tuple(self._pieces(item)))
        return Network(graph, self.tensors, tuple(self.passes), self.moves, self.made, self.layouts,
                       outputs, self.copies, self.packed)

    def _id(self):
        if self.next_id >= LEDGER_LAYERS:
            raise CompileError(f"Network {self.graph.network!r} has more than "
                               f"{LEDGER_LAYERS - 1} layers, as many as instructions can name; "
                               "use a smaller frame, or split it")
        self.next_id += 1
        return self.next_id - 1

    def tensor(self, name):
        return self.tensors[name]

    # Layers without arithmetic of their own.

    def _input(self, layer):
        self.layouts[layer.name] = (self.tensor(layer.name).channels,)

    def _concat(self, layer):
        self.layouts[layer.name] = sum((self.layouts[name] for name in layer.inputs), ())

    def _add(self, layer):
        self.layouts[layer.name] = self.layouts[layer.a]
        wrong = [reader for reader in self.readers.get(layer.name, [])
                 if not isinstance(reader, integer.Conv) or reader.groups != 1]
        if (wrong or layer.name in self.graph.outputs
                or self.layouts[layer.a] != self.layouts[layer.b]):
            raise CompileError(f"Layer {layer.name!r} is an exact sum, which only a dense "
                               "convolution can read; quantise its result")

    def _maxpool(self, layer):
        self._move(layer)
        if layer.name in self.pooled:
            self._copy(layer.name, layer.unit)

    def _upsample(self, layer):
        if layer.mode == "nearest":
            readers = self.readers.get(layer.name, [])
            if (not readers or layer.name in self.graph.outputs
                    or not all(self._halves(reader) == layer.name for reader in readers)):
                self._move(layer)
            return
        near, far = 3, 1
        parts = []
        for phase in range(SPREAD):
            for odd in range(SPREAD):
                kernel = np.outer([far, near], [near, far] if odd else [far, near])
                parts.append(dict(
                    kernel=kernel, rows=((0, 1 if phase else -1), (0, 0)),
                    pad_left=1 - odd, width=self.tensor(layer.input).width, step=SPREAD,
                    phase=phase, spread=True, odd=odd, clamp=True))
        self._channelwise(layer, layer.input, parts, (1 << 14, 18), zero_in=0)

    def _interpolate(self, layer):
        columns = layer.axis == "columns"
        source  = (self._stored if columns else self._fillable)(layer.input, layer.unit)
        before  = self.tensor(source)
        zero    = before.zero_point

        def parts():
            lines, turns, total = _lines(layer, before.width if columns else before.height)
            yield Part(np.array(turns, np.int8)[:, None, :, None], np.array([-zero * total]),
                       layer.multiplier.numpy(), layer.shift.numpy(),
                       ((0, 0),) if columns else ((0, 0), (0, 1)), pad_left=0,
                       width=1 if columns else before.width, lines=lines, columns=columns)

        self.layouts[layer.name] = self.layouts[source]
        self._add_pass(layer, self.tensor(layer.name), (source,), self._once(layer.name, parts),
                       depthwise=True, zero_in=zero)

    def _move(self, layer):
        source = self._stored(layer.input, layer.unit)
        self.layouts[layer.name] = self.layouts[source]
        self.moves[layer.name]   = Move(self._id(), replace(layer, input=source),
                                        self.tensor(layer.name))

    def _stays(self, name):
        """Whether only depthwise convolutions read a tensor, which the decoder makes alone."""
        readers = self.readers.get(name, ())
        return len(readers) > 0 and all(
            self._stays(reader.name) if isinstance(reader, integer.Concat) else
            isinstance(reader, integer.Conv) and reader.groups != 1 for reader in readers)

    def _halves(self, layer):
        """The upsampled attention map that a gate reads before it is upsampled; else None."""
        if not isinstance(layer, integer.Gate) or layer.alpha == layer.skip:
            return None
        above = self.graph.layer(layer.alpha)
        same  = self.tensor(layer.alpha).width == self.tensor(layer.skip).width
        nearest = isinstance(above, integer.Upsample) and above.mode == "nearest"
        return layer.alpha if nearest and same else None

    def _gate(self, layer):
        skip  = self._stored(layer.skip, layer.unit)
        alpha = layer.alpha
        if self._halves(layer):
            alpha = self.graph.layer(alpha).input
        if self.tensor(alpha).channels == 1:
            alpha = self._alpha(alpha)
        else:
            alpha = self._stored(alpha, layer.unit)
            if self.layouts[alpha] != self.layouts[skip]:       # of concatenations, cut otherwise
                alpha, skip = (name if len(self.layouts[name]) == 1 else
                               self._repacked(name, layer.unit) for name in (alpha, skip))
        resolved = replace(layer, skip=skip, alpha=alpha)
        self.layouts[layer.name] = self.layouts[skip]
        self.moves[layer.name]   = Move(self._id(), resolved, self.tensor(layer.name))
        if self.lend and not self._stays(layer.name):
            self._copy(layer.name, "decoder")
            self.copies[layer.name] = self.added[layer.name]

    # Passes of the MAC arrays.

    def _conv(self, layer):
        if layer.groups != 1:
            self._depthwise_conv(layer)
            return
        above = self.graph.layer(layer.input)
        names = above.inputs if isinstance(above, integer.Add) else (layer.input,)
        names = tuple(self._fillable(name, layer.unit) for name in names)

        def parts():
            top, left, _, _ = layer.padding
            kys, weight = needed_rows(layer.weight.numpy())
            self._check_kernel(layer, len(kys) * len(names), weight.shape[3])
            rows = tuple((operand, ky - top) for operand in range(len(names)) for ky in kys)
            yield dict(weight=np.concatenate([weight] * len(names), axis=2), rows=rows,
                       pad_left=left, width=self.tensor(layer.name).width, stride=layer.stride)

        self._dense(layer, names, parts)

    def _transposedconv(self, layer):
        name   = self._fillable(layer.input, layer.unit)

        def parts():
            top, left, _, _ = layer.padding
            weight = layer.weight.numpy()               # inputs, outputs, ky, kx
            width  = self.tensor(layer.name).width
            for phase in range(SPREAD):
                kys  = [ky for ky in reversed(range(weight.shape[2]))
                        if (phase + top - ky) % 2 == 0]
                rows = tuple((0, (phase + top - ky) // 2) for ky in kys)
                for odd in range(SPREAD if width > 1 else 1):
                    kxs = [kx for kx in reversed(range(weight.shape[3]))
                           if (odd + left - kx) % 2 == 0]
                    dxs = [(odd + left - kx) // 2 for kx in kxs]
                    skipped = max(0, min(dxs))          # columns before the first that it reads
                    kernel  = weight[:, :, kys][:, :, :, kxs].transpose(1, 0, 2, 3)
                    kernel  = np.pad(kernel, ((0, 0), (0, 0), (0, 0), (skipped, 0)))
                    yield dict(weight=kernel, rows=rows, pad_left=max(0, -min(dxs)),
                               width=(width - odd + 1) // 2, step=SPREAD, phase=phase, spread=True,
                               odd=odd)

        self._dense(layer, (name,), parts)

    def _dense(self, layer, names, parts):
        zero  = self.tensor(names[0]).zero_point
        built = self._once(layer.name, lambda: (self._part(layer, zero, **part)
                                                for part in parts()))
        table, tensor = None, self.tensor(layer.name)
        readers = self.readers.get(layer.name, [])
        if (len(readers) == 1 and isinstance(readers[0], integer.Lookup)
                and layer.name not in self.graph.outputs):
            table, tensor = readers[0].table, self.tensor(readers[0].name)
        self.layouts[layer.name] = self.layouts[tensor.name] = (tensor.channels,)
        self._add_pass(layer, tensor, names, built, depthwise=False, zero_in=zero, table=table)

    @staticmethod
    def _part(layer, zero, *, weight, **part):
        """A part of a convolution whose input has the zero point ``zero``."""
        bias = (layer.bias.numpy().astype(np.int64)
                - zero * weight.sum(axis=(1, 2, 3), dtype=np.int64))
        bound = None
        if isinstance(layer, integer.Conv) and layer.floor is not None:
            bound = torch.where(layer.ceiling < 255, layer.ceiling.to(torch.int64) + CEILING,
                                layer.floor.to(torch.int64)).numpy()
        return Part(weight, bias, layer.multiplier.numpy(), layer.shift.numpy(), bound=bound,
                    **part)

    def _once(self, name, parts):
        """The parts of a tensor, made once for all machines."""
        if name not in self.parts:
            self.parts[name] = tuple(parts())
        return self.parts[name]

    def _lookup(self, layer):
        if layer.name in self.made:
            return
        self._identity(layer.input, layer.name, layer.unit, table=layer.table)

    def _depthwise_conv(self, layer):
        name   = self._fillable(layer.input, layer.unit)
        zero   = self.tensor(name).zero_point

        def parts():
            top, left, _, _ = layer.padding
            kys, weight = needed_rows(layer.weight.numpy())
            self._check_kernel(layer, *weight.shape[2:])
            yield self._part(layer, zero, weight=weight, rows=tuple((0, ky - top) for ky in kys),
                             pad_left=left, width=self.tensor(layer.name).width,
                             stride=layer.stride)

        self.layouts[layer.name] = self.layouts[name]
        self._add_pass(layer, self.tensor(layer.name), (name,), self._once(layer.name, parts),
                       depthwise=True, zero_in=zero)

    def _pieces(self, item):
        """A pass for each operand of the concatenation that a depthwise convolution reads: only
        what is gated must be in the row memory of the decoder."""
        found = leaves(self.graph, self.made, item.operands[0], self.copies)
        if len(item.operands) > 1 or len(found) < 2 or any(part.lines for part in item.parts):
            return
        first = 0
        for number, leaf in enumerate(found):
            mine  = slice(first, first + self.tensor(leaf).channels)
            first = mine.stop
            yield replace(item, operands=(leaf,), before=tuple(found[:number]), parts=self._once(
                f"{item.name} of {leaf}", lambda mine=mine: [replace(
                    part, weight=part.weight[mine], bias=part.bias[mine],
                    multiplier=part.multiplier[mine], shift=part.shift[mine],
                    bound=None if part.bound is None else part.bound[mine])
                    for part in item.parts]))

    def _sum(self, layer):
        names = tuple(self._fillable(name, layer.unit) for name in (layer.a, layer.b))
        if self.layouts[names[0]] != self.layouts[names[1]]:
            names = tuple(self._repacked(name, layer.unit) for name in names)
        taps = [(operand, tap) for operand, weight in enumerate((layer.weight_a, layer.weight_b))
                for tap in _split(weight)]
        zeros = [self.tensor(name).zero_point for name in (layer.a, layer.b)]
        bias  = -zeros[0] * layer.weight_a - zeros[1] * layer.weight_b
        self._channelwise(
            layer, names, [dict(kernel=np.array([[tap] for _, tap in taps]),
                                rows=tuple((operand, 0) for operand, _ in taps), pad_left=0,
                                width=self.tensor(layer.name).width)],
            (int(layer.multiplier[0]), int(layer.shift[0])), zero_in=0, bias=bias)

    def _channelwise(self, layer, names, parts, factor, *, zero_in, bias=0):
        """A depthwise pass whose channels all do the same."""
        if isinstance(names, str):
            names = (self._fillable(names, layer.unit),)
        tensor   = self.tensor(layer.name)
        channels = tensor.channels

        def build():
            for part in parts:
                kernel = part.pop("kernel").astype(np.int8)
                yield Part(np.broadcast_to(kernel, (channels, 1, *kernel.shape)),
                           np.full(channels, bias, np.int64), np.full(channels, factor[0]),
                           np.full(channels, factor[1]), **part)

        self.layouts[layer.name] = self.layouts[names[0]]
        self._add_pass(layer, tensor, names, self._once(layer.name, build), depthwise=True,
                       zero_in=zero_in, raw=not hasattr(layer, "low"))

    def _add_pass(self, layer, tensor, names, parts, *, depthwise, zero_in, table=None, raw=False):
        made = self.tensor(layer.name)
        weights = getattr(layer, "weight", None)
        done = Pass(
            self._id(), layer.name, layer.unit, tensor, names, parts, depthwise, zero_in,
            0 if raw else made.zero_point, 0 if raw else layer.low, 255 if raw else layer.high,
            table, self.macs.get(layer.name, 0) if weights is not None else 0)
        self._keep(done)

    def _keep(self, done):
        self.passes.append(done)
        self.made[done.tensor.name] = done

    def _check_kernel(self, layer, height, width):
        if height > MAX_KERNEL or width > MAX_KERNEL:
            raise CompileError(f"Layer {layer.name!r} has a {height}x{width} kernel; the units run "
                               f"up to {MAX_KERNEL}x{MAX_KERNEL}; use several smaller ones")

    # Passes that only bring a tensor where, or to the form in which, it can be read.

    def _fillable(self, name, unit):
        """``name``, or if no fill or gate of ``unit`` can make its rows, a stored copy."""
        if name in self.added:
            return self.added[name]
        gated = any(leaf in self.moves and isinstance(self.moves[leaf].layer, integer.Gate)
                    for leaf in leaves(self.graph, self.made, name, self.copies))
        if gated and unit != "decoder":
            return self._stored(name, "decoder")
        return name

    def _stored(self, name, unit):
        """The name under which the tensor lies in shared memory."""
        layer = self.graph.layer(name) if name not in self.made else None
        if name in self.made or isinstance(layer, integer.Input):
            return name
        if name not in self.added:
            self._copy(name, unit)
        return self.added[name]

    def _copy(self, name, unit):
        """Store a tensor that otherwise exists only in row memory."""
        unit   = "decoder" if self._fillable(name, unit) != name else unit
        if name in self.added:              # by that
            return
        copy = self._copied(name, STORED, unit)
        self.added[name] = copy.tensor.name
        self._keep(copy)

    def _copied(self, name, end, unit, source=None, **kind):
        """A depthwise pass that copies a tensor, or ``source`` which equals it."""
        copied, tensor = f"{name}{end}", self.tensor(name)
        parts = self._once(copied, lambda: [_exact(
            np.broadcast_to(np.ones((), np.int8), (tensor.channels, 1, 1, 1)), tensor)])
        self._named(copied, tensor)
        self.layouts[copied] = self.layouts[name]
        return Pass(self._id(), copied, unit, self.tensor(copied), (source or name,), parts, True,
                    0, 0, 0, 255, **kind)

    def _park(self, name):
        """Let all but the encoder read a copy of a tensor in feedback memory, and gates a copy of
        that on chip, made as they go."""
        copy = self._copied(name, PARKED, "decoder", parked=True)
        near = [self.made[name], *(item for item in self.passes
                                   if item.unit == "encoder" and self._reads(item, name))]
        far  = [item for item in self.passes if item not in near and self._reads(item, name)]
        # What makes a quarter of it is made at once, of the map itself: all units can read that.
        for item in [item for item in far if name in item.operands and not item.depthwise
                     and item.parts[0].stride == 2]:
            far.remove(item)
            self.passes.remove(item)
            self.passes.insert(self.passes.index(near[0]) + 1, item)
        self._insert(copy, self.passes.index(near[-1]) + 1)
        for move in [move for move in self.moves.values() if isinstance(move.layer, integer.Gate)
                     and move.layer.skip == name]:
            back  = self._copied(name, UNPARKED, "decoder", copy.tensor.name)
            gated = next(item for item in far if self._reads(item, move.name))
            self._insert(back, self.passes.index(gated))
            self.moves[move.name] = replace(move, layer=replace(move.layer, skip=back.tensor.name))
        for move in [move for move in self.moves.values()
                     if isinstance(move.layer, integer.Upsample) and move.layer.input == name]:
            self.moves[move.name] = replace(move, layer=replace(move.layer,
                                                                input=copy.tensor.name))
        for item in far:
            if name in item.operands:
                self._keep_as(item, operands=tuple(copy.tensor.name if operand == name else operand
                                                   for operand in item.operands))

    def _reads(self, item, name):
        """Whether a pass reads a tensor, as it is or while it is moved."""
        return any(leaf == name or leaf not in self.made and leaf in self.moves
                   and name in self.moves[leaf].layer.inputs for operand in item.operands
                   for leaf in leaves(self.graph, self.made, operand, self.copies))

    def _insert(self, done, index):
        self.passes.insert(index, done)
        self.made[done.tensor.name] = done

    def _repacked(self, name, unit):
        """A stored copy whose channels lie without gaps."""
        copied = f"{name}{PACKED}"
        if copied not in self.made:
            self._named(copied, self.tensor(name))
            self._identity(name, copied, unit)
        return copied

    def _alpha(self, name):
        """The one-channel tensor in the attention unit's own store."""
        done = self.made.get(name)
        gates = [reader for reader in self.readers.get(name, []) if isinstance(reader,
                                                                               integer.Gate)]
        if (done is None or done.depthwise or done.unit != "attention" or len(done.parts) != 1
                or len(gates) != len(self.readers[name]) or name in self.graph.outputs):
            copied = f"{name}{ALPHA}"
            if copied not in self.made:
                self._named(copied, self.tensor(name))
                self._identity(self._fillable(name, "attention"), copied, "attention")
            name = copied
        done = self.made[name]
        if not done.alpha:
            self._keep_as(done, alpha=True)
        return name

    def _keep_as(self, done, **changes):
        changed = replace(done, **changes)
        self.passes[self.passes.index(done)] = changed
        self.made[done.tensor.name] = changed

    def _identity(self, source, name, unit, *, table=None):
        """A dense 1x1 pass that changes nothing but looks up ``table``."""
        source = self._fillable(source, unit)
        before, tensor = self.tensor(source), self.tensor(name)
        parts = self._once(name, lambda: [_exact(
            np.eye(before.channels, dtype=np.int8)[:, :, None, None], before)])
        self.layouts[name] = (before.channels,)
        self._keep(Pass(self._id(), name, unit, tensor, (source,), parts, False, 0, 0, 0, 255,
                        table))

    def _named(self, name, tensor):
        self.tensors[name] = replace(tensor, name=name)


def _lines(layer, length):
    """The lines of an interpolation of ``length`` lines, the weights of each turn, and their
    sum."""
    first_M, part_M, parts = arithmetic.lines(length, layer.length, layer.place)
    found = [[(first + step, tap) for step, weight in enumerate((parts - part, part))
              for tap in _split(weight)]
             for first, part in zip(first_M.tolist(), part_M.tolist(), strict=True)]
    taps  = max(map(len, found))
    if taps > MAX_KERNEL:
        raise CompileError(f"Layer {layer.name!r} makes {layer.length} {layer.axis} of {length}, "
                           f"whose weights of {parts} in all take kernels of {taps} rows; the "
                           f"units run up to {MAX_KERNEL}; use a smaller map, or sides with a "
                           "larger common divisor")
    turns, lines = {}, []
    for line in found:
        line += [(line[0][0], 0)] * (taps - len(line))
        sources, weights = zip(*line, strict=True)
        lines.append(Line(sources, turns.setdefault(weights, len(turns))))
    return tuple(lines), list(turns), parts


def _exact(weight, tensor):
    """What makes a copy of a tensor, with weights of 1 by 1."""
    return Part(weight, np.zeros(tensor.channels, np.int64), np.full(tensor.channels, EXACT[0]),
                np.full(tensor.channels, EXACT[1]), ((0, 0),), 0, tensor.width)


def needed_rows(weight):
    """Numbers of the kernel rows that are not all zeros, those of a dilated kernel say, or of the
    first if all are; and the weights in them."""
    kys = np.flatnonzero(weight.any(axis=(0, 1, 3))).tolist() or [0]
    return kys, weight if len(kys) == weight.shape[2] else weight[:, :, kys]


def _split(weight):
    """A weight as taps between -127 and 127."""
    count, size = -(-abs(weight) // 127), abs(weight)
    taps = [size // count + (index < size % count) for index in range(count)]
    return taps if weight > 0 else [-tap for tap in taps]
