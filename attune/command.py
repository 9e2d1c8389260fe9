"""The command ``attune``: the programs of the project, their options checked before one starts.

It takes what ``make`` takes, as options: ``attune sim --config tiny`` is ``make sim CONFIG=tiny``,
and ``attune sim CONFIG=tiny`` is understood as well.
"""

import sys
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version

from attune.completion import SHELLS, complete
from golden.command import exit_code
from golden.errors import InputError
from golden.places import CHECKOUT
from sim.commands import (
    SWITCH,
    TARGETS,
    arguments,
    check_of,
    meaning,
    start,
    wrapped,
)
from sim.errors import SimulationError

__all__ = ["COMMANDS", "main", "option", "values"]

COMMANDS = {name: target for name, target in TARGETS.items()
            if target.module and (CHECKOUT or not target.checkout)}
NAME     = 15       # columns of a name in the help
HELP     = ("-h", "--help")


def main(words=None):
    """The command line; returns the exit code."""
    words = list(sys.argv[1:] if words is None else words) or ["help"]
    if words[0] == "complete":          # what the shells ask at each tab
        print("\n".join(complete(words[2:])))       # behind --
        return 0
    started = []
    code = exit_code(lambda _: started.extend(_asked(*words)), words, SimulationError)
    if started:
        start(*started)
    return code


def _asked(goal, *words):
    """Command and arguments of the program that is to start; nothing if it was only a question."""
    if goal in ("help", *HELP):
        print("\n".join(_usage(_known(words[0])) if words else _list()))
    elif goal in ("version", "--version"):
        print(f"attune {_version()}")
    elif goal == "completion":
        shell = words[0] if words else "none"
        if shell not in SHELLS:
            raise InputError(f"No completion for shell {shell!r}; known are {', '.join(SHELLS)}")
        print(SHELLS[shell], end="")
    elif set(HELP) & set(words):
        print("\n".join(_usage(_known(goal))))
    else:
        found = values(_known(goal), words)
        return goal, arguments(goal, found, environment={})
    return ()


def _known(goal):
    if goal in COMMANDS:
        return goal
    if goal in TARGETS:
        raise InputError(f"`{goal}` is of `make`, in a checkout of the project")
    near = get_close_matches(goal, (*COMMANDS, "help", "completion", "version"), 1)
    raise InputError(f"No command {goal!r}; " + (f"did you mean {near[0]}?" if near else
                                                 "`attune help` lists them"))


def option(name):
    """A variable as an option: ``--name``."""
    return f"--{name.lower()}"


def values(goal, words):
    """``{variable: value}`` of the words behind a command.

    Raises
    ------
    InputError
        If the command has no such option, an option lacks its value, or one that is needed is
        missing.
    """
    target, found, words = COMMANDS[goal], {}, list(words)
    while words:
        word = words.pop(0)
        spelled, equals, value = word.partition("=")
        name = spelled.removeprefix("--").upper()
        if target.place and not word.startswith("-") and name not in target.takes:
            name, value = target.place, word
        elif not equals and not word.startswith("--"):
            raise InputError(f"`attune {goal}` takes options, such as "
                             f"{option(next(iter(target.takes)))}, not {word!r}")
        elif name not in target.takes:
            raise InputError(_unknown(goal, spelled, name))
        elif not equals and check_of(goal, name) is SWITCH and words[:1] not in (["0"], ["1"]):
            value = "1"
        elif not equals:
            if not words:
                raise InputError(f"{spelled} needs a value: {meaning(name)}")
            value = words.pop(0)
        found[name] = value
    for name in target.needs:
        if not found.get(name):
            raise InputError(f"`attune {goal}` needs {option(name)}: {meaning(name)}")
    return found


def _unknown(goal, spelled, name):
    takes = COMMANDS[goal].takes
    near  = get_close_matches(name, takes, 1, cutoff=0.6)
    what  = f"`attune {goal}` takes no {spelled}"
    if near:
        return f"{what}; did you mean {option(near[0])}?"
    return f"{what}; it takes {', '.join(map(option, sorted(takes))) or 'no options'}"


def _list():
    """The lines of ``attune help``."""
    for name, target in COMMANDS.items():
        yield f"attune {name + ' ':<{NAME}}{target.text}"
    yield f"attune {'completion':<{NAME}}for a shell: {', '.join(SHELLS)}"
    yield ""
    yield "`attune COMMAND --help` lists what it takes. With bash, completion comes by"
    yield 'eval "$(attune completion bash)".'


def _usage(goal):
    """The lines of ``attune COMMAND --help``."""
    target = COMMANDS[goal]
    place  = f" [{target.place}]" if target.place else ""
    yield f"attune {goal}{place}: {target.text}"
    yield ""
    for name, default in target.takes.items():
        ends = " (needed)" if name in target.needs else f" [{default}]" if default else ""
        yield from wrapped(option(name), f"{meaning(name)}{ends}")


def _version():
    try:
        return version("attune")
    except PackageNotFoundError:        # a checkout
        return "of this checkout"
