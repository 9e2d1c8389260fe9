import shlex

from sim.environment import command, environment
from sim.run import Options


def test_command_has_every_option_with_its_value():
    options = Options(config="tiny", frames=2, taps=True, image="my scan.png", out="somewhere")
    words   = shlex.split(command(options, size=32, width=4, dram="ddr3-1600"))
    assert words[:2] == ["make", "sim"]
    values  = dict(word.split("=", 1) for word in words[2:])
    expected = {"MODEL": "elec4848", "CONFIG": "tiny", "SIM": "verilator", "IMAGE": "my scan.png",
                "FRAMES": "2", "TAPS": "1", "PURE": "0", "SIZE": "32", "WIDTH": "4",
                "DRAM": "ddr3-1600"}
    assert expected.items() <= values.items()
    assert not {"OUT", "TRUTH", "MAX_CYCLES"} & values.keys()


def test_what_was_chosen_is_not_replaced():
    assert "SIZE=64" in command(Options(size=64), size=32).split()


def test_versions_and_machine():
    for simulator in ("verilator", "icarus"):
        found = environment(simulator)
        assert {"attune", "python", "torch", "amaranth", simulator} <= found["versions"].keys()
        assert found["versions"][simulator][0].isdigit()
        assert found["machine"]["cores"] >= 1 and found["machine"]["memory_bytes"] > 2**20
