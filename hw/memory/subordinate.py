"""The AXI side of a memory: bursts come in, and accesses to one DRAM row each go out."""

from amaranth import *
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.utils import exact_log2

from hw.memory.axi import MAX_BURST_BEATS, BurstType, Response
from hw.memory.bursts import BurstSplitter

__all__ = ["accept_bursts", "acknowledge_layout", "written_layout"]


def written_layout(vector):
    """A beat of ``vector`` bytes as the buffer of written data has it."""
    return data.StructLayout({"data": vector * 8, "strb": vector})


def acknowledge_layout(id_width):
    """What a write burst is answered with."""
    return data.StructLayout({"id": id_width, "response": Response})


def accept_bursts(m, axi, reads, writes, *, depth, queue, window, within=None):
    """Take the bursts of ``axi`` and cut them at the ends of DRAM rows; returns the FIFOs of
    written data (:func:`written_layout`) and of responses (:func:`acknowledge_layout`).

    Takes up to ``queue`` read and ``queue`` write bursts ahead. A write burst is on offer once its
    last beat has arrived, so a slow writer never holds the memory. What is no INCR burst of
    full-width beats has SLVERR in its accesses, and what touches an address beyond ``depth`` beats
    DECERR. Channel R is the caller's.

    Parameters
    ----------
    m : Module
        Gets all parts.
    axi : flipped Axi4
    reads, writes : streams of :func:`hw.memory.dram.access_layout`
        Accesses of at most ``window`` beats, each inside one row.
    within : Value
        As :class:`hw.memory.bursts.BurstSplitter` takes it.
    """
    vector    = len(axi.wstrb)
    byte_bits = exact_log2(vector)
    beat_bits = len(axi.araddr) - byte_bits
    id_width  = len(axi.arid)
    burst     = data.StructLayout({"address": beat_bits, "length": 8, "id": id_width,
                                   "response": Response})

    # Bursts wait in a queue, and are cut at the ends of DRAM rows.
    def accept(channel, accesses):
        def ax(field):
            return getattr(axi, f"a{channel}{field}")

        waiting = SyncFIFO(width=burst.size, depth=queue)
        cut     = BurstSplitter(address_width=beat_bits, beats=MAX_BURST_BEATS, window=window,
                                within=within)
        m.submodules[f"{channel}_queue"] = waiting
        m.submodules[f"{channel}_cut"]   = cut

        arrived = Signal(burst, name=f"{channel}_arrived")
        current = Signal(burst, name=f"{channel}_current")
        head    = data.View(burst, waiting.r_data)
        m.d.comb += [
            arrived.address.eq(ax("addr")[byte_bits:]),
            arrived.length.eq(ax("len")),
            arrived.id.eq(ax("id")),
            waiting.w_data.eq(arrived.as_value()),
            waiting.w_en.eq(ax("valid")),
            ax("ready").eq(waiting.w_rdy),
            cut.i.p.address.eq(head.address),
            cut.i.p.beats.eq(head.length + 1),
        ]
        with m.If((ax("size") != byte_bits) | (ax("burst") != BurstType.INCR)):
            m.d.comb += arrived.response.eq(Response.SLVERR)
        with m.Elif(arrived.address + ax("len") >= depth):
            m.d.comb += arrived.response.eq(Response.DECERR)

        m.d.comb += waiting.r_en.eq(cut.i.valid & cut.i.ready)
        with m.If(waiting.r_en):
            m.d.sync += current.eq(head)
        m.d.comb += [
            accesses.valid.eq(cut.o.valid),
            cut.o.ready.eq(accesses.ready),
            accesses.p.address.eq(cut.o.p.address),
            accesses.p.length.eq(cut.o.p.length),
            accesses.p.last.eq(cut.o.p.last),
            accesses.p.id.eq(current.id),
            accesses.p.response.eq(current.response),
        ]
        return waiting, cut

    waiting, cut = accept("r", reads)
    m.d.comb += cut.i.valid.eq(waiting.r_rdy)

    # Write data is buffered; a write burst starts once its last beat is there.
    waiting, cut = accept("w", writes)
    m.submodules.write_data = buffer = SyncFIFOBuffered(width=written_layout(vector).size,
                                                        depth=2 * MAX_BURST_BEATS)
    complete = Signal(range(2 * MAX_BURST_BEATS + 1))
    arrives  = Signal()
    starts   = Signal()
    m.d.comb += [
        buffer.w_data.eq(Cat(axi.wdata, axi.wstrb)),
        buffer.w_en.eq(axi.wvalid),
        axi.wready.eq(buffer.w_rdy),
        arrives.eq(axi.wvalid & axi.wready & axi.wlast),
        cut.i.valid.eq(waiting.r_rdy & (complete != 0)),
        starts.eq(cut.i.valid & cut.i.ready),
    ]
    m.d.sync += complete.eq(complete + arrives - starts)

    answer = acknowledge_layout(id_width)
    m.submodules.responses = responses = SyncFIFO(width=answer.size, depth=queue)
    response = data.View(answer, responses.r_data)
    m.d.comb += [
        axi.bvalid.eq(responses.r_rdy),
        axi.bid.eq(response.id),
        axi.bresp.eq(response.response),
        responses.r_en.eq(axi.bready),
    ]
    return buffer, responses
