"""Requantisation parameters of the gate: ``gate_lanes`` channels per word."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.interfaces import load_layout
from hw.isa import LoadTarget, Requant
from hw.memory.protected import memory


class GateParams(wiring.Component):
    """``config.gate_param_words`` words of :class:`hw.isa.Requant` for each of the gate's lanes.

    Of the load stream it takes the beats for ``GATE_PARAMS``, one per cycle, without waiting: beat
    ``index`` holds channel ``index % gate_lanes`` of word ``base + index // gate_lanes``. It drops
    the others, and those beyond its depth (the load engine refuses such instructions).

    Members
    -------
    load : In(stream.Signature(load_layout(...)))
    address : In(range(config.gate_param_words))
    requants : Out(ArrayLayout(Requant, gate_lanes))
        One cycle after ``address``.
    """

    def __init__(self, config):
        self.lanes = config.gate_lanes
        self.depth = config.gate_param_words
        self.words = [memory(config.protects("gate_params"), shape=Requant, depth=self.depth)
                      for _ in range(self.lanes)]
        self.protected = [("gate_params", words) for words in self.words]
        super().__init__({
            "load":     In(stream.Signature(load_layout(vector=config.vector))),
            "address":  In(range(self.depth)),
            "requants": Out(data.ArrayLayout(Requant, self.lanes)),
        })

    def elaborate(self, platform):
        m = Module()

        beat = self.load.p
        lane = beat.index[:exact_log2(self.lanes)]
        word = Signal(21)
        mine = Signal()
        m.d.comb += [
            self.load.ready.eq(1),
            word.eq(beat.base + (beat.index >> exact_log2(self.lanes))),
            mine.eq(self.load.valid & (beat.target == LoadTarget.GATE_PARAMS)
                    & (word < self.depth)),
        ]
        for number, words in enumerate(self.words):
            m.submodules[f"lane_{number}"] = words
            write = words.write_port()
            read  = words.read_port()
            m.d.comb += [
                write.en.eq(mine & (lane == number)),
                write.addr.eq(word),
                Value.cast(write.data).eq(beat.data),
                read.addr.eq(self.address),
                self.requants[number].eq(read.data),
            ]

        return m
