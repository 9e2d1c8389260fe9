"""Properties of :mod:`hw.memory.protected`: its queues and its code."""

from amaranth import *

from hw.memory.protected import ProtectedQueue, check_bits, columns, decode, encode, queue
from hw.prove.bench import prove

DEPTH = 3


def kept_in_order(bench, buffered):
    """A queue of 3 words of 5 bits; that at a symbolic place of what goes in must come out at that
    place, and as many must be inside as have gone in and not come out."""
    dut    = bench.block(queue("secded", width=5, depth=DEPTH, buffered=buffered))
    enters, leaves = dut.w_en & dut.w_rdy, dut.r_en & dut.r_rdy
    held   = bench.register(range(DEPTH + 2), "held")
    ahead  = bench.register(range(DEPTH + 2), "ahead")      # of the marked word, itself included
    word   = bench.register(5, "word")
    marks  = bench.free(1, "marks")                         # this word, if none is marked
    marked = enters & marks & (ahead == 0)
    bench.m.d.sync += held.eq(held + enters - leaves)
    with bench.m.If(marked):
        bench.m.d.sync += [word.eq(dut.w_data), ahead.eq(held - leaves + 1)]
    with bench.m.Elif(leaves & (ahead != 0)):
        bench.m.d.sync += ahead.eq(ahead - 1)
    bench.check((held <= DEPTH) & (ahead <= held), "no more than there are places")
    bench.check(dut.level == held, "the level says how many")
    bench.check(~dut.r_rdy | (held != 0), "nothing is made up")
    bench.check(dut.w_rdy | (held == DEPTH), "never full before it is")
    bench.check((ahead != 1) | ~dut.r_rdy | (dut.r_data == word), "in order, with its bits")
    bench.check(~dut.uncorrectable & ~dut.corrected, "no error where none was")
    late = bench.register(2, "late")
    bench.m.d.sync += late.eq(Mux((held != 0) & ~dut.r_rdy, late + 1, 0))
    bench.check(late <= 1, "on offer in the next cycle but one at the latest")
    bench.cover(leaves & (ahead == 1) & (word == 21) & (held == DEPTH))


@prove((ProtectedQueue.elaborate, "words.r_en.eq(self.r_en)",
        "words.r_en.eq(self.r_en | ~self.w_rdy)"))
def queues_lose_nothing(bench):
    """What goes into a queue comes out, once, in order, with its bits; nothing else does; it is
    full with ``depth`` words and not before. Here with check bits; without, it is Amaranth's own
    queue that is inside."""
    kept_in_order(bench, buffered=False)


@prove((ProtectedQueue.elaborate, "self.w_rdy.eq(words.w_rdy)", "self.w_rdy.eq(1)"))
def buffered_queues_lose_nothing(bench):
    """The same of a queue with an output register."""
    kept_in_order(bench, buffered=True)


class Decoder(Elaboratable):
    """A word of ``width`` bits, ``flips`` turned over on the way from :func:`encode`."""

    def __init__(self, width, flips):
        self.width, self.flips = width, flips
        self.sent  = Signal(width)
        self.value = Signal(width)
        self.corrected, self.uncorrectable = Signal(), Signal()

    def elaborate(self, platform):
        m    = Module()
        word = Signal(len(self.flips))
        m.d.comb += word.eq(Cat(self.sent, encode("secded", self.sent)) ^ self.flips)
        value, corrected, lost = decode(m, "secded", word[:self.width], word[self.width:])
        m.d.comb += [self.value.eq(value), self.corrected.eq(corrected),
                     self.uncorrectable.eq(lost)]
        return m


WIDTH = 16
"""Bits of a word; words of memory have more, and their columns are chosen likewise."""


@prove((columns, "range(3, bits + 1, 2)", "range(2, bits + 1, 1)"), slow=True)
def one_flip_is_corrected_and_two_are_noticed(bench):
    """SECDED, for every word of 16 bits and its 6 check bits: without a flip it is itself, with any
    one flip it is made right and said to be, with any two it is said to be lost."""
    flips  = bench.free(WIDTH + check_bits("secded", WIDTH), "flips")
    dut    = Decoder(WIDTH, flips)
    bench.m.submodules.decoder = dut
    bench.m.d.comb += dut.sent.eq(bench.free(WIDTH, "sent"))
    rest   = flips & (flips - 1)[:len(flips)]
    second = rest & (rest - 1)[:len(rest)]
    none, one, two = flips == 0, (flips != 0) & (rest == 0), (rest != 0) & (second == 0)
    bench.check(~(none | one) | (dut.value == dut.sent), "right")
    bench.check(~none | ~(dut.corrected | dut.uncorrectable), "no flip")
    bench.check(~one | (dut.corrected & ~dut.uncorrectable), "one flip")
    bench.check(~two | (dut.uncorrectable & ~dut.corrected), "two flips")
    bench.cover(two & dut.uncorrectable)


