import json

import jsonschema
import pytest

from golden.errors import InputError
from sim.measured import read_report, refusal
from sim.report import SCHEMA
from tests.sim.reports import imaginary, save

MISMATCH = {"frame": 0, "layer": "c2", "channel": 1, "row": 2, "column": 3, "expected": 4, "got": 5}


def test_imaginary_report_follows_the_schema():
    jsonschema.validate(imaginary(), json.loads(SCHEMA.read_text()))


def test_report_by_folder_and_by_file(tmp_path):
    save(tmp_path / "run", imaginary())
    assert read_report(tmp_path / "run") == read_report(tmp_path / "run" / "report.json") \
        == imaginary()


@pytest.mark.parametrize("name, line", [
    ("nothing", "No report at 'nothing'; name the folder of a run, such as reports/latest"),
    ("empty", "No report at 'empty'; name the folder of a run, such as reports/latest"),
    ("text.json", ("'text.json' cannot be read as JSON (Expecting value: line 1 column 1 "
                   "(char 0)); repeat the run")),
    ("other.json", ("'other.json' is no report of a run: it lacks bit_exact, cycles; name the "
                    "folder of a run, such as reports/latest")),
])
def test_no_report(tmp_path, monkeypatch, name, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("cycles\n")
    report = imaginary()
    del report["cycles"], report["bit_exact"]
    (tmp_path / "other.json").write_text(json.dumps(report))
    with pytest.raises(InputError) as caught:
        read_report(name)
    assert str(caught.value) == line


def test_exact_run_counts():
    assert refusal(imaginary()) is None


@pytest.mark.parametrize("changes, reason", [
    ({"bit_exact": False, "tensors.mismatched": 2, "tensors.first_mismatch": MISMATCH},
     "not bit-exact: 2 of 5 tensors differ, first c2 of frame 0"),
    ({"tensors.mismatched": 1}, "not bit-exact: 1 of 5 tensors differ"),
    ({"bit_exact": False}, "not bit-exact: 0 of 5 tensors differ"),
    ({"tensors.problems": ["c1 lacks a row"]}, "not bit-exact: 0 of 5 tensors differ"),
    ({"tensors.first_mismatch": MISMATCH}, "not bit-exact, first c2 of frame 0"),
    ({"tensors.compared": 0}, "not bit-exact: no tensor was compared"),
    ({"units.encoder.stack.issue": 601},
     "inconsistent: the causes of encoder sum to 1001 cycles, and the run took 1000"),
])
def test_forged_report_does_not_count(changes, reason):
    assert refusal(imaginary(**changes)) == reason
