"""Memories of a compute unit for what it loads once: weights, requantisation, lookup table."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.interfaces import load_layout
from hw.isa import LoadTarget, Requant

TABLE_BYTES = 256


class WeightMemory(wiring.Component):
    """Weights and requantisation parameters in ``outputs`` lanes, and a table of 256 bytes.

    Beat ``index`` of a load goes to lane ``index % outputs`` of word ``base + index // outputs``,
    or, for the table, to bytes ``index * vector`` onwards. The load stream is taken at one beat
    per cycle, never waits, and has landed two cycles after it was taken. Beats for other targets
    and beats outside the memory are dropped: the load engine reports those.

    Every read port answers one cycle after its address while ``enable`` is high, and holds its
    data while it is low.

    Parameters
    ----------
    vector, outputs, weight_words, param_words : int

    Members
    -------
    load : In(stream.Signature(load_layout(vector=vector)))
    weights, params, table : In
        Each ``enable``, ``address`` and ``data``: ``outputs`` vectors; ``outputs`` of
        :class:`hw.isa.Requant`; one byte.
    """

    def __init__(self, *, vector, outputs, weight_words, param_words):
        for name, value in (("outputs", outputs), ("weight_words", weight_words),
                            ("param_words", param_words)):
            if value < 1:
                raise ValueError(f"Weight memory {name} must be positive, not {value!r}")
        if vector < 8 or TABLE_BYTES % vector:
            raise ValueError(f"Weight memory vector must divide {TABLE_BYTES} and be at least 8, "
                             f"not {vector!r}")
        self.vector  = vector
        self.outputs = outputs

        def port(depth, data):
            return In(wiring.Signature({
                "enable":  Out(1),
                "address": Out(range(depth)),
                "data":    data,
            }))

        super().__init__({
            "load":    In(stream.Signature(load_layout(vector=vector))),
            "weights": port(weight_words, In(vector * 8).array(outputs)),
            "params":  port(param_words, In(Requant).array(outputs)),
            "table":   port(TABLE_BYTES, In(8)),
        })
        self.weight_lanes = [Memory(shape=vector * 8, depth=weight_words, init=[])
                             for _ in range(outputs)]
        self.param_lanes  = [Memory(shape=Requant, depth=param_words, init=[])
                             for _ in range(outputs)]
        self.table_words  = Memory(shape=vector * 8, depth=TABLE_BYTES // vector, init=[])

    def elaborate(self, platform):
        m = Module()

        lane_bits = exact_log2(self.outputs)
        byte_bits = exact_log2(self.vector)

        # One register between the load channel and the lanes that it fans out to.
        m.d.comb += self.load.ready.eq(1)
        valid  = Signal()
        target = Signal(LoadTarget)
        lane   = Signal(range(max(self.outputs, 2)))
        word   = Signal(21)
        data   = Signal(self.vector * 8)
        m.d.sync += valid.eq(self.load.valid)
        with m.If(self.load.valid):
            m.d.sync += [
                target.eq(self.load.p.target),
                lane.eq(self.load.p.index[:lane_bits]),
                data.eq(self.load.p.data),
            ]
            with m.If(self.load.p.target == LoadTarget.TABLE):
                m.d.sync += word.eq(self.load.p.index)
            with m.Else():
                m.d.sync += word.eq(self.load.p.base + (self.load.p.index >> lane_bits))

        def lanes(name, memories, wanted, port):
            fits = Signal(name=f"{name}_fits")
            m.d.comb += fits.eq(valid & (target == wanted) & (word < memories[0].depth))
            for number, memory in enumerate(memories):
                m.submodules[f"{name}_{number}"] = memory
                write = memory.write_port()
                read  = memory.read_port()
                m.d.comb += [
                    write.en.eq(fits & (lane == number)),
                    write.addr.eq(word),
                    Value.cast(write.data).eq(data),
                    read.en.eq(port.enable),
                    read.addr.eq(port.address),
                    port.data[number].eq(read.data),
                ]

        lanes("weights", self.weight_lanes, LoadTarget.WEIGHTS, self.weights)
        lanes("params", self.param_lanes, LoadTarget.PARAMS, self.params)

        m.submodules.table = self.table_words
        write = self.table_words.write_port()
        read  = self.table_words.read_port()
        byte  = Signal(byte_bits)      # which byte of the word that was read
        m.d.comb += [
            write.en.eq(valid & (target == LoadTarget.TABLE) & (word < self.table_words.depth)),
            write.addr.eq(word),
            write.data.eq(data),
            read.en.eq(self.table.enable),
            read.addr.eq(self.table.address[byte_bits:]),
            self.table.data.eq(read.data.word_select(byte, 8)),
        ]
        with m.If(self.table.enable):
            m.d.sync += byte.eq(self.table.address[:byte_bits])

        return m
