"""Round-robin arbiter: one grant a cycle, and nobody starves."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class RoundRobin(wiring.Component):
    """Grants the first requester after the one granted last, wrapping around.

    ``grant`` is one-hot, or zero without requests, in the same cycle as ``requests``. The turn
    moves on at the end of a cycle with ``taken``. A requester that keeps its bit up is granted
    after at most ``width - 1`` taken grants to others.

    Parameters
    ----------
    width : int
        Requesters.

    Members
    -------
    requests : In(width)
    taken    : In(1)
    grant    : Out(width)
    """

    def __init__(self, *, width):
        if width < 1:
            raise ValueError(f"Number of requesters must be positive, not {width!r}")
        self.width = width

        super().__init__({
            "requests": In(width),
            "taken":    In(1),
            "grant":    Out(width),
        })

    def elaborate(self, platform):
        m = Module()

        if self.width == 1:
            m.d.comb += self.grant.eq(self.requests)
            return m

        later    = Signal(self.width)      # the requesters after the one granted last
        waiting  = Signal(self.width)      # those of them that request
        eligible = Signal(self.width)
        m.d.comb += [
            waiting.eq(self.requests & later),
            eligible.eq(Mux(waiting.any(), waiting, self.requests)),
            self.grant.eq(Cat(bit & ~eligible[:number].any()
                              for number, bit in enumerate(eligible))),
        ]
        with m.If(self.taken & self.requests.any()):
            m.d.sync += later.eq(Cat(self.grant[:number].any() for number in range(self.width)))

        return m
