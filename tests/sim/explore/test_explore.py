"""The command, from a file to a folder, on one worker process of Dask and the cycle model."""

import json

import pytest
from rich.console import Console

from golden.models import load_graph
from hw.compiler import compile_network
from hw.config import preset
from sim.explore import __main__ as command
from sim.explore import workers
from sim.explore.metrics import of_machine, of_run
from sim.model import run_model
from tests.sim.explore.spaces import SIX, found_of

pytestmark = pytest.mark.cosim


class Here:
    """In place of workers."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def evaluate(self, configs):
        return ((number, found_of(number, config)) for number, config in configs)


class Idle(Here):
    def evaluate(self, configs):
        raise AssertionError("a machine is measured twice")


@pytest.fixture
def six(tmp_path):
    file = tmp_path / "six.toml"
    file.write_text(SIX)
    return file


def test_six_machines(six, tmp_path, capsys, monkeypatch):
    """To the cycle, by Dask; the last of them in a machine that is too small for anything."""
    out = tmp_path / "out"
    six.write_text(SIX.replace('"32 KiB"', '256'))
    assert command.main([f"--space={six}", f"--out={out}", "--jobs=1"]) == 0
    results = json.loads((out / "explore.json").read_text())
    assert results["proved"] and len(results["rows"]) == 6
    assert [row["status"] for row in results["rows"]] == ["failed", "measured"] * 3
    assert results["rows"][0]["reason"] == ("frame rows needs 128 words of onchip; of its 32 these "
                                            "are in use: none; use a narrower network, or "
                                            "SET=onchip_bytes=1024")
    assert "the front is proved within the space" in capsys.readouterr().out
    winner  = preset(str(out / "winner.toml"))
    program = compile_network(load_graph("elec4848", 16, 4), winner)
    figures = of_machine(winner) | of_run(winner, program, run_model(program, winner))
    row     = results["rows"][results["winner"]]
    assert row["figures"] == figures
    assert all(sum(stack) == figures["cycles"] for stack in row["units"].values())
    before = (out / "explore.csv").read_text(), (out / "journal.jsonl").read_text()
    # Once more: all is known, and nobody is asked.
    monkeypatch.setattr(command, "Workers", Idle)
    assert command.main([f"--space={six}", f"--out={out}", "--jobs=1"]) == 0
    assert before == ((out / "explore.csv").read_text(), (out / "journal.jsonl").read_text())


def test_a_scheduler_that_does_not_answer(six, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    assert command.main([f"--space={six}", f"--out={tmp_path / 'out'}",
                         "--scheduler=tcp://127.0.0.1:9"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(
        "error: No scheduler answers at tcp://127.0.0.1:9 (Timed out trying to connect to "
        "tcp://127.0.0.1:9 after 0.5 s); start one, or leave SCHEDULER out")
    assert not (tmp_path / "out").exists()


def test_a_journal_of_another_space(six, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "Workers", Here)
    out = tmp_path / "out"
    assert command.main([f"--space={six}", f"--out={out}"]) == 0
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    six.write_text(SIX.replace("64 KiB", "128 KiB"))
    assert command.main([f"--space={six}", f"--out={out}"]) == 2
    assert capsys.readouterr().err == (
        f"error: {out / 'journal.jsonl'} is the journal of another space (six, model=elec4848 "
        "size=16 width=4 frames=1); name another folder with OUT, or remove it\n")
    assert kept == {path.name: path.read_bytes() for path in out.iterdir()}


def test_nothing_runs(six, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "Workers", Here)
    six.write_text(SIX.replace("decoder.outputs = [1, 2, 4]", "encoder.pixels = [8]"))
    assert command.main([f"--space={six}", f"--out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err == ("error: No machine of space six is left of 2 that were "
                                       "tried; 2 of them because of: does not fit\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["journal.jsonl"]


@pytest.mark.parametrize("differences, code, word", [([], 0, "equal"), (["cycles"], 1,
                                                                        "contradicted")])
def test_the_rtl_has_the_last_word(six, tmp_path, monkeypatch, differences, code, word):
    asked = []

    def certify(row, config, network, folder, console):
        asked.append((row["machine"], config.name))
        return differences

    monkeypatch.setattr(command, "Workers", Here)
    monkeypatch.setattr(command, "certify", certify)
    words = [f"--space={six}", f"--out={tmp_path / 'out'}", "--certify=2"]
    for _ in range(2):          # what was certified is not run again, and still counts
        assert command.main(words) == code
    assert asked == [(5, "six-5"), (3, "six-3")]
    rows = json.loads((tmp_path / "out" / "explore.json").read_text())["rows"]
    assert [row["certified"] for row in rows] == [None, None, None, differences, None, differences]
    assert f'<td class="text">{word}</td>' in (tmp_path / "out" / "explore.html").read_text()


def test_interrupted(six, tmp_path, capsys, monkeypatch):
    class Stopped(Here):
        def evaluate(self, configs):
            yield next(super().evaluate(configs))
            raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr(command, "Workers", Stopped)
    assert command.main([f"--space={six}", f"--out={out}"]) == 2
    assert capsys.readouterr().err == (f"error: interrupted; 1 machines are in "
                                       f"{out / 'journal.jsonl'}, and the same command goes on\n")
    assert [path.name for path in out.iterdir()] == ["journal.jsonl"]
    monkeypatch.setattr(command, "Workers", Here)
    results = command.explore(command._parse([f"--space={six}", f"--out={out}"]),
                              Console(quiet=True))
    assert len(results["rows"]) == 6
