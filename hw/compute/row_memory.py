"""Row memory of a compute unit: the input rows of its convolutions, several pixels per cycle."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import row_write_layout
from hw.memory.protected import memory


class RowRead(wiring.Signature):
    """Read side, seen from the reader: one address per bank. While ``enable`` is high, ``data``
    follows one cycle after ``addresses``; while it is low, ``data`` holds."""

    def __init__(self, *, banks, depth, vector):
        super().__init__({
            "enable":    Out(1),
            "addresses": Out(range(depth)).array(banks),
            "data":      In(vector * 8).array(banks),
        })


class RowMemory(wiring.Component):
    """``banks`` banks of ``depth`` vectors: a vector of pixel x lies in bank ``x % banks``.

    Reads every bank in every cycle. Writes at most one masked vector per bank and cycle; of
    several writers of one bank the lowest numbered wins, and the others wait. Writers of
    different banks never wait for each other. A write is visible to reads of later cycles; the
    same word must not be read in the very cycle of its write.

    Parameters
    ----------
    banks, depth, vector : int
    lanes : int
        Separately writable parts of a vector.
    writers : int
    protection : str
        One of ``hw.config.PROTECTIONS``.

    Members
    -------
    read : In(RowRead)
    writes : In(stream.Signature(row_write_layout(...))).array(writers)
        In order of priority; ``writes[0]`` never waits.
    """

    def __init__(self, *, banks, depth, vector, lanes, writers, protection="none"):
        for name, value in (("banks", banks), ("depth", depth), ("writers", writers)):
            if value < 1:
                raise ValueError(f"Row memory {name} must be positive, not {value!r}")
        if lanes < 1 or vector % lanes:
            raise ValueError(f"Row memory lanes ({lanes!r}) must divide the vector ({vector!r})")
        self.depth   = depth
        self.vector  = vector
        self.lanes   = lanes
        self.writers = writers

        layout = row_write_layout(banks=banks, depth=depth, vector=vector, lanes=lanes)
        super().__init__({
            "read":   In(RowRead(banks=banks, depth=depth, vector=vector)),
            "writes": In(stream.Signature(layout)).array(writers),
        })
        self.banks = [memory(protection, shape=vector * 8, depth=depth, parts=lanes)
                      for _ in range(banks)]
        self.protected = [("rows", bank) for bank in self.banks]

    def elaborate(self, platform):
        m = Module()

        grants = [[] for _ in self.writes]     # per writer, one signal per bank

        for number, bank in enumerate(self.banks):
            m.submodules[f"bank_{number}"] = bank
            write = bank.write_port(granularity=self.vector * 8 // self.lanes)
            read  = bank.read_port()

            free = Const(1)
            for writer, request in enumerate(self.writes):
                wants = request.valid & (request.p.bank == number)
                grant = Signal(name=f"grant_{number}_{writer}")
                m.d.comb += grant.eq(wants & free)
                grants[writer].append(grant)
                free = free & ~wants

            for writer, request in reversed(list(enumerate(self.writes))):
                with m.If(grants[writer][number]):
                    m.d.comb += [
                        write.addr.eq(request.p.address),
                        write.data.eq(request.p.data),
                        write.en.eq(request.p.mask),
                    ]

            m.d.comb += [
                read.en.eq(self.read.enable),
                read.addr.eq(self.read.addresses[number]),
                self.read.data[number].eq(read.data),
            ]

        for request, given in zip(self.writes, grants):
            m.d.comb += request.ready.eq(Cat(given).any())

        return m
