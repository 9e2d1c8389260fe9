"""The front door: ``make`` and ``sim/commands.py``. Nothing here simulates."""

import ast
import importlib
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from golden.errors import InputError
from golden.names import POOLINGS, named_images
from golden.networks import MODELS
from sim import commands
from sim.errors import SimulationError

ROOT     = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PROGRAMS = [name for name, target in commands.TARGETS.items() if target.module]
PLAIN    = {"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "passive"}


def make(*words, **kwargs):
    return subprocess.run(["make", *words], cwd=ROOT, env=PLAIN, capture_output=True, text=True,
                          check=False, **kwargs)


@pytest.mark.parametrize("value", [
    "it's.png", 'a "b".png', "a, b.png", "cost$5.png", "$(shell touch HARM)", "$$", "`touch HARM`",
    "; touch HARM", "back\\slash.png", "two  blanks.png", "-dash.png", "--out=x", "a=b=c", "ä.png",
    "#1.png", "100%.png", "&&", "'", "a\\ b",
])
def test_values_reach_programs_as_they_were_typed(tmp_path, value):
    """A quote in IMAGE once ended in the shell, which would have run what followed it."""
    (tmp_path / "spy.py").write_text("import os\nfrom sim import commands\n"
                                     "print(ascii(commands.given(os.environ['MAKEFLAGS'])))\n")
    spy  = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, str(tmp_path / "spy.py")])
    done = subprocess.run(["make", "-C", str(tmp_path), "--no-print-directory", "-f",
                           str(ROOT / "Makefile"), "--eval", f"spy: ; @{spy}", "spy",
                           f"IMAGE={value}", "FRAMES=2"],
                          env=PLAIN, capture_output=True, text=True, check=False)
    assert ast.literal_eval(done.stdout) == {"IMAGE": value, "FRAMES": "2"}, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spy.py"]


def test_no_variables_are_none():
    assert commands.given("") == commands.given("k -j4 --jobserver-auth=3,4") == {}


REFUSED = [
    ("sim config=big", "`make sim` takes no config; did you mean CONFIG?"),
    ("sim CONFG=tiny", "`make sim` takes no CONFG; did you mean CONFIG?"),
    ("models MODEL=foo", "`make models` takes no MODEL; it takes MARKDOWN"),
    ("lint CONFIG=tiny", "`make lint` takes no CONFIG; it takes no variables"),
    ("help VERBOSE=1", "`make help` takes no VERBOSE; it takes no variables"),
    ("sim CONFIG=big", ("Unknown machine 'big'; known are reference, edge, tiny, large, "
                        "or the path of a .toml file")),
    ("synth CONFIG=big", ("Unknown machine 'big'; known are reference, edge, tiny, large, "
                          "or the path of a .toml file")),
    ("sim DRAM=hbm",
     ("Unknown off-chip memory 'hbm'; known are ddr4-2400, ddr3-1600, lpddr4-3200, sdr-ulx3s, "
      "or the path of a .toml file")),
    ("sim SIM=vcs", "Unknown simulator 'vcs'; known are verilator, icarus"),
    ("sim MODEL=resnet", f"No model 'resnet'; known: {', '.join(MODELS)}"),
    ("train MODEL=resnet", f"No model 'resnet'; known: {', '.join(MODELS)}, teacher"),
    ("sim MODEL=no.onnx", "No file 'no.onnx'; MODEL is the path of an ONNX file"),
    ("sim IMAGE=none.png",
     "No file 'none.png'; name an image, or phantom:SEED for a synthetic one"),
    ("sim TRUTH=none.png", "No file 'none.png'; TRUTH is a mask"),
    ("sim TAPS=2", "TAPS must be 0 or 1, not '2'"),
    ("sim FRAMES=0", "FRAMES must be a whole number of at least 1, not '0'"),
    ("sim SIZE=16385", "Frame size must be at most 16384, not 16400"),
    ("train SIZE=100", "Frame size must be a positive multiple of 16, not 100; try 96"),
    ("sim OUT=Makefile", "'Makefile' is a file; name a folder with OUT"),
    ("train LOSS=hinge", "LOSS must be bce, dice or bce+dice, not 'hinge'"),
    ("train RATE=fast", "RATE must be a number, not 'fast'"),
    ("evaluate DATA=nowhere", "No data at 'nowhere'; name a folder, a table (.csv), or phantom"),
    ("bench CONFIGS=tiny,huge",
     "CONFIGS takes some of reference, edge, tiny, large, all, with commas between; not 'huge'"),
    ("fuzz ENGINE=model", "ENGINE must be rtl or interpreter, not 'model'"),
    ("disasm PROGRAM=none", "No file 'none'; PROGRAM is the program.bin of a run"),
    ("explore", ("`make explore` needs SPACE=...: of machines: clocks, lanes or tiny, or a file "
                "such as my.toml")),
    ("explore SPACE=huge",
     "Unknown space 'huge'; known are clocks, lanes, tiny, or the path of a .toml file"),
    ("explore SPACE=tiny SCHEDULER=here",
     "SCHEDULER must be the address of a scheduler, such as tcp://10.0.0.1:8786, not 'here'"),
    ("compare", "`make compare` needs A=...: folder of a run"),
    ("compare A=x", "`make compare` needs B=...: folder of another run"),
    ("wave", "`make wave` needs AT=...: mismatch, error, layer:NAME or a cycle"),
]


@pytest.mark.parametrize("words, line", REFUSED)
def test_what_is_wrong_is_one_line(monkeypatch, capsys, words, line):
    """Before, ``config=big`` ran the whole reference machine."""
    monkeypatch.chdir(ROOT)
    goal, *given = words.split()
    monkeypatch.setenv("MAKEFLAGS", f" -- {' '.join(given)}")
    monkeypatch.setenv("GOALS", goal)
    assert commands.main(["guard"]) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_machine_that_cannot_be_is_refused_before_anything_is_imported(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('base = "tiny"\nonchip_byte = 4\nclock_mhz = 0\n')
    for given, lines in (
            ([f"CONFIG={file}"], [f"error: {file} has 2 mistakes",
                                  "  onchip_byte is unknown; did you mean onchip_bytes?",
                                  "  clock_mhz must be from 1 MHz to 5000 MHz, not 0 MHz"]),
            (["CONFIG=tiny", "SET=decoder.output=16"],
             ["error: SET: decoder.output is unknown; did you mean decoder.outputs?"]),
            (["SET=decoder.outputs=32"],
             ["error: SET: decoder.drain (16) must be at least outputs (32)"])):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done   = make("sim", *given)
        after  = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.split("\n")[:len(lines)] == lines
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert spent < 1, f"{spent:.2f} s of CPU"


@pytest.mark.parametrize("words, line", [REFUSED[0], REFUSED[5], REFUSED[9], REFUSED[-1]])
def test_what_is_wrong_is_refused_within_a_second(words, line):
    """Before, PyTorch was imported first."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done   = make(*words.split())
    after  = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert done.stderr.split("\n")[0] == f"error: {line}"
    assert done.stdout == ""
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1, f"{spent:.2f} s of CPU"


def test_disasm_names_the_engines():
    done = make("disasm", "ENGINE=foo", "PROGRAM=Makefile")
    assert done.stderr.startswith("error: ENGINE must be load_encoder, ")


def test_one_target_of_several_must_take_a_variable():
    commands.guard(["lint", "test"], {"PYTEST": "-k x"})
    with pytest.raises(InputError, match="^`make lint test` takes no PYTES; did you mean PYTEST"):
        commands.guard(["lint", "test"], {"PYTES": "-k x"})


def test_the_environment_is_not_guarded_but_heard():
    """``CONFIG=tiny make sim`` is as good; another program's N in the environment is no mistake."""
    env  = {**PLAIN, "CONFIG": "huge", "N": "x"}
    done = subprocess.run(["make", "sim"], cwd=ROOT, env=env, capture_output=True, text=True,
                          check=False)
    assert done.stderr.startswith("error: Unknown machine 'huge'")


def test_a_comma_in_a_name_does_not_split_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.png", "c", "d,e,f"):
        Path(name).write_text("")
    assert named_images("a,b.png") == ["a,b.png"]
    assert named_images("c,a,b.png, d,e,f ,x,") == ["c", "a,b.png", "d,e,f", "x"]
    assert named_images(",") == []


def test_the_table_has_every_target_of_the_makefile():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    names = re.search(r"^PROGRAMS = ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)[1]
    more  = re.search(r"^SIMULATE = (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    found = {*names.replace("\\\n", " ").split(), *more} - {"$(SIMULATE)"}
    assert found == set(PROGRAMS)
    assert {*phony, *found} - {"$(PROGRAMS)", "guard"} == set(commands.TARGETS)


EXAMPLES = {"A": "x", "B": "y", "AT": "7", "ARGS": "", "CUT": "e1a", "START": "elec4848-32",
            "OUT": "somewhere", "PYTEST": "", "RUN": "reports/x", "DEPTH": "2", "RATE": "0.1",
            "MODEL": "unet-busi", "CONFIG": "tiny", "CONFIGS": "tiny", "DRAM": "ddr4-2400",
            "DRAMS": "own", "SIM": "icarus", "IMAGE": "phantom:1", "DATA": "phantom:2",
            "CALIBRATION": "phantom:2", "FPS": "2.5", "FEATURE": "0.5", "BOARD": "ulx3s",
            "PEAK": "0.7", "FOLDS": "5", "CLIPPING": "mse",
            "MODELS": "unet-busi", "LOSS": "dice", "PART": "test", "SCHEDULE": "cosine",
            "PROTECTION": "secded", "SET": "alpha_words=64",
            "DEVICE": "cpu", "SIZE": "32", "KINDS": "image",
            "OF": "python", "SPACE": "tiny", "SCHEDULER": "tcp://10.0.0.1:8786",
            **dict.fromkeys(("CHECKPOINT", "PROGRAM", "SPLIT",
                            "TRUTH"), "Makefile")}


@pytest.mark.parametrize("goal", PROGRAMS)
def test_programs_take_what_the_table_says(monkeypatch, goal):
    """Every variable becomes an option of the program, and without it the default is the same."""
    monkeypatch.chdir(ROOT)
    target = commands.TARGETS[goal]
    parts  = ("sim.page", "sim.campaigns.hostile", "sim.campaigns.mutants", "golden.explain",
              "hw.prove", "hw.ip", "sim.explore", "hw.cost")
    module = target.module + (".__main__" if target.module in parts else "")
    parse  = importlib.import_module(module)._parse
    values = {name: EXAMPLES.get(name, "1") for name in target.takes}
    if "ENGINE" in values:
        values["ENGINE"] = {"disasm": "gate", "fuzz": "interpreter", "sim": "model"}[goal]
    parsed = parse(commands.arguments(goal, values))
    for name in target.takes.keys() - {"ARGS"}:
        assert str(getattr(parsed, name.lower())) in (values[name], "True"), name
    needed = [*(f"--{name.lower()}={values[name]}" for name in target.needs),
              *(["--", target.takes[target.place]] if target.place else [])]
    if goal == "export":        # without it, nothing could be exported
        needed.append(f"--checkpoint={target.takes['CHECKPOINT']}")
    parsed = parse(needed)
    for name in target.takes.keys() - {"ARGS", *target.needs}:
        default, own = target.takes[name], getattr(parsed, name.lower())
        if default is not None:
            assert str(own if not isinstance(own, bool) else int(own)) == default, name


def test_every_variable_is_explained():
    used = {name for target in commands.TARGETS.values() for name in target.takes}
    assert used == commands.VARIABLES.keys()


def test_help_has_names_and_defaults_and_fits():
    lines = make("help").stdout.splitlines()
    text  = re.sub(r"\s+", " ", " ".join(lines))
    assert max(map(len, lines)) <= commands.WIDTH
    for part in ("make sim run the machine", "reference, edge, tiny or large",
                 "ddr4-2400, ddr3-1600",
                 "elec4848-ds", "verilator or icarus [verilator]",
                 "[sim, check-model, zoo, cost, verilog, machine: reference",
                 "load_encoder", "interpreter"):
        assert part in text, part


def test_poolings_of_the_networks():
    assert {name: make_network(width=1, size=64).frames_multiple
            for name, make_network in MODELS.items()} == {
        name: 1 << poolings for name, poolings in POOLINGS.items()}


def test_the_door_needs_nothing_but_python():
    """It refuses before PyTorch is imported, and before anything is installed."""
    code = ("import sys, sim.commands; print(*sorted({name.partition('.')[0] "
            "for name in sys.modules} - sys.stdlib_module_names))")
    for bare in (True, False):
        done = subprocess.run([sys.executable, *(["-S"] if bare else []), "-c", code], cwd=ROOT,
                              env=PLAIN, text=True, capture_output=True, check=True)
        found = set(done.stdout.split())
        assert not found & {"torch", "numpy", "onnx", "rich"}
        assert not bare or found <= {"__main__", "golden", "hw", "sim"}
    done = subprocess.run([sys.executable, "-S", "-m", "sim.commands", "guard"], cwd=ROOT,
                          env={**PLAIN, "MAKEFLAGS": " -- CONFG=tiny", "GOALS": "sim"},
                          text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (
        2, "error: `make sim` takes no CONFG; did you mean CONFIG?\n")


def test_a_missing_file_is_the_program_of_no_run():
    with pytest.raises(InputError, match="^No file 'reports/none/program.bin'; PROGRAM is"):
        commands.arguments("disasm", {"PROGRAM": "reports/none/program.bin"})
    with pytest.raises(SimulationError):
        commands.arguments("sim", {"SIM": "vcs"})
