"""Who does the work: Dask, on all cores of this computer or on a cluster."""

import logging
import os
from contextlib import ExitStack

import distributed
from distributed.scheduler import KilledWorker

from golden.errors import InputError
from golden.folders import temporary
from sim.explore.evaluate import OtherSources, evaluate, sources
from sim.simulators import CACHE

__all__ = ["Workers"]

PATIENCE = 10       # seconds for a scheduler, and for the first worker, to answer
AHEAD    = 4        # machines that wait at each thread


class Workers:
    """Processes that evaluate machines; a context manager.

    Parameters
    ----------
    network : sim.explore.evaluate.Network
    jobs : int
        Processes on this computer; None: one for each core.
    scheduler : str
        Address of a cluster's scheduler, in place of these.

    Raises
    ------
    InputError
        If the scheduler cannot be reached or has no workers; later if it is lost, or a worker has
        other sources.
    """

    def __init__(self, network, jobs=None, scheduler=None):
        self.network, self._scheduler = network, scheduler
        self._jobs = jobs or len(os.sched_getaffinity(0))

    def __enter__(self):
        with ExitStack() as stack:
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            where = self._scheduler or stack.enter_context(self._cluster(stack))
            try:
                self._client = stack.enter_context(distributed.Client(where, timeout=PATIENCE))
                self._client.wait_for_workers(1, timeout=PATIENCE if self._scheduler else 60)
            except TimeoutError:
                raise InputError(f"The scheduler at {where} has no workers; start some in this "
                                 "project's folder") from None
            except (OSError, ValueError, ImportError) as error:
                raise InputError(f"No scheduler answers at {where} ({_line(error)}); start one, or "
                                 "leave SCHEDULER out to use this computer") from None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failed):
        return self._stack.__exit__(*failed)

    @property
    def threads(self):
        return max(1, sum(self._client.nthreads().values()))

    def evaluate(self, configs):
        """``(number, what was found)`` of each ``(number, config)``, in the order in which they
        end. A machine that several workers died of has the status ``lost``."""
        configs = iter(configs)
        numbers = {}
        ended   = distributed.as_completed()

        def ask(count):
            for number, config in (one for _, one in zip(range(count), configs, strict=False)):
                future = self._client.submit(evaluate, config, self.network, sources(), pure=False)
                numbers[future.key] = number
                ended.add(future)

        ask(AHEAD * self.threads)
        for future in ended:
            yield numbers.pop(future.key), self._result(future)
            ask(1)

    def _result(self, future):
        try:
            return future.result()
        except KilledWorker:
            return {"status": "lost", "reason": "its workers died", "seconds": 0}
        except OtherSources:
            raise InputError(f"A worker of {self._scheduler} has other sources than these; start "
                             "all of them in folders with the same") from None
        except ModuleNotFoundError as error:
            raise InputError(f"A worker of {self._scheduler} lacks {error.name}; start workers in "
                             "this project's folder") from None
        except (distributed.CancelledError, OSError) as error:
            raise InputError(f"The workers are gone ({_line(error)}); what they had done is in the "
                             "journal, and the same command goes on") from None

    def _cluster(self, stack):
        CACHE.mkdir(exist_ok=True)
        folder = stack.enter_context(temporary(CACHE, "dask-"))
        return distributed.LocalCluster(
            n_workers=self._jobs, threads_per_worker=1, processes=True, dashboard_address=None,
            local_directory=str(folder), silence_logs=logging.CRITICAL)


def _line(error):
    return " ".join(str(error).split()) or type(error).__name__
