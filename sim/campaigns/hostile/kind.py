"""What every kind of hostile file has, and how its door is opened."""

from collections.abc import Callable
from dataclasses import dataclass

from golden.command import exit_code
from hw.compiler import CompileError
from sim.campaigns.hostile.cage import Wrong
from sim.errors import SimulationError

__all__ = ["Kind", "door", "must_accept"]


@dataclass(frozen=True)
class Kind:
    """``corpus(run)`` makes good examples, once; ``run`` is the folder of a run of the machine.
    ``make(random, corpus, folder)`` writes one hostile file into the folder ``in`` below
    ``folder``, and returns the command line that reads it, for :func:`.cage.caged`. ``share`` is
    how many there are beside those of other kinds.
    """
    name:   str
    corpus: Callable
    make:   Callable
    share:  int = 10


def door(read):
    """``read()`` as a command line would call it."""
    return lambda: exit_code(lambda _: read(), None, CompileError, SimulationError)


def must_accept(command):
    """``command``, for a good file: a refusal is wrong, too."""
    def tried():
        code = command()
        if code == 2:
            raise Wrong("a good file was refused")
        return code
    return tried
