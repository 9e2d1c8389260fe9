"""Programs, dummy engines and a dummy off-chip memory for tests of the controller."""

from collections import deque

from amaranth.hdl import Value

from hw.isa import (
    FORMS,
    INSTRUCTION_BITS,
    PROGRAM_MAGIC,
    Cause,
    Engine,
    Error,
    Opcode,
    StreamHeader,
    legal_opcodes,
)


def instruction(engine, *, opcode=None, layer=0, row=0, waits=(), **fields):
    """Bits of an instruction that ``engine`` runs; ``waits`` are pairs of engine and count."""
    opcode = legal_opcodes(engine)[-1] if opcode is None else opcode
    return FORMS[opcode].const({
        "opcode": opcode, "layer": layer, "row": row,
        "waits": [{"engine": other, "count": count} for other, count in waits],
        **fields,
    }).as_bits()


def sync(*waits):
    return instruction(Engine.STORE, opcode=Opcode.SYNC, waits=waits)


def program(streams, base):
    """Memory words by byte address: the headers at ``base``, then the streams."""
    words, address = {}, base + 32 * len(Engine)
    for engine in Engine:
        stream = streams.get(engine, ())
        words[base + 32 * engine] = StreamHeader.const({
            "magic": PROGRAM_MAGIC, "engine": engine, "count": len(stream),
            "address": address}).as_bits()
        for word in stream:
            words[address] = word
            address += 32
    return words


class World:
    """Everything around the controller: engines that take the time they are told, and memory.

    ``work(engine, bits)`` gives the causes of the cycles that an instruction takes; it may give
    an :class:`Error` instead of the last one, and the instruction then never retires. Off-chip
    memory answers after ``latency()`` cycles, in order, with an error at addresses in
    ``broken``. ``started`` and ``retired`` tell what happened since the last reset.
    """

    def __init__(self, dut, words, *, work, latency=lambda: 3, broken=()):
        self.dut, self.words, self.work, self.latency = dut, words, work, latency
        self.broken = broken
        self.dead   = False        # memory answers nothing, from now on
        self.forgetful = False     # a reset of the machine is one of memory, too
        self.linger = 0            # cycles that `idle` stays low after the last retirement
        self.reset()

    def reset(self):
        self.started = []                                  # (cycle, engine, bits)
        self.retired = []                                  # (cycle, engine, bits)
        self.causes  = {engine: [0] * len(Cause) for engine in Engine}
        self.cycle   = 0
        self._work   = {engine: None for engine in Engine}
        self._queue  = deque()                             # (due cycle, address)

    async def run(self, ctx):
        dut   = self.dut
        ports = [(engine, dut.engines[engine.value]) for engine in Engine]
        bits  = {engine: Value.cast(port.i.payload) for engine, port in ports}
        while True:
            abort = ctx.get(dut.abort)
            for engine, port in ports:
                causes = self._work[engine]
                if ctx.get(port.i.valid):
                    if causes is None:
                        payload = ctx.get(bits[engine])
                        self.started.append((self.cycle, engine, payload))
                        causes = self._work[engine] = deque(self.work(engine, payload))
                    last = len(causes) == 1
                    if isinstance(causes[0], Error):
                        ctx.set(port.error, causes[0])
                        last = False
                    else:
                        ctx.set(port.cause, causes[0])
                        self.causes[engine][causes[0].value] += not abort
                    ctx.set(port.i.ready, last)
                else:
                    ctx.set(port.i.ready, 0)
                    ctx.set(port.cause, Cause.CONFLICT)    # must be ignored
                    ctx.set(port.error, Error.NONE)

            answering = (bool(self._queue) and self._queue[0][0] <= self.cycle
                         and not self.dead)
            if answering:
                address = self._queue[0][1]
                ctx.set(dut.fetch_answer.valid, not abort)
                ctx.set(dut.fetch_answer.payload,
                        {"data": self.words.get(address, 0), "error": address in self.broken})
            else:
                ctx.set(dut.fetch_answer.valid, 0)
            ctx.set(dut.fetch_request.ready, not abort and len(self._queue) < 6)
            ctx.set(dut.idle, not self.busy)

            requested, address = ctx.get(dut.fetch_request.valid), ctx.get(
                dut.fetch_request.payload)
            taken = requested and ctx.get(dut.fetch_request.ready)
            finish = [engine for engine, port in ports
                      if ctx.get(port.i.valid) and ctx.get(port.i.ready)]
            cleared = ctx.get(dut.clear)
            await ctx.tick()
            self.cycle += 1
            if cleared:
                assert self.forgetful or not self._queue, "reset while answers are under way"
                self.reset()
                for _, port in ports:
                    ctx.set(port.error, Error.NONE)
                continue
            if answering:
                self._queue.popleft()
            if taken:
                assert address % 32 == 0
                self._queue.append((self.cycle + self.latency(), address))
            for engine, causes in self._work.items():
                if engine in finish:
                    self.retired.append((self.cycle, engine, self._started_bits(engine)))
                    self._work[engine] = None
                elif causes and not isinstance(causes[0], Error):
                    causes.popleft()

    @property
    def busy(self):
        last = self.retired[-1][0] if self.retired else 0
        return bool(self._queue) or self.cycle < last + self.linger

    def _started_bits(self, engine):
        return [bits for _, other, bits in self.started if other == engine][-1]


def opcode(bits):
    return bits & 0xF


def waits(bits):
    return [(wait.engine, wait.count) for wait in
            FORMS[Opcode.SYNC].from_bits(bits & ((1 << INSTRUCTION_BITS) - 1)).waits]


class Bus:
    """An AXI4-Lite manager; accesses fail the test when answered with another code."""

    def __init__(self, ctx, bus):
        self._ctx, self._bus = ctx, bus

    async def write(self, address, value, *, strobe=0xF, response=0):
        ctx, bus = self._ctx, self._bus
        ctx.set(bus.awaddr, int(address))
        ctx.set(bus.wdata, int(value))
        ctx.set(bus.wstrb, strobe)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.wvalid, 1)
        ctx.set(bus.bready, 1)
        await ctx.tick().until(bus.awready)
        ctx.set(bus.awvalid, 0)
        ctx.set(bus.wvalid, 0)
        found, = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        assert found.value == response

    async def read(self, address, *, response=0):
        ctx, bus = self._ctx, self._bus
        ctx.set(bus.araddr, int(address))
        ctx.set(bus.arvalid, 1)
        ctx.set(bus.rready, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        value, found = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        assert found.value == response
        return value
