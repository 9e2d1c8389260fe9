"""Machines and off-chip memories from files and from SET: what they say, and every mistake."""

import json
import tomllib

import jsonschema
import pytest

from golden.errors import InputError
from hw.config import DRAMS, MACHINES, PRESETS, REFERENCE, TINY, preset
from hw.machine import main, text_of


def file(folder, text, name="my.toml"):
    path = folder / name
    path.write_text(text)
    return str(path)


def refused(*given, **more):
    with pytest.raises(InputError) as refusal:
        preset(*given, **more)
    return str(refusal.value)


def test_a_file_changes_a_few_lines_of_a_base(tmp_path):
    config = preset(file(tmp_path, """
        base         = "reference"      # a comment
        onchip_bytes = "2 MiB"
        clock_mhz    = "0.2 GHz"
        [decoder]
        outputs      = 16
        """))
    assert config.name == "my" and config.base == "reference"
    assert config.changes == (("decoder.outputs", "8", "16"), ("onchip_bytes", "4 MiB", "2 MiB"),
                              ("clock_mhz", "300 MHz", "200 MHz"))
    assert (config.onchip_bytes, config.clock_mhz, config.decoder.outputs) == (2 << 20, 200, 16)
    assert config.encoder == REFERENCE.encoder and config.dram == REFERENCE.dram


def test_a_base_and_a_memory_may_be_files_beside_it(tmp_path):
    (tmp_path / "inner").mkdir()
    file(tmp_path / "inner", 'base = "ddr3-1600"\nrow_hit_ns = "0.02 us"\n', "mine.toml")
    file(tmp_path, 'base = "tiny"\ndram = "inner/mine.toml"\nclock_mhz = 200\n', "first.toml")
    config = preset(file(tmp_path, 'base = "first.toml"\nname = "second"\n'))
    assert (config.name, config.base) == ("second", "tiny")
    assert config.dram.name == "mine" and config.timing.row_hit == 4
    assert config.timing.activate == 3                  # 13.75 ns


@pytest.mark.parametrize("dram", [
    'dram = "lpddr4-3200"', '[dram]\nbase = "lpddr4-3200"', ('[dram]\nbase = "lpddr4-3200"\n'
    'name = "lpddr4-3200"')])
def test_a_memory_by_name_or_as_a_table(tmp_path, dram):
    made = preset(file(tmp_path, f'base = "tiny"\n{dram}\n')).dram
    assert made.timing(100) == DRAMS.shipped["lpddr4-3200"].timing(100)


def test_a_memory_file_for_dram(tmp_path):
    path = file(tmp_path, 'base = "ddr3-1600"\nbytes_per_second = "800 MB/s"\n', "half.toml")
    made = preset("tiny", dram=path)
    assert made.timing.bus_bytes_per_cycle == 8 and made.dram.name == "half"


def test_set_changes_what_a_file_says(tmp_path):
    path = file(tmp_path, 'base = "tiny"\ngate_lanes = 4\n')
    made = preset(path, dram="ddr4-2400",
                  changes="gate_lanes=8 decoder.transform=false dram.row_hit_ns=20ns "
                          "protection=onchip=secded,rows=parity")
    assert (made.name, made.base) == ("my-changed", "tiny")
    assert made.gate_lanes == 8 and not made.decoder.transform
    assert made.dram.name == "ddr4-2400-changed" and made.timing.row_hit == 2
    assert made.protects("onchip") == "secded" and made.protects("rows") == "parity"


@pytest.mark.parametrize("config", [*PRESETS.values(), preset(
    "tiny", dram="sdr-ulx3s", changes="onchip_bytes=1MiB clock_mhz=33.3 dram.row_hit_ns=1.5")],
    ids=lambda config: config.name)
def test_a_written_machine_reads_as_what_it_was(tmp_path, capsys, config):
    path = tmp_path / "again.toml"
    path.write_text(text_of(config))
    assert preset(str(path)) == config
    assert main(["--config", str(path)]) == 0
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(path.read_text())


MISTAKES = {
    "unknown": ("onchip_byte = 4096", "onchip_byte is unknown; did you mean onchip_bytes?"),
    "in a table": ("[decoder]\noutput = 4", ("decoder.output is unknown; did you mean "
                   "decoder.outputs?")),
    "elsewhere": ("weight_words = 4", ("weight_words is unknown; did you mean encoder.weight_words "
                  "or attention.weight_words or decoder.weight_words?")),
    "nowhere": ("[dram]\nfoo = 4", ("dram.foo is unknown; known are name, bytes_per_second, banks, "
                "row_bytes, row_hit_ns, activate_ns, precharge_ns, turnaround_ns, "
                "refresh_interval_ns, refresh_busy_ns, sdram_bits, cas, row_active_ns, "
                "row_cycle_ns, row_to_row_ns, write_recovery_ns, power_up_ns")),
    "no bare key": ('"a\\nb" = 4', ("'a\\nb' is unknown; known are name, vector, encoder, "
                    "attention, decoder, gate_lanes, gate_param_words, alpha_words, onchip_banks, "
                    "onchip_bytes, feedback_bytes, offchip_bytes, dram, clock_mhz, clock_source, "
                    "protection, channel_bounds, pipelined")),
    "range": ("clock_mhz = 9000", "clock_mhz must be from 1 MHz to 5000 MHz, not 9000 MHz"),
    "power": ("onchip_bytes = '3 MiB'", ("onchip_bytes must be a power of two from 16 B to 32 MiB, "
              "not 3 MiB")),
    "type": ("onchip_banks = 'four'", "onchip_banks must be a whole number, not 'four'"),
    "fraction": ("onchip_banks = 4.0", "onchip_banks must be a whole number, not 4.0"),
    "truth": ("onchip_banks = true", "onchip_banks must be a whole number, not true"),
    "list": ("clock_mhz = [1]", ('clock_mhz must be a number, or one with its unit ("300 MHz"), '
                                 "not [1]")),
    "no number": ("clock_mhz = nan", ('clock_mhz must be a number, or one with its unit ("300 '
                  'MHz"), not nan')),
    "text": ("name = 4", "name must be a text, not 4"),
    "unit": ("onchip_bytes = '2 MB'", ("onchip_bytes has an unknown unit: '2 MB'; known are B, "
                                       "KiB, MiB, GiB")),
    "part of a byte": ("feedback_bytes = '0.3 KiB'", ("feedback_bytes must be a whole number of "
                       "bytes, and 0.3 KiB is 307.2")),
    "no table": ("decoder = 4", "decoder must be a table, not 4"),
    "no memory": ("dram = 'hbm'", ("dram: Unknown off-chip memory 'hbm'; known are ddr4-2400, "
                  "ddr3-1600, lpddr4-3200, sdr-ulx3s, or the path of a .toml file")),
    "refresh": ("[dram]\nrefresh_busy_ns = 8000", ("dram.refresh_interval_ns (7800) must exceed "
                "refresh_busy_ns (8000)")),
    "protection": ("protection = 'onchip=ecc'", ("protection must be one of none, parity, secded, "
                   "or MEMORY=KIND with commas between, for onchip, feedback, rows, weights, "
                   "params, table, slots, alpha, gate_params, instructions, streams, queues; not "
                   "'onchip=ecc'")),
    "two sizes": ("[decoder]\ndrain = 2", "decoder.drain (2) must be at least outputs (4)"),
    "long": ("clock_mhz = '" + "9" * 200 + "'", 'clock_mhz must be a number, or one with its unit '
             '("300 MHz"), not \'' + "9" * 59 + "…"),
}


@pytest.mark.parametrize("text, line", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(tmp_path, text, line):
    path = file(tmp_path, f'base = "tiny"\n{text}\n')
    assert refused(path) == f"{path}: {line}"


def test_all_mistakes_at_once(tmp_path):
    """Rules about fields that are wrong themselves are not asked; the others are."""
    path = file(tmp_path, """
        base         = "tiny"
        onchip_byte  = 4
        clock_mhz    = "fast"
        gate_lanes   = 16
        [encoder]
        outputs      = 3
        [decoder]
        drain        = 2
        """)
    assert refused(path) == f"""{path} has 5 mistakes
  onchip_byte is unknown; did you mean onchip_bytes?
  encoder.outputs must be a power of two from 1 to 32, not 3
  decoder.drain (2) must be at least outputs (4)
  clock_mhz must be a number, or one with its unit ("300 MHz"), not 'fast'
  gate_lanes (16) must divide the vector (8)"""


def test_what_is_missing_is_told(tmp_path):
    path = file(tmp_path, "\n".join(
        line for line in MACHINES.files["tiny"].read_text().splitlines()
        if not line.startswith(("clock_mhz", "alpha_words"))))
    assert refused(path) == (f"{path}: lacks alpha_words, clock_mhz, and names no base that would "
                             "have them")


FILES = {
    "no TOML": (b"vector = ", "is no TOML: Invalid value (at end of document)"),
    "twice": (b"vector = 8\nvector = 8", ("is no TOML: Cannot overwrite a value (at end of "
              "document)")),
    "no text": (b"\xff\xfe", "is no text in UTF-8 (byte 0)"),
    "too long": (b"#" * 70_000, "has more than 64 KiB; a machine needs less"),
    "deep": (b"a = " + b"[" * 10_000, ("cannot be read as TOML: nested too deeply, or a number too "
             "long")),
    "digits": (b"vector = " + b"9" * 10_000, ("cannot be read as TOML: nested too deeply, or a "
               "number too long")),
}


@pytest.mark.parametrize("data, line", FILES.values(), ids=FILES)
def test_a_file_that_is_none_is_one_line(tmp_path, data, line):
    path = tmp_path / "my.toml"
    path.write_bytes(data)
    assert refused(str(path)) == f"{path} {line}"


def test_files_that_lead_nowhere(tmp_path):
    assert refused("huge") == ("Unknown machine 'huge'; known are "
                               f"{', '.join(PRESETS)}, or the path of a .toml file")
    assert refused("nowhere.toml") == "No file 'nowhere.toml'; name the TOML file of a machine"
    path = file(tmp_path, 'base = "other.toml"', "one.toml")
    file(tmp_path, 'base = "one.toml"', "other.toml")
    assert refused(path) == f"{path}: its base is itself, by way of one.toml, other.toml"
    path = file(tmp_path, "base = 3", "one.toml")
    assert refused(path).startswith(f"{path} has 2 mistakes\n  base must be the name of a machine "
                                    "or a path, not 3\n  lacks vector, encoder, ")
    path = file(tmp_path, 'base = "tiny"', "a b.toml")
    assert refused(path) == (
        f"{path}: name must be up to 64 letters, digits, dots, dashes and underscores, not 'a b', "
        "the name of the file; give it another, or a name in it")


@pytest.mark.parametrize("changes, line", [
    ("decoder.output=4", "SET: decoder.output is unknown; did you mean decoder.outputs?"),
    ("vector=7", "SET: vector must be a power of two from 8 B to 32 B, not 7 B"),
    ("decoder", ("SET takes NAME=value with blanks between, such as 'decoder.outputs=16 "
                "onchip_bytes=2MiB'; not 'decoder'")),
    ("vector=8 vector=8", "SET gives vector twice"),
    ("decoder=4 decoder.drain=4", "SET gives decoder both as a whole and in parts"),
    ("vector='8", "SET=\"vector='8\" cannot be read (No closing quotation)"),
    ("dram=hbm", ("SET: dram: Unknown off-chip memory 'hbm'; known are ddr4-2400, ddr3-1600, "
                 "lpddr4-3200, sdr-ulx3s, or the path of a .toml file")),
])
def test_set_that_is_wrong_is_one_line(changes, line):
    assert refused("tiny", changes=changes) == line


def test_the_schema_takes_every_shipped_file_and_refuses_mistakes(capsys):
    assert main(["--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for path in MACHINES.files.values():
        check.validate(tomllib.loads(path.read_text()))
    memory = jsonschema.Draft202012Validator(DRAMS.schema())
    for path in DRAMS.files.values():
        memory.validate(tomllib.loads(path.read_text()))
    for text in ("onchip_byte = 4", "vector = 7", "clock_mhz = 9000", "onchip_bytes = '2 MB'",
                 "[decoder]\noutputs = 'four'", "dram = 3", "[dram]\nbanks = 3"):
        assert not check.is_valid(tomllib.loads(text)), text
    for text in ("base = 'my.toml'", "[dram]\nbase = 'ddr3-1600'", "onchip_bytes = '2 MiB'"):
        assert check.is_valid(tomllib.loads(text)), text


def test_a_machine_is_written_once(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    arguments = ["--config", "tiny", "--set", "gate_lanes=4", "--out", str(path)]
    assert main(arguments) == 0
    assert path.read_text().startswith("# 112 MAC lanes (32 + 16 + 64).\n# Begun from tiny:\n"
                                       "# gate_lanes: 2 became 4\n")
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {path} exists already; name another file\n"
    assert preset(str(path)).gate_lanes == 4 and TINY.gate_lanes == 2


def test_whose_clock_it_is_is_said_of_that_clock_alone(tmp_path):
    routed = tmp_path / "routed.toml"
    routed.write_text('base = "tiny"\nclock_mhz = 64\nclock_source = "place-and-route"\n')
    sources = {changes: preset(str(routed), changes=changes).clock_source for changes in (
        None, "onchip_banks=2", "clock_mhz=80", "clock_mhz=80 clock_source=place-and-route")}
    assert list(sources.values()) == ["place-and-route", "place-and-route", "configured",
                                      "place-and-route"]
    faster = tmp_path / "faster.toml"
    faster.write_text('base = "routed.toml"\nclock_mhz = 80\n')
    assert preset(str(faster)).clock_source == "configured"
