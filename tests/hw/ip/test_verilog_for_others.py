"""`make verilog`: what other people's tools read of it, what lint says, and whether it runs."""

import os
import pickle
import re
import subprocess
from xml.etree import ElementTree

import pytest
from amaranth import *
from amaranth.lib import wiring

from hw.config import TINY, preset
from hw.control.regmap import Register
from hw.ip.__main__ import WAIVED, main, module_name, write
from hw.ip.top import BUSES
from hw.memory.dram import timing_plusarg
from hw.top import Chip
from sim.campaigns.hostile_code import bases
from sim.simulators import _verilator_root
from sim.top import SOURCES, SimTop

SPIRIT = {"s": "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"}
NAME   = "attune_tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("ip")
    write(TINY, made)
    return made


def _texts(parent, path):
    return [found.text for found in parent.findall(path, SPIRIT)]


def test_ports_are_those_of_the_module(folder):
    text = (folder / f"{NAME}.v").read_text()
    body = text[text.index(f"module {NAME}("):].partition("endmodule")[0]
    declared = {name: (way, int(left or 0)) for way, left, name in re.findall(
        r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", body, re.MULTILINE)}
    top   = ElementTree.parse(folder / "component.xml").getroot()
    ports = {}
    for port in top.findall("s:model/s:ports/s:port", SPIRIT):
        name, = _texts(port, "s:name")
        way,  = _texts(port, "s:wire/s:direction")
        left  = _texts(port, "s:wire/s:vector/s:left")
        ports[name] = (f"{way}put", int(left[0]) if left else 0)
    assert ports == declared
    assert ports["m_axi_awcache"] == ("output", 3)
    assert ports["s_axi_awaddr"] == ("input", 11)
    mapped = _texts(top, ".//s:physicalPort/s:name")
    assert sorted(mapped) == sorted(declared)
    logical = dict(zip(mapped, _texts(top, ".//s:logicalPort/s:name"), strict=True))
    assert (logical["m_axi_rdata"], logical["m_axis_tlast"], logical["aresetn"]) == (
        "RDATA", "TLAST", "RST")


def test_interfaces_and_registers(folder):
    top = ElementTree.parse(folder / "component.xml").getroot()
    assert _texts(top, "s:busInterfaces/s:busInterface/s:name") == [
        "m_axi", "s_axi", "m_axis", "aclk", "aresetn", "interrupt"]
    assert dict(zip(_texts(top, ".//s:parameter/s:name"), _texts(top, ".//s:parameter/s:value"),
                    strict=True)) == {
        "ASSOCIATED_BUSIF": "s_axi:m_axi:m_axis", "ASSOCIATED_RESET": "aresetn",
        "POLARITY": "ACTIVE_LOW", "SENSITIVITY": "LEVEL_HIGH"}
    registers = top.findall(".//s:register", SPIRIT)
    places = {_texts(each, "s:name")[0]: int(_texts(each, "s:addressOffset")[0], 0)
              for each in registers}
    assert places["COUNTER_HI"] == 0x30 and len(places) == len(Register)
    assert _texts(top, "s:addressSpaces/s:addressSpace/s:range") == [str(4 << 20)]


def _lint(folder, *files):
    root = _verilator_root()
    ran  = subprocess.run(
        [str(root / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", NAME,
         *(str(folder / file) for file in files)], env=os.environ | {"VERILATOR_ROOT": str(root)},
        capture_output=True, text=True, check=False)
    return ran.returncode, set(re.findall(r"%Warning-([A-Z]+)", ran.stderr))


def test_lint_is_clean_but_for_what_is_waived_by_name(folder):
    assert _lint(folder, f"{NAME}.vlt", f"{NAME}.v") == (0, set())
    assert _lint(folder, f"{NAME}.v") == (1, set(WAIVED))


def test_constraints_and_machine(folder):
    assert "create_clock -name aclk -period 10.000 [get_ports aclk]\n" in (
        folder / "constraints.xdc").read_text()
    assert preset(str(folder / "machine.toml")).structure == TINY.structure


def test_a_name_that_is_none_in_verilog(tmp_path, capsys):
    machine = tmp_path / "my-own.toml"
    machine.write_text('base = "tiny"\n')
    assert module_name(preset(str(machine))) == "attune_my_own"
    assert main(["--config", "tinny"]) == 2
    assert "Unknown machine 'tinny'" in capsys.readouterr().err


class AsWritten(wiring.Component):
    """The chip as an instance of the module in the file."""

    def __init__(self):
        super().__init__(Chip(TINY).signature)

    def elaborate(self, platform):
        m = Module()
        ports = {"o_interrupt": self.irq}
        for bus, prefix in BUSES.items():
            for name, member in self.signature.members[bus].signature.members.items():
                way = "o" if member.flow is wiring.Out else "i"
                ports[f"{way}_{prefix}_{name}"] = Value.cast(getattr(getattr(self, bus), name))
        m.submodules.chip = Instance(NAME, i_aclk=ClockSignal(), i_aresetn=~ResetSignal(), **ports)
        return m


@pytest.mark.cosim
def test_it_runs_as_written(folder, cosimulate, tmp_path):
    """Frames and resets, byte for byte, with nothing but the file in the chip's place."""
    base, = bases(seeds=[5])
    (tmp_path / "base").write_bytes(pickle.dumps(base))
    (tmp_path / "image").write_bytes(base.image)
    cosimulate(SimTop(TINY, check=False, chip=AsWritten()), "tests.sim.bench_reset",
               sources=(*SOURCES, folder / f"{NAME}.v"),
               BASE=tmp_path / "base", DUMP=tmp_path / "dump",
               plusargs=[timing_plusarg(TINY), f"+offchip_image={tmp_path / 'image'}",
                         f"+offchip_dump={tmp_path / 'dump'}"])
