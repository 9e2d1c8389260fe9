"""Legal traffic on three buses, and for each rule of ``sim/axi_monitor.v`` traffic that breaks it.

A trace is a list of cycles; a cycle names the signals that are not zero.
"""

SIZE   = 3           # of a full beat of the monitor's default width
READS  = WRITES = 4   # bursts that may be outstanding
X      = "X"

__all__ = ["LEGAL", "MONITORS", "X", "mutants"]


def on(*channels):
    """A cycle in which several channels are active."""
    return {name: value for channel in channels for name, value in channel.items()}


def transfer(channel, **payload):
    """A cycle with a transfer."""
    return {f"{channel}valid": 1, f"{channel}ready": 1,
            **{f"{channel}{name}": value for name, value in payload.items()}}


def refused(cycle):
    """The same without any READY."""
    return {name: 0 if name.endswith("ready") else value for name, value in cycle.items()}


def ax(channel, address=0, beats=1, size=SIZE, burst=1, id=0):
    return transfer(channel, addr=address, len=beats - 1, size=size, burst=burst, id=id)


def aw(*args, **options):
    return ax("aw", *args, **options)


def ar(*args, **options):
    return ax("ar", *args, **options)


def w(data=5, strb=0xFF, last=1):
    return transfer("w", data=data, strb=strb, last=last)


def b(id=0, resp=0):
    return transfer("b", id=id, resp=resp)


def r(data=7, id=0, last=1, resp=0):
    return transfer("r", data=data, id=id, last=last, resp=resp)


def t(data=1, user=2, last=0):
    return transfer("t", data=data, user=user, last=last)


def lite(channel, **payload):
    return transfer(channel, **payload)


IDLE = {}

LEGAL = {
    "axi4_monitor": [
        IDLE,
        # A write whose address comes first, with its data, and after them.
        aw(0, 2), w(last=0), w(), b(),
        on(aw(64, 1), w()), b(resp=2),
        w(last=0), w(last=0), w(), aw(128, 3), b(),
        # Two ids out of order; refused for a while with steady payloads.
        aw(0, id=0), aw(8, id=1), refused(w(1)), w(1), w(2), refused(b(id=1)), b(id=1), b(id=0),
        # Reads: interleaved between ids, in order within one; a new address beside the last beat.
        ar(0, 2), ar(16, 1, id=1), refused(r(1, last=0)), r(1, last=0), r(2, id=1), r(3),
        ar(0, 1), on(r(), ar(8, 1)), r(),
        # Up to the end of a page; narrow, unaligned, fixed and wrapping bursts with their lanes.
        aw(4096 - 8 * 16, 16), *[w(last=0)] * 15, w(), b(),
        aw(3, 2), w(strb=0xF8, last=0), w(strb=0xFF), b(),
        w(strb=0xF8, last=0), w(), aw(3, 2), b(),
        aw(2, 3, size=1), w(strb=0x0C, last=0), w(strb=0x30, last=0), w(strb=0x40), b(),
        aw(4, 2, size=2, burst=0), w(strb=0xF0, last=0), w(strb=0x10), b(),
        aw(4, 2, size=2, burst=2), w(strb=0xF0, last=0), w(strb=0x0F), b(),
        ar(4096 - 8), r(),
    ],
    "axi_lite_monitor": [
        IDLE,
        lite("aw", addr=8), lite("w", data=3, strb=15), lite("b"),
        lite("w", data=3, strb=15), lite("aw", addr=8), refused(lite("b", resp=2)),
        lite("b", resp=2),
        on(lite("aw", addr=8), lite("w", data=1)), lite("b"),
        refused(lite("ar", addr=4)), lite("ar", addr=4), IDLE, lite("r", data=9),
        lite("ar", addr=4), on(lite("r", data=9), lite("ar", addr=4)), lite("r", data=9),
    ],
    "axi_stream_monitor": [IDLE, t(), refused(t(2)), t(2), IDLE, t(3, last=1)],
}


def _stability(channel, steady, changes):
    """What breaks the rules that all channels share."""
    upper   = channel.upper()
    waiting = refused(steady)
    return [
        (f"{upper}VALID_STABLE", [IDLE, waiting, IDLE]),
        *((f"{upper}_STABLE", [IDLE, waiting, {**waiting, name: waiting.get(name, 0) ^ 1}])
          for name in changes),
        (f"{upper}VALID_RESET", [waiting]),
        (f"{upper}VALID_RESET", [{**waiting, "rst": 1}]),
        (f"{upper}_X", [IDLE, {**waiting, changes[0]: X}]),
        (f"{upper}_X", [IDLE, {**steady, f"{channel}ready": X}]),
        (f"{upper}_X", [IDLE, {**steady, f"{channel}valid": X}]),
    ]


def _prepared(before, broken):
    """The same traces, after ``before``; those of reset begin anyhow."""
    return [(rule, trace if rule.endswith("_RESET") else [IDLE, *before, *trace[1:]])
            for rule, trace in broken]


_BROKEN = {
    "axi4_monitor": [
        *_stability("aw", aw(), ("awaddr", "awid", "awlen", "awsize", "awburst")),
        *_stability("ar", ar(), ("araddr", "arid", "arlen", "arsize", "arburst")),
        *_stability("w", w(), ("wdata", "wstrb", "wlast")),
        *_prepared([ar(), ar(id=1)], _stability("r", r(), ("rdata", "rid", "rlast", "rresp"))),
        *_prepared([aw(), aw(id=1), w(), w()], _stability("b", b(), ("bresp", "bid"))),
        ("AWADDR_BOUNDARY", [IDLE, aw(4096 - 8, 2)]),
        ("ARADDR_BOUNDARY", [IDLE, ar(4096 - 8 * 15, 16)]),
        ("AWSIZE", [IDLE, aw(size=4)]),
        ("ARSIZE", [IDLE, ar(size=4)]),
        ("AWBURST", [IDLE, aw(burst=3)]),
        ("ARBURST", [IDLE, ar(burst=3)]),
        ("AWADDR_WRAP", [IDLE, aw(burst=2, beats=3)]),
        ("AWADDR_WRAP", [IDLE, aw(4, burst=2, beats=2)]),
        ("ARADDR_WRAP", [IDLE, ar(burst=2, beats=1)]),
        ("AWLEN_FIXED", [IDLE, aw(burst=0, beats=17)]),
        ("ARLEN_FIXED", [IDLE, ar(burst=0, beats=17)]),
        ("AW_OUTSTANDING", [IDLE, *[aw()] * (WRITES + 1)]),
        ("AR_OUTSTANDING", [IDLE, *[ar()] * (READS + 1)]),
        ("W_OUTSTANDING", [IDLE, *[w()] * 64]),
        ("WLAST", [IDLE, aw(0, 2), w(last=0), w(last=0)]),
        ("WLAST", [IDLE, *[w(last=0)] * 256]),
        ("WDATA_NUM", [IDLE, aw(0, 2), w()]),               # ends too soon
        ("WDATA_NUM", [IDLE, w(last=0), w(), aw(0, 1)]),     # the address says so later
        ("WSTRB", [IDLE, aw(3), w(strb=0xFC)]),
        ("WSTRB", [IDLE, w(strb=0xFC), aw(3)]),
        ("WSTRB", [IDLE, aw(2, 2, size=1), w(strb=0x0C, last=0), w(strb=0x0C)]),
        ("WSTRB", [IDLE, aw(4, 2, size=2, burst=2), w(strb=0xF0, last=0), w(strb=0xF0)]),
        ("BRESP_WLAST", [IDLE, refused(b())]),
        ("BRESP_WLAST", [IDLE, aw(), b()]),                  # no data
        ("BRESP_WLAST", [IDLE, w(), b()]),                   # no address
        ("BRESP_WLAST", [IDLE, aw(0, 2), w(last=0), b()]),   # not all data
        ("BRESP_WLAST", [IDLE, aw(), on(w(), b())]),         # in the same cycle
        ("BRESP_WLAST", [IDLE, aw(id=0), w(), b(id=1)]),     # another id
        ("BRESP_WLAST", [IDLE, aw(), w(), b(), b()]),        # twice
        ("BRESP_EXOKAY", [IDLE, aw(), w(), b(resp=1)]),
        ("RID", [IDLE, refused(r())]),
        ("RID", [IDLE, on(ar(), r())]),
        ("RID", [IDLE, ar(id=0), r(id=1)]),
        ("RID", [IDLE, ar(), r(), r()]),
        ("RLAST", [IDLE, ar(0, 2), r(last=1)]),
        ("RLAST", [IDLE, ar(0, 2), r(last=0), r(last=0)]),
        ("RRESP_EXOKAY", [IDLE, ar(), r(resp=1)]),
    ],
    "axi_lite_monitor": [
        *_stability("aw", lite("aw", addr=8), ("awaddr",)),
        *_stability("ar", lite("ar", addr=8), ("araddr",)),
        *_stability("w", lite("w", data=8, strb=15), ("wdata", "wstrb")),
        *_prepared([lite("ar")], _stability("r", lite("r", data=1), ("rdata", "rresp"))),
        *_prepared([lite("aw"), lite("w")], _stability("b", lite("b"), ("bresp",))),
        ("BVALID_AW_W", [IDLE, lite("aw"), refused(lite("b"))]),
        ("BVALID_AW_W", [IDLE, lite("w"), refused(lite("b"))]),
        ("BVALID_AW_W", [IDLE, on(lite("aw"), lite("w"), lite("b"))]),
        ("BRESP_EXOKAY", [IDLE, lite("aw"), lite("w"), lite("b", resp=1)]),
        ("RVALID_AR", [IDLE, refused(lite("r"))]),
        ("RVALID_AR", [IDLE, lite("ar"), lite("r"), lite("r")]),
        ("RRESP_EXOKAY", [IDLE, lite("ar"), lite("r", resp=1)]),
    ],
    "axi_stream_monitor": _stability("t", t(), ("tdata", "tuser", "tlast")),
}

MONITORS = tuple(LEGAL)


def mutants(monitor, unknowns=True):
    """(rule, trace) for everything that breaks a rule; without ``unknowns``, none with an X."""
    return [(rule, trace) for rule, trace in _BROKEN[monitor]
            if unknowns or not rule.endswith("_X")]
