"""Every command line ends with a code that says who has to do something."""

import re

import pytest

from golden.command import FAULT, exit_code
from golden.errors import InputError


def ends(error):
    def command(arguments):
        raise error
    return command


@pytest.mark.parametrize(("error", "line"), [
    (InputError("no such thing; take another"), "error: no such thing; take another\n"),
    (FileNotFoundError(2, "No such file or directory", "a.png"),
     "error: a.png: No such file or directory\n"),
    (MemoryError(), "error: not enough memory; take a smaller network or frame, or fewer frames\n"),
    (KeyboardInterrupt(), "error: interrupted\n"),
])
def test_what_cannot_be_done_is_one_line_and_code_2(error, line, capsys):
    assert exit_code(ends(error), []) == 2
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("returned", [0, 1])
def test_results_pass_through(returned):
    assert exit_code(lambda arguments: returned, []) == returned


@pytest.mark.parametrize("error", [KeyError("c1"), AttributeError("no attribute 'vimap'"),
                                   RuntimeError("two\nlines"), AssertionError()])
def test_a_fault_of_ours_has_a_code_of_its_own_and_says_how_to_report_it(
        error, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exit_code(ends(error), ["--model", "my net.onnx"]) == FAULT == 70
    seen = capsys.readouterr()
    assert seen.out == ""
    path, = tmp_path.iterdir()
    lines = seen.err.splitlines()
    assert lines[0] == "fault: the program failed, and what it was given is not to blame"
    assert re.fullmatch(rf"  {type(error).__name__}.* \(command, line \d+ of test_command.py\)",
                        lines[1])
    assert lines[2:] == [
        f"  please report it: attach {path} (command, versions, traceback)",
        "  and the files that the command was given"]
    written = path.read_text()
    assert written.startswith("python -m tests.golden.test_command --model 'my net.onnx'\nPython 3")
    assert "Traceback (most recent call last)" in written


def test_a_fault_where_no_file_can_be_written(monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    assert exit_code(ends(KeyError("c1")), []) == FAULT
    seen = capsys.readouterr().err
    assert "please report it with these lines" in seen
    assert seen.rstrip().endswith("KeyError: 'c1'")
