"""AXI4 and AXI4-Lite as signatures.

Members bear the names of the standard, flat, so that a port ``axi`` becomes ``axi__araddr`` and so
on in Verilog, and ``AxiBus.from_prefix(dut, "axi_")`` of cocotbext-axi attaches to it.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

PAGE_BYTES = 4096
"""No burst crosses a multiple of this."""

MAX_BURST_BEATS = 256


class Response(enum.Enum, shape=2):
    OKAY   = 0
    EXOKAY = 1
    SLVERR = 2      # the memory failed
    DECERR = 3      # there is no memory at this address


class BurstType(enum.Enum, shape=2):
    FIXED = 0
    INCR  = 1
    WRAP  = 2


def _read_members(data_width, address_width, id_width):
    return {
        "arid":    Out(id_width),
        "araddr":  Out(address_width),
        "arlen":   Out(8),      # beats - 1
        "arsize":  Out(3),      # log2(bytes per beat)
        "arburst": Out(BurstType, init=BurstType.INCR),
        "arvalid": Out(1),
        "arready": In(1),
        "rid":     In(id_width),
        "rdata":   In(data_width),
        "rresp":   In(Response),
        "rlast":   In(1),
        "rvalid":  In(1),
        "rready":  Out(1),
    }


def _write_members(data_width, address_width, id_width):
    return {
        "awid":    Out(id_width),
        "awaddr":  Out(address_width),
        "awlen":   Out(8),
        "awsize":  Out(3),
        "awburst": Out(BurstType, init=BurstType.INCR),
        "awvalid": Out(1),
        "awready": In(1),
        "wdata":   Out(data_width),
        "wstrb":   Out(data_width // 8),
        "wlast":   Out(1),
        "wvalid":  Out(1),
        "wready":  In(1),
        "bid":     In(id_width),
        "bresp":   In(Response),
        "bvalid":  In(1),
        "bready":  Out(1),
    }


def _check(data_width, address_width):
    if data_width not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise ValueError("AXI data width must be a power of two from 8 to 1024, "
                         f"not {data_width!r}")
    if not 1 <= address_width <= 64:
        raise ValueError(f"AXI address width must be 1 to 64, not {address_width!r}")


class _Axi4Signature(wiring.Signature):
    _members = ()

    def __init__(self, *, data_width, address_width, id_width=1):
        _check(data_width, address_width)
        if not 1 <= id_width <= 4:
            raise ValueError(f"AXI id width must be 1 to 4, not {id_width!r}")
        self.data_width    = data_width
        self.address_width = address_width
        self.id_width      = id_width
        super().__init__({name: member for members in self._members
                          for name, member in members(data_width, address_width,
                                                      id_width).items()})

    @property
    def size(self):
        """Value of ``arsize`` and ``awsize`` for beats of the full width."""
        return (self.data_width // 8).bit_length() - 1


class AxiRead(_Axi4Signature):
    """Channels AR and R of an AXI4 manager: ``Out(AxiRead(...))`` makes a manager's port."""
    _members = (_read_members,)


class AxiWrite(_Axi4Signature):
    """Channels AW, W and B of an AXI4 manager."""
    _members = (_write_members,)


class Axi4(_Axi4Signature):
    """All five channels of an AXI4 manager, without lock, cache, protection, QoS, region and user.

    Parameters
    ----------
    data_width : int
        Bits per beat.
    address_width : int
        Bits of a byte address.
    id_width : int
        1 to 4.
    """
    _members = (_read_members, _write_members)


def _half(axi, signature):
    sig = signature(data_width=axi.signature.data_width, id_width=axi.signature.id_width,
                    address_width=axi.signature.address_width)
    if isinstance(axi.signature, wiring.FlippedSignature):
        sig = sig.flip()
    half = sig.create()
    for name in sig.members:
        setattr(half, name, getattr(axi, name))
    return half


def read_half(axi):
    """The :class:`AxiRead` part of an :class:`Axi4` interface, for ``connect``."""
    return _half(axi, AxiRead)


def write_half(axi):
    """The :class:`AxiWrite` part of an :class:`Axi4` interface, for ``connect``."""
    return _half(axi, AxiWrite)


class AxiLite(wiring.Signature):
    """AXI4-Lite manager: ``Out(AxiLite(...))`` makes a manager's port, ``In`` a subordinate's."""

    def __init__(self, *, data_width=32, address_width):
        if data_width not in (32, 64):
            raise ValueError(f"AXI4-Lite data width must be 32 or 64, not {data_width!r}")
        _check(data_width, address_width)
        self.data_width    = data_width
        self.address_width = address_width
        super().__init__({
            "awaddr":  Out(address_width),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata":   Out(data_width),
            "wstrb":   Out(data_width // 8),
            "wvalid":  Out(1),
            "wready":  In(1),
            "bresp":   In(Response),
            "bvalid":  In(1),
            "bready":  Out(1),
            "araddr":  Out(address_width),
            "arvalid": Out(1),
            "arready": In(1),
            "rdata":   In(data_width),
            "rresp":   In(Response),
            "rvalid":  In(1),
            "rready":  Out(1),
        })
