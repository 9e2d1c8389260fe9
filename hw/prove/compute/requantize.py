"""Properties of :class:`hw.compute.requantize.Requantizer`."""

from amaranth import *

from hw.compute.requantize import LATENCY, Requantizer
from hw.prove.bench import prove


@prove((Requantizer.elaborate, "(halves + 1) >> 1", "halves >> 1"), method="smt", depth=6,
       seconds=600, slow=True)
def equals_the_contract(bench):
    """``y = clamp((((acc + bias) * m + 2**(s-1)) >> s) + zero_out, low, high)``, LATENCY cycles
    later, for every ``acc``, ``bias``, multiplier, shift of 1 to 47, zero point and limits, which
    are the layer's or, on one side, the channel's.

    The product of 32 and 16 bits is the same word on both sides; that everything behind it, with
    one addend fewer in the hardware, is the contract's rounding, is what has to be shown.
    """
    dut  = bench.block(Requantizer(bounds=True))
    zero, low, high = (bench.constant(8, name) for name in ("zero", "lowest", "highest"))
    acc, requant    = dut.acc, dut.requant
    bench.driven(dut.enable, dut.zero_out, dut.low, dut.high)
    bench.m.d.comb += [dut.enable.eq(1), dut.zero_out.eq(zero), dut.low.eq(low), dut.high.eq(high)]
    bench.assume((requant.shift >= 1) & (requant.shift <= 47))
    bench.assume((requant.bound == 0) | requant.ceiling | (low == 0))

    biased, product = Signal(signed(32)), Signal(signed(48))
    shift, half     = Signal(6), Signal(48)
    bench.m.d.comb += biased.eq(acc + requant.bias)
    past = Signal(signed(32)), Signal(signed(16)), Signal(6)
    bench.m.d.sync += [past[0].eq(biased), past[1].eq(requant.multiplier),
                       past[2].eq(requant.shift)]
    bench.m.d.sync += [product.eq(past[0] * past[1]), shift.eq(past[2])]
    bound, ceiling = (bench.before(bench.before(part)) for part in (requant.bound, requant.ceiling))
    least   = Mux(ceiling | (bound == 0), low, bound)
    most    = Mux(ceiling, bound, high)
    rounded = Signal(signed(50))
    wanted  = Signal(8)
    bench.m.d.comb += [
        half.eq(C(1, 48) << (shift - 1)[:6]),
        rounded.eq(((product + half) >> shift) + zero),
        wanted.eq(Mux(rounded < least, least, Mux(rounded > most, most, rounded))),
    ]
    for _ in range(LATENCY - 2):
        wanted = bench.before(wanted)
    running = C(1)
    for _ in range(LATENCY):
        running = bench.before(running)
    bench.check(~running | (dut.y == wanted), "y is the contract's byte")
    bench.cover(running & (dut.y == 77) & (low < 70) & (high > 80))
