import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from golden import folders
from golden.errors import InputError
from golden.folders import Fresh, temporary

KNOWN = ("report.json", "alpha*.png")


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_it_appears_when_the_block_ends_well(tmp_path):
    fresh = Fresh(tmp_path / "a" / "run", KNOWN)
    with fresh as folder:
        (folder / "report.json").write_text("new")
        assert not (tmp_path / "a" / "run").exists()
    assert fresh.place == tmp_path / "a" / "run"
    assert names(tmp_path) == ["a", "report.json", "run"]
    assert (fresh.place.stat().st_mode & 0o777) == 0o755


@pytest.mark.parametrize("system", ["renames in one step", "cannot"])
def test_nothing_of_an_earlier_run_remains(tmp_path, monkeypatch, system):
    if system == "cannot":
        monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **__: object())
    for content in (("report.json", "alpha1.png"), ("report.json",)):
        with Fresh(tmp_path / "run", KNOWN) as folder:
            for name in content:
                (folder / name).write_text("")
    assert names(tmp_path) == ["report.json", "run"]


def test_a_link_leads_to_what_is_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    with Fresh(tmp_path / "latest", KNOWN) as folder:
        (folder / "report.json").write_text("")
    assert (tmp_path / "latest").is_symlink()
    assert names(tmp_path / "run") == ["report.json"]


@pytest.mark.parametrize("error", [ValueError("broke"), KeyboardInterrupt()])
def test_a_failure_leaves_everything_as_it_was(tmp_path, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("old")
    for place in ("run", "deep/er/run"):
        with pytest.raises(type(error)), Fresh(tmp_path / place, KNOWN) as folder:
            (folder / "report.json").write_text("new")
            raise error
    assert (tmp_path / "run" / "report.json").read_text() == "old"
    assert names(tmp_path) == ["report.json", "run"]


def test_what_somebody_keeps_there_is_not_lost(tmp_path):
    (tmp_path / "report.json").write_text("")
    (tmp_path / "thesis.tex").write_text("")
    with (pytest.raises(InputError, match="holds 'thesis.tex', which is no output of this command "
                                          "and would be lost; name another folder with OUT$"),
          Fresh(tmp_path, KNOWN)):
        raise AssertionError("the block began")
    assert names(tmp_path) == ["report.json", "thesis.tex"]


def test_a_shared_folder_keeps_the_rest(tmp_path):
    for name in ("report.json", "thesis.tex"):
        (tmp_path / name).write_text("old")
    with Fresh(tmp_path, KNOWN, shared=True) as folder:
        (folder / "report.json").write_text("new")
    assert [(tmp_path / name).read_text() for name in ("report.json", "thesis.tex")] == [
        "new", "old"]
    assert names(tmp_path) == ["report.json", "thesis.tex"]


def test_a_shared_folder_may_lie_where_nothing_else_can_be_written(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(folders.tempfile, "mkdtemp", lambda dir, prefix: made.append(dir) or (
        (dir / "mine").mkdir() or str(dir / "mine")))
    with Fresh(tmp_path, (), shared=True):
        pass
    assert made == [tmp_path.resolve()]


def test_a_name_is_given_once(tmp_path):
    """Two runs that begin in the same second shared a folder."""
    places = []
    for content in "abc":
        fresh = Fresh(tmp_path / "run", KNOWN, replace=False)
        with fresh as folder:
            (folder / content).write_text("")
        places.append(fresh.place.name)
    assert places == ["run", "run-2", "run-3"]
    assert [names(tmp_path / place) for place in places] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("place, line", [
    ("file", "'{path}' is a file; name a folder with OUT"),
    ("file/run", "{path}: Not a directory; name another folder with OUT"),
    ("x" * 300, "{path}: File name too long; name another folder with OUT"),
])
def test_a_place_that_cannot_be_is_refused_before_the_block(tmp_path, place, line):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as refused, Fresh(tmp_path / place, KNOWN):
        raise AssertionError("the block began")
    assert str(refused.value) == line.format(path=tmp_path / place)
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path):
    """The line was ``error: system: No space left on device``, and 13 files stayed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(InputError) as refused, Fresh(tmp_path / "run", KNOWN) as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            (folder / "small").write_bytes(bytes(10))
            (folder / "report.json").write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(refused.value) == f"{tmp_path / 'run'}: File too large; nothing was written there"
    assert names(tmp_path) == []


def test_no_space_has_no_name_of_its_own(tmp_path):
    with pytest.raises(InputError) as refused, Fresh(tmp_path / "run", KNOWN):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(refused.value).startswith(f"{tmp_path / 'run'}: No space left on device;")
    with pytest.raises(FileNotFoundError), Fresh(tmp_path / "run", KNOWN):
        raise FileNotFoundError(errno.ENOENT, "of another place", "elsewhere")
    assert names(tmp_path) == []


def test_what_a_killed_owner_left_is_removed(tmp_path):
    code = ("import sys, time; from golden.folders import temporary\n"
            "with temporary(sys.argv[1], 'run-') as folder:\n"
            "    print(folder, flush=True); time.sleep(60)")
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], text=True,
                             stdout=subprocess.PIPE, cwd=Path(folders.__file__).parents[1])
    left  = Path(owner.stdout.readline().strip())
    try:
        old = time.time() - 2 * folders.YOUNG
        os.utime(left, (old, old))
        with temporary(tmp_path, "run-"):
            assert left.exists(), "its owner lives"
    finally:
        owner.kill()
        owner.communicate()
    with temporary(tmp_path, "other-"):
        assert left.exists(), "it is of another kind"
    with temporary(tmp_path, "run-") as young:
        assert not left.exists()
        shutil.copytree(young, tmp_path / "run-new")
        with temporary(tmp_path, "run-"):
            assert (tmp_path / "run-new").exists(), "its owner may be about to lock it"
    assert names(tmp_path) == ["run-new"]
