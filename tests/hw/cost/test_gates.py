# amaranth: UnusedElaboratable=no
import shutil

import pytest

from hw.cost import gates
from hw.cost.parts import parts
from hw.cost.synth import SynthesisError
from tests.hw.cost.block import Block

TIMING = """ timing () {{ related_pin : "{}"; timing_sense : non_unate;
      cell_rise (scalar) {{ values ("0.1"); }} cell_fall (scalar) {{ values ("0.1"); }}
      rise_transition (scalar) {{ values ("0.1"); }}
      fall_transition (scalar) {{ values ("0.1"); }} }}
"""
PIN = " pin ({}) {{ direction : input; capacitance : 0.01; }}"


def cell(name, area, function):
    pins = [pin for pin in "AB" if pin in function]
    return (f"cell ({name}) {{ area : {area};" + "".join(map(PIN.format, pins))
            + f' pin (Y) {{ direction : output; function : "{function}";'
            + "".join(map(TIMING.format, pins)) + " } }\n")


FLOP = """
  cell (DFF) { area : 8; ff (IQ, IQN) { clocked_on : "CLK"; next_state : "D"; }
    pin (CLK) { direction : input; clock : true; capacitance : 0.01; }
    pin (D) { direction : input; capacitance : 0.01; }
    pin (Q) { direction : output; function : "IQ"; } }
"""


@pytest.fixture
def liberty(tmp_path):
    """Inverter and buffer of 1 um2, gates of 2 um2 and a flip-flop of 8 um2; without timing."""
    file = tmp_path / "cells.lib"
    file.write_text("library (cells) {" + "".join([
        cell("INV", 1, "(!A)"), cell("BUF", 1, "(A)"), cell("NAND2", 2, "(!(A * B))"),
        cell("NOR2", 2, "(!(A + B))"), cell("XOR2", 2, "(A ^ B)"), FLOP]) + "}\n")
    return file


def test_area_is_of_gates_and_memories_are_bits(liberty, tmp_path, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(gates.shutil, "which",
                        lambda name, **where: None if name == "sta" else which(name, **where))
    text  = parts(Block())[""].text()
    found = gates.gates_of(text, liberty, kept=tmp_path / "kept")
    assert found["memory_bits"] == 16 * 1024
    assert (found["path_ns"], found["nj_per_cycle"]) == (None, None)
    assert 16 * 8 + 400 < found["area"] < 16 * 8 + 4000         # 16 flip-flops and a multiplier

    def never():
        raise AssertionError("it was kept")

    assert gates.gates_of(text, liberty, kept=tmp_path / "kept", progress=never) == found


def test_no_inverter_to_drive_inputs(tmp_path):
    (tmp_path / "cells.lib").write_text("library (cells) {" + FLOP + "}\n")
    with pytest.raises(gates.InputError, match="^The liberty file has no cell with INV in its"):
        gates.gates_of("module \\top\nend\n", tmp_path / "cells.lib", kept=tmp_path)


def test_not_a_liberty_file(tmp_path):
    (tmp_path / "cells.lib").write_text("library (cells) { cell (INV) {")
    with pytest.raises(SynthesisError, match="^Yosys failed:  *Unexpected end of file$"):
        gates.gates_of("module \\top\nend\n", tmp_path / "cells.lib", kept=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["cells.lib"]


@pytest.mark.parametrize("words, line", [
    (["--liberty=none.lib"], ("No liberty file 'none.lib'; name one (LIBERTY=), or apt-get install "
                              "qflow-tech-osu018 (and opensta, for timing and power)")),
    (["--feature=0"], "FEATURE must be from 0.001 to 10 um, not 0"),
    (["--feature=nan"], "FEATURE must be from 0.001 to 10 um, not nan"),
    (["--only=coprocessor"], "No block has 'coprocessor' in its name; there are controller, "),
])
def test_mistakes_are_one_line(words, line, liberty, capsys):
    assert gates.main([f"--liberty={liberty}", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(f"error: {line}")


def test_area_of_a_bit():
    """In 0.18 um 4.86 um2, which are 70 % of its share of the memory."""
    assert gates.bit_area(0.18) == pytest.approx(6.943, abs=0.001)
    assert gates.bit_area(0.36) == pytest.approx(4 * gates.bit_area(0.18))
