"""The attention gate: alpha times skip, requantised, on its way to the decoder."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from hw.attention.alpha_store import AlphaRead
from hw.attention.gate_params import GateParams
from hw.compute.product import SerialProduct
from hw.compute.requantize import LATENCY, Requantizer
from hw.compute.row_writer import RowWriter
from hw.interfaces import EngineSignature, MemoryRead, TapSignature, load_layout, row_write_layout
from hw.isa import Cause, Error
from hw.memory.protected import queue

PIPELINE = 2 + LATENCY
"""Cycles from a step (``gate_lanes`` channels) to its bytes: operands, product, requantiser."""


class GateEngine(wiring.Component):
    """Runs ``GATE``: multiplies one skip row with one row of the attention map.

    Channel ``c`` of pixel ``x`` becomes ``requantise((alpha - zero_alpha) * (skip[x][c] -
    zero_skip))`` with the gate parameters of channel ``c`` (lane ``c % gate_lanes`` of word
    ``param_base + c // gate_lanes``), and is written to the decoder's row memory as ``FILL`` does
    it. Alpha is that of pixel ``k = x // 2`` of the map, or with ``same`` of pixel ``x``: byte
    ``k % vector`` of word ``alpha_base + k // vector`` of the alpha store; or with ``wide`` channel
    ``c``, from word ``alpha_base + k * vectors`` of on-chip memory on. Bit-exact with
    :func:`golden.arithmetic.gate`.

    One step takes ``gate_lanes`` channels and one cycle, so a vector takes ``vector // gate_lanes``
    cycles, whatever the lane count, as long as the skip is delivered and the decoder takes the
    result. Around its steps an instruction takes about 17 cycles to check extents, fill and drain.
    With ``wide``, alpha and skip share the read port in turns, and a vector takes at least two
    cycles.

    Every cycle is ``ISSUE`` (one step), ``BACKPRESSURE`` (the decoder's row memory refused a
    write), ``CONFLICT`` (on-chip memory refused a read) or ``FILL_DRAIN``, the first that holds.
    ``BAD_ADDRESS`` is raised before the first access if any part of the row lies outside on-chip
    memory, alpha store, parameters or the decoder's row memory, or has no pixels or no vectors; the
    engine then stays there until reset.

    Members
    -------
    engine : Out(EngineSignature())
    load : In(stream.Signature(load_layout(...)))
        Beats for ``GATE_PARAMS``; always taken, others are ignored.
    read_skip : Out(MemoryRead(...))
    read_alpha : Out(AlphaRead(...))
    write : Out(stream.Signature(row_write_layout(...)))
        Whole vectors for the decoder's row memory.
    tap : Out(TapSignature(...))
        One record per vector written, unless ``layer`` is 0.
    """

    def __init__(self, config):
        self.config = config

        vector, decoder = config.vector, config.decoder
        self.lanes      = vector // decoder.outputs
        self.steps      = steps = vector // config.gate_lanes           # per vector
        self.slots      = -(-(steps + PIPELINE + 1) // steps)   # vectors begun and not yet written
        kind            = config.protects("queues")
        self.params     = GateParams(config)
        self.queue      = queue(kind, width=2 * vector * 8, depth=config.read_queue)
        self.results    = queue(kind, width=vector * 8, depth=self.slots)
        self.protected  = [*self.params.protected, ("queues", self.queue),
                           ("queues", self.results)]
        if config.pipelined:
            self.waiting    = queue(kind, width=8, depth=config.read_queue)
            self.protected += [("queues", self.waiting)]
        super().__init__({
            "engine":     Out(EngineSignature()),
            "load":       In(stream.Signature(load_layout(vector=vector))),
            "read_skip":  Out(MemoryRead(depth=config.onchip_words, vector=vector)),
            "read_alpha": Out(AlphaRead(depth=config.alpha_words, vector=vector)),
            "write":      Out(stream.Signature(row_write_layout(
                              banks=decoder.banks, depth=decoder.row_words, vector=vector,
                              lanes=self.lanes))),
            "tap":        Out(TapSignature(vector=vector)),
        })

    def elaborate(self, platform):
        m = Module()

        config, vector, decoder = self.config, self.config.vector, self.config.decoder
        lanes = config.gate_lanes
        steps, slots = self.steps, self.slots
        gate  = self.engine.i.p.gate

        m.submodules.params  = params  = self.params
        m.submodules.queue   = queue   = self.queue
        m.submodules.results = results = self.results
        m.submodules.writer  = writer  = RowWriter(banks=decoder.banks, depth=decoder.row_words,
                                                   vector=vector, lanes=self.lanes)
        m.submodules.source  = source  = SerialProduct(a_bits=len(gate.width),
                                                       b_bits=len(gate.vectors))
        m.submodules.map     = map_    = SerialProduct(a_bits=len(gate.width),
                                                       b_bits=len(gate.vectors))
        m.submodules.dest    = dest    = SerialProduct(a_bits=len(gate.width),
                                                       b_bits=len(gate.dst_stride))
        connect(m, flipped(self.load), params.load)

        # Extents.
        last_column = Signal.like(gate.width)
        last_alpha  = Signal.like(gate.width)
        bad         = Signal()
        alpha_bad   = Signal()
        dst_end     = gate.dst_base + dest.o + gate.dst_vector + gate.vectors
        m.d.comb += [
            last_column.eq(gate.width - 1),
            last_alpha.eq(Mux(gate.same, last_column, last_column >> 1)),
            source.a.eq(gate.width), source.b.eq(gate.vectors),
            map_.a.eq(last_alpha + 1), map_.b.eq(gate.vectors),
            dest.a.eq(last_column >> exact_log2(decoder.banks)), dest.b.eq(gate.dst_stride),
            alpha_bad.eq(Mux(
                gate.wide, gate.alpha_base + map_.o > config.onchip_words,
                gate.alpha_base + (last_alpha >> exact_log2(vector)) >= config.alpha_words)),
            bad.eq((gate.width == 0) | (gate.vectors == 0)
                   | (gate.skip_base + source.o > config.onchip_words)
                   | alpha_bad
                   | (gate.param_base + gate.vectors * steps > config.gate_param_words)
                   | (dst_end > decoder.row_words)),
        ]

        # Requests: skip vectors in order, each with its alpha: a byte of the store, which needs as
        # long, or a vector that was asked for just before.
        reading = Signal()
        credits = Signal(range(queue.depth + 1), init=queue.depth)
        address = Signal(20)
        column  = Signal.like(gate.width)
        vec     = Signal.like(gate.vectors)
        wanted  = Signal()
        asked   = Signal()
        wants_skip, taken, asks_skip = Signal(), Signal(), Signal()
        alpha_address = Signal(20)          # wide: of the next alpha vector
        alpha_pixel   = Signal(20)          # and of vector 0 of its pixel
        begun   = Signal()                  # wide: the alpha vector was asked for
        k       = Signal.like(gate.width)   # which alpha byte
        byte    = Signal(range(vector))     # which byte of the alpha word that was read
        alpha   = Signal(8)
        m.d.comb += [
            wants_skip.eq(~gate.wide | begun),
            wanted.eq(reading & ((credits != 0) | begun)),
            asked.eq(wanted & self.read_skip.address.ready),
            taken.eq(asked & ~begun),
            asks_skip.eq(asked & wants_skip),
            self.read_skip.address.valid.eq(wanted),
            self.read_skip.address.p.eq(Mux(wants_skip, address, alpha_address)),
            k.eq(Mux(gate.same, column, column >> 1)),
            self.read_alpha.address.eq(gate.alpha_base + (k >> exact_log2(vector))),
        ]
        found = self.read_alpha.data.word_select(byte, 8)
        m.d.sync += byte.eq(k)
        if not config.pipelined:
            m.d.sync += alpha.eq(found)
        else:       # skips take longer, and not all as long: their alphas wait for them
            m.submodules.waiting = waiting = self.waiting
            arrives = Signal()
            m.d.sync += arrives.eq(asks_skip)
            m.d.comb += [waiting.w_en.eq(arrives), waiting.w_data.eq(found),
                         waiting.r_en.eq(queue.w_en), alpha.eq(waiting.r_data)]
        with m.If(asked):
            m.d.sync += begun.eq(~wants_skip)
        with m.If(asks_skip):
            m.d.sync += [address.eq(address + 1), vec.eq(vec + 1),
                         alpha_address.eq(alpha_address + 1)]
            with m.If(vec == gate.vectors - 1):
                m.d.sync += [vec.eq(0), column.eq(column + 1)]
                with m.If(gate.same | column[0]):
                    m.d.sync += alpha_pixel.eq(alpha_address + 1)
                with m.Else():
                    m.d.sync += alpha_address.eq(alpha_pixel)
                with m.If(column == last_column):
                    m.d.sync += reading.eq(0)

        # Answers.
        second = Signal()                   # wide: the answer on its way is the skip
        alphas = Signal(vector * 8)
        with m.If(self.read_skip.data_valid & gate.wide):
            m.d.sync += second.eq(~second)
            with m.If(~second):
                m.d.sync += alphas.eq(self.read_skip.data)
        m.d.comb += [
            queue.w_en.eq(self.read_skip.data_valid & (~gate.wide | second)),
            queue.w_data.eq(Cat(self.read_skip.data,
                                Mux(gate.wide, alphas, alpha.replicate(vector)))),
        ]

        # Steps: the queue's head is worked off in `steps` parts. A vector begins only when its
        # result has a place, so that nothing behind this point ever waits.
        part   = Signal(range(max(steps, 2)))
        done   = Signal(range(max(steps, 2)))       # the part that leaves the pipeline
        free   = Signal(range(slots + 1), init=slots)
        param  = Signal.like(params.address)
        last   = Signal.like(params.address)        # a pixel's last parameter word
        issue  = Signal()
        ending = Signal()
        valid  = Signal(PIPELINE)                   # which stages hold a step
        m.d.comb += [
            last.eq(gate.param_base + gate.vectors * steps - 1),
            issue.eq(queue.r_rdy & ((part != 0) | (free != 0))),
            ending.eq(issue & (part == steps - 1)),
            queue.r_en.eq(ending),
        ]
        m.d.sync += [
            credits.eq(credits - taken + ending),
            valid.eq(Cat(issue, valid)),
            params.address.eq(param),
            free.eq(free - (issue & (part == 0)) + (results.r_rdy & results.r_en)),
        ]
        with m.If(issue):
            m.d.sync += param.eq(Mux(param == last, gate.param_base, param + 1))
            m.d.sync += part.eq(Mux(ending, 0, part + 1))

        for lane in range(lanes):
            skip    = Signal(signed(9), name=f"skip_{lane}")
            weight  = Signal(signed(9), name=f"weight_{lane}")
            product = Signal(signed(18), name=f"product_{lane}")
            m.submodules[f"requantizer_{lane}"] = requantizer = Requantizer()
            with m.Switch(part):
                for index in range(steps):
                    with m.Case(index):
                        place = index * lanes + lane
                        with m.If(issue):
                            m.d.sync += [
                                skip.eq(queue.r_data.word_select(place, 8) - gate.zero_skip),
                                weight.eq(queue.r_data.word_select(vector + place, 8)
                                          - gate.zero_alpha),
                            ]
            with m.If(valid[0]):
                m.d.sync += product.eq(skip * weight)
            m.d.comb += [
                requantizer.enable.eq(1),
                requantizer.acc.eq(product),
                requantizer.requant.eq(params.requants[lane]),
                requantizer.zero_out.eq(gate.zero_out),
                requantizer.low.eq(gate.low),
                requantizer.high.eq(gate.high),
            ]
            for index in range(steps):
                place = results.w_data.word_select(index * lanes + lane, 8)
                if index == steps - 1:
                    m.d.comb += place.eq(requantizer.y)
                else:
                    early = Signal(8, name=f"early_{index}_{lane}")
                    m.d.comb += place.eq(early)
                    with m.If(valid[-1] & (done == index)):
                        m.d.sync += early.eq(requantizer.y)
        m.d.comb += results.w_en.eq(valid[-1] & (done == steps - 1))
        with m.If(valid[-1]):
            m.d.sync += done.eq(Mux(done == steps - 1, 0, done + 1))

        m.d.comb += [
            writer.base.eq(gate.dst_base + gate.dst_vector),
            writer.stride.eq(gate.dst_stride),
            writer.vectors.eq(gate.vectors),
            writer.columns.eq(gate.width),
        ]
        connect(m, results.r_stream, writer.i)
        connect(m, writer.o, flipped(self.write))

        m.d.comb += [
            self.tap.valid.eq(self.write.valid & self.write.ready & (gate.layer != 0)),
            self.tap.p.layer.eq(gate.layer),
            self.tap.p.row.eq(gate.row),
            self.tap.p.column.eq(writer.column),
            self.tap.p.channel.eq(writer.channel),
            self.tap.p.count.eq(vector),
            self.tap.p.data.eq(self.write.p.data),
        ]

        with m.If(issue):
            m.d.comb += self.engine.cause.eq(Cause.ISSUE)
        with m.Elif(self.write.valid & ~self.write.ready):
            m.d.comb += self.engine.cause.eq(Cause.BACKPRESSURE)
        with m.Elif(wanted & ~asked):
            m.d.comb += self.engine.cause.eq(Cause.CONFLICT)
        with m.Else():
            m.d.comb += self.engine.cause.eq(Cause.FILL_DRAIN)

        with m.FSM():
            with m.State("Wait for work"):
                with m.If(self.engine.i.valid):
                    m.d.comb += [source.start.eq(1), map_.start.eq(1), dest.start.eq(1),
                                 writer.start.eq(1)]
                    m.d.sync += [
                        address.eq(gate.skip_base), column.eq(0), vec.eq(0),
                        alpha_address.eq(gate.alpha_base), alpha_pixel.eq(gate.alpha_base),
                        param.eq(gate.param_base),
                    ]
                    m.next = "Check extents"
            with m.State("Check extents"):
                with m.If(source.done & map_.done & dest.done):
                    m.d.sync += reading.eq(~bad)
                    m.next = "Gate"
                    with m.If(bad):
                        m.next = "Failed"
            with m.State("Gate"):
                with m.If(writer.finished):
                    m.next = "Retire"
            with m.State("Retire"):
                m.d.comb += self.engine.i.ready.eq(1)
                m.next = "Wait for work"
            with m.State("Failed"):
                m.d.comb += self.engine.error.eq(Error.BAD_ADDRESS)

        return m
