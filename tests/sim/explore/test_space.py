import pytest

from golden.errors import InputError
from hw.config import PRESETS
from sim.explore.space_file import SHIPPED, read_space
from tests.sim.explore.spaces import SIX, space_of


def test_a_file_and_its_machines(tmp_path):
    space = space_of(tmp_path)
    assert (space.name, space.model, space.size, space.width, space.frames) == (
        "six", "elec4848", 16, 4, 1)
    assert space.base == PRESETS["tiny"]
    assert space.parameters == {"decoder.outputs": (1, 2, 4), "onchip_bytes": (32768, 65536)}
    assert [space.knobs(number) for number in range(space.machines)] == [
        {"decoder.outputs": outputs, "onchip_bytes": size}
        for outputs in (1, 2, 4) for size in (32768, 65536)]
    assert [space.number({"decoder.outputs": a, "onchip_bytes": b})
            for a in range(3) for b in range(2)] == list(range(6))
    made = space.machine(4)
    assert made == space.candidate(4).config
    assert (made.name, made.decoder.outputs, made.onchip_bytes) == ("six-4", 4, 32768)
    assert made.base == "tiny" and made.encoder == PRESETS["tiny"].encoder
    assert made.changes == (("onchip_bytes", "64 KiB", "32 KiB"),)


@pytest.mark.parametrize("given, values", [
    ("onchip_bytes = { from = '16 KiB', to = '64 KiB' }", (16384, 32768, 65536)),
    ("onchip_bytes = { from = '16 KiB', to = '256 KiB', factor = 4 }", (16384, 65536, 262144)),
    ("feedback_bytes = { from = '16 KiB', to = '40 KiB', step = '8 KiB' }",
     (16384, 24576, 32768, 40960)),
    ("clock_mhz = { from = 100, to = '0.2 GHz', step = 50 }", (100, 150, 200)),
    ("clock_mhz = { from = 100, to = 101, step = 0.3 }", (100, 100.3, 100.6, 100.9)),
    ("'encoder.transform' = [true, false]", (True, False)),
    ("dram = ['ddr3-1600', 'lpddr4-3200']", ("ddr3-1600", "lpddr4-3200")),
    ("dram.row_hit_ns = [10, 20]", (10, 20)),
])
def test_values(tmp_path, given, values):
    space = space_of(tmp_path, f'base = "tiny"\nobjectives = ["cycles"]\n[parameters]\n{given}\n')
    (path, found), = space.parameters.items()
    assert found == values
    for number, value in enumerate(values):
        made = space.candidate(number)
        assert not made.status
        config = made.config
        for part in path.split("."):
            config = getattr(config, part)
        assert getattr(config, "name", config) == value


def test_machines_that_cannot_be_have_a_reason(tmp_path):
    space = space_of(tmp_path, """
base = "tiny"
objectives = ["cycles"]
constraints = ["encoder.outputs * 2 <= decoder.outputs", "cycles < 9"]
[parameters]
encoder.outputs = [1, 2, 4]
encoder.drain = [2]
decoder.outputs = [4, 16]
""")
    found = [space.candidate(number) for number in range(6)]
    assert [(one.status, one.reason) for one in found] == [
        ("", ""),
        ("refused", ("decoder.drain (8) must be at least outputs (16)")),
        ("", ""),
        ("refused", ("decoder.drain (8) must be at least outputs (16)")),
        ("refused", ("encoder.drain (2) must be at least outputs (4)")),
        ("refused", ("encoder.drain (2) must be at least outputs (4); "
                     "decoder.drain (8) must be at least outputs (16)"))]
    space = space_of(tmp_path, SIX.replace("mac_lanes >= 64", "mac_lanes > 64 or cycles < 0"))
    assert not space.candidate(0).status            # who knows, before it ran
    assert space.broken(space.candidate(0), {"mac_lanes": 64, "cycles": 1}) == (
        "mac_lanes > 64 or cycles < 0")
    assert space.broken(space.candidate(0), {"mac_lanes": 65, "cycles": 1}) is None
    space = space_of(tmp_path, SIX.replace(">= 64", "> 64"))
    assert (space.candidate(0).status, space.candidate(0).reason) == (
        "excluded", "not mac_lanes > 64")


def test_the_hash_is_of_what_is_said(tmp_path):
    first = space_of(tmp_path).hash
    assert space_of(tmp_path, f"# a comment\n{SIX}", "other").hash == first
    for a, b in (("[1, 2, 4]", "[1, 2]"), ("size        = 16", "size = 32"), ("64 KiB", "128 KiB"),
                 (">= 64", ">= 65"), ('"mac_lanes"', '"multipliers"')):
        assert a in SIX and space_of(tmp_path, SIX.replace(a, b)).hash != first


MISTAKES = [
    ('bass = "tiny"', "bass is unknown; did you mean base?"),
    ("size = 0", "size must be from 1 to 16384, not 0"),
    ("size = 20", "Frame size must be a positive multiple of 16, not 20; try 16"),
    ("frames = true", "frames must be a whole number, not true"),
    ('base = "huge"', ("base: Unknown machine 'huge'; known are reference, edge, tiny, large, or "
                      "the path of a .toml file")),
    ('model = "resnet"', ("model: No model 'resnet'; known: elec4848, elec4848-ds, "
                         "elec4848-ds-published, elec4848-classes, unet-busi, attunet-nuclei, "
                         "attunet-ct")),
    ('objectives = ["latenc"]', "objectives: 'latenc' is unknown; did you mean latency?"),
    ('objectives = ["interval"]',
     "objectives: interval is of a stream; give frames = 2 or more"),
    ('objectives = ["utilisation"]', "objectives: 'utilisation' is nothing to be small"),
    ('objectives = ["dram"]', "objectives: 'dram' is nothing to be small"),
    ('objectives = ["cycles", "cycles"]', "objectives: names one twice"),
    ("objectives = []", 'lacks objectives, a list such as ["latency", "mac_lanes"]'),
    ('constraints = "x"', 'constraints must be a list such as ["mac_lanes <= 1024"]'),
    ('constraints = ["mac_lane < 9"]',
     "constraint 'mac_lane < 9': 'mac_lane' is unknown; did you mean mac_lanes?"),
    ('constraints = ["mac_lanes"]', ("constraint 'mac_lanes' compares nothing; write it like "
                                    "mac_lanes <= 1024")),
    ('constraints = ["dram < 9"]', "constraint 'dram < 9' mixes numbers and texts"),
    ("[parameters]", ("lacks [parameters], such as outputs = [4, 8] in [parameters.decoder]; "
                     "without any, the space has one machine")),
]
KNOBS = [
    ("decoder.output = [1]", "decoder.output is unknown; did you mean decoder.outputs?"),
    ("outputs = [1]", ("outputs is unknown; did you mean encoder.outputs or attention.outputs or "
                      "decoder.outputs?")),
    ("decoder.outputs = [3]", "decoder.outputs must be a power of two from 1 to 32, not 3"),
    ("decoder.outputs = []", "decoder.outputs has no values"),
    ("decoder.outputs = [4, 4]", "decoder.outputs has a value twice"),
    ("decoder.outputs = 4", ("decoder.outputs must be a list of values, or {from, to, step} or "
                            "{from, to, factor}, not 4")),
    ("decoder = 4", "decoder must be a table of knobs, not 4"),
    ("onchip_bytes = ['1 TiB']", ("onchip_bytes has an unknown unit: '1 TiB'; known are B, KiB, "
                                 "MiB, GiB")),
    ("onchip_bytes = { from = '64 KiB', to = '16 KiB' }",
     "onchip_bytes is an empty range: from 64 KiB to 16 KiB"),
    ("clock_mhz = { from = 100, to = 200 }", "clock_mhz lacks the step or factor of its range"),
    ("clock_mhz = { from = 100, to = 200, steps = 5 }",
     "clock_mhz has 'steps'; did you mean step?"),
    ("clock_mhz = { from = 100, to = 200, factor = 1 }",
     "clock_mhz grows by a factor above 1, not 1"),
    ("clock_mhz = { from = 100, to = 200, step = -5 }",
     "clock_mhz goes in steps of a number above 0, not -5"),
    ("clock_mhz = { from = 1, to = 5000, step = 1 }", "clock_mhz has more than 1000 values"),
    ("dram = ['hbm']", ("dram: Unknown off-chip memory 'hbm'; known are ddr4-2400, ddr3-1600, "
                       "lpddr4-3200, sdr-ulx3s, or the path of a .toml file")),
    ("name = ['a']", "name is no parameter; machines are called by their numbers"),
    ('"decoder.outputs" = [4]\ndecoder.outputs = [8]', "parameters give decoder.outputs twice"),
]


def _whole(lines, knobs="clock_mhz = [100]"):
    plain = {"base": '"tiny"', "objectives": '["cycles"]'}
    for name, _, value in (line.partition(" = ") for line in lines):
        if name == "bass":
            plain = {name: value} | plain
        elif name != "[parameters]":
            plain[name] = value
    head = "\n".join(f"{name} = {value}" for name, value in plain.items())
    return f"{head}\n[parameters]\n{'' if '[parameters]' in lines else knobs}\n"


@pytest.mark.parametrize("given, line", [*MISTAKES, *KNOBS])
def test_a_mistake_is_one_line(tmp_path, given, line):
    text = _whole([given]) if (given, line) in MISTAKES else _whole([], given)
    with pytest.raises(InputError) as refused:
        space_of(tmp_path, text)
    assert str(refused.value) == f"{tmp_path / 'six.toml'}: {line}"


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(InputError) as refused:
        space_of(tmp_path, 'base = "tiny"\nframes = 0\n[parameters]\nalpha_word = [2]\n')
    assert str(refused.value).splitlines() == [
        f"{tmp_path / 'six.toml'} has 3 mistakes",
        "  frames must be from 1 to 1000, not 0",
        "  alpha_word is unknown; did you mean alpha_words?",
        '  lacks objectives, a list such as ["latency", "mac_lanes"]']


def test_files_that_are_none(tmp_path):
    for name, line in ((tmp_path / "no.toml", "No file {!r}; name the TOML file of a space"),
                       ("huge", ("Unknown space {!r}; known are clocks, lanes, tiny, or the path "
                                "of a .toml file"))):
        with pytest.raises(InputError) as refused:
            read_space(str(name))
        assert str(refused.value) == line.format(str(name))


def test_the_shipped_ones():
    tiny, lanes = read_space("tiny"), read_space("lanes")
    assert list(SHIPPED) == ["clocks", "lanes", "tiny"]
    assert sum(not tiny.candidate(number).status for number in range(tiny.machines)) == 120
    assert lanes.machines == 18_432
    # Of every third machine: it takes as long as all other tests of this file.
    possible = sum(not lanes.candidate(number).status for number in range(0, lanes.machines, 37))
    assert possible * 37 >= 10_000
