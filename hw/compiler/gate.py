"""The attention unit's part of a stage: attention maps, a row at a time."""

from hw.compiler.emit import Span
from hw.compiler.unit import Layer
from hw.isa import Target


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
