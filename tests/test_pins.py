"""What ``make test`` says of figures that became better; only ``make pins`` writes them."""

import json
from pathlib import Path

import pytest

from tests import conftest

pytest_plugins = ["pytester"]
BENCH = """
import pytest
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_run(record_property, name):
    record_property("pins", {name: {"cycles": 5}})
"""


@pytest.mark.parametrize("words, written", [([], False), (["--pins"], True)])
def test_workers_write_no_pins(pytester, monkeypatch, words, written):
    """Each read, changed and wrote the whole tracked file: one lost what the other had found."""
    pins = {name: {"cycles": 7} for name in "abcde"}
    file = pytester.path / "pins.json"
    file.write_text(json.dumps(pins))
    text = Path(conftest.__file__).read_text()
    pytester.makeconftest(f"{text}\nPINS = Path(__file__).with_name('pins.json')\n")
    pytester.makepyfile(BENCH)
    monkeypatch.setenv("PYTHONPATH", str(Path(conftest.__file__).parents[1]))
    done = pytester.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider", *words)
    done.stdout.fnmatch_lines(["*better than pinned*", "?: {'cycles': 5}, pinned {'cycles': 7}"])
    better = {name: {"cycles": 5} for name in "abcd"}
    assert json.loads(file.read_text()) == (pins | better if written else pins)
