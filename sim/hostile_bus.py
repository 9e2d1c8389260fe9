"""A bus that keeps to AXI and to nothing else, between the chip and its memory."""

from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.memory.axi import Axi4, Response

__all__ = ["CHANNELS", "HOSTILITY", "ErrorOn", "HostileBus", "Order"]

CHANNELS = ("aw", "w", "b", "ar", "r", "t")
"""What can be held up; ``t`` is the monitor's stream."""

QUEUE  = 4          # transfers held per channel of the manager
DEEP   = 16         # beats, and reads, held on their way back
SPAN   = 11         # bits of the longest stall


class Order(enum.Enum, shape=2):
    """How addresses and data of writes depend on each other; all are legal (A3.3.1)."""
    FREE          = 0
    DATA_FIRST    = 1       # AWREADY only once data of that burst are on offer
    BURST_FIRST   = 2       # AWREADY only after all of them were taken
    ADDRESS_FIRST = 3       # WREADY only after the address of that burst was taken


class ErrorOn(enum.Enum, shape=2):
    NOTHING = 0
    READ    = 1             # beats
    WRITE   = 2             # responses


HOSTILITY = data.StructLayout({
    "seed":     32,
    **{f"{channel}_{part}": bits for channel in CHANNELS
       for part, bits in (("odds", 8), ("span", range(SPAN + 1)))},
    "order":    Order,
    "reorder":  1,
    "garbage":  1,
    "freeze":   1,
    "error_on": ErrorOn,
    "error_at": 32,
    "errors":   8,
    "response": Response,
})
"""``X_odds``: in 256 cycles, how often a channel stops for 1 to ``2**X_span`` cycles. ``reorder``:
responses of different ids overtake each other. ``garbage``: payloads are random without VALID.
``freeze``: nothing is taken or offered any more. ``errors`` beats or responses, counted from the
``error_at``-th after ``restart`` on, are ``response``; their data are random."""


class HostileBus(wiring.Component):
    """Passes everything on, late, and as wrongly as AXI4 allows. Simulation only.

    Reads of one id only, as the chip makes them; they return in order. With no hostility a transfer
    takes a cycle more on each of the five channels.

    Parameters
    ----------
    signature : hw.memory.axi.Axi4
        Of both ports.

    Members
    -------
    manager : In(signature)
    memory : Out(signature)
    control : In(HOSTILITY)
    restart : In(1)
        Random numbers begin anew from ``seed``, counts from 0.
    stream_open : Out(1)
        Whether the monitor's stream may move in this cycle.
    hit : Out(1)
        An error was answered since ``restart``.
    hit_address : Out(address width)
        Of the first beat that was hit; of a write, nothing.
    hit_id : Out(id width)
        Of the first response that was hit.
    read_beats, responses : Out(32)
        Since ``restart``.
    """

    def __init__(self, signature):
        if not isinstance(signature, Axi4):
            raise ValueError(f"Hostile bus must be of AXI4, not {signature!r}")
        super().__init__({
            "manager":     In(signature),
            "memory":      Out(signature),
            "control":     In(HOSTILITY),
            "restart":     In(1),
            "stream_open": Out(1),
            "hit":         Out(1),
            "hit_address": Out(signature.address_width),
            "hit_id":      Out(signature.id_width),
            "read_beats":  Out(32),
            "responses":   Out(32),
        })

    def elaborate(self, platform):
        m = Module()

        manager, memory, control = self.manager, self.memory, self.control
        width = len(manager.rdata)

        # Random numbers: two xorshift generators (Marsaglia, 2003), of 64 bits each.
        randoms = []
        for index, shifts in enumerate(((13, 7, 17), (7, 9, 8))):
            state = Signal(64, init=1, name=f"random_{index}")
            a = Signal(64, name=f"random_{index}_a")
            b = Signal(64, name=f"random_{index}_b")
            m.d.comb += a.eq(state ^ (state << shifts[0])[:64])
            m.d.comb += b.eq(a ^ (a >> shifts[1]))
            m.d.sync += state.eq(b ^ (b << shifts[2])[:64])
            with m.If(self.restart):
                m.d.sync += state.eq(Cat(control.seed, ~control.seed ^ (index + 0x5A5A5A5A)))
            randoms.append(state)

        # Which channels may move.
        opens = {}
        for index, channel in enumerate(CHANNELS):
            roll = randoms[0].bit_select(8 * index, 8)
            long = randoms[1].bit_select(9 * index, SPAN)
            left = Signal(SPAN, name=f"{channel}_left")
            span = getattr(control, f"{channel}_span")
            stops = Signal(name=f"{channel}_stops")
            m.d.comb += stops.eq(roll < getattr(control, f"{channel}_odds"))
            with m.If(left != 0):
                m.d.sync += left.eq(left - 1)
            with m.Elif(stops):
                m.d.sync += left.eq(long & ~(Const(-1, SPAN) << span)[:SPAN])
            opens[channel] = Signal(name=f"{channel}_open")
            m.d.comb += opens[channel].eq((left == 0) & ~stops & ~control.freeze)
        m.d.comb += self.stream_open.eq(opens["t"])

        # Writes: bursts whose address was taken, less bursts whose data were.
        ahead  = Signal(signed(16))
        inside = Signal()           # of a burst of data
        took_a, took_d = Signal(), Signal()
        m.d.comb += took_a.eq(manager.awvalid & manager.awready)
        m.d.comb += took_d.eq(manager.wvalid & manager.wready)
        m.d.sync += ahead.eq(ahead + took_a - (took_d & manager.wlast))
        with m.If(took_d):
            m.d.sync += inside.eq(~manager.wlast)
        address_may, data_may = Signal(init=1), Signal(init=1)
        with m.Switch(control.order):
            with m.Case(Order.DATA_FIRST):
                m.d.comb += address_may.eq((ahead < 0)
                                           | ((ahead == 0) & (inside | manager.wvalid)))
            with m.Case(Order.BURST_FIRST):
                m.d.comb += address_may.eq(ahead < 0)
            with m.Case(Order.ADDRESS_FIRST):
                m.d.comb += data_may.eq(ahead > 0)

        # From the manager: taken now and then, passed on at once.
        def forward(channel, names, may):
            fields = {name: getattr(manager, name) for name in names}
            queue  = SyncFIFO(width=sum(len(Value.cast(x)) for x in fields.values()), depth=QUEUE)
            m.submodules[f"{channel}_queue"] = queue
            take = queue.w_rdy & opens[channel] & may
            m.d.comb += [
                queue.w_data.eq(Cat(*fields.values())),
                queue.w_en.eq(getattr(manager, f"{channel}valid") & take),
                getattr(manager, f"{channel}ready").eq(take),
                Cat(*(getattr(memory, name) for name in names)).eq(queue.r_data),
                getattr(memory, f"{channel}valid").eq(queue.r_rdy),
                queue.r_en.eq(getattr(memory, f"{channel}ready")),
            ]

        reads = SyncFIFO(width=len(manager.araddr) + 8, depth=DEEP)     # whose beats are to come
        m.submodules.reads = reads
        for channel, may in (("ar", reads.w_rdy), ("aw", address_may)):
            forward(channel, [f"{channel}{name}" for name in ("id", "addr", "len", "size",
                                                              "burst")], may)
        forward("w", ["wdata", "wstrb", "wlast"], data_may)
        m.d.comb += reads.w_en.eq(manager.arvalid & manager.arready)
        m.d.comb += reads.w_data.eq(Cat(manager.araddr, manager.arlen))

        # To the manager: what is on offer stays, and the rest is noise.
        def offer(channel, valid, names, values):
            held  = Signal(name=f"{channel}_held")
            shown = Signal(name=f"{channel}_shown")
            noise = Cat(randoms[1], randoms[0])
            m.d.comb += shown.eq(valid & (opens[channel] | held))
            m.d.sync += held.eq(shown & ~getattr(manager, f"{channel}ready"))
            m.d.comb += getattr(manager, f"{channel}valid").eq(shown)
            with m.If(shown | ~control.garbage):
                for name, value in zip(names, values):
                    m.d.comb += getattr(manager, name).eq(value)
            with m.Else():
                for name in names:
                    target = Value.cast(getattr(manager, name))
                    m.d.comb += target.eq(noise.replicate(-(-len(target) // len(noise))))
            return shown & getattr(manager, f"{channel}ready")

        # Read beats, and the address of each.
        arrives = Signal()
        offset  = Signal(8)
        spoilt  = Signal()
        beat    = data.StructLayout({"data": width, "id": len(manager.rid), "resp": 2, "last": 1})
        m.submodules.beats = beats = SyncFIFO(width=beat.size, depth=DEEP)
        written, head = Signal(beat), data.View(beat, beats.r_data)
        m.d.comb += [
            arrives.eq(memory.rvalid & memory.rready),
            memory.rready.eq(beats.w_rdy),
            spoilt.eq((control.error_on == ErrorOn.READ) & (self.read_beats >= control.error_at)
                      & (self.read_beats - control.error_at < control.errors)),
            written.data.eq(Mux(spoilt, ~memory.rdata ^ randoms[0], memory.rdata)),
            written.id.eq(memory.rid),
            written.resp.eq(Mux(spoilt, control.response, memory.rresp)),
            written.last.eq(memory.rlast),
            beats.w_data.eq(written.as_value()),
            beats.w_en.eq(arrives),
            reads.r_en.eq(arrives & memory.rlast),
        ]
        with m.If(arrives):
            m.d.sync += offset.eq(Mux(memory.rlast, 0, offset + 1))
            m.d.sync += self.read_beats.eq(self.read_beats + 1)
            with m.If(spoilt & ~self.hit):
                m.d.sync += self.hit.eq(1)
                m.d.sync += self.hit_address.eq(reads.r_data[:len(manager.araddr)]
                                                + (offset << exact_log2(width // 8)))
        m.d.comb += beats.r_en.eq(offer("r", beats.r_rdy, ("rdata", "rid", "rresp", "rlast"),
                                        (head.data, head.id, head.resp, head.last)))

        # Responses: a queue per id, and one that knows the order in which they came.
        ids    = 1 << len(manager.bid)
        queues = [SyncFIFO(width=2, depth=DEEP) for _ in range(ids)]
        m.submodules.order = order = SyncFIFO(width=len(manager.bid), depth=ids * DEEP)
        answers, refused = Signal(), Signal()
        chosen, choice   = Signal.like(manager.bid), Signal.like(manager.bid)
        waiting = Signal(ids)
        wish    = randoms[1][:len(manager.bid)]
        m.d.comb += [
            memory.bready.eq(Cat(queue.w_rdy for queue in queues).all()),
            answers.eq(memory.bvalid & memory.bready),
            refused.eq((control.error_on == ErrorOn.WRITE) & (self.responses >= control.error_at)
                       & (self.responses - control.error_at < control.errors)),
            order.w_data.eq(memory.bid),
            order.w_en.eq(answers),
            waiting.eq(Cat(queue.r_rdy for queue in queues)),
        ]
        with m.If(manager.bvalid & ~manager.bready):
            m.d.sync += chosen.eq(choice)
        stays = Signal()
        m.d.sync += stays.eq(manager.bvalid & ~manager.bready)
        with m.If(stays):
            m.d.comb += choice.eq(chosen)
        with m.Elif(~control.reorder):
            m.d.comb += choice.eq(order.r_data)
        with m.Elif(waiting.bit_select(wish, 1)):
            m.d.comb += choice.eq(wish)
        with m.Else():
            for number in range(ids):
                with m.If(waiting[number]):
                    m.d.comb += choice.eq(number)
        head = Signal(Response)
        for number, queue in enumerate(queues):
            m.submodules[f"responses_{number}"] = queue
            m.d.comb += queue.w_data.eq(Mux(refused, control.response, memory.bresp))
            m.d.comb += queue.w_en.eq(answers & (memory.bid == number))
            with m.If(choice == number):
                m.d.comb += head.eq(queue.r_data)
        given = offer("b", waiting.any(), ("bid", "bresp"), (choice, head))
        for number, queue in enumerate(queues):
            m.d.comb += queue.r_en.eq(given & (choice == number))
        m.d.comb += order.r_en.eq(given)
        with m.If(answers):
            m.d.sync += self.responses.eq(self.responses + 1)
            with m.If(refused & ~self.hit):
                m.d.sync += self.hit.eq(1)
                m.d.sync += self.hit_id.eq(memory.bid)

        with m.If(self.restart):
            m.d.sync += [self.hit.eq(0), self.read_beats.eq(0), self.responses.eq(0)]

        return m
