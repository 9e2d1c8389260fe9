"""Properties of :class:`hw.control.frontend.FrontEnd`."""

from amaranth import *
from amaranth.lib.data import View

from hw.control.frontend import FrontEnd
from hw.isa import INSTRUCTION, WAITS, Cause, Engine, Error, Opcode, legal_opcodes
from hw.prove.bench import prove

ENGINE = Engine.ENCODER_CONV


def front(bench):
    """A front end whose surroundings keep their side: instructions hold until taken, counts only
    grow, and its own count is ``retired``."""
    dut    = FrontEnd(engine=ENGINE)
    inside = bench.inner(dut)
    bench.assume(bench.kept(dut.i.valid, dut.i.ready, dut.i.p))
    for engine in Engine:
        if engine != ENGINE:
            bench.assume(dut.counts[engine] >= bench.before(dut.counts[engine]))
    bench.driven(dut.counts[ENGINE])
    bench.m.d.comb += dut.counts[ENGINE].eq(dut.retired)
    bench.assume(~dut.retired.all())        # a stream has less than 2**18 instructions
    return dut, inside


def met(dut, instruction):
    """By wait of ``instruction``, whether the counts of this cycle meet it."""
    return Cat((wait.count == 0) | Cat((wait.engine == engine.value)
                                       & (dut.counts[engine] >= wait.count)
                                       for engine in Engine).any()
               for wait in instruction.sync.waits)


@prove((FrontEnd.elaborate, "& ~self.held)", ")"))
def a_missing_frame_is_not_begun(bench):
    """The load of a frame that is missing is not offered to the engine."""
    dut = FrontEnd(engine=Engine.LOAD_ENCODER)
    bench.inner(dut)
    begins = dut.port.i.p.load.frame_start & (dut.port.i.p.load.opcode == Opcode.LOAD)
    fresh  = dut.port.i.valid & ~bench.before(dut.port.i.valid & ~dut.port.i.ready)
    bench.check(~(fresh & begins & bench.before(dut.missing)), "not offered")
    bench.cover(fresh & begins)


@prove((FrontEnd.elaborate, "pending.eq(pending & (pending - 1))", "pending.eq(0)"), slow=True)
def nothing_issues_before_its_waits(bench):
    """Whatever is on offer to the engine, or retires as ``SYNC``, has all its waits met: each
    engine that it names has retired as many as it says. Counts are below 4 here; the comparison is
    the same one at every width."""
    dut, inside = front(bench)
    bench.assume(Cat(count < 4 for count in dut.counts).all())
    bench.assume(Cat(wait.count < 4 for wait in dut.i.p.sync.waits).all())
    following   = View(INSTRUCTION, inside("following"))
    bench.check(~dut.port.i.valid | met(dut, dut.port.i.p).all(), "waits met")
    bench.check(~inside("following_valid") | (met(dut, following) | inside("pending")).all(),
                "in the prefetch register, what is not pending is met")
    bench.cover(dut.port.i.valid & (dut.port.i.p.sync.waits[2].count == 3))


@prove((FrontEnd.elaborate, "clear_to_issue & (~offered_valid | finish)", "clear_to_issue"),
       slow=True)
def offers_hold(bench):
    """An instruction on offer to the engine stays, unchanged, until the engine retires it."""
    dut, _ = front(bench)
    bench.check(bench.kept(dut.port.i.valid, dut.port.i.ready, dut.port.i.p), "offer holds")
    bench.cover(dut.port.i.valid & bench.before(dut.port.i.valid & ~dut.port.i.ready))


@prove((FrontEnd.elaborate, "legal_opcodes(self.engine)", "Opcode"), slow=True)
def engines_see_only_their_opcodes(bench):
    """No ``SYNC`` and no opcode of other engines ever reaches the engine."""
    dut, _ = front(bench)
    mine = [opcode for opcode in legal_opcodes(ENGINE) if opcode != Opcode.SYNC]
    code = dut.port.i.p.sync.opcode.as_value()
    bench.check(~dut.port.i.valid | Cat(code == opcode.value for opcode in mine).any(), "opcode")
    bench.cover(dut.port.i.valid & (code == Opcode.ROWS.value))


@prove((FrontEnd.elaborate, "self.retiring.eq(finish | sync)", "self.retiring.eq(finish)"))
def every_instruction_retires_once(bench):
    """Instructions taken in are those retired and at most two inside: none is lost or counted
    twice, ``SYNC`` included."""
    dut, _ = front(bench)
    inside = bench.register(2, "inside")
    bench.m.d.sync += inside.eq(inside + (dut.i.valid & dut.i.ready) - dut.retiring)
    bench.check((inside <= 2) & (~dut.retiring | (inside != 0)), "two inside at most")
    bench.check(~dut.idle | (inside == 0), "idle means empty")
    bench.check(~dut.port.i.valid | (inside != 0), "an offer is inside")
    bench.check(dut.retired == bench.before(dut.retired + dut.retiring)[:18], "retired counts")
    bench.cover((inside == 2) & dut.retiring)


@prove((FrontEnd.elaborate, "with m.If(following_valid & met)",
        "with m.If(following_valid & met & ~self.exhausted)"),
       steps=12, slow=True)
def met_waits_never_deadlock(bench):
    """A legal instruction whose waits are met is on offer, or retired, within WAITS + 2 cycles of
    the engine being free: no wait is forgotten, so no program that can go on stands still."""
    dut, _ = front(bench)
    code  = dut.i.p.sync.opcode.as_value()
    bench.assume(~dut.i.valid | (met(dut, dut.i.p).all() & Cat(
        code == opcode.value for opcode in legal_opcodes(ENGINE)).any()))
    bench.assume(dut.enable)
    inside = bench.register(2, "inside")
    still  = bench.register(range(WAITS + 4), "still")      # cycles of work without an offer
    bench.m.d.sync += inside.eq(inside + (dut.i.valid & dut.i.ready) - dut.retiring)
    bench.m.d.sync += still.eq(Mux(dut.port.i.valid | dut.retiring | (inside == 0), 0, still + 1))
    bench.check(still <= WAITS + 1, "an offer in time")
    bench.cover(still == WAITS + 1)


@prove((FrontEnd.elaborate, "with m.Elif(offered_valid):", "with m.Elif(following_valid):"),
       slow=True)
def causes_are_what_happens(bench):
    """Every cycle has exactly one cause: the engine's own while it holds an instruction; never
    ``ISSUE`` without one; ``NO_WORK`` only with an empty stream or a machine that stands."""
    dut, _ = front(bench)
    bench.assume(dut.port.cause.as_value() <= max(cause.value for cause in Cause))
    bench.check(dut.cause.as_value() <= max(cause.value for cause in Cause), "one of the causes")
    with_one = dut.enable & dut.port.i.valid
    bench.check(~with_one | (dut.cause == dut.port.cause), "the engine's own")
    bench.check(with_one | (dut.cause != Cause.ISSUE), "no issue without an instruction")
    bench.check(~dut.enable | dut.port.i.valid | (dut.cause != Cause.NO_WORK) | dut.idle, "work")
    bench.cover(with_one & (dut.cause == Cause.CONFLICT))


@prove((FrontEnd.elaborate, "following_valid & ~offered_valid & unknown", "C(0)"),
       steps=12, slow=True)
def bad_waits_and_opcodes_are_reported(bench):
    """An instruction that can never be issued, for its opcode or for a wait for an engine that is
    not there, raises an error within WAITS + 2 cycles of the engine being free."""
    dut, _ = front(bench)
    code = dut.i.p.sync.opcode.as_value()
    bench.assume(dut.enable & (dut.port.error == Error.NONE))
    waits = dut.i.p.sync.waits
    lost  = [(wait.count != 0) & (wait.engine >= len(Engine)) for wait in waits]
    bench.assume(~dut.i.valid | (met(dut, dut.i.p) | Cat(lost)).all())
    bench.assume(~dut.i.valid | Cat(lost).any() | ~Cat(
        code == opcode.value for opcode in legal_opcodes(ENGINE)).any())
    held = bench.register(1, "held")
    late = bench.register(range(WAITS + 2), "late")
    bench.m.d.sync += held.eq(held | (dut.i.valid & dut.i.ready))
    bench.m.d.sync += late.eq(late + (held & (dut.error == Error.NONE)))
    bench.check(~dut.port.i.valid & ~dut.retiring, "never issued")
    bench.check(late <= WAITS, "reported in time")
    bench.cover(held & (dut.error == Error.BAD_PROGRAM) & (late != 0))
