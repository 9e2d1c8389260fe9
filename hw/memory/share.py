"""One memory for two managers of AXI4."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.memory.arbiter import RoundRobin
from hw.memory.axi import Axi4
from hw.memory.skid import SkidBuffer

__all__ = ["AxiShare"]


class AxiShare(wiring.Component):
    """Passes the bursts of two managers to one memory, whose ids are a bit wider: the top one says
    whose a burst is.

    Each of the two waits for at most one burst of the other. A granted address stays on offer until
    it is taken, and one that is not granted is kept here, so that nothing of a manager depends on
    memory's ``ready`` in the same cycle. Written data follow their addresses, so data that come
    before theirs wait.

    Parameters
    ----------
    signature : Axi4
        Of the managers.
    outstanding : int
        Write bursts whose data are still to come.

    Members
    -------
    managers : Array(2) of In(signature)
    memory : Out(Axi4(...))
    """

    def __init__(self, signature, *, outstanding=4):
        self.outstanding = outstanding
        super().__init__({
            "managers": In(signature).array(2),
            "memory":   Out(Axi4(data_width=signature.data_width,
                                 address_width=signature.address_width,
                                 id_width=signature.id_width + 1)),
        })

    def elaborate(self, platform):
        m = Module()

        memory, managers = self.memory, [self._kept(m, number, manager)
                                         for number, manager in enumerate(self.managers)]
        m.submodules.order = order = SyncFIFO(width=1, depth=self.outstanding)

        for channel, room in (("ar", C(1)), ("aw", order.w_rdy)):
            def of(bus, name, channel=channel):
                return getattr(bus, channel + name)

            m.submodules[f"{channel}_turn"] = turn = RoundRobin(width=2)
            held, owner = Signal(name=f"{channel}_held"), Signal(name=f"{channel}_owner")
            chosen      = Signal(name=f"{channel}_chosen")
            m.d.comb += [
                turn.requests.eq(Cat(of(manager, "valid") for manager in managers)),
                chosen.eq(Mux(held, owner, turn.grant[1])),
                of(memory, "valid").eq(Array(of(manager, "valid") for manager in managers)[chosen]
                                       & room),
                turn.taken.eq(of(memory, "valid") & of(memory, "ready")),
            ]
            m.d.sync += held.eq(of(memory, "valid") & ~of(memory, "ready"))
            m.d.sync += owner.eq(chosen)
            for number, manager in enumerate(managers):
                m.d.comb += of(manager, "ready").eq((chosen == number) & of(memory, "ready") & room)
                with m.If(chosen == number):
                    m.d.comb += of(memory, "id").eq(Cat(of(manager, "id"), C(number, 1)))
                    m.d.comb += [of(memory, name).eq(of(manager, name))
                                 for name in ("addr", "len", "size", "burst")]
            if channel == "aw":
                m.d.comb += [order.w_en.eq(turn.taken), order.w_data.eq(chosen)]

        for number, manager in enumerate(managers):
            with m.If(order.r_rdy & (order.r_data == number)):
                m.d.comb += [memory.wvalid.eq(manager.wvalid), manager.wready.eq(memory.wready)]
                m.d.comb += [getattr(memory, name).eq(getattr(manager, name))
                             for name in ("wdata", "wstrb", "wlast")]
            for channel, names in (("r", ("id", "data", "resp", "last")), ("b", ("id", "resp"))):
                mine = getattr(memory, f"{channel}id")[-1] == number
                m.d.comb += getattr(manager, f"{channel}valid").eq(
                    getattr(memory, f"{channel}valid") & mine)
                m.d.comb += [getattr(manager, channel + name).eq(getattr(memory, channel + name))
                             for name in names]
                with m.If(mine):
                    m.d.comb += getattr(memory, f"{channel}ready").eq(
                        getattr(manager, f"{channel}ready"))
        m.d.comb += order.r_en.eq(memory.wvalid & memory.wready & memory.wlast)

        return m

    def _kept(self, m, number, manager):
        """A manager behind a skid buffer on each of its address channels."""
        behind = manager.signature.create(path=(f"behind_{number}",))
        for channel in ("ar", "aw"):
            names = [f"{channel}{name}" for name in ("id", "addr", "len", "size", "burst")]
            shape = data.StructLayout({name: getattr(manager, name).shape() for name in names})
            m.submodules[f"{channel}_{number}"] = skid = SkidBuffer(shape)
            m.d.comb += [
                skid.i.valid.eq(getattr(manager, f"{channel}valid")),
                getattr(manager, f"{channel}ready").eq(skid.i.ready),
                getattr(behind, f"{channel}valid").eq(skid.o.valid),
                skid.o.ready.eq(getattr(behind, f"{channel}ready")),
                *(skid.i.p[name].eq(getattr(manager, name)) for name in names),
                *(getattr(behind, name).eq(skid.o.p[name]) for name in names),
            ]
        for name, member in manager.signature.members.items():
            if name[:2] not in ("ar", "aw"):
                ours, theirs = getattr(manager, name), getattr(behind, name)
                m.d.comb += theirs.eq(ours) if member.flow == In else ours.eq(theirs)
        return behind
