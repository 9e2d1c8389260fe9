"""Questions asked in processes of their own: a mutant may hang, or take its process with it."""

import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import time
from collections import deque

from sim.errors import SimulationError

__all__ = ["CRASH", "HANG", "ask"]

HANG, CRASH = "hang", "crash"
PATIENCE    = 10            # times the seconds of the processor, by the clock


def ask(question, about, *, seconds, jobs=1):
    """Ask ``question(each)`` for each of ``about``; yields each, and what it returned, as it ends.

    Each runs in a fork, ``jobs`` at once, and has ``seconds`` of processor time: ``HANG`` is the
    answer if that is not enough, ``CRASH`` if the process ends without an answer.

    Raises
    ------
    SimulationError
        If the question does.
    """
    context, waiting, running = multiprocessing.get_context("fork"), deque(about), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                each = waiting.popleft()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_answer, args=(question, each, seconds, there))
                process.start()
                there.close()
                running.append((each, process, here, time.monotonic() + PATIENCE * seconds))
            multiprocessing.connection.wait([here for _, _, here, _ in running], timeout=1)
            for entry in list(running):
                each, process, here, ends = entry
                if here.poll() or time.monotonic() > ends:
                    running.remove(entry)
                    yield each, _received(process, here)
    finally:
        for _, process, _, _ in running:
            _end(process)


def _received(process, here):
    try:
        kind, what = here.recv() if here.poll() else (None, HANG)
    except EOFError:
        process.join()
        kind, what = None, HANG if process.exitcode == -signal.SIGXCPU else CRASH
    _end(process)
    if kind == "error":
        raise SimulationError(what)
    return what


def _end(process):
    process.kill()
    process.join()


def _answer(question, each, seconds, there):
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    limit = int(seconds) + 1        # a fork begins at zero
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    try:
        there.send(("answer", question(each)))
    except SimulationError as error:
        there.send(("error", str(error)))
    there.close()
    os._exit(0)
