"""Who does the work: Dask, on all cores of this computer or on a cluster."""

import logging
import os
import signal
import threading
from collections import deque
from contextlib import ExitStack, contextmanager

import dask
import distributed
from distributed.scheduler import KilledWorker

from golden.errors import InputError
from golden.folders import temporary
from golden.places import CACHE
from sim.explore.evaluate import OtherSources, evaluate, evaluate_all, sources

__all__ = ["Here", "Workers"]

PATIENCE = 10       # seconds for a scheduler, and for the first of its workers, to answer
START    = 120      # for the first process of this computer, where every core is busy
AHEAD    = 3        # batches that each thread has or is to have
BATCH    = 8        # machines at most: neighbours often run the same program
QUIET    = {        # Dask watches itself; as it is, that takes 6 % of a core in each process
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s"}
LOST     = {"status": "lost", "reason": "its workers died", "seconds": 0}


class Workers:
    """Processes that evaluate machines, started when there is one to evaluate; a context manager.

    Parameters
    ----------
    network : sim.explore.evaluate.Network
    jobs : int
        Processes on this computer; None: one for each core.
    scheduler : str
        Address of a cluster's scheduler, in place of these.

    """

    def __init__(self, network, jobs=None, scheduler=None):
        self.network, self._scheduler = network, scheduler
        self._jobs = jobs or len(os.sched_getaffinity(0))

    def __enter__(self):
        self._stack, self._client = ExitStack(), None
        return self

    def __exit__(self, *failed):
        return self._stack.__exit__(*failed)

    def _connect(self):
        for name in [name for name in logging.root.manager.loggerDict
                     if name.partition(".")[0] == "distributed"]:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)      # what matters is one line
        where = self._scheduler or self._stack.enter_context(self._cluster())
        try:
            self._client = self._stack.enter_context(distributed.Client(where, timeout=PATIENCE))
            self._client.wait_for_workers(1, timeout=PATIENCE if self._scheduler else START)
        except TimeoutError:
            raise InputError(f"The scheduler at {where} has no workers; start some in this "
                             "project's folder") from None
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"No scheduler answers at {where} ({_line(error)}); start one, or "
                             "leave SCHEDULER out to use this computer") from None

    @property
    def threads(self):
        return max(1, sum(self._client.nthreads().values()))

    def evaluate(self, configs):
        """``(number, what was found)`` of each ``(number, config)``, in the order in which they
        end. A machine that several workers died of has the status ``lost``.

        Raises
        ------
        InputError
            If the scheduler cannot be reached, has no workers or is lost, or a worker has other
            sources.
        """
        if self._client is None:
            self._connect()
        configs = list(configs)
        size    = max(1, min(BATCH, len(configs) // (AHEAD * self.threads)))
        waiting = deque(configs[k:k + size] for k in range(0, len(configs), size))
        asked   = {}
        ended   = distributed.as_completed()

        def ask(count):
            for batch in [waiting.popleft() for _ in range(min(count, len(waiting)))]:
                future = self._client.submit(evaluate_all, [config for _, config in batch],
                                             self.network, sources(), pure=False)
                asked[future.key] = batch
                ended.add(future)

        ask(AHEAD * self.threads)
        for future in ended:
            batch = asked.pop(future.key)
            found = self._result(future)
            if found is None and len(batch) > 1:        # which of them it is will be seen
                waiting.extendleft([one] for one in reversed(batch))
                ask(len(batch))
                continue
            for (number, _), each in zip(batch, found or [LOST], strict=True):
                yield number, each
            ask(1)

    def _result(self, future):
        """What a batch came to; None if its workers died."""
        try:
            return future.result()
        except KilledWorker:
            return None
        except OtherSources:
            raise InputError(f"A worker of {self._scheduler} has other sources than these; start "
                             "all of them in folders with the same") from None
        except ModuleNotFoundError as error:
            raise InputError(f"A worker of {self._scheduler} lacks {error.name}; start workers in "
                             "this project's folder") from None
        except (distributed.CancelledError, OSError):
            raise InputError("The scheduler is gone; what was done is in the journal, and the same "
                             "command goes on") from None

    def _cluster(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        folder = self._stack.enter_context(temporary(CACHE, "dask-"))
        with _deaf(), dask.config.set(QUIET):
            return distributed.LocalCluster(
                n_workers=self._jobs, threads_per_worker=1, processes=True, dashboard_address=":0",
                scheduler_kwargs={"dashboard": False}, local_directory=str(folder),
                silence_logs=logging.CRITICAL)


class Here:
    """This process, in place of :class:`Workers`; a context manager."""

    def __init__(self, network):
        self._network = network

    def __enter__(self):
        return self

    def __exit__(self, *failed):
        pass

    def evaluate(self, configs):
        return ((number, evaluate(config, self._network, sources())) for number, config in configs)


@contextmanager
def _deaf():
    """What is started here leaves Ctrl-C to this process, which ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _line(error):
    return " ".join(str(error).split()) or type(error).__name__
