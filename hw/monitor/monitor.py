"""Attention monitor: rows of a watched attention map, as bytes, without holding anything up."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.attention.alpha_rows import AlphaRowSignature
from hw.interfaces import MemoryRead
from hw.memory.protected import queue

QUEUE = 4
"""Rows that wait while one is being sent."""


class MonitorSettings(wiring.Signature):
    """What to watch, seen from whoever sets it. Pixels are pixels of the attention map."""

    def __init__(self):
        super().__init__({
            "enable":        Out(1),
            "layer":         Out(8),       # the gate: layer id of its alpha convolution; 0: all
            "x0":            Out(11),      # region
            "y0":            Out(12),
            "width":         Out(11),
            "height":        Out(12),
            "decimate_log2": Out(2),       # every 1st, 2nd, 4th or 8th pixel and row of the region
        })


class MonitorStream(wiring.Signature):
    """AXI4-Stream of bytes: ``tlast`` with the last one of a row, ``tuser`` says which row."""

    def __init__(self):
        super().__init__({
            "tdata":  Out(8),
            "tvalid": Out(1),
            "tready": In(1),
            "tlast":  Out(1),
            "tuser":  Out(data.StructLayout({"layer": 8, "row": 12})),
        })


JOB = data.StructLayout({"layer": 8, "row": 12, "base": 20, "x": 11, "end": 11,
                         "decimate_log2": 2})
"""A row to be sent, from pixel ``x`` to before ``end``."""


class AttentionMonitor(wiring.Component):
    """Sends the selected pixels of each selected row of the watched map.

    A row is selected if the monitor is enabled, its layer is the watched one, and it lies in the
    region on a multiple of the decimation from ``y0``; then pixels ``x0``,
    ``x0 + 2**decimate_log2`` and so on are sent, as far as region and row reach (a row without any
    is not selected). Settings may change at any time: a row goes by those of the cycle in which it
    is announced.

    Announced rows cannot wait. Up to ``QUEUE`` of them queue up behind the one being sent; a
    selected row that finds the queue full is dropped and counted. Rows are read from on-chip memory
    as they are sent, so the program must not reuse their place too soon; a sink that takes a byte
    per cycle gets a row at about one byte per cycle.

    ``clear`` forgets the rows in the queue, and sets the counters to 0. A row that is being sent is
    sent to its end, as what on-chip memory holds by then: what is on offer to the sink must stay,
    and every row that began needs its ``tlast``.

    Parameters
    ----------
    config : hw.config.Config

    Members
    -------
    clear : In(1)
        Pulse: a run begins; ``read`` forgets what it was asked, too.
    alpha_row : In(AlphaRowSignature())
    settings : In(MonitorSettings())
    read : Out(MemoryRead(...))
        One request at a time; meant for the port of lowest priority.
    o : Out(MonitorStream())
    rows_sent, rows_dropped : Out(32)
        Wrap around.
    """

    def __init__(self, config):
        self.config    = config
        self.queue     = queue(config.protects("queues"), width=JOB.size, depth=QUEUE)
        self.protected = [("queues", self.queue)]
        super().__init__({
            "clear":        In(1),
            "alpha_row":    In(AlphaRowSignature()),
            "settings":     In(MonitorSettings()),
            "read":         Out(MemoryRead(depth=config.onchip_words, vector=config.vector)),
            "o":            Out(MonitorStream()),
            "rows_sent":    Out(32),
            "rows_dropped": Out(32),
        })

    def elaborate(self, platform):
        m = Module()

        vector   = self.config.vector
        settings = self.settings
        event    = self.alpha_row.p
        job      = JOB
        queue    = self.queue
        m.submodules.queue = ResetInserter(self.clear)(queue)

        # Selection, one cycle after the announcement.
        down     = Signal(signed(13))      # rows below the top of the region
        reach    = Signal(12)              # first pixel behind the region
        skipped  = Signal(3)               # row bits that the decimation wants to be zero
        end      = Signal(11)
        watched  = Signal()
        selected = Signal()
        waiting  = Signal(job)
        offered  = Signal()
        m.d.comb += [
            down.eq(event.row - settings.y0),
            reach.eq(settings.x0 + settings.width),
            end.eq(Mux(reach < event.width, reach, event.width)),
            skipped.eq(down & ((1 << settings.decimate_log2) - 1)),
            watched.eq((settings.layer == 0) | (settings.layer == event.layer)),
            selected.eq(self.alpha_row.valid & settings.enable & watched
                        & (down >= 0) & (down < settings.height) & (skipped == 0)
                        & (settings.x0 < end)),
        ]
        m.d.sync += offered.eq(selected & ~self.clear)
        with m.If(selected):
            m.d.sync += [
                waiting.layer.eq(event.layer), waiting.row.eq(event.row),
                waiting.base.eq(event.base), waiting.x.eq(settings.x0), waiting.end.eq(end),
                waiting.decimate_log2.eq(settings.decimate_log2),
            ]
        m.d.comb += [queue.w_en.eq(offered), queue.w_data.eq(waiting)]
        with m.If(offered & ~queue.w_rdy):
            m.d.sync += self.rows_dropped.eq(self.rows_dropped + 1)

        # Sending: one word at a time, byte by byte.
        row   = Signal(job)
        word  = Signal(vector * 8)
        after = Signal(12)                 # the next pixel to send
        send  = Signal()
        m.d.comb += [
            after.eq(row.x + (1 << row.decimate_log2)),
            self.read.address.p.eq(row.base + (row.x >> exact_log2(vector))),
            self.o.tdata.eq(word.word_select(row.x[:exact_log2(vector)], 8)),
            self.o.tlast.eq(after >= row.end),
            self.o.tuser.layer.eq(row.layer),
            self.o.tuser.row.eq(row.row),
            send.eq(self.o.tvalid & self.o.tready),
        ]

        with m.FSM():
            with m.State("Wait for a row"):
                m.d.comb += queue.r_en.eq(1)
                m.d.sync += row.eq(queue.r_data)
                with m.If(queue.r_rdy & ~self.clear):
                    m.next = "Read a word"
            with m.State("Read a word"):
                m.d.comb += self.read.address.valid.eq(1)
                with m.If(self.read.address.ready & ~self.clear):
                    m.next = "Take the word"
            with m.State("Take the word"):
                m.d.sync += word.eq(self.read.data)
                with m.If(self.read.data_valid):
                    m.next = "Send bytes"
                with m.Elif(self.clear):
                    m.next = "Read a word"
            with m.State("Send bytes"):
                m.d.comb += self.o.tvalid.eq(1)
                with m.If(send):
                    m.d.sync += row.x.eq(after)
                    with m.If(self.o.tlast):
                        m.d.sync += self.rows_sent.eq(self.rows_sent + 1)
                        m.next = "Wait for a row"
                    with m.Elif((after ^ row.x) >> exact_log2(vector) != 0):
                        m.next = "Read a word"

        with m.If(self.clear):
            m.d.sync += [self.rows_sent.eq(0), self.rows_dropped.eq(0)]

        return m
