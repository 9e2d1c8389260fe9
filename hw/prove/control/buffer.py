"""Properties of :class:`hw.control.buffer.InstructionBuffer`."""

from amaranth import *

from hw.control import buffer as instructions
from hw.control.buffer import ENGINES, InstructionBuffer
from hw.prove.bench import prove

DEPTH = 2
RIVALS = 4


def buffer(bench):
    """The buffer, and a fetcher that keeps its rules: it reserves one engine's row at a time, only
    where there is room, and delivers what it reserved."""
    dut     = bench.block(InstructionBuffer(depth=DEPTH))
    engine  = bench.constant(range(ENGINES), "engine")
    on_way  = bench.register(range(DEPTH + 1), "on_way")    # reserved by `engine`, not yet written
    reserve = dut.reserve.bit_select(engine, 1)
    arrives = dut.i.valid & (dut.i.p.engine == engine)
    bench.m.d.sync += on_way.eq(on_way + reserve - arrives)
    bench.assume(engine < ENGINES)
    bench.assume(dut.i.p.engine < ENGINES)
    bench.assume((dut.reserve & ~dut.room) == 0)
    bench.assume(~arrives | (on_way != 0))
    return dut, engine, reserve, arrives


def port_of(dut, engine):
    """``valid``, ``ready`` and lowest payload bits of a symbolic engine's port."""
    return (Cat(port.valid for port in dut.o).bit_select(engine, 1),
            Cat(port.ready for port in dut.o).bit_select(engine, 1),
            Cat(port.p.as_value()[:4] for port in dut.o).word_select(engine, 4))


@prove((InstructionBuffer.elaborate, "offering.eq(one_hot)", "offering.eq(one_hot | waiting)"),
       slow=True)
def one_offer_at_a_time(bench):
    """At most one instruction is on offer: all engines share one read port."""
    dut, *_ = buffer(bench)
    valid = Cat(port.valid for port in dut.o)
    bench.check((valid & (valid - 1)) == 0, "one at a time")
    bench.cover(valid[ENGINES - 1] & bench.before(valid[0]))


@prove((InstructionBuffer.elaborate, "read.en.eq(free)", "read.en.eq(1)"), slow=True)
def offers_hold(bench):
    """An instruction on offer holds until its engine takes it."""
    dut, engine, *_ = buffer(bench)
    valid, ready, payload = port_of(dut, engine)
    bench.check(bench.kept(valid, ready, payload), "offer holds")
    bench.cover(valid & bench.before(valid & ~ready))


@prove((InstructionBuffer.elaborate, "fetched.step(m, one_hot)",
        "fetched.step(m, Mux(self.i.valid, 0, one_hot))"), steps=10, slow=True)
def queues_lose_nothing(bench):
    """A symbolic engine gets exactly what was written for it, in order: the instruction at a
    symbolic place of its stream comes out at that place, with its bits."""
    dut, engine, _, arrives = buffer(bench)
    valid, ready, payload = port_of(dut, engine)
    place    = bench.constant(3, "place")
    written  = bench.register(3, "written")
    taken    = bench.register(3, "taken")
    expected = bench.register(4, "expected")
    bench.m.d.sync += [written.eq(written + arrives), taken.eq(taken + (valid & ready))]
    with bench.m.If(arrives & (written == place)):
        bench.m.d.sync += expected.eq(dut.i.p.instruction[:4])
    ahead = (written - taken)[:3]
    bench.check(~valid | (ahead != 0), "nothing comes out that did not go in")
    bench.check(ahead <= DEPTH + 1, "no more than there is room for")
    bench.check(~(valid & (taken == place)) | (payload == expected), "in order, with its bits")
    bench.cover(valid & (taken == place) & (place == 2) & (payload == 9))


@prove((InstructionBuffer.elaborate, "self.room.eq(~(used[-1] &", "self.room.eq(~(C(0) &"),
       steps=10, slow=True)
def room_is_honest(bench):
    """``room`` is high exactly while fewer than ``depth`` rows are reserved and not yet read, and
    ``empty`` while nothing is reserved or on offer: what is written always has its row."""
    dut, engine, reserve, _ = buffer(bench)
    valid, ready, _ = port_of(dut, engine)
    held = bench.register(range(DEPTH + 3), "held")         # reserved, and not yet taken
    bench.m.d.sync += held.eq(held + reserve - (valid & ready))
    room, empty = dut.room.bit_select(engine, 1), dut.empty.bit_select(engine, 1)
    bench.check(room == (held - valid < DEPTH), "room")
    bench.check(empty == (held == 0), "empty")
    bench.cover(~room)


class Turns(Elaboratable):
    """What fetcher and buffer make of ``round_robin``, whose choice is used when ``taken``."""

    def __init__(self, requests, taken):
        self.requests, self.taken = requests, taken
        self.choice = Signal(range(len(requests)))

    def elaborate(self, platform):
        m = Module()
        choice, last = instructions.round_robin(m, self.requests, name="turn")
        m.d.comb += self.choice.eq(choice)
        with m.If(self.taken & self.requests.any()):
            m.d.sync += last.eq(choice)
        return m


@prove((instructions.round_robin, "(index + distance) % len(requests)", "distance % len(requests)"))
def nobody_starves(bench):
    """While any of four requests, one that does is chosen; and one that keeps its request up sees
    at most three choices go to others. Fetcher and buffer choose so among all engines."""
    requests, taken = bench.free(RIVALS, "requests"), bench.free(1, "taken")
    turns = Turns(requests, taken)
    bench.m.submodules.turns = turns
    engine  = bench.constant(range(RIVALS), "engine")
    asks    = requests.bit_select(engine, 1)
    others  = bench.register(range(RIVALS + 1), "others")
    chosen  = taken & requests.any()
    bench.m.d.sync += others.eq(Mux(~asks | (chosen & (turns.choice == engine)), 0,
                                    others + chosen))
    bench.check(~requests.any() | requests.bit_select(turns.choice, 1), "one that requests")
    bench.check(others <= RIVALS - 1, "served in turn")
    bench.cover(others == RIVALS - 1)
