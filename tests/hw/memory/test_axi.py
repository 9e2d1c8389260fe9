import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from hw.memory.axi import Axi4, AxiLite, AxiRead, AxiWrite, read_half, write_half

WIDTHS = {"data_width": 64, "address_width": 20, "id_width": 2}


def test_axi4_is_its_two_halves():
    read, write, both = AxiRead(**WIDTHS), AxiWrite(**WIDTHS), Axi4(**WIDTHS)
    assert {**dict(read.members.items()), **dict(write.members.items())} == dict(
        both.members.items())
    assert read.size == 3
    assert read.members["araddr"].shape == 20
    assert write.members["wstrb"].shape == 8
    assert write.members["bid"].shape == 2


def test_lite_widths():
    lite = AxiLite(address_width=12)
    assert lite.members["wdata"].shape == lite.members["rdata"].shape == 32
    assert lite.members["wstrb"].shape == 4
    assert lite.members["araddr"].flow == Out
    assert lite.members["rvalid"].flow == In


class Crossing(wiring.Component):
    """Two half managers joined into one port."""
    reads:  In(AxiRead(**WIDTHS))
    writes: In(AxiWrite(**WIDTHS))
    axi:    Out(Axi4(**WIDTHS))

    def elaborate(self, platform):
        m = Module()
        connect(m, flipped(self.reads), read_half(flipped(self.axi)))
        connect(m, flipped(self.writes), write_half(flipped(self.axi)))
        return m


def test_halves_connect_both_ways():
    dut = Crossing()

    async def drive(ctx):
        ctx.set(dut.reads.araddr, 0x12345)
        ctx.set(dut.writes.wstrb, 0xA5)
        ctx.set(dut.axi.rdata, 77)
        ctx.set(dut.axi.bid, 3)
        assert ctx.get(dut.axi.araddr) == 0x12345
        assert ctx.get(dut.axi.wstrb) == 0xA5
        assert ctx.get(dut.reads.rdata) == 77
        assert ctx.get(dut.writes.bid) == 3

    sim = Simulator(dut)
    sim.add_testbench(drive)
    sim.run()


@pytest.mark.parametrize(("make", "parameters", "message"), [
    (Axi4, {"data_width": 24, "address_width": 8},
     r"^AXI data width must be a power of two from 8 to 1024, not 24$"),
    (AxiRead, {"data_width": 32, "address_width": 0},
     r"^AXI address width must be 1 to 64, not 0$"),
    (AxiWrite, {"data_width": 32, "address_width": 8, "id_width": 5},
     r"^AXI id width must be 1 to 4, not 5$"),
    (AxiLite, {"data_width": 128, "address_width": 8},
     r"^AXI4-Lite data width must be 32 or 64, not 128$"),
    (AxiLite, {"address_width": 65}, r"^AXI address width must be 1 to 64, not 65$"),
])
def test_wrong_parameters(make, parameters, message):
    with pytest.raises(ValueError, match=message):
        make(**parameters)
