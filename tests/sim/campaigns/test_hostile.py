"""Hostile files: that every kind of fault is seen, and a sample of each kind of file."""

import json
import os
import pickle
import signal
import sys
import time
import warnings

import pytest

from golden.errors import InputError
from sim.campaigns.hostile import campaign as module
from sim.campaigns.hostile.__main__ import main
from sim.campaigns.hostile.cage import Limits, Wrong, caged, has_landlock
from sim.campaigns.hostile.campaign import KINDS, campaign, named
from sim.campaigns.hostile.kind import Kind, door, must_accept
from tests.sim.pages import whole_report
from tests.sim.test_page import TRACE

SOON = Limits(seconds=2, wall=20, memory=2 * 2**30)


def one(folder, command, limits=SOON):
    outcome, = caged([(command, folder)], limits)
    return outcome


def says(line, code=2):
    def command():
        print(line, file=sys.stderr)
        return code
    return command


def test_accepted_and_refused(tmp_path):
    assert one(tmp_path, lambda: 0).kind == one(tmp_path, lambda: 1).kind == "accepted"
    refused = one(tmp_path, says("error: no such file; name another"))
    assert (refused.kind, refused.line) == ("refused", "no such file; name another")
    assert not refused.is_fault


def writes(path):
    def command():
        path.write_text("x")
        return 0
    return command


def takes(count):
    def command():
        bytearray(count)
        return 0
    return command


def raises(error):
    def command():
        raise error
    return command


def kills():
    os.kill(os.getpid(), signal.SIGSEGV)


def loops():
    while True:
        pass


@pytest.mark.parametrize("command, kind", [
    (raises(KeyError("x")), "traceback"),
    (door(raises(KeyError("x"))), "traceback"),
    (raises(Wrong("another mask")), "wrong"),
    (door(raises(Wrong("another mask"))), "wrong"),
    (must_accept(door(raises(InputError("no; yes")))), "wrong"),
    (takes(3 * 2**30), "memory"),
    (door(takes(3 * 2**30)), "memory"),
    (kills, "died"),
    (lambda: os._exit(3), "died"),
    (loops, "hang"),
    (lambda: time.sleep(100), "hang"),
    (lambda: os.system("true"), "started"),
    (lambda: pickle.loads(pickle.dumps(os.system)), "started"),
    (lambda: sys.exit(2), "traceback"),
    (says("error: one\nerror: two"), "untidy"),
    (says("error: one\nmore"), "untidy"),
    (says("no"), "untidy"),
    (says("error: \x1b[31mred"), "untidy"),
    (says("odd", 3), "traceback"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_every_kind_of_fault_is_seen(tmp_path, command, kind):
    limits = Limits(seconds=1, wall=3, memory=2 * 2**30) if kind == "hang" else SOON
    outcome = one(tmp_path, command, limits)
    assert outcome.kind == kind, outcome
    assert outcome.is_fault


def test_writing_elsewhere_is_seen(tmp_path):
    cage = tmp_path / "cage"
    cage.mkdir()
    assert one(cage, writes(cage / "out" / "x")).kind == "accepted"
    outcome = one(cage, writes(tmp_path / "x"))
    assert (outcome.kind, outcome.is_fault) == ("write", True)
    outcome = one(cage, lambda: (cage / "in").mkdir())
    assert outcome.kind == "write"
    assert one(cage, writes(cage / "tmp" / "x")).kind == "write"       # it stays there


@pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
def test_what_python_does_not_see_cannot_write(tmp_path):
    """A library that opens files itself is stopped by the kernel."""
    import ctypes
    cage = tmp_path / "cage"
    cage.mkdir()

    def command():
        libc = ctypes.CDLL(None)
        opened = [libc.open(os.fsencode(cage / place / "y"), os.O_CREAT | os.O_WRONLY, 0o600)
                  for place in ("out", "in")]
        assert opened[0] >= 0 and opened[1] < 0
        return 0
    (cage / "in").mkdir()
    assert one(cage, command).kind == "accepted"
    assert list((cage / "in").iterdir()) == []


def test_a_refusal_leaves_nothing(tmp_path):
    def command():
        (tmp_path / "out" / "half").write_text("x")
        return says("error: no; yes")()
    outcome = one(tmp_path, command)
    assert (outcome.kind, outcome.line) == ("untidy", "refused, and left or changed half")


def test_jobs_after_a_fault_go_on(tmp_path):
    jobs = []
    for index, command in enumerate((lambda: 0, kills, says("error: a; b"), loops, lambda: 0)):
        (tmp_path / str(index)).mkdir()
        jobs.append((command, tmp_path / str(index)))
    kinds = [outcome.kind for outcome in caged(jobs, Limits(seconds=1, wall=10))]
    assert kinds == ["accepted", "died", "refused", "hang", "accepted"]


def test_names():
    assert [kind.name for kind in named("image, video")] == ["image", "video"]
    assert len(named("all")) == len(KINDS)
    with pytest.raises(InputError, match="^Unknown kind of file 'doc'; known are image, .*, all$"):
        named("doc")


@pytest.fixture
def run(tmp_path):
    """The folder of a run, as far as its files are damaged."""
    folder = tmp_path / "run"
    folder.mkdir()
    report = {**whole_report(), "settings": {"model": "elec4848", "config": "tiny"}}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "trace.json").write_text(json.dumps(TRACE))
    (folder / "program.bin").write_bytes(bytes(1000))
    return folder


def spoilt(random, corpus, folder):
    (folder / "in" / "file").write_text(str(random.random()))
    return door(raises(KeyError("x"))) if random.random() < 0.3 else lambda: 0


def test_a_fault_is_kept_and_repeated(tmp_path, monkeypatch, run):
    monkeypatch.setitem(module.KINDS, "spoilt", Kind("spoilt", lambda run: None, spoilt))
    out = tmp_path / "out"
    tally = campaign(named("spoilt"), range(40), out, run=run)["spoilt"]
    assert tally.tried == 40 and tally.faults["traceback"] == tally.faults.total() > 3
    kept = sorted(out.iterdir())
    assert len(kept) == tally.faults.total()
    seed = int(kept[0].name.removeprefix("spoilt-"))
    fault = json.loads((kept[0] / "fault.json").read_text())
    assert fault["repeat"] == f"make hostile KINDS=spoilt SEED={seed} N=1"
    assert "KeyError: 'x'" in fault["log"]
    again = tmp_path / "again"
    assert main(["--kinds", "spoilt", "--seed", str(seed), "--n", "1", "--out", str(again),
                 "--run", str(run)]) == 1
    name = f"{kept[0].name}/in/file"
    assert (again / name).read_text() == (out / name).read_text()


LIGHT = "image,animation,video,name,checkpoint,keras,table,split,folder,page,compare,program"


def test_a_sample_of_every_kind(tmp_path, run):
    """`make hostile` tries thousands. Warnings are what they are for a person, no errors."""
    warnings.simplefilter("default")
    warnings.simplefilter("ignore", DeprecationWarning)
    tallies = campaign(named(LIGHT), range(96), tmp_path / "out", run=run)
    faults = [path.read_text() for path in (tmp_path / "out").glob("*/fault.json")]
    assert not faults, "\n".join(faults)
    assert sum(tally.accepted for tally in tallies.values()) > 8
    assert sum(tally.refused for tally in tallies.values()) > 30


def test_what_it_says_in_the_end(tmp_path, capsys, run):
    assert main(["--kinds", "table", "--n", "20", "--out", str(tmp_path / "out"), "--run",
                 str(run)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("20 files in ") and last.endswith(" a second: no fault")
    for arguments, line in ((["--n", "0"], "N and JOBS must be positive"),
                            (["--out", str(run / "report.json")], "is a file; name a folder")):
        assert main(["--run", str(run), *arguments]) == 2
        assert line in capsys.readouterr().err
