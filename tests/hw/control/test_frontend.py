# amaranth: UnusedElaboratable=no
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from hw.control.frontend import FrontEnd
from hw.isa import Cause, Engine, Error, Opcode, legal_opcodes
from tests.hw.control.bench import instruction, sync

D, F, N, X = Cause.DEPENDENCY, Cause.FILL_DRAIN, Cause.NO_WORK, Cause.OFFCHIP
V, B       = Cause.ISSUE, Cause.BACKPRESSURE


def trace(stream, *, engine=Engine.ENCODER_FILL, cycles, work=(V,), counts=lambda cycle: {},
          arrive=lambda cycle: True, enable=lambda cycle: True, missing=lambda cycle: False,
          begun=None):
    """Run a front end for some cycles; a list of what it said in each. ``begun`` takes the cycles
    in which it begins a frame."""
    dut = FrontEnd(engine=engine)
    log = []

    async def bench(ctx):
        left, spent = list(stream), 0
        for cycle in range(cycles):
            ctx.set(dut.enable, enable(cycle))
            ctx.set(dut.missing, missing(cycle))
            ctx.set(dut.exhausted, not left)
            ctx.set(dut.i.valid, bool(left) and arrive(cycle))
            if left:
                ctx.set(Value.cast(dut.i.payload), left[0])
            for other, count in counts(cycle).items():
                ctx.set(dut.counts[other], count)
            offered = ctx.get(dut.port.i.valid)
            ctx.set(dut.port.cause, work[spent] if offered else B)
            ctx.set(dut.port.i.ready, offered and spent == len(work) - 1)
            log.append((ctx.get(dut.cause), ctx.get(dut.error), ctx.get(dut.retired),
                        ctx.get(dut.idle)))
            if begun is not None and ctx.get(dut.beginning):
                begun.append(cycle)
            took   = ctx.get(dut.i.valid) and ctx.get(dut.i.ready)
            retire = offered and ctx.get(dut.port.i.ready)
            await ctx.tick()
            if took:
                left.pop(0)
            spent = 0 if retire else spent + offered

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return log


def causes(log):
    return [entry[0] for entry in log]


def fill(**fields):
    return instruction(Engine.ENCODER_FILL, **fields)


def test_instruction_without_waits_is_offered_two_cycles_after_it_arrived():
    log = trace([fill()], cycles=6, work=(F, V))
    assert causes(log) == [X, F, F, V, N, N]
    assert [retired for _, _, retired, _ in log] == [0, 0, 0, 0, 1, 1]
    assert [idle for *_, idle in log] == [0, 0, 0, 0, 1, 1]


def test_waits_are_checked_while_the_engine_works_so_that_nothing_is_lost():
    waits = [(Engine.STORE, 1), (Engine.GATE, 1), (Engine.LOAD_ENCODER, 1)]
    log   = trace([fill(), fill(waits=waits)], cycles=12, work=(V,) * 5,
                  counts=lambda cycle: dict.fromkeys([e for e, _ in waits], 1))
    assert causes(log) == [X, F, *[V] * 10]


def test_unmet_wait_is_charged_to_what_it_names():
    waits = [(Engine.LOAD_ENCODER, 5), (Engine.ENCODER_CONV, 2)]
    log   = trace([fill(waits=waits)], cycles=11, counts=lambda cycle: {
        Engine.LOAD_ENCODER: 5 if cycle >= 4 else 4, Engine.ENCODER_CONV: 2 * (cycle >= 6)})
    #                     check.. met  conv  met  go  work
    assert causes(log) == [X, X, X, X, F, D, F, F, V, N, N]


def test_fetch_in_time_or_late():
    log = trace([fill(), fill()], cycles=8, arrive=lambda cycle: cycle in (0, 5))
    assert causes(log) == [X, F, V, X, X, X, F, V]


def test_sync_retires_in_order_and_is_no_issue():
    log = trace([fill(), sync(), fill()], cycles=10, work=(V, V, V))
    assert causes(log) == [X, F, V, V, V, D, X, F, V, V]
    assert [retired for _, _, retired, _ in log] == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2]


def test_sync_waits_too():
    log = trace([sync((Engine.GATE, 3))], cycles=7,
                counts=lambda cycle: {Engine.GATE: 3 * (cycle >= 3)})
    assert causes(log) == [X, D, D, F, D, N, N]
    assert log[-1][2] == 1


def load(**fields):
    return instruction(Engine.LOAD_ENCODER, **fields)


def test_a_frame_that_is_missing_holds_its_load_and_what_follows():
    begun = []
    log   = trace([load(), load(frame_start=1), load()], engine=Engine.LOAD_ENCODER, cycles=12,
                  work=(V, V), missing=lambda cycle: cycle < 7, begun=begun)
    #                          first   held     offered  next
    assert causes(log) == [X, F, V, V, X, X, X, F, V, V, V, V]
    assert begun == [7]


def test_waits_are_charged_before_a_missing_frame():
    waits = [(Engine.STORE, 1)]
    log   = trace([load(frame_start=1, waits=waits)], engine=Engine.LOAD_ENCODER, cycles=8,
                  missing=lambda cycle: cycle < 5, counts=lambda cycle: {Engine.STORE: cycle >= 3})
    assert causes(log) == [X, D, D, F, X, F, V, N]


def test_without_enable_nothing_is_issued():
    log = trace([fill()], cycles=6, enable=lambda cycle: cycle >= 3)
    assert causes(log) == [N, N, N, F, V, N]        # it has come by then


@pytest.mark.parametrize("engine", Engine)
def test_opcodes(engine):
    for opcode in [opcode.value for opcode in Opcode] + [0, 9, 15]:
        log   = trace([opcode], engine=engine, cycles=4)
        legal = opcode in [opcode.value for opcode in legal_opcodes(engine)]
        assert log[1][1] == (Error.NONE if legal else Error.BAD_OPCODE)
        assert log[3][2] == legal


def test_errors_come_in_program_order():
    log = trace([fill(), 0xF], cycles=7, work=(V, V, V))
    assert [error for _, error, _, _ in log] == [Error.NONE] * 5 + [Error.BAD_OPCODE] * 2


def test_wait_for_an_engine_that_does_not_exist():
    bits = fill(waits=[(Engine.STORE, 1)]) | 15 << 24
    log  = trace([bits], cycles=4, counts=lambda cycle: dict.fromkeys(Engine, 9))
    assert [error for _, error, _, _ in log] == [Error.NONE] + [Error.BAD_PROGRAM] * 3
    assert log[-1][2] == 0


def test_engine_must_exist():
    with pytest.raises(ValueError, match="^Front end engine must be an Engine, not 15$"):
        FrontEnd(engine=15)
