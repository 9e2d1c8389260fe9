"""Properties of :class:`hw.memory.channel.LoadChannel`."""

from amaranth import *

from hw.isa import LoadTarget, Opcode
from hw.memory.channel import LoadChannel
from hw.prove.bench import prove
from hw.prove.small import SMALL


def channel(bench):
    """A load channel of the attention unit, whose instruction holds until it retires, and to
    which come only the beats that it asked for."""
    dut = bench.block(LoadChannel(config=SMALL, unit="attention", window=4))
    bench.assume(bench.kept(dut.engine.i.valid, dut.engine.i.ready, dut.engine.i.p))
    bench.assume(~dut.engine.i.valid | (dut.engine.i.p.sync.opcode == Opcode.LOAD))
    bench.assume(bench.kept(dut.arrived, dut.taken, dut.data, dut.arrived_error))
    load = dut.engine.i.p.load
    owed = bench.register(5, "owed")        # beats asked for, and not yet delivered or dropped
    bench.m.d.sync += owed.eq(
        owed + Mux(dut.bursts.valid & dut.bursts.ready, dut.bursts.p.length + 1, 0)
        - (dut.arrived & dut.taken))
    bench.assume(~dut.arrived | (owed != 0))
    bench.assume((load.beats < 8) & (load.base < 256) & (load.offchip < 1 << 14))
    return dut, load


@prove((LoadChannel.elaborate, "(limit != 0) & (target_end <= limit)", "(limit != 0)"), steps=12,
       slow=True)
def words_stay_in_their_memory(bench):
    """Every beat goes to a word of its target's memory: on-chip words below their number, and the
    unit's own within weights, parameters, table or gate parameters. Runs of up to 7 beats."""
    dut, _ = channel(bench)
    unit = SMALL.attention
    bench.check(~dut.word.valid | (dut.word.p < SMALL.onchip_words), "on chip")
    place = dut.o.p
    for target, words, beats in ((LoadTarget.WEIGHTS, unit.weight_words, unit.outputs),
                                 (LoadTarget.PARAMS, unit.params, unit.outputs),
                                 (LoadTarget.GATE_PARAMS, SMALL.gate_param_words,
                                  SMALL.gate_lanes)):
        word = place.base + (place.index >> (beats - 1).bit_length())
        bench.check(~dut.o.valid | (place.target != target) | (word < words), target.name)
    bench.check(~dut.o.valid | (place.target != LoadTarget.TABLE)
                | (place.index < 256 // SMALL.vector), "TABLE")
    bench.cover(dut.word.valid & (dut.word.p == SMALL.onchip_words - 1))


@prove((LoadChannel.elaborate, "(load.beats != 0)", "C(1)"), steps=12,
       slow=True)
def nothing_is_asked_for_bad_instructions(bench):
    """A burst is on offer only for an instruction that lies in off-chip memory, on a beat, with
    beats; and it lies within the run."""
    dut, load = channel(bench)
    start = load.offchip >> 3
    bench.check(~dut.bursts.valid | (load.offchip[:3] == 0), "on a beat")
    bench.check(~dut.bursts.valid | (start + load.beats <= SMALL.offchip_words), "in memory")
    bench.check(~dut.bursts.valid | ((dut.bursts.p.address >= start)
                & (dut.bursts.p.address + dut.bursts.p.length < start + load.beats)), "in the run")
    bench.cover(dut.bursts.valid & (load.beats == 7) & dut.bursts.p.last)


@prove((LoadChannel.elaborate, "last & ends_beat", "last"), slow=True)
def retires_after_all_beats(bench):
    """An instruction retires when exactly its beats have been delivered, each part of an expanded
    one; and not after an error, which holds."""
    dut, load = channel(bench)
    beats = bench.register(4, "beats")
    moved = dut.arrived & dut.taken & ~dut.arrived_error
    with bench.m.If(dut.engine.i.ready):
        bench.m.d.sync += beats.eq(0)
    with bench.m.Elif(moved):
        bench.m.d.sync += beats.eq(beats + 1)
    working = bench.named((dut.o.valid & dut.o.ready) | (dut.word.valid & dut.word.ready), "moves")
    delivered = bench.register(4, "delivered")
    with bench.m.If(dut.engine.i.ready):
        bench.m.d.sync += delivered.eq(0)
    with bench.m.Elif(working & dut.taken):
        bench.m.d.sync += delivered.eq(delivered + 1)
    bench.check(~(dut.engine.i.valid & dut.engine.i.ready) | (delivered == load.beats), "all")
    error = dut.engine.error.as_value()
    past  = bench.before(error)
    bench.check((past == 0) | ((error == past) & ~dut.engine.i.ready & ~dut.bursts.valid), "error")
    bench.cover(dut.engine.i.valid & dut.engine.i.ready & load.expand & (load.beats == 2))
