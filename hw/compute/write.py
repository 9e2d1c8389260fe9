"""Writer: bytes of finished pixels to masked words of row, on-chip, feedback or alpha memory."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from hw.compute.layer import LAYER
from hw.compute.transform import OUTPUTS
from hw.interfaces import MemoryWrite, TapSignature, row_write_layout
from hw.isa import FORMS, Opcode, Target
from hw.memory.skid import SkidBuffer

ALPHA_LANES = 1
"""The alpha store is written in whole words only."""


class Writer(wiring.Component):
    """Places the bytes of each pixel where the instruction wants them.

    Pieces come in the order of :class:`hw.compute.drain.Drain`: ``outputs`` channels of a pixel, or
    with ``layer.depthwise`` ``drain`` of them; groups have ``pixels``, or with
    ``layer.transformed`` twice as many. Those of pixels past ``layer.width_out`` are dropped; so
    are bytes of packed pixels until their word is complete, or the row ends (then the rest of the
    word is zero). With ``unit.gather`` the groups of a pixel are kept until its word has all that
    the row gives it, and written at once. Pixel ``x`` goes to column ``x``, or with
    ``layer.spread`` to column ``2 * x + layer.odd``. A word is on offer to its memory in the cycle
    after its last piece, and holds until taken; meanwhile pieces wait. In a pipelined machine they
    wait a word later: the next word is kept behind the one on offer. A memory that never waits
    takes one per cycle.

    ``start`` begins a row. ``finished`` rises when all its pieces were taken and no word is left.
    ``blocked`` says that a memory refused a word in this cycle. ``bad`` rises, and stays until
    reset, instead of a write outside its memory; ``halt`` drops all words from now on. The tap
    shows pieces of layers other than 0 as they are taken, before packing, in the low bytes of the
    record.

    Parameters
    ----------
    config : hw.config.Config
    name : str
        The unit: ``"encoder"``, ``"attention"`` or ``"decoder"``.

    Members
    -------
    start, halt : In(1)
    layer : In(LAYER)
    conv : In(FORMS[Opcode.CONV])
    i : In(stream.Signature(data.ArrayLayout(8, drain)))
    finished, blocked, bad : Out(1)
    row : Out(stream.Signature(row_write_layout(...)))
        ``vector // outputs`` lanes.
    onchip : Out(MemoryWrite(...))
        ``config.onchip_lanes`` lanes.
    feedback : Out(MemoryWrite(...))
        Decoder only; ``config.feedback_lanes`` lanes.
    alpha : Out(MemoryWrite(...))
        Attention only; one lane.
    tap : Out(TapSignature(...))
    """

    def __init__(self, *, config, name):
        if name not in config.units:
            raise ValueError(f"Unit must be one of {', '.join(config.units)}, not {name!r}")
        self.config = config
        self.name   = name
        self.unit   = config.units[name]

        vector, outputs = config.vector, self.unit.outputs
        members = {
            "start":    In(1),
            "halt":     In(1),
            "layer":    In(LAYER),
            "conv":     In(FORMS[Opcode.CONV]),
            "i":        In(stream.Signature(data.ArrayLayout(8, self.unit.drain))),
            "finished": Out(1),
            "blocked":  Out(1),
            "bad":      Out(1),
            "row":      Out(stream.Signature(row_write_layout(
                            banks=self.unit.banks, depth=self.unit.row_words, vector=vector,
                            lanes=vector // outputs))),
            "onchip":   Out(MemoryWrite(depth=config.onchip_words, vector=vector,
                                        lanes=config.onchip_lanes)),
            "tap":      Out(TapSignature(vector=vector)),
        }
        if name == "decoder":
            members["feedback"] = Out(MemoryWrite(depth=config.feedback_words, vector=vector,
                                                  lanes=config.feedback_lanes))
        if name == "attention":
            members["alpha"] = Out(MemoryWrite(depth=config.alpha_words, vector=vector,
                                               lanes=ALPHA_LANES))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()

        layer, conv     = self.layer, self.conv
        vector, outputs = self.config.vector, self.unit.outputs
        pixels, banks   = self.unit.pixels, self.unit.banks
        drain           = self.unit.drain
        pixel_bits      = exact_log2(pixels)
        bank_bits       = exact_log2(banks)
        lanes           = vector // outputs
        lane_bits       = exact_log2(lanes)
        parts           = vector // drain       # pieces of a depthwise pixel
        transformed     = layer.transformed if self.unit.transform else Const(0)

        # The piece on offer: pixel ``x``, its column, channel group ``group``, word address.
        part    = Signal(range(max(parts, 2)))
        pixel   = Signal(range(max(pixels * (OUTPUTS if self.unit.transform else 1), 2)))
        block   = Signal(11)
        group   = Signal(8)
        address = Signal(21)       # of this pixel's first word; packed: of the word in the making
        base    = Signal(21)       # of the first pixel of this group of pixels
        alpha   = Signal(13)
        busy    = Signal()
        x       = Signal(12)
        column  = Signal(13)
        channel = Signal(11)       # in units of ``outputs``; depthwise, of ``vector``
        crosses = Signal()         # the next pixel's column is in the next word of the row memory
        inside, last_x, takes, moves = Signal(), Signal(), Signal(), Signal()
        pixel_ends, group_ends = Signal(), Signal()
        m.d.comb += [
            x.eq((block << (pixel_bits + transformed))
                 | pixel[:pixel_bits + self.unit.transform]),
            column.eq(Mux(layer.spread, Cat(layer.odd, x), x)),
            crosses.eq((column[:bank_bits] | layer.spread) == banks - 1),
            channel.eq(conv.first + group),
            inside.eq(x < layer.width_out),
            last_x.eq(x + 1 == layer.width_out),
            takes.eq(self.i.valid & self.i.ready),
            moves.eq(takes & (~layer.depthwise | (part == parts - 1))),
            pixel_ends.eq(pixel == (pixels << transformed) - 1),
            group_ends.eq(pixel_ends & (group + 1 == conv.groups)),
        ]
        complete = Signal()        # this pixel's byte completes a packed word
        lane     = Signal(lanes)   # of its word, to which a dense piece goes
        gathers  = Signal()        # a dense piece after which more of its word come
        emits    = Signal()
        m.d.comb += [
            complete.eq((x[:exact_log2(vector)] == vector - 1) | last_x),
            lane.eq(Cat(channel[:lane_bits] == number for number in range(lanes))),
            emits.eq(takes & inside & (~layer.packed | complete) & ~gathers),
        ]

        onward = Signal(21)        # the next pixel's address
        with m.If(layer.packed):
            m.d.comb += onward.eq(address + (inside & complete))
        with m.Elif((layer.target == Target.ROW) & ~crosses):
            m.d.comb += onward.eq(address)
        with m.Elif((layer.target != Target.ROW) & layer.spread):
            m.d.comb += onward.eq(address + (layer.out_stride << 1))
        with m.Else():
            m.d.comb += onward.eq(address + layer.out_stride)

        begin = Signal(21)         # the first pixel's address
        m.d.comb += begin.eq(conv.out_base + Mux(
            (layer.target != Target.ROW) & layer.spread & layer.odd, layer.out_stride, 0))

        with m.If(self.start):
            m.d.sync += [
                part.eq(0), pixel.eq(0), block.eq(0), group.eq(0), busy.eq(1),
                address.eq(begin), base.eq(begin), alpha.eq(conv.alpha_base),
            ]
        with m.Elif(moves):
            m.d.sync += [part.eq(0), pixel.eq(pixel + 1), address.eq(onward)]
            m.d.sync += alpha.eq(alpha + (inside & complete))
            with m.If(pixel_ends):
                m.d.sync += [pixel.eq(0), group.eq(group + 1)]
                with m.If(group_ends):
                    m.d.sync += [group.eq(0), block.eq(block + 1), base.eq(onward)]
                    m.d.sync += busy.eq((block + 1) << (pixel_bits + transformed)
                                        < layer.width_out)
                with m.Elif(~layer.packed):
                    m.d.sync += address.eq(base)
        with m.Elif(takes):
            m.d.sync += part.eq(part + 1)

        # The word: copies of the bytes with a mask, or the packed bytes so far and this one.
        word = data.StructLayout({
            "target":  Target,
            "bank":    range(banks),
            "address": 21,
            "alpha":   13,
            "mask":    lanes,
            "data":    vector * 8,
        })
        made = Signal(word)
        m.d.comb += [
            made.target.eq(layer.target),
            made.bank.eq(column[:bank_bits]),
            made.alpha.eq(alpha),
        ]
        place  = x[:exact_log2(vector)]
        packed = []
        for number in range(vector):
            kept = Signal(8, name=f"kept_{number}")
            with m.If(moves & (place == number)):
                m.d.sync += kept.eq(self.i.p[0])
            packed.append(Mux(place == number, self.i.p[0], Mux(place > number, kept, 0)))
        piece = Value.cast(self.i.p)
        mask, gathered = lane, piece[:outputs * 8].replicate(lanes)
        if self.unit.gather:
            mask, gathered = self._gather(m, moves, pixel_ends, transformed, lane, gathers,
                                          last_group=group + 1 == conv.groups)
        with m.If(layer.packed):
            m.d.comb += [
                made.address.eq(address),
                made.mask.eq(-1),
                made.data.eq(Cat(packed)),
            ]
        with m.Elif(layer.depthwise):
            m.d.comb += [
                made.address.eq(address + channel),
                made.mask.eq(Cat((part == number // (lanes // parts)) for number in range(lanes))),
                made.data.eq(piece.replicate(parts)),
            ]
        with m.Else():
            m.d.comb += [
                made.address.eq(address + (channel >> lane_bits)),
                made.mask.eq(mask),
                made.data.eq(gathered),
            ]

        depths = {Target.ROW: self.unit.row_words, Target.ONCHIP: self.config.onchip_words,
                  Target.FEEDBACK: self.config.feedback_words,
                  Target.ALPHA: self.config.onchip_words}
        strays = Signal()
        with m.Switch(layer.target):
            for target, depth in depths.items():
                with m.Case(target):
                    m.d.comb += strays.eq(made.address >= depth)
        if self.name == "attention":
            with m.If((layer.target == Target.ALPHA) & (alpha >= self.config.alpha_words)):
                m.d.comb += strays.eq(1)
        keeps = Signal()
        m.d.comb += keeps.eq(emits & ~strays & ~self.bad & ~self.halt)
        with m.If(emits & strays):
            m.d.sync += self.bad.eq(1)

        # The word on offer to its memory.
        front, front_valid, leaves = Signal(word), Signal(), Signal()
        coming = stream.Signature(word).create()
        m.d.comb += coming.ready.eq(leaves | ~front_valid)
        with m.If(coming.ready):
            m.d.sync += [front_valid.eq(coming.valid), front.eq(coming.p)]
        if self.config.pipelined:
            m.submodules.skid = skid = SkidBuffer(word)
            connect(m, skid.o, flipped(coming))
            coming = skid.i
        m.d.comb += [coming.valid.eq(keeps), coming.p.eq(made), self.i.ready.eq(coming.ready)]

        # Destinations. An alpha word has two, which may take it in different cycles.
        alpha_taken, onchip_taken = Signal(), Signal()

        def offer(port, selected, *, lanes):
            m.d.comb += [
                port.valid.eq(front_valid & selected),
                port.p.address.eq(front.address),
                port.p.data.eq(front.data),
                port.p.mask.eq(Cat(bit.replicate(lanes // len(front.mask))
                                   for bit in front.mask)),
            ]

        is_alpha = front.target == Target.ALPHA
        offer(self.row, front.target == Target.ROW, lanes=lanes)
        m.d.comb += self.row.p.bank.eq(front.bank)
        offer(self.onchip.w, ((front.target == Target.ONCHIP) | is_alpha) & ~onchip_taken,
              lanes=self.config.onchip_lanes)
        with m.Switch(front.target):
            with m.Case(Target.ROW):
                m.d.comb += leaves.eq(self.row.ready)
            with m.Case(Target.ONCHIP):
                m.d.comb += leaves.eq(self.onchip.w.ready)
            if self.name == "decoder":
                with m.Case(Target.FEEDBACK):
                    m.d.comb += leaves.eq(self.feedback.w.ready)
            if self.name == "attention":
                with m.Case(Target.ALPHA):
                    m.d.comb += leaves.eq((onchip_taken | self.onchip.w.ready)
                                          & (alpha_taken | self.alpha.w.ready))
        if self.name == "decoder":
            offer(self.feedback.w, front.target == Target.FEEDBACK,
                  lanes=self.config.feedback_lanes)
        if self.name == "attention":
            m.d.comb += [
                self.alpha.w.valid.eq(front_valid & is_alpha & ~alpha_taken),
                self.alpha.w.p.address.eq(front.alpha),
                self.alpha.w.p.data.eq(front.data),
                self.alpha.w.p.mask.eq(-1),
            ]
            with m.If(leaves):
                m.d.sync += [onchip_taken.eq(0), alpha_taken.eq(0)]
            with m.Elif(front_valid & is_alpha):
                m.d.sync += [onchip_taken.eq(onchip_taken | self.onchip.w.ready),
                             alpha_taken.eq(alpha_taken | self.alpha.w.ready)]

        m.d.comb += [
            self.finished.eq(~busy & ~front_valid),
            self.blocked.eq(front_valid & ~leaves),

            self.tap.valid.eq(takes & inside & (conv.layer != 0)),
            self.tap.p.layer.eq(conv.layer),
            self.tap.p.row.eq(conv.row),
            self.tap.p.column.eq(conv.column + column),
            self.tap.p.channel.eq(Mux(layer.depthwise,
                                      Cat(Const(0, exact_log2(drain)), part[:exact_log2(parts)],
                                          channel),
                                      channel << exact_log2(outputs))),
            self.tap.p.count.eq(Mux(layer.depthwise, drain, outputs)),
            self.tap.p.data.eq(Value.cast(self.i.p)),
        ]

        return m

    def _gather(self, m, moves, pixel_ends, transformed, lane, gathers, *, last_group):
        """The lanes and the bytes of a dense word with the piece on offer, and those before it.
        Pixels come in the same order in every group, so the words in the making go round."""
        pixels, width = self.unit.pixels, self.unit.outputs * 8
        piece = Value.cast(self.i.p)[:width]
        found = Signal(len(lane))       # lanes of the groups before
        words = [Signal(self.config.vector * 8, name=f"gathered_{number}", reset_less=True)
                 for number in range(pixels * (OUTPUTS if self.unit.transform else 1))]
        added = Cat(Mux(lane[number], piece, words[0].word_select(number, width))
                    for number in range(len(lane)))
        ends  = lane[-1] | last_group
        m.d.comb += gathers.eq(~self.layer.packed & ~self.layer.depthwise & ~ends)
        with m.If(moves):
            for number, word in enumerate(words):
                last = number + 1 == len(words)
                m.d.sync += word.eq(added if last else words[number + 1])
            with m.If(~transformed):
                m.d.sync += words[pixels - 1].eq(added)
        with m.If(self.start):
            m.d.sync += found.eq(0)
        with m.Elif(moves & pixel_ends):
            m.d.sync += found.eq(Mux(gathers, found | lane, 0))
        return found | lane, added
