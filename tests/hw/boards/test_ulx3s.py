# amaranth: UnusedElaboratable=no
"""The board's clock and pins."""

import pytest

from hw.boards.ulx3s import CRYSTAL_MHZ, VCO_MHZ, Ulx3s, platform, pll_dividers
from hw.config import EDGE
from tests.hw.boards.stub import Stub


@pytest.mark.parametrize("clock_mhz", [12.5, 25, 30, 37.5, 40, 45, 50, 62.5, 100])
def test_the_pll_is_in_its_range(clock_mhz):
    divided, feedback, output = pll_dividers(clock_mhz)
    assert CRYSTAL_MHZ * feedback / divided == clock_mhz
    assert CRYSTAL_MHZ / divided >= 3.125      # the phase detector's least, of the same data sheet
    assert VCO_MHZ.start <= clock_mhz * output < VCO_MHZ.stop


def test_pins_and_clock_are_those_of_the_board():
    files = platform().prepare(Ulx3s(EDGE, chip=Stub(EDGE)), name="top").files
    for pin, site in (("clk25_0", "G2"), ("sdram_0__clk", "F19"), ("sdram_0__dq", "J16"),
                      ("uart_0__rx", "M1"), ("uart_0__tx", "L4"), ("led_7", "H3")):
        lane = "[0]" if pin.endswith("dq") else ""
        assert f'LOCATE COMP "{pin}__io{lane}" SITE "{site}"' in files["top.lpf"]
    for cell, count in (("EHXPLLL", 1), ("ODDRX1F", 1), ("IFS1P3DX", 16)):
        assert files["top.il"].count(f"cell \\{cell} ") == count, cell
