"""Row fetch: one row of a map, from on-chip or feedback memory into a unit's row memory."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.utils import exact_log2

from hw.compute.product import SerialProduct
from hw.compute.row_writer import RowWriter
from hw.interfaces import EngineSignature, MemoryRead, TapSignature, row_write_layout
from hw.isa import Cause, Error, FillMode, Source
from hw.memory.protected import queue


class FillEngine(wiring.Component):
    """Runs ``FILL``: copies a row, halves two rows by 2x2 maximum, or doubles a row horizontally.

    Source rows are read in order. Vector ``v`` of output pixel ``x`` is written to bank
    ``x % banks``, address ``dst_base + x // banks * dst_stride + dst_vector + v``; ``POOL`` has
    ``width // 2`` output pixels (unsigned maximum of the four bytes), ``UP`` has ``2 * width``.
    ``row`` and ``layer`` only matter to the tap, which shows ``POOL`` and ``UP`` rows of layers
    other than 0, one vector per record.

    ``COPY`` moves one vector per cycle; ``UP`` writes one per cycle and reads every other one;
    ``POOL`` reads one per cycle and writes every fourth one. Around that an instruction takes
    7 cycles and the length in bits of the longer of ``vectors`` and ``dst_stride`` to check its
    extents, fill and drain. Both memories may refuse at any time; nothing is lost or repeated.

    Every cycle is ``ISSUE`` (one vector written), ``CONFLICT`` (none was, and a memory port
    refused) or ``FILL_DRAIN``. ``BAD_ADDRESS`` is raised before the first access if any vector lies
    outside its memory, or if the row is impossible: no pixels or no vectors, ``POOL`` of an odd
    width, ``FEEDBACK`` in a unit that has none, or a mode that does not exist. The engine then
    stays there until reset.

    Parameters
    ----------
    config : hw.config.Config
    unit : hw.config.UnitConfig
        The unit whose row memory is written.
    has_feedback : bool
        Whether the unit can read the decoder's feedback memory.

    Members
    -------
    engine : Out(EngineSignature())
    read_onchip : Out(MemoryRead(...))
    read_feedback : Out(MemoryRead(...))
        Only with ``has_feedback``.
    write : Out(stream.Signature(row_write_layout(...)))
        Whole vectors; ``valid`` and payload are registers.
    tap : Out(TapSignature(...))
    """

    def __init__(self, config, unit, has_feedback):
        self.config       = config
        self.unit         = unit
        self.queue        = queue(config.protects("queues"), width=config.vector * 8,
                                  depth=config.read_queue)
        self.protected    = [("queues", self.queue)]
        self.has_feedback = bool(has_feedback)

        vector  = config.vector
        members = {
            "engine":      Out(EngineSignature()),
            "read_onchip": Out(MemoryRead(depth=config.onchip_words, vector=vector)),
            "write":       Out(stream.Signature(row_write_layout(
                               banks=unit.banks, depth=unit.row_words, vector=vector,
                               lanes=vector // unit.outputs))),
            "tap":         Out(TapSignature(vector=vector)),
        }
        if has_feedback:
            members["read_feedback"] = Out(MemoryRead(depth=config.feedback_words, vector=vector))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()

        config, unit, vector = self.config, self.unit, self.config.vector
        bank_bits  = exact_log2(unit.banks)
        fill       = self.engine.i.p.fill
        write      = self.write
        pool, up   = Signal(), Signal()
        feedback   = Signal()       # read the feedback memory
        m.d.comb += [
            pool.eq(fill.mode == FillMode.POOL),
            up.eq(fill.mode == FillMode.UP),
            feedback.eq(fill.source == Source.FEEDBACK),
        ]

        m.submodules.queue  = queue  = self.queue
        m.submodules.writer = writer = RowWriter(banks=unit.banks, depth=unit.row_words,
                                                 vector=vector, lanes=vector // unit.outputs)
        m.submodules.source = source = SerialProduct(a_bits=len(fill.width),
                                                         b_bits=len(fill.vectors))
        m.submodules.dest   = dest   = SerialProduct(a_bits=len(fill.width) + 1,
                                                         b_bits=len(fill.dst_stride))

        # Extents: vectors of one source row, and the distance to the last output pixel's block.
        columns = Signal(12)        # output pixels
        with m.Switch(fill.mode):
            with m.Case(FillMode.POOL):
                m.d.comb += columns.eq(fill.width >> 1)
            with m.Case(FillMode.UP):
                m.d.comb += columns.eq(fill.width << 1)
            with m.Default():
                m.d.comb += columns.eq(fill.width)
        m.d.comb += [
            source.a.eq(fill.width), source.b.eq(fill.vectors),
            dest.a.eq((columns - 1).as_unsigned() >> bank_bits), dest.b.eq(fill.dst_stride),
        ]

        words = Signal(range(max(config.onchip_words, config.feedback_words) + 1))
        bad   = Signal()
        m.d.comb += words.eq(Mux(feedback, config.feedback_words, config.onchip_words))
        dst_end = fill.dst_base + dest.o + fill.dst_vector + fill.vectors
        m.d.comb += bad.eq(
            (fill.width == 0) | (fill.vectors == 0)
            | (fill.src_base + source.o > words)
            | (dst_end > unit.row_words)
            | (pool & (fill.width[0] | (fill.src_base2 + source.o > words)))
            | ~(pool | up | (fill.mode == FillMode.COPY))
            | (feedback & (not self.has_feedback)))

        # Requests. A group is what makes one queue entry: one read, or four for POOL.
        reading = Signal()
        credits = Signal(range(queue.depth + 1), init=queue.depth)
        phase   = Signal(2)         # in the group: first row left and right, second row likewise
        address = Signal(20)
        first   = Signal(20)        # address of the group's left pixel in the first row
        second  = Signal(20)        # and in the second one
        pixels  = Signal(12)        # source pixels, or pairs of pixels, still to ask for
        vec     = Signal(7)

        offered, accepted, taken = Signal(), Signal(), Signal()
        m.d.comb += offered.eq(reading & ((credits != 0) | (phase != 0)))
        m.d.comb += taken.eq(accepted & (phase == 0))
        ports = [(self.read_onchip, ~feedback)]
        if self.has_feedback:
            ports.append((self.read_feedback, feedback))
        for port, selected in ports:
            m.d.comb += [port.address.valid.eq(offered & selected), port.address.p.eq(address)]
            with m.If(selected):
                m.d.comb += accepted.eq(offered & port.address.ready)

        last_vec   = vec == fill.vectors - 1
        step       = Mux(last_vec & pool, fill.vectors + 1, 1)
        next_first = Signal(20)
        m.d.comb += next_first.eq(first + step)
        with m.If(accepted):
            m.d.sync += phase.eq(Mux(pool, phase + 1, 0))
            with m.If(pool & ~phase[0]):
                m.d.sync += address.eq(address + fill.vectors)
            with m.Elif(pool & (phase == 1)):
                m.d.sync += address.eq(second)
            with m.Else():
                m.d.sync += [address.eq(next_first), first.eq(next_first)]
                m.d.sync += [second.eq(second + step), vec.eq(vec + 1)]
                with m.If(last_vec):
                    m.d.sync += [vec.eq(0), pixels.eq(pixels - 1)]
                    with m.If(pixels == 1):
                        m.d.sync += reading.eq(0)

        # Answers: bytewise maximum of the group, then the queue.
        valid  = Signal()
        data   = Signal(vector * 8)
        member = Signal(2)          # which read of its group this answer belongs to
        for port, selected in ports:
            with m.If(selected):
                m.d.comb += [valid.eq(port.data_valid), data.eq(port.data)]
        for lane in range(vector):
            best = Signal(8, name=f"best_{lane}")
            byte = Signal(8, name=f"byte_{lane}")
            m.d.comb += byte.eq(data.word_select(lane, 8))
            m.d.comb += queue.w_data.word_select(lane, 8).eq(
                Mux((member != 0) & (best > byte), best, byte))
            with m.If(valid & pool):
                m.d.sync += best.eq(queue.w_data.word_select(lane, 8))
        m.d.comb += queue.w_en.eq(valid & (~pool | (member == 3)))
        with m.If(valid & pool):
            m.d.sync += member.eq(member + 1)

        m.d.comb += [
            writer.base.eq(fill.dst_base + fill.dst_vector),
            writer.stride.eq(fill.dst_stride),
            writer.vectors.eq(fill.vectors),
            writer.columns.eq(columns),
            writer.twice.eq(up),
        ]
        connect(m, queue.r_stream, writer.i)
        connect(m, writer.o, flipped(write))
        m.d.sync += credits.eq(credits - taken + (writer.i.valid & writer.i.ready))

        m.d.comb += [
            self.tap.valid.eq(write.valid & write.ready & (fill.layer != 0) & (pool | up)),
            self.tap.p.layer.eq(fill.layer),
            self.tap.p.row.eq(fill.row),
            self.tap.p.column.eq(writer.column),
            self.tap.p.channel.eq(writer.channel),
            self.tap.p.count.eq(vector),
            self.tap.p.data.eq(write.p.data),
        ]

        with m.If(write.valid & write.ready):
            m.d.comb += self.engine.cause.eq(Cause.ISSUE)
        with m.Elif(write.valid | (offered & ~accepted)):
            m.d.comb += self.engine.cause.eq(Cause.CONFLICT)
        with m.Else():
            m.d.comb += self.engine.cause.eq(Cause.FILL_DRAIN)

        with m.FSM():
            with m.State("Wait for work"):
                with m.If(self.engine.i.valid):
                    m.d.comb += [source.start.eq(1), dest.start.eq(1), writer.start.eq(1)]
                    m.d.sync += [
                        address.eq(fill.src_base),
                        first.eq(fill.src_base),
                        second.eq(fill.src_base2),
                        pixels.eq(Mux(pool, fill.width >> 1, fill.width)),
                        vec.eq(0),
                        phase.eq(0),
                        member.eq(0),
                    ]
                    m.next = "Check extents"
            with m.State("Check extents"):
                with m.If(source.done & dest.done):
                    m.d.sync += reading.eq(~bad)
                    m.next = "Move"
                    with m.If(bad):
                        m.next = "Failed"
            with m.State("Move"):
                with m.If(writer.finished):
                    m.next = "Retire"
            with m.State("Retire"):
                m.d.comb += self.engine.i.ready.eq(1)
                m.next = "Wait for work"
            with m.State("Failed"):
                m.d.comb += self.engine.error.eq(Error.BAD_ADDRESS)

        return m
