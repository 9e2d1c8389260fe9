# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.config import TINY
from hw.isa import FORMS, STORES, Error, Opcode, Traffic
from hw.memory.axi import Response
from hw.memory.stores import StoreEngines

V = TINY.vector


def store(**fields):
    return FORMS[Opcode.STORE].const({"opcode": Opcode.STORE, "traffic": Traffic.SPILL, **fields})


def word_of(address):
    """Contents of on-chip memory at ``address``."""
    return random.Random(~address).getrandbits(8 * V)


class Memory:
    """A subordinate that may take data before addresses, and checks that nothing on offer changes.

    ``first`` says what it waits for: ``"address"`` takes data only of addresses that it has,
    ``"data"`` takes an address only once all its data lies here, ``"either"`` takes what comes.
    Acknowledgements of different ids change places; those of beat addresses in ``fails`` are
    errors.
    """

    def __init__(self, *, first, stall=0.0, latency=3, fails=()):
        self.first, self.stall, self.latency, self.fails = first, stall, latency, fails
        self.words     = {}
        self.addresses = []      # taken, data still to come: (id, beat address, beats)
        self.data      = []      # taken, address still to come: bursts of (data, strobe)
        self.answers   = []      # (cycle, id, response)
        self.bursts    = 0

    def owes(self):
        return bool(self.addresses or self.answers)

    async def run(self, ctx, axi):
        held_aw = held_w = answer = None
        cycle   = 0
        while True:
            complete = bool(self.data) and self.data[-1] is not None and self.data_ends
            awready  = random.random() >= self.stall and (self.first != "data" or complete)
            wready   = random.random() >= self.stall and (
                bool(self.addresses) if self.first == "address" else
                not complete if self.first == "data" else True)
            if answer is None and self.answers and random.random() >= self.stall:
                due = [a for a in self.answers if a[0] <= cycle]
                if due:
                    ident  = random.choice(sorted({a[1] for a in due}))
                    answer = next(a for a in due if a[1] == ident)
            ctx.set(axi.awready, awready)
            ctx.set(axi.wready, wready)
            ctx.set(axi.bvalid, answer is not None)
            if answer is not None:
                ctx.set(axi.bid, answer[1])
                ctx.set(axi.bresp, answer[2])
            (_, _, awvalid, ident, address, length, wvalid, data, strobe, last,
             bready) = await ctx.tick().sample(
                axi.awvalid, axi.awid, axi.awaddr, axi.awlen, axi.wvalid, axi.wdata, axi.wstrb,
                axi.wlast, axi.bready)
            cycle += 1
            aw, w = (ident, address, length), (data, strobe, last)
            assert held_aw in (None, aw if awvalid else 0), "AW changed before the transfer"
            assert held_w in (None, w if wvalid else 0), "W changed before the transfer"
            held_aw = aw if awvalid and not awready else None
            held_w  = w if wvalid and not wready else None
            if answer is not None and bready:
                self.answers.remove(answer)
                answer = None
            if awvalid and awready:
                self.addresses.append((ident, address // V, length + 1))
                self.bursts += 1
            if wvalid and wready:
                if not self.data or self.data[-1][-1][2]:
                    self.data.append([])
                self.data[-1].append(w)
            while self.addresses and self.data and self.data[0][-1][2]:
                ident, first, beats = self.addresses.pop(0)
                burst = self.data.pop(0)
                assert len(burst) == beats, "WLAST misplaced"
                for word, (value, enabled, _) in enumerate(burst, first):
                    assert enabled in (0, (1 << V) - 1)
                    if enabled:
                        self.words[word] = value
                bad = any(word in self.fails for word in range(first, first + beats))
                self.answers.append((cycle + self.latency, ident,
                                     Response.SLVERR if bad else Response.OKAY))

    @property
    def data_ends(self):
        """The last data taken ends a burst."""
        return self.data[-1][-1][2]


class Bench:
    def __init__(self, *, conflicts=0.0, **memory):
        self.dut       = StoreEngines(TINY)
        self.memory    = Memory(**memory)
        self.conflicts = conflicts
        self.retired   = [0] * len(STORES)
        self.ended     = 0

    def program(self, number, instructions):
        async def run(ctx):
            port = self.dut.engines[number]
            for instruction in instructions:
                ctx.set(port.i.p.store, instruction)
                ctx.set(port.i.valid, 1)
                while True:
                    _, _, ready = await ctx.tick().sample(port.i.ready)
                    if ready:
                        break
                self.retired[number] += 1
                ctx.set(port.i.valid, 0)
                for _ in range(random.randrange(3)):
                    await ctx.tick()
        return run

    def onchip(self, port):
        async def run(ctx):
            pipe = [None, None]
            while True:
                ready = random.random() >= self.conflicts
                ctx.set(port.address.ready, ready)
                ctx.set(port.data_valid, pipe[1] is not None)
                ctx.set(port.data, 0xBAD if pipe[1] is None else word_of(pipe[1]))
                _, _, valid, address = await ctx.tick().sample(port.address.valid, port.address.p)
                pipe = [address if valid and ready else None, pipe[0]]
        return run

    def run(self, programs, *, then=None, deadline=3e-5):
        """Each engine its program; ``then`` runs beside them, and alone decides the end."""
        async def memory(ctx):
            await self.memory.run(ctx, self.dut.axi)

        async def count(ctx):
            while True:
                _, _, ended = await ctx.tick().sample(self.dut.frame_ended)
                self.ended += ended

        async def watchdog(ctx):
            await ctx.delay(deadline)
            raise TimeoutError(f"retired {self.retired} of {[len(p) for p in programs]}")

        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        for number, instructions in enumerate(programs):
            sim.add_testbench(self.program(number, instructions), background=then is not None)
        if then is not None:
            sim.add_testbench(then)
        for port in self.dut.reads:
            sim.add_testbench(self.onchip(port), background=True)
        for testbench in (memory, count, watchdog):
            sim.add_testbench(testbench, background=True)
        sim.run()


FIRST = ("address", "data", "either")


@pytest.mark.parametrize("first", FIRST)
def test_memory_may_take_data_before_its_address(first):
    """WVALID must not wait for AWREADY: a memory that wants the data first would wait for ever."""
    bench = Bench(first=first)
    bench.run([[store(offchip=5 * V, beats=9, base=100, frame_end=1)], []])
    assert bench.memory.words == {5 + k: word_of(100 + k) for k in range(9)}
    assert bench.retired == [1, 0]
    assert bench.ended == 1


@pytest.mark.parametrize(("stall", "conflicts"), [(0.0, 0.0), (0.0, 0.5), (0.6, 0.2)])
@pytest.mark.parametrize("first", FIRST)
def test_two_channels_share_the_port(first, stall, conflicts):
    random.seed(3)
    bench    = Bench(first=first, stall=stall, conflicts=conflicts)
    programs = [[], []]
    expected = {}
    seen     = {}
    for number, program in enumerate(programs):
        for turn in range(4):
            start = 2000 * number + 150 * turn + random.randrange(40)
            beats, base = random.randint(1, 90), random.randrange(1000)
            program.append(store(offchip=start * V, beats=beats, base=base,
                                 frame_end=number and turn % 2))
            expected.update({start + k: word_of(base + k) for k in range(beats)})

    async def wait(ctx):
        while bench.retired != [len(program) for program in programs]:
            await ctx.tick()
        await ctx.tick()
        seen.update(idle=ctx.get(bench.dut.idle), bursts=ctx.get(bench.dut.bursts),
                    spilled=ctx.get(bench.dut.bytes[Traffic.SPILL.value]))

    bench.run(programs, then=wait, deadline=1e-4)
    assert bench.memory.words == expected
    assert seen == {"idle": 1, "bursts": bench.memory.bursts, "spilled": len(expected) * V}
    assert bench.ended == 2


def test_an_error_reaches_its_own_channel():
    bench = Bench(first="either", fails=[300])

    async def wait(ctx):
        await ctx.tick().repeat(200)
        errors = [ctx.get(port.error) for port in bench.dut.engines]
        assert errors == [Error.NONE, Error.AXI_WRITE]
        assert ctx.get(bench.dut.idle)

    bench.run([[store(offchip=0, beats=30)], [store(offchip=290 * V, beats=30)]], then=wait)
    assert bench.retired == [1, 0]


def test_the_window_is_that_of_both():
    for guilty in range(len(STORES)):
        bench = Bench(first="either")

        async def watch(ctx, bench=bench, guilty=guilty):
            ctx.set(bench.dut.writable, {"base": 50 * V, "limit": 100 * V})
            await ctx.tick().repeat(60)
            assert ctx.get(bench.dut.engines[guilty].error) == Error.WRITE_PROTECTED
            assert ctx.get(bench.dut.engines[1 - guilty].error) == Error.NONE

        programs = [[store(offchip=60 * V, beats=5)]] * len(STORES)
        programs[guilty] = [store(offchip=100 * V, beats=1)]
        bench.run(programs, then=watch)
        assert sorted(bench.memory.words) == list(range(60, 65))


@pytest.mark.parametrize("when", range(1, 100, 24))
@pytest.mark.parametrize("first", FIRST)
def test_both_channels_aborted_at_once(first, when):
    """What was announced is completed, without effect where its data had not come."""
    random.seed(when)
    bench = Bench(first=first, stall=0.4, conflicts=0.6)

    async def abort(ctx):
        await ctx.tick().repeat(when)
        ctx.set(bench.dut.abort, 1)
        while not ctx.get(bench.dut.idle):
            await ctx.tick()
        for _ in range(30):
            await ctx.tick()
            assert ctx.get(bench.dut.idle)
            assert not ctx.get(bench.dut.axi.awvalid)
            assert not ctx.get(bench.dut.axi.wvalid)

    bench.run([[store(offchip=0, beats=120)], [store(offchip=800 * V, beats=120, base=300)]],
              then=abort)
    assert not bench.memory.owes()
    assert not bench.memory.data
    assert all(value == word_of(word if word < 800 else word - 500)
               for word, value in bench.memory.words.items())
