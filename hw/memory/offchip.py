"""Off-chip memory: an AXI4 subordinate with the timing of a DRAM."""

from pathlib import Path

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.memory.axi import Axi4, Response
from hw.memory.dram import RATE_ONE, DramScheduler, timing_const
from hw.memory.subordinate import accept_bursts, acknowledge_layout, written_layout
from hw.memory.traffic import COUNTER_BITS

MODEL_SOURCES = tuple(Path(__file__).with_name(name)
                      for name in ("offchip_array.v", "offchip_timing.v"))
"""Verilog that a design with ``storage="array"`` must be simulated with: memory, and timing."""


class OffchipMemory(wiring.Component):
    """AXI4 memory of ``depth`` beats with the timing of a DRAM. Simulation only.

    Takes up to ``queue`` read and ``queue`` write bursts ahead, and answers each kind in order. A
    write burst starts when all its data has arrived, so a slow writer never holds the bus; it is
    acknowledged once it is in the array. Order and delay of bursts are
    :class:`hw.memory.dram.DramScheduler`'s; each burst counts as one access per DRAM row that it
    touches. During an access one beat moves per cycle, or per ``vector / bus_bytes_per_cycle``
    cycles where the DRAM's pins are slower. From the transfer of a read's address to its first
    beat, ``OVERHEAD + cost + ceil(vector / bus_bytes_per_cycle) - 1`` cycles pass in an idle
    memory. A reader that refuses data stops the bus.

    Only INCR bursts of full-width beats exist; others are answered SLVERR. A burst that touches an
    address beyond ``depth`` is answered DECERR. Neither writes anything.

    Parameters
    ----------
    config : hw.config.Config
        Gives the width of a beat, and the size.
    depth : int
        Beats; default ``config.offchip_words``.
    storage : str
        ``"array"``: the Verilog of :data:`MODEL_SOURCES`, filled from and dumped to the files that
        the plusargs ``+offchip_image=`` and ``+offchip_dump=`` name, plain bytes from address 0
        up; its timing is that of :func:`hw.memory.dram.timing_plusarg`, without which nothing runs.
        ``"memory"``: an Amaranth memory, for Amaranth's simulator, whose rows are ``data``;
        ``load`` and ``dump`` do nothing there.
    timing : hw.config.DramTiming
        With ``storage="memory"``; default ``config.timing``.
    id_width, queue, batch : int

    Members
    -------
    axi : In(Axi4(...))
    inject_error : In(2)
        While bit 0 (1) is high, every read beat (write response) is SLVERR.
    load, dump : In(1)
        A rising edge, sampled by the clock, loads the image or dumps ``dump_count`` words from
        word ``dump_first``.
    read_bytes, written_bytes, row_hits, row_misses, refresh_cycles, busy_cycles : Out(40)
        Bytes include those that a strobe masked.
    """

    OVERHEAD = 4

    def __init__(self, *, config, depth=None, storage="array", timing=None, id_width=1,
                 queue=4, batch=4):
        if depth is None:
            depth = config.offchip_words
        if depth < 2:
            raise ValueError(f"Off-chip depth must be at least 2, not {depth!r}")
        if depth > config.offchip_words:
            raise ValueError(f"Off-chip depth ({depth}) must not exceed the {config.offchip_words} "
                             f"words of configuration {config.name!r}")
        if storage not in ("array", "memory"):
            raise ValueError(f"Storage must be 'array' or 'memory', not {storage!r}")
        if queue < 1:
            raise ValueError(f"Queue must be positive, not {queue!r}")
        self.config   = config
        self.depth    = depth
        self.storage  = storage
        self.timing   = timing or config.timing
        self.id_width = id_width
        self.queue    = queue
        self.batch    = batch
        if storage == "memory":
            self.data = MemoryData(shape=config.vector * 8, depth=depth, init=[])

        super().__init__({
            "axi": In(Axi4(data_width=config.vector * 8, id_width=id_width,
                           address_width=config.offchip_address_width)),
            "inject_error":   In(2),
            "load":           In(1),
            "dump":           In(1),
            "dump_first":     In(32),
            "dump_count":     In(32),
            "read_bytes":     Out(COUNTER_BITS),
            "written_bytes":  Out(COUNTER_BITS),
            "row_hits":       Out(COUNTER_BITS),
            "row_misses":     Out(COUNTER_BITS),
            "refresh_cycles": Out(COUNTER_BITS),
            "busy_cycles":    Out(COUNTER_BITS),
        })

    def elaborate(self, platform):
        m = Module()

        axi        = self.axi
        vector     = self.config.vector
        byte_bits  = exact_log2(vector)
        beat_bits  = self.config.offchip_address_width - byte_bits
        index_bits = ceil_log2(self.depth)

        m.submodules.dram = dram = DramScheduler(
            vector=vector, address_width=beat_bits, id_width=self.id_width, batch=self.batch)
        timing = dram.timing
        if self.storage == "memory":
            m.d.comb += timing.eq(timing_const(self.timing, vector))
        else:
            m.submodules.timing = Instance("offchip_timing", p_BITS=timing.shape().size,
                                           o_timing=timing)
        for name in ("row_hits", "row_misses", "refresh_cycles", "busy_cycles"):
            m.d.comb += getattr(self, name).eq(getattr(dram, name))

        buffer, responses = accept_bursts(m, axi, dram.reads, dram.writes, depth=self.depth,
                                          queue=self.queue, window=dram.window,
                                          within=(1 << timing.column_bits) - 1)

        # The data bus: the access on offer moves its beats, as fast as the pins allow.
        access = dram.o.p
        index  = Signal(range(dram.window))
        last   = Signal()
        paced  = Signal()
        move   = Signal()
        sane   = Signal()
        target = Signal(beat_bits)
        credit = Signal(range(RATE_ONE))
        sum_   = Signal(range(2 * RATE_ONE))
        m.d.comb += sum_.eq(credit + timing.rate)
        m.d.comb += paced.eq(sum_ >= RATE_ONE)
        with m.If(~dram.o.valid):
            m.d.sync += credit.eq(0)
        with m.Elif(~paced | move):
            m.d.sync += credit.eq(sum_)
        m.d.comb += [
            last.eq(index == access.length),
            sane.eq(access.response == Response.OKAY),
            target.eq(access.address + index),
            dram.o.ready.eq(move & last),
        ]
        with m.If(dram.o.valid & paced):
            with m.If(dram.write):
                m.d.comb += move.eq(buffer.r_rdy & (responses.w_rdy | ~(last & access.last)))
            with m.Else():
                m.d.comb += move.eq(~axi.rvalid | axi.rready)
        with m.If(move):
            m.d.sync += index.eq(Mux(last, 0, index + 1))

        acknowledged = Signal(acknowledge_layout(self.id_width))
        m.d.comb += [
            buffer.r_en.eq(move & dram.write),
            acknowledged.id.eq(access.id),
            acknowledged.response.eq(Mux(self.inject_error[1], Response.SLVERR, access.response)),
            responses.w_data.eq(acknowledged.as_value()),
            responses.w_en.eq(move & dram.write & last & access.last),
        ]
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(move & ~dram.write):
            m.d.sync += [
                axi.rvalid.eq(1),
                axi.rid.eq(access.id),
                axi.rlast.eq(last & access.last),
                axi.rresp.eq(Mux(self.inject_error[0], Response.SLVERR, access.response)),
            ]

        # The storage, whose read register drives the AXI port.
        incoming    = data.View(written_layout(vector), buffer.r_data)
        read_enable = Signal()
        write_mask  = Signal(vector)
        m.d.comb += read_enable.eq(move & ~dram.write & sane)
        with m.If(move & dram.write & sane):
            m.d.comb += write_mask.eq(incoming.strb)
        if self.storage == "memory":
            m.submodules.store = store = Memory(self.data)
            read  = store.read_port()
            write = store.write_port(granularity=8)
            m.d.comb += [
                read.addr.eq(target),
                read.en.eq(read_enable),
                axi.rdata.eq(read.data),
                write.addr.eq(target),
                write.data.eq(incoming.data),
                write.en.eq(write_mask),
            ]
        else:
            m.submodules.store = Instance(
                "offchip_array",
                p_BYTES=vector, p_DEPTH=self.depth, p_ADDRESS=index_bits,
                i_clk=ClockSignal(),
                i_read_enable=read_enable, i_read_address=target[:index_bits],
                o_read_data=axi.rdata,
                i_write_mask=write_mask, i_write_address=target[:index_bits],
                i_write_data=incoming.data,
                i_load=self.load, i_dump=self.dump,
                i_dump_first=self.dump_first, i_dump_count=self.dump_count)

        # Counters, in beats.
        for name, direction in (("read_bytes", ~dram.write), ("written_bytes", dram.write)):
            beats = Signal(COUNTER_BITS - byte_bits, name=f"beats_{name}")
            with m.If(move & direction):
                m.d.sync += beats.eq(beats + 1)
            m.d.comb += getattr(self, name).eq(Cat(C(0, byte_bits), beats))

        return m
