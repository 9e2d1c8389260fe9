"""The command ``attune`` and its completion. Nothing here simulates."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attune import command
from attune.completion import SHELLS, complete
from golden import places
from golden.errors import InputError
from sim.commands import TARGETS, VARIABLES, WIDTH, arguments
from sim.names import RUN_ENGINES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("words", [
    "sim CONFIG=tiny TAPS=1 SIZE=32", "sim --config=tiny --taps=1 --size=32",
    "sim --taps --config tiny --size 32", "sim --taps 1 --size 32 --config tiny"])
def test_options_are_the_variables_of_make(words):
    goal, *rest = words.split()
    assert command.values(goal, rest) == {"CONFIG": "tiny", "TAPS": "1", "SIZE": "32"}
    assert set(arguments(goal, command.values(goal, rest), environment={})) == {
        "--config=tiny", "--taps=1", "--size=32"}


def test_what_has_no_name():
    assert command.values("page", ["reports/x"]) == {"RUN": "reports/x"}
    assert command.values("page", ["a=b/c"]) == {"RUN": "a=b/c"}
    assert command.values("page", ["RUN=a=b/c"]) == {"RUN": "a=b/c"}


REFUSED = [
    ("sm", "No command 'sm'; did you mean sim?"),
    ("xyz", "No command 'xyz'; `attune help` lists them"),
    ("help sm", "No command 'sm'; did you mean sim?"),
    ("lint", "`lint` is of `make`, in a checkout of the project"),
    ("sim --confg tiny", "`attune sim` takes no --confg; did you mean --config?"),
    ("models --seed=1", "`attune models` takes no --seed; it takes --markdown"),
    ("sim CONFG=tiny", "`attune sim` takes no CONFG; did you mean --config?"),
    ("sim tiny", "`attune sim` takes options, such as --model, not 'tiny'"),
    ("sim --frames", "--frames needs a value: frames of the stream; of hostile-bus, how many"),
    ("sim --taps=2", "TAPS must be 0 or 1, not '2'"),
    ("sim --config big", ("Unknown machine 'big'; known are reference, edge, tiny, large, or the "
                          "path of a .toml file")),
    ("wave", "`attune wave` needs --at: mismatch, error, layer:NAME or a cycle"),
    ("completion csh", "No completion for shell 'csh'; known are bash, zsh, fish"),
]


@pytest.mark.parametrize("words, line", REFUSED)
def test_what_is_wrong_is_one_line(capsys, words, line):
    assert command.main(words.split()) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_what_is_wrong_is_refused_before_anything_is_imported():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done   = subprocess.run([sys.executable, "-m", "attune", *REFUSED[4][0].split()], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    after  = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {REFUSED[4][1]}\n")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1, f"{spent:.2f} s of CPU"


def test_the_environment_is_not_heard(monkeypatch):
    """Of ``make`` it is: there a variable is meant for it."""
    monkeypatch.setenv("CONFIG", "huge")
    assert command._asked("sim") == ("sim", [])


def test_help_says_what_every_command_takes(capsys):
    assert command.main([]) == command.main(["help"]) == command.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"attune {name} " in text for name in command.COMMANDS)
    for name, target in command.COMMANDS.items():
        assert command.main([name, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= WIDTH
        for each in target.takes:
            assert any(line.startswith(f"--{each.lower()} ") for line in lines)
    assert command.main(["help", "sim"]) == 0
    said = capsys.readouterr().out
    assert "--config          the machine: reference, edge, tiny or large" in said


def test_commands_of_a_checkout_are_none_of_a_package(monkeypatch):
    assert {name for name, target in TARGETS.items() if target.checkout} == {
        "bitstream", "mutants", "notebooks"}
    monkeypatch.delitem(command.COMMANDS, "mutants")
    with pytest.raises(InputError, match="^`mutants` is of `make`, in a checkout of the project$"):
        command._asked("mutants")


@pytest.mark.parametrize("words, offered", [
    (["ex"], ["explore", "export", "explain"]),
    (["comp"], ["compare", "completion"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["help", "si"], ["sim"]),
    (["sim", "--s"], ["--sim", "--size", "--set"]),
    (["sim", "--config", ""], ["reference", "edge", "tiny", "large"]),
    (["sim", "--config=t"], ["--config=tiny"]),
    (["sim", "CONFIG=t"], ["CONFIG=tiny"]),
    (["sim", "CONFIG", "=", "t"], ["tiny"]),
    (["sim", "--taps", "--engine", "="], list(RUN_ENGINES)),
    (["sim", "--taps", "--con"], ["--config"]),
    (["sim", "--out", ""], []),
    (["train", "--loss=b"], ["--loss=bce", "--loss=bce+dice"]),
    (["nothing", "--"], []),
])
def test_what_may_follow(words, offered):
    assert complete(words) == offered


def test_every_name_that_may_be_given_is_taken():
    """What completion offers is what the checks let through."""
    count = 0
    for target in TARGETS.values():
        for name in target.takes:
            check = target.checks.get(name) or VARIABLES[name].check
            for value in getattr(check, "known", ()):
                check(name, value)
                count += 1
    assert count > 100


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete(tmp_path, shell):
    """The scripts, in the shells that are here."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "attune").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" '
                                     '-m attune "$@"\n')
    (tmp_path / "attune").chmod(0o755)
    ask = {
        "bash": 'eval "$(attune completion bash)"; COMP_WORDS=(attune sim --config = t); '
                'COMP_CWORD=4; _attune; printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh":  'compdef() { :; }; compadd() { shift; print -l -- ${(P)1}; }; '
                'eval "$(attune completion zsh)"; words=(attune sim --config t); CURRENT=4; '
                '_attune',
        "fish": 'attune completion fish | source; complete -C "attune sim --config t"',
    }[shell]
    done = subprocess.run([shell, "-c", ask], cwd=tmp_path, capture_output=True, text=True,
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
                          check=False)
    assert "tiny" in done.stdout.split(), done.stderr
    assert "reference" not in done.stdout


def test_a_checkout_keeps_what_it_makes():
    assert places.CHECKOUT and places.COMMAND == "make"
    assert places.CACHE == ROOT / ".build" and places.HOME == ROOT
    assert places.typed(ROOT / "reports" / "x") == "reports/x"
    assert places.typed("/tmp") == "/tmp"
