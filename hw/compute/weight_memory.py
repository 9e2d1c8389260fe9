"""Memories of a compute unit for what it loads once: weights, requantisation, lookup table."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.interfaces import load_layout
from hw.isa import LoadTarget, Requant
from hw.memory.protected import memory

TABLE_BYTES = 256


def read_port(address, data):
    """A read port, seen from the reader."""
    return wiring.Signature({"enable": Out(1), "address": address, "data": data})


class WeightMemory(wiring.Component):
    """Weights in ``outputs`` lanes, requantisation parameters in ``drain`` lanes, and a table of
    256 bytes.

    Beat ``index`` of weights goes to lane ``index % outputs`` of word ``base + index // outputs``.
    Beat ``index`` of parameters belongs to channel ``base * outputs + index``, which lies in lane
    ``channel % drain`` of word ``channel // drain``; there are ``params * outputs`` channels. Beats
    of the table go to bytes ``index * vector`` onwards. The load stream is taken at one beat
    per cycle, never waits, and has landed two cycles after it was taken. Beats for other targets
    and beats outside the memory are dropped: the load engine reports those.

    Every read port answers one cycle after its address while ``enable`` is high, and holds its
    data while it is low.

    Parameters
    ----------
    vector, outputs, drain, weight_words, params : int
    protects : callable
        The protection of ``weights``, ``params`` and ``table``, as that of ``Config``.

    Members
    -------
    load : In(stream.Signature(load_layout(vector=vector)))
    weights, params : In
        Each ``enable``, ``address`` and ``data``: ``outputs`` vectors; ``drain`` of
        :class:`hw.isa.Requant`.
    table : In
        ``enable``, and ``address`` and ``data`` of ``outputs`` bytes.
    """

    def __init__(self, *, vector, outputs, drain, weight_words, params,
                 protects=lambda memory: "none"):
        for name, value in (("outputs", outputs), ("weight_words", weight_words),
                            ("params", params)):
            if value < 1:
                raise ValueError(f"Weight memory {name} must be positive, not {value!r}")
        if drain < outputs or drain & (drain - 1):
            raise ValueError(f"Weight memory drain must be a power of two of at least its "
                             f"outputs ({outputs}), not {drain!r}")
        if vector < 8 or TABLE_BYTES % vector:
            raise ValueError(f"Weight memory vector must divide {TABLE_BYTES} and be at least 8, "
                             f"not {vector!r}")
        self.vector  = vector
        self.outputs = outputs
        self.drain   = drain
        self.groups  = params
        param_words  = -(-params * outputs // drain)

        super().__init__({
            "load":    In(stream.Signature(load_layout(vector=vector))),
            "weights": In(read_port(Out(range(weight_words)), In(vector * 8).array(outputs))),
            "params":  In(read_port(Out(range(param_words)), In(Requant).array(drain))),
            "table":   In(read_port(Out(8).array(outputs), In(8).array(outputs))),
        })
        self.weight_lanes = [memory(protects("weights"), shape=vector * 8, depth=weight_words)
                             for _ in range(outputs)]
        self.param_lanes  = [memory(protects("params"), shape=Requant, depth=param_words)
                             for _ in range(drain)]
        self.table_words  = memory(protects("table"), shape=vector * 8,
                                   depth=TABLE_BYTES // vector)
        self.protected    = [*(("weights", lane) for lane in self.weight_lanes),
                             *(("params", lane) for lane in self.param_lanes),
                             ("table", self.table_words)]

    def elaborate(self, platform):
        m = Module()

        lane_bits = exact_log2(self.outputs)
        byte_bits = exact_log2(self.vector)

        # One register between the load channel and the lanes that it fans out to.
        m.d.comb += self.load.ready.eq(1)
        valid   = Signal()
        target  = Signal(LoadTarget)
        channel = Signal(24)            # counted from the memory's first
        word    = Signal(21)            # of weights or of the table
        data    = Signal(self.vector * 8)
        m.d.sync += valid.eq(self.load.valid)
        with m.If(self.load.valid):
            m.d.sync += [
                target.eq(self.load.p.target),
                channel.eq((self.load.p.base << lane_bits) + self.load.p.index),
                data.eq(self.load.p.data),
            ]
            with m.If(self.load.p.target == LoadTarget.TABLE):
                m.d.sync += word.eq(self.load.p.index)
            with m.Else():
                m.d.sync += word.eq(self.load.p.base + (self.load.p.index >> lane_bits))

        def lanes(name, memories, fits, address, port):
            lane = Signal(range(max(len(memories), 2)), name=f"{name}_lane")
            m.d.comb += lane.eq(channel[:exact_log2(len(memories))])
            for number, words in enumerate(memories):
                m.submodules[f"{name}_{number}"] = words
                write = words.write_port()
                read  = words.read_port()
                m.d.comb += [
                    write.en.eq(fits & (lane == number)),
                    write.addr.eq(address),
                    Value.cast(write.data).eq(data),
                    read.en.eq(port.enable),
                    read.addr.eq(port.address),
                    port.data[number].eq(read.data),
                ]

        weights_fit, params_fit = Signal(), Signal()
        m.d.comb += [
            weights_fit.eq(valid & (target == LoadTarget.WEIGHTS)
                           & (word < self.weight_lanes[0].depth)),
            params_fit.eq(valid & (target == LoadTarget.PARAMS) & (word < self.groups)),
        ]
        lanes("weights", self.weight_lanes, weights_fit, word, self.weights)
        lanes("params", self.param_lanes, params_fit, channel[exact_log2(self.drain):], self.params)

        m.submodules.table = self.table_words
        write = self.table_words.write_port()
        m.d.comb += [
            write.en.eq(valid & (target == LoadTarget.TABLE) & (word < self.table_words.depth)),
            write.addr.eq(word),
            write.data.eq(data),
        ]
        for number, (address, found) in enumerate(zip(self.table.address, self.table.data)):
            read = self.table_words.read_port()
            byte = Signal(byte_bits, name=f"byte_{number}")     # of the word that was read
            m.d.comb += [
                read.en.eq(self.table.enable),
                read.addr.eq(address[byte_bits:]),
                found.eq(read.data.word_select(byte, 8)),
            ]
            with m.If(self.table.enable):
                m.d.sync += byte.eq(address[:byte_bits])

        return m
