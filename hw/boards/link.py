"""The host's link to memory and registers: frames of bytes that carry a check of what they hold.

Little-endian; both ways a head of eight bytes, data, and the CRC-32 of that (ISO-HDLC, zlib's)::

    request    REQUEST   sequence  operation  words - 1  address (4)
    answer     ANSWER    sequence  operation  flags      value (4)

The data are 64-bit words: of a WRITE those to be written, of a REGISTER_WRITE one with the value in
its lower half. Answers have those of a READ, of COUNTERS the performance counters from the number
``address`` on, and of MEMORY_COUNTERS those that the memory's controller keeps. MONITOR has words
of the rows that the attention monitor sent, from number ``address`` on, and says that those before
it are done with; the ``value`` of a PING's answer is the number behind the last of them
(:mod:`hw.boards.rows`). A request with a
wrong check, or one that ends in the middle, has no effect and no answer; the host repeats it. What
has an effect has it once: a request with the sequence number of the one before is only answered
again. A PING always counts as new.
"""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.boards.rows import ROW_WORDS, WORD
from hw.control.regmap import ADDRESS_BITS, Register
from hw.memory.axi import AxiLite, Response
from hw.memory.traffic import COUNTER_BITS

__all__ = ["ANSWER", "CHECK", "MEMORY_COUNTERS", "MOST_WORDS", "REQUEST", "WORD", "Flags", "Link",
           "Operation", "answer_head", "request_head"]

REQUEST, ANSWER = 0xA7, 0x5B
CHECK      = 4
MOST_WORDS = 128        # of a frame: in a window of 1 KiB, which no AXI burst may leave
MEMORY_COUNTERS = ("read_bytes", "written_bytes", "row_hits", "row_misses", "refresh_cycles",
                   "busy_cycles")
"""Of :class:`hw.memory.sdram.SdramController`."""


class Operation(enum.Enum, shape=8):
    PING           = 0
    WRITE          = 1
    READ           = 2
    REGISTER_WRITE = 3
    REGISTER_READ  = 4
    COUNTERS       = 5
    MEMORY_COUNTERS = 6
    MONITOR        = 7


class Flags(data.Struct):
    """``refused``: memory or register bus answered with an error, or there is no such address.
    ``interrupt``: the machine's. ``ready``: memory is initialised; without it nothing of memory is
    done, and ``refused``."""
    refused:   1
    interrupt: 1
    ready:     1
    _spare:    5


class request_head(data.Struct):
    magic:     8
    sequence:  8
    operation: Operation
    words:     8        # - 1
    address:   32


class answer_head(data.Struct):
    magic:     8
    sequence:  8
    operation: Operation
    flags:     Flags
    value:     32


class Link(wiring.Component):
    """The board's end: takes a request at a time, does it, answers.

    Bytes that come while it works or answers, and after a wrong check, are dropped until the line
    has been quiet for ``quiet`` cycles; so is a request in whose middle it is quiet for so long.

    Parameters
    ----------
    axi : Axi4
        Signature of the memory's port; beats of eight bytes.
    quiet : int

    Members
    -------
    i : In(stream.Signature(8, always_ready=True))
    o : Out(stream.Signature(8))
    axi : Out(Axi4(...))
    control : Out(AxiLite(...))
    irq, ready : In(1)
    memory_counters : Array of In(40), in the order of ``MEMORY_COUNTERS``
    rows_level : In(16)
    rows_done : Out(16)
    rows_address : Out(8)
    rows_word : In(64)
        To :class:`hw.boards.rows.MonitorRows`.
    dropped : Out(1)
        High for a cycle when bytes were thrown away.
    """

    def __init__(self, axi, *, quiet):
        if axi.data_width != WORD * 8:
            raise ValueError(f"The link's memory must have beats of {WORD * 8} bits, not "
                             f"{axi.data_width}")
        self.quiet = quiet
        super().__init__({
            "i":       In(stream.Signature(8, always_ready=True)),
            "o":       Out(stream.Signature(8)),
            "axi":     Out(axi),
            "control": Out(AxiLite(address_width=ADDRESS_BITS)),
            "irq":     In(1),
            "ready":   In(1),
            "memory_counters": In(COUNTER_BITS).array(len(MEMORY_COUNTERS)),
            "rows_level":   In(16),
            "rows_done":    Out(16),
            "rows_address": Out(exact_log2(ROW_WORDS)),
            "rows_word":    In(WORD * 8),
            "dropped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        axi, control = self.axi, self.control
        m.submodules.check = check = CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.words = words = Memory(shape=WORD * 8, depth=MOST_WORDS, init=[])
        write, read = words.write_port(), words.read_port(transparent_for=())
        index = Signal(range(MOST_WORDS + 1))       # of a word in it
        m.d.comb += [write.addr.eq(index), read.addr.eq(index)]

        head     = Signal(request_head)
        last     = head.words
        sequence = Signal(9, init=1 << 8)           # of the last request that was done; none yet
        again    = Signal()
        refused  = Signal()
        value    = Signal(32)
        word     = Signal(WORD * 8)
        place    = Signal(range(WORD))              # of a byte in it
        rest     = Signal(range(self.quiet + 1))
        m.d.comb += again.eq((sequence == head.sequence) & (head.operation != Operation.PING))

        with m.If(self.i.valid):
            m.d.sync += rest.eq(self.quiet)
        with m.Elif(rest != 0):
            m.d.sync += rest.eq(rest - 1)
        calm = Signal()
        m.d.comb += calm.eq((rest == 0) & ~self.i.valid)

        # A word that is sent, lowest byte first; `word` shifts.
        sent = Signal()
        m.d.comb += sent.eq(self.o.valid & self.o.ready)

        def receive():
            """Shift a byte that comes into ``word``; returns what is in it then."""
            filled = Cat(word[8:], self.i.p)
            with m.If(self.i.valid):
                m.d.sync += [word.eq(filled), place.eq(place + 1)]
                m.d.comb += [check.data.eq(self.i.p), check.valid.eq(1)]
            return filled

        def give_up():
            m.d.comb += self.dropped.eq(1)
            m.next = "Drop"

        whole = Signal()
        m.d.comb += whole.eq(self.i.valid & (place == WORD - 1))
        first = Signal()        # nothing of a request has come yet
        m.d.comb += first.eq(place == 0)

        answer = Signal(answer_head)
        m.d.comb += [
            answer.magic.eq(ANSWER),
            answer.sequence.eq(head.sequence),
            answer.operation.eq(head.operation),
            answer.flags.refused.eq(refused),
            answer.flags.interrupt.eq(self.irq),
            answer.flags.ready.eq(self.ready),
            answer.value.eq(value),
        ]
        carries = Signal()      # the request has data
        m.d.comb += carries.eq((head.operation == Operation.WRITE)
                               | (head.operation == Operation.REGISTER_WRITE))
        heard = Signal()        # bytes came while nobody listened
        with m.If(self.i.valid):
            m.d.sync += heard.eq(1)
        counts, upper = Signal(), Signal()
        returns = Signal()      # the answer has data
        m.d.comb += counts.eq(head.operation == Operation.COUNTERS)
        m.d.comb += returns.eq((head.operation == Operation.READ) | counts
                               | (head.operation == Operation.MEMORY_COUNTERS)
                               | (head.operation == Operation.MONITOR))
        needs_memory = Signal()
        m.d.comb += self.rows_address.eq(head.address + index)
        m.d.comb += needs_memory.eq((head.operation == Operation.WRITE)
                                    | (head.operation == Operation.READ))

        m.d.comb += [
            axi.awaddr.eq(head.address), axi.araddr.eq(head.address),
            axi.awlen.eq(last), axi.arlen.eq(last),
            axi.awsize.eq(exact_log2(WORD)), axi.arsize.eq(exact_log2(WORD)),
            axi.wdata.eq(read.data), axi.wstrb.eq(-1), axi.wlast.eq(index == last + 1),
            control.awaddr.eq(Mux(counts, Register.COUNTER_SELECT, head.address)),
            control.wdata.eq(Mux(counts, head.address + index, read.data)),
            control.wstrb.eq(-1),
            control.araddr.eq(Mux(counts, Mux(upper, Register.COUNTER_HI, Register.COUNTER_LO),
                                  head.address)),
        ]

        with m.FSM():
            with m.State("Head"):
                filled = receive()
                came   = data.View(request_head, filled)
                m.d.comb += check.start.eq(first)
                with m.If(first):
                    m.d.sync += [index.eq(0), heard.eq(0)]
                with m.If(whole):
                    m.d.sync += head.eq(came)
                    with m.Switch(came.operation):
                        with m.Case(Operation.WRITE, Operation.REGISTER_WRITE):
                            m.next = "Data"
                        with m.Case(Operation.PING, Operation.READ, Operation.REGISTER_READ,
                                    Operation.COUNTERS, Operation.MEMORY_COUNTERS,
                                    Operation.MONITOR):
                            m.next = "Check"
                        with m.Default():
                            give_up()
                    with m.If((came.magic != REQUEST) | (came.words >= MOST_WORDS)):
                        give_up()
                with m.Elif(~first & calm):
                    give_up()
            with m.State("Data"):
                filled = receive()
                m.d.comb += [write.data.eq(filled), write.en.eq(whole)]
                with m.If(whole):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == last):
                        m.next = "Check"
                with m.If(calm):
                    give_up()
            with m.State("Check"):
                receive()
                with m.If(place == CHECK):
                    m.d.sync += [place.eq(0), index.eq(0), heard.eq(0)]
                    m.next = "Start"
                    with m.If(~check.match_detected):
                        give_up()
                with m.Elif(calm):
                    give_up()
            with m.State("Start"):
                m.d.sync += [sequence.eq(head.sequence), index.eq(1)]
                with m.If(~(again & carries)):
                    m.d.sync += refused.eq(0)
                m.next = "Answer"
                with m.If(head.operation == Operation.PING):
                    m.d.sync += value.eq(self.rows_level)
                with m.If(needs_memory & (~self.ready | (head.address >> len(axi.araddr)).any())):
                    m.d.sync += refused.eq(1)
                with m.Elif(head.operation == Operation.READ):
                    m.d.sync += index.eq(0)
                    m.next = "Read address"
                with m.Elif(head.operation == Operation.REGISTER_READ):
                    m.next = "Register address"
                with m.Elif((head.operation == Operation.WRITE) & ~again):
                    m.next = "Write address"
                with m.Elif((head.operation == Operation.REGISTER_WRITE) & ~again):
                    m.d.comb += read.addr.eq(0)
                    m.next = "Register write"
                with m.Elif(head.operation == Operation.MEMORY_COUNTERS):
                    m.d.sync += index.eq(0)
                    m.next = "Memory counters"
                with m.Elif(head.operation == Operation.MONITOR):
                    m.d.sync += [self.rows_done.eq(head.address), index.eq(0)]
                    m.next = "Row word"
                with m.Elif(counts):
                    m.d.sync += [index.eq(0), upper.eq(0)]
                    m.next = "Register write"

            # Memory. `index` is one ahead of the word at the read port.
            with m.State("Write address"):
                m.d.comb += axi.awvalid.eq(1)
                m.d.comb += read.addr.eq(0)
                with m.If(axi.awready):
                    m.next = "Write"
            with m.State("Write"):
                m.d.comb += axi.wvalid.eq(1)
                m.d.comb += read.addr.eq(index - ~axi.wready)
                with m.If(axi.wready):
                    m.d.sync += index.eq(index + 1)
                    with m.If(axi.wlast):
                        m.next = "Written"
            with m.State("Written"):
                m.d.comb += axi.bready.eq(1)
                with m.If(axi.bvalid):
                    m.d.sync += refused.eq(axi.bresp != Response.OKAY)
                    m.next = "Answer"
            with m.State("Read address"):
                m.d.comb += axi.arvalid.eq(1)
                with m.If(axi.arready):
                    m.next = "Read"
            with m.State("Read"):
                m.d.comb += [axi.rready.eq(1), write.data.eq(axi.rdata), write.en.eq(axi.rvalid)]
                with m.If(axi.rvalid):
                    m.d.sync += index.eq(index + 1)
                    with m.If(axi.rresp != Response.OKAY):
                        m.d.sync += refused.eq(1)
                    with m.If(axi.rlast):
                        m.d.sync += index.eq(0)
                        m.next = "Answer"

            # Registers; of counters, one after the other: selected, lower half, upper half.
            with m.State("Register write"):
                taken, takes = Signal(2), Signal(2)
                m.d.comb += [
                    read.addr.eq(0),
                    control.awvalid.eq(~taken[0]),
                    control.wvalid.eq(~taken[1]),
                    takes.eq(taken | Cat(control.awready, control.wready)),
                ]
                m.d.sync += taken.eq(takes)
                with m.If(takes.all()):
                    m.d.sync += taken.eq(0)
                    m.next = "Register written"
            with m.State("Register written"):
                m.d.comb += control.bready.eq(1)
                with m.If(control.bvalid):
                    m.d.sync += refused.eq(refused | (control.bresp != Response.OKAY))
                    m.next = "Answer"
                    with m.If(counts):
                        m.next = "Register address"
            with m.State("Register address"):
                m.d.comb += control.arvalid.eq(1)
                with m.If(control.arready):
                    m.next = "Register read"
            with m.State("Register read"):
                m.d.comb += [control.rready.eq(1), write.data.eq(Cat(value, control.rdata))]
                with m.If(control.rvalid):
                    m.d.sync += value.eq(control.rdata)
                    m.d.sync += refused.eq(refused | (control.rresp != Response.OKAY))
                    m.next = "Answer"
                    with m.If(counts):
                        m.d.sync += upper.eq(~upper)
                        m.next = "Register address"
                        with m.If(upper):
                            m.d.comb += write.en.eq(1)
                            m.d.sync += index.eq(index + 1)
                            m.next = "Register write"
                            with m.If(index == last):
                                m.next = "Answer"

            with m.State("Memory counters"):
                m.d.comb += [write.data.eq(Array(self.memory_counters)[index]), write.en.eq(1)]
                m.d.sync += index.eq(index + 1)
                with m.If(index == last):
                    m.next = "Answer"

            # Rows; a word comes a cycle after its address.
            with m.State("Row word"):
                m.next = "Row word came"
            with m.State("Row word came"):
                m.d.comb += [write.data.eq(self.rows_word), write.en.eq(1)]
                m.d.sync += index.eq(index + 1)
                m.next = "Row word"
                with m.If(index == last):
                    m.next = "Answer"

            # The answer: head, words if they were read, check.
            with m.State("Answer"):
                m.d.comb += check.start.eq(1)
                m.d.sync += [word.eq(answer), place.eq(0), index.eq(0)]
                m.next = "Send"
            with m.State("Send"):
                m.d.comb += [self.o.valid.eq(1), self.o.p.eq(word[:8])]
                m.d.comb += [check.data.eq(word[:8]), check.valid.eq(sent)]
                with m.If(sent):
                    m.d.sync += [word.eq(word >> 8), place.eq(place + 1)]
                    with m.If(place == WORD - 1):
                        m.next = "Send check"
                        with m.If(returns & (index <= last)):
                            m.d.sync += [word.eq(read.data), index.eq(index + 1)]
                            m.next = "Send"
            with m.State("Send check"):
                m.d.comb += [self.o.valid.eq(1), self.o.p.eq(check.crc.word_select(place[:2], 8))]
                with m.If(sent):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == CHECK - 1):
                        m.d.sync += place.eq(0)
                        with m.If(heard):
                            give_up()
                        with m.Else():
                            m.next = "Head"

            with m.State("Drop"):
                m.d.sync += place.eq(0)
                with m.If(calm):
                    m.next = "Head"

        return m
