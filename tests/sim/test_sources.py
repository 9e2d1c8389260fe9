import os
import subprocess
import sys
from dataclasses import replace

import pytest

from hw.config import TINY, preset
from sim import sources


@pytest.fixture
def cache(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(sources, "CACHE", tmp_path / ".build")
    monkeypatch.setattr(sources, "_export", lambda *key: made.append(key) or f"// {len(made)}")
    yield made
    sources._kept.cache_clear()                 # of texts that are none


def verilog(*key):
    sources._kept.cache_clear()                 # as another process would
    return sources.machine_verilog(*key)


def test_a_machine_is_elaborated_once(cache):
    """A rerun spent 7 of its 12 seconds of CPU on text that it had already."""
    assert [verilog(TINY, False) for _ in range(2)] == ["// 1"] * 2
    assert cache == [(TINY.structure, False, False)]


def test_what_a_machine_depends_on_makes_it_anew(cache, tmp_path, monkeypatch):
    source = tmp_path / "block.py"
    source.write_text("1")
    monkeypatch.setattr(sources, "FILES", (source,))
    assert verilog(TINY, False) == "// 1"
    assert verilog(TINY, True) == "// 2"
    assert verilog(replace(TINY, gate_lanes=4), False) == "// 3"
    source.write_text("2")
    assert verilog(TINY, False) == "// 4"


def test_name_clock_and_memory_make_no_other_machine(cache):
    """`make bench` built every machine once for each off-chip timing."""
    for other in (preset("tiny", dram="lpddr4-3200"), replace(TINY, name="mine", clock_mhz=99)):
        assert verilog(TINY, False) == verilog(other, False) == "// 1"


def test_of_texts_the_latest_used_are_kept(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "KEPT", 2)
    folder = tmp_path / ".build"
    for lanes in (1, 2, 1, 4):
        verilog(replace(TINY, gate_lanes=lanes), False)
        for file in folder.iterdir():       # a day later
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 86_400 * 10**9))
    assert len(list(folder.iterdir())) == 2
    assert len(cache) == 3
    verilog(replace(TINY, gate_lanes=1), False)
    assert len(cache) == 3, "it was used after the second"


def test_every_source_of_a_machine_is_watched():
    code = ("import sys, sim.top, hw.verilog; "
            "print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', 0)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=sources.ROOT, text=True,
                          capture_output=True, check=True)
    # The compiler is there for the layout of its programs, and golden for the compiler.
    ours = {path for path in done.stdout.split()
            if path.startswith(tuple(f"{sources.ROOT / name}/" for name in ("hw", "sim")))
            and "/compiler/" not in path and not path.endswith("sim/__init__.py")}
    assert len(ours) > 40
    assert ours <= {str(path) for path in sources.FILES}
