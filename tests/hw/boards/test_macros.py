import json

import numpy as np
import pytest

from hw.boards import macros
from hw.boards.macros import SITES, pads_of, place_macros


def cell(kind, **connections):
    return {"type": kind, "attributes": {}, "connections": connections}


def chain(rows):
    """Block RAMs between a pad on the left and one on the right, four LUTs behind each."""
    cells, net = {"left": cell("TRELLIS_IO", O=[2])}, 2
    for ram in range(rows):
        cells[f"ram_{ram}"] = cell("DP16KD", ADA0=[net], DOA0=[net + 1], CLKA=[1])
        net += 1
        for lut in range(4):
            cells[f"lut_{ram}_{lut}"] = cell("LUT4", A=[net], Z=[net + 1])
            net += 1
    cells["right"] = cell("TRELLIS_IO", I=[net])
    return {"cells": cells}


PADS = {"left": (0, 46), "right": (126, 46)}


def sites_of(module):
    where = {name: (x, y) for kind in SITES.values() for x, y, name in kind}
    return {name: where[cell["attributes"]["BEL"]] for name, cell in module["cells"].items()
            if "BEL" in cell["attributes"]}


def test_every_macro_has_a_site_of_its_own_kind():
    module = chain(8)
    module["cells"]["times"] = cell("MULT18X18D", A0=[3], P0=[9])
    place_macros(module, PADS)
    kinds = {name: kind for kind, sites in SITES.items() for _, _, name in sites}
    given = {name: kinds[cell["attributes"]["BEL"]] for name, cell in module["cells"].items()
             if "BEL" in cell["attributes"]}
    assert given == {**{f"ram_{number}": "DP16KD" for number in range(8)}, "times": "MULT18X18D"}
    assert len(set(sites_of(module).values())) == 9


def test_a_chain_between_two_pads_goes_straight():
    """In their order from left to right, and in the row of the pads."""
    module = chain(10)
    wires  = place_macros(module, PADS)
    found  = sites_of(module)
    columns, rows = zip(*(found[f"ram_{number}"] for number in range(10)), strict=True)
    assert list(columns) == sorted(columns)
    assert set(rows) == {46}
    assert 126 <= wires < 1.3 * 126


def test_wires_are_what_they_are_with_the_sites_that_were_given():
    """The estimate of a chain of block RAMs alone, by hand: they are all there is."""
    cells, count = {"left": cell("TRELLIS_IO", O=[0])}, 6
    for ram in range(count):
        cells[f"ram_{ram}"] = cell("DP16KD", ADA0=[ram], DOA0=[ram + 1])
    module = {"cells": cells}
    wires  = place_macros(module, {"left": (0, 46)})
    path   = [(0, 46), *(sites_of(module)[f"ram_{ram}"] for ram in range(count))]
    assert wires == sum(abs(x - v) + abs(y - w)
                        for (x, y), (v, w) in zip(path[:-1], path[1:], strict=True))


def test_the_same_netlist_gets_the_same_sites():
    first, second = chain(20), chain(20)
    assert place_macros(first, PADS) == place_macros(second, PADS)
    assert sites_of(first) == sites_of(second)


def test_all_sites_may_be_taken_but_no_more():
    everything = {"cells": {f"ram_{number}": cell("DP16KD", ADA0=[number], DOA0=[number + 1])
                            for number in range(208)}}
    place_macros(everything, {}, rounds=5)
    assert len(set(sites_of(everything).values())) == 208
    everything["cells"]["ram_208"] = cell("DP16KD", ADA0=[0])
    with pytest.raises(ValueError, match="^There are 208 DP16KD, not 209$"):
        place_macros(everything, {})


def test_logic_is_pulled_apart_where_there_is_too_much():
    """All of it at one place: afterwards every part of the chip has room for what is there."""
    many = 20_000
    at   = np.full((2, many), 60.0) + np.random.default_rng(0).normal(0, 1, (2, many))
    area = np.ones(many)
    away = macros._apart(at, area, area > 0)
    parts = np.histogram2d(*away, bins=8, range=((1, 126), (1, 95)))[0]
    room  = macros.ROOM * (125 / 8) * (94 / 8)
    assert parts.max() <= room + 8 and parts.sum() == many
    assert (parts > 0).sum() < 1.5 * many / room + 4, "and no farther than that"


def test_pads_are_read_from_what_nextpnr_says():
    log = ("Info: pin 'top.pads.dq.buf.buf15' constrained to Bel 'X126/Y20/PIOC'.\n"
           "Info: constraining clock net 'clk' to 25.00 MHz\n"
           "Info: pin 'led' constrained to Bel 'X0/Y44/PIOA'.\n")
    assert pads_of(log) == {"top.pads.dq.buf.buf15": (126, 20), "led": (0, 44)}


def test_progress_is_told():
    told = []
    place_macros(chain(3), PADS, rounds=4, progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert json.loads(json.dumps(chain(3)))     # a netlist stays one of JSON
