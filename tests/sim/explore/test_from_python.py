"""A search from Python: here the cycle model works, and no other process."""

import csv

import numpy as np
import pytest

from golden.errors import InputError
from sim.explore import workers
from sim.explore.from_python import explore
from sim.session import Session
from tests.sim.explore.spaces import SIX, found_of

SPACE = {"base": "tiny", "size": 16, "width": 4, "objectives": ["latency", "mac_lanes"],
         "parameters": {"decoder.outputs": [1, 4], "dram": ["ddr3-1600", "sdr-ulx3s"]}}


def test_the_best_of_four_machines_runs():
    """Every figure of the table is what a session measures on that machine."""
    table = explore(SPACE)
    assert table.proved
    assert [row["machine"] for row in table] == [0, 1, 2, 3]
    best = table.front[0]
    assert best["latency"] == min(row["latency"] for row in table)
    assert best["front"] and best["status"] == "measured" and best["certified"] == ""
    session = Session("elec4848", machine=table.machine(best), engine="model", size=16, width=4)
    session.run(None, {"image": np.zeros((1, 3, 16, 16), np.uint8)})
    assert session.report["cycles"]["total"] == best["cycles"]
    assert session.config.decoder.outputs == best["decoder.outputs"]
    assert session.config.dram.name == best["dram"]


def test_a_table_in_a_notebook(monkeypatch):
    monkeypatch.setattr(workers, "evaluate", lambda config, *_: found_of(0, config))
    monkeypatch.setattr(workers, "sources", lambda: "")
    html = explore(SPACE | {"parameters": {"decoder.outputs": [1, 4]}})._repr_html_()
    assert html.startswith("<table><tr><th>machine</th><th>status</th><th>front</th>")
    assert "<th>reason</th>" not in html and html.count("<tr>") == 3


def test_a_folder_keeps_what_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workers, "evaluate", lambda config, *_: found_of(0, config))
    (tmp_path / "six.toml").write_text(SIX)
    first = explore(str(tmp_path / "six.toml"), out=tmp_path / "out")
    assert "the front is proved within the space" in capsys.readouterr().out
    monkeypatch.setattr(workers, "evaluate", None)
    assert explore(str(tmp_path / "six.toml"), out=tmp_path / "out") == first
    with (tmp_path / "out" / "explore.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(row) for row in first]
    assert [row["latency"] for row in rows if row["front"] == "1"] == [
        str(row["latency"]) for row in first if row["front"]]


def test_mistakes_of_a_space():
    with pytest.raises(InputError) as refused:
        explore(SPACE | {"size": 20, "parameters": {"decoder.output": [1]}})
    assert str(refused.value).splitlines() == [
        "space has 2 mistakes", "  Frame size must be a positive multiple of 16, not 20; try 16",
        "  decoder.output is unknown; did you mean decoder.outputs?"]
