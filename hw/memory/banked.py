"""On-chip memory of several interleaved banks that many readers and writers share."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped
from amaranth.utils import exact_log2

from hw.interfaces import MemoryRead, MemoryWrite
from hw.memory.arbiter import RoundRobin
from hw.memory.protected import memory
from hw.memory.skid import SkidBuffer, StreamRegister


class BankedMemory(wiring.Component):
    """Vector ``a`` lies in bank ``a % banks``; every bank takes one read and one write per cycle.

    A request that is refused (``ready`` low while ``valid``) has lost its bank to another one in
    that cycle: a conflict. Each bank serves its readers, and apart from them its writers, in
    rotation, so that a request waits for at most one request of each other port. The last
    ``background`` readers (none or one) stand apart: they get a bank that no other reader wants.

    Data comes exactly 2 cycles after an accepted read. A write is seen by every read accepted in a
    later cycle; a read accepted in the cycle of a write to the same vector may get anything
    (:mod:`hw.memory.collisions`). Addresses are not checked: whoever makes them does that.

    If ``pipelined``, a read that is accepted waits in a register for its bank, behind at most one
    more, and ``ready`` only says whether there is room; another register lies between arbitration
    and banks, for writes as well. So data comes after 4 cycles, or later where others come first.

    Parameters
    ----------
    depth : int
        Vectors, a multiple of ``banks``.
    vector : int
        Bytes per vector.
    lanes : int
        Separately writable parts of a vector.
    banks : int
        Power of two.
    readers, writers : int
    background : int
        0 or 1.
    pipelined : bool
    protection, name : str
        One of ``hw.config.PROTECTIONS``, and which memory this is.

    Members
    -------
    r : Array of In(MemoryRead(...))
    w : Array of In(MemoryWrite(...))

    Attributes
    ----------
    data : list of MemoryData
        One for each bank; simulations of this component alone reach its rows through it. Plain
        memories only.
    """

    def __init__(self, *, depth, vector, lanes, banks, readers, writers,
                 background=0, pipelined=False, protection="none", name="onchip"):
        for size, value in (("banks", banks), ("readers", readers), ("writers", writers),
                            ("lanes", lanes), ("vector", vector), ("depth", depth)):
            if value < 1:
                raise ValueError(f"Memory {size} must be positive, not {value!r}")
        if background not in (0, 1) or background >= readers:
            raise ValueError(f"Memory background readers must be 0 or 1 of {readers}, "
                             f"not {background!r}")
        if banks & (banks - 1):
            raise ValueError(f"Memory banks must be a power of two, not {banks!r}")
        if depth % banks:
            raise ValueError(f"Memory depth ({depth}) must be a multiple of its banks ({banks})")
        if vector % lanes:
            raise ValueError(f"Memory lanes ({lanes}) must divide the vector ({vector})")
        self.depth   = depth
        self.vector  = vector
        self.lanes   = lanes
        self.banks   = banks
        self.readers = readers
        self.writers = writers
        self.background = background
        self.pipelined  = pipelined
        self.stores  = [memory(protection, shape=vector * 8, depth=depth // banks, parts=lanes)
                        for _ in range(banks)]
        self.data    = [getattr(store, "data", None) for store in self.stores]
        self.protected = [(name, store) for store in self.stores]

        super().__init__({
            "r": In(MemoryRead(depth=depth, vector=vector)).array(readers),
            "w": In(MemoryWrite(depth=depth, vector=vector, lanes=lanes)).array(writers),
        })

    def elaborate(self, platform):
        m = Module()

        bank_bits   = exact_log2(self.banks)
        asked       = [self._asked(m, number, r) for number, r in enumerate(self.r)]
        granted     = [[] for _ in range(self.readers)]      # by reader, then bank
        stored      = [[] for _ in range(self.writers)]
        bank_output = []

        def select(address, bank):
            return address[:bank_bits] == bank if bank_bits else Const(1)

        for bank, store in enumerate(self.stores):
            m.submodules[f"bank_{bank}"] = store
            write, read = self._ports(m, bank, store)
            bank_output.append(read.data)

            urgent   = self.readers - self.background
            requests = Signal(self.readers, name=f"requests_{bank}")
            m.d.comb += requests.eq(Cat(
                address.valid & select(address.p, bank) for address in asked))
            m.submodules[f"readers_{bank}"] = readers = RoundRobin(width=urgent)
            m.d.comb += readers.requests.eq(requests[:urgent])
            m.d.comb += readers.taken.eq(1)
            m.d.comb += read.en.eq(requests.any())
            for number, address in enumerate(asked):
                grant = (readers.grant[number] if number < urgent
                         else requests[number] & ~readers.requests.any())
                granted[number].append(grant)
                with m.If(grant):
                    m.d.comb += read.addr.eq(address.p[bank_bits:])

            m.submodules[f"writers_{bank}"] = writers = RoundRobin(width=self.writers)
            m.d.comb += writers.requests.eq(Cat(
                w.w.valid & select(w.w.p.address, bank) for w in self.w))
            m.d.comb += writers.taken.eq(1)
            for number, w in enumerate(self.w):
                grant = writers.grant[number]
                stored[number].append(grant)
                with m.If(grant):
                    m.d.comb += [
                        write.addr.eq(w.w.p.address[bank_bits:]),
                        write.data.eq(w.w.p.data),
                        write.en.eq(w.w.p.mask),
                    ]

        for w, grants in zip(self.w, stored):
            m.d.comb += w.w.ready.eq(Cat(grants).any())

        # A bank's own output register is the last cycle but one; the reader's register is the last.
        for number, (r, address, grants) in enumerate(zip(self.r, asked, granted)):
            m.d.comb += address.ready.eq(Cat(grants).any())
            pending = Cat(grants)
            for stage in range(1 + self.pipelined):
                later = Signal(self.banks, name=f"pending_{number}_{stage}")
                m.d.sync += later.eq(pending)
                pending = later
            m.d.sync += r.data_valid.eq(pending.any())
            for bank, output in enumerate(bank_output):
                with m.If(pending[bank]):
                    m.d.sync += r.data.eq(output)

        return m

    def _asked(self, m, number, r):
        """The requests of a reader that are on offer to the banks."""
        if not self.pipelined:
            return r.address
        m.submodules[f"skid_{number}"] = skid = SkidBuffer(range(self.depth))
        m.submodules[f"asked_{number}"] = asked = StreamRegister(range(self.depth))
        connect(m, flipped(r.address), skid.i)
        connect(m, skid.o, asked.i)
        return asked.o

    def _ports(self, m, bank, store):
        """The write and the read port of a bank, or registers ahead of them."""
        write, read = store.write_port(granularity=self.vector * 8 // self.lanes), store.read_port()
        if not self.pipelined:
            return write, read
        early_write = write.signature.create(path=(f"write_{bank}",))
        early_read  = read.signature.create(path=(f"read_{bank}",))
        m.d.sync += [getattr(port, name).eq(getattr(early, name)) for port, early, names in (
            (write, early_write, ("addr", "data", "en")), (read, early_read, ("addr", "en")))
            for name in names]
        m.d.comb += early_read.data.eq(read.data)
        return early_write, early_read
