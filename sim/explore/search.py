"""Which machines of a space are measured: all of them, or those that Optuna proposes.

A search proposes generations of a fixed size, whatever the number of workers: with the same seed
and the same figures it proposes the same machines, so one that goes on with a journal does what
the first would have done.
"""

import random
from collections import Counter
from functools import lru_cache

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from golden.errors import InputError
from sim.explore.front import front
from sim.explore.space import all_knobs

__all__ = ["Exploration"]

MOST_COUNTED = 20_000       # machines of a space that are looked at one by one, at least
DRAWN        = 2_000        # of a larger one, to see whether any is possible
GENERATION   = 32           # proposals that are measured together
KEPT         = 20_000       # machines before they run
BARREN       = 20           # generations without a new machine, after which it is left to chance


class Exploration:
    """The machines of a space as far as they are known.

    Parameters
    ----------
    space : sim.explore.space.Space
    journal : sim.explore.journal.Journal
        Keeps what is measured.
    most : int
        Machines to measure, at most. A space of no more is enumerated.
    chance : int
        Machines that chance draws to compare a search with, once it is over. They count as any
        others, and are in addition to ``most``.

    Attributes
    ----------
    rows : dict
        Number -> what is known of a machine: ``machine``, ``knobs``, ``status``, ``reason``,
        ``figures`` (metrics and knobs), ``units``, ``seconds``.
    searched, drawn : list
        Numbers of the machines that ran, in the order of the search; and those that chance drew,
        which are all where all were tried.
    todo : int
        Machines to measure, those in the journal included.
    enumerated : bool

    Raises
    ------
    InputError
        If no machine is possible.
    """

    def __init__(self, space, journal, most, chance=0):
        self.space, self._journal, self._chance = space, journal, chance
        self._candidate = lru_cache(KEPT)(space.candidate)
        self.rows = {}
        possible  = self._possible(max(most, MOST_COUNTED))
        self.enumerated = possible is not None and len(possible) <= most
        self.possible   = None if possible is None else len(possible)
        self.todo       = most if possible is None else min(most, len(possible))
        self._numbers   = possible
        self.searched, self.drawn = [], []
        if not self.enumerated:
            self.todo += chance

    def run(self, evaluate, seed=0, progress=lambda count, best: None):
        """Measure what there is to measure; ``progress`` is told of each new machine. ``evaluate``
        takes (number, config) pairs, and yields what was found of each, as
        :meth:`sim.explore.workers.Workers.evaluate` does."""
        self._evaluate, self._progress = evaluate, progress
        self._count, self._best = 0, None
        if self.enumerated:
            self._measure(self._numbers)
            self.searched = self.drawn = self._numbers
        else:
            self._search(seed)
            self._draw(seed)

    @property
    def good(self):
        """The rows of machines that ran and break no constraint."""
        return [row for row in self.rows.values() if row["status"] == "measured"]

    @property
    def front(self):
        return front(self.good, self.space.objectives)

    def _possible(self, most):
        """The numbers of machines that may be measured, None where there are too many to look at
        each; all others become rows."""
        space = self.space
        whole = space.machines <= most
        look  = (range(space.machines) if whole else
                 [random.Random(0).randrange(space.machines) for _ in range(DRAWN)])
        found, broken = [], Counter()
        for number in look:
            candidate = self._candidate(number)
            if not candidate.status:
                found.append(number)
            else:
                broken[candidate.reason] += 1
                if whole:
                    self.rows[number] = _row(candidate)
        if not found:
            reason, count = broken.most_common(1)[0]
            among = f"of its {space.machines}" if whole else f"among {DRAWN} drawn by chance"
            raise InputError(f"Space {space.name} is empty: no machine {among} is possible; "
                             f"{count} of them because of: {reason}")
        return found if whole else None

    def _measure(self, numbers):
        """Make rows of machines, from the journal or from workers."""
        candidates = {number: self._candidate(number) for number in numbers
                      if number not in self.rows}
        for number, candidate in candidates.items():
            if candidate.status:
                self.rows[number] = _row(candidate)
            elif number in self._journal.rows:
                self._keep(candidate, self._journal.rows[number])
        asked = [(number, candidate.config) for number, candidate in candidates.items()
                 if number not in self.rows]
        for number, found in self._evaluate(asked) if asked else ():
            if found["status"] != "lost":       # the next try may do better
                self._journal.add(number, found)
            self._count += 1
            self._keep(candidates[number], found)
            self._progress(self._count, self._best)

    def _keep(self, candidate, found):
        row = _row(candidate, found)
        if row["status"] == "measured":
            broken = self.space.broken(candidate, row["figures"])
            if broken:
                row |= {"status": "outside", "reason": f"not {broken}"}
            else:
                first = row["figures"][self.space.objectives[0]]
                self._best = first if self._best is None else min(first, self._best)
        self.rows[candidate.number] = row

    def _search(self, seed):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        objectives = self.space.objectives
        sampler = (optuna.samplers.TPESampler(seed=seed) if len(objectives) == 1 else
                   optuna.samplers.NSGAIISampler(seed=seed, population_size=GENERATION))
        study   = optuna.create_study(directions=["minimize"] * len(objectives), sampler=sampler)
        places  = {path: IntDistribution(0, len(values) - 1)
                   for path, values in self.space.parameters.items()}
        barren, chance = 0, random.Random(seed)
        while self._left and barren < 2 * BARREN:
            before = self._measured
            if barren < BARREN:
                trials  = [study.ask(places) for _ in range(GENERATION)]
                numbers = [self.space.number(trial.params) for trial in trials]
            else:
                trials  = []
                numbers = [chance.randrange(self.space.machines) for _ in range(DRAWN)]
            asked = self._first_new(numbers)
            self._measure(asked)
            self.searched += [number for number in asked if _ran(self.rows[number])]
            for trial, number in zip(trials, numbers, strict=False):
                self._tell(study, trial, self.rows.get(number))
            barren = 0 if self._measured > before else barren + 1

    def _draw(self, seed):
        """Measure machines drawn by chance from all that are possible, each once."""
        chance, tried = random.Random(f"{seed} by chance"), set()
        while len(self.drawn) < self._chance and len(tried) < self.space.machines / 2:
            number = chance.randrange(self.space.machines)
            if number not in tried and not self._candidate(number).status:
                self.drawn.append(number)
            tried.add(number)
        self._measure(self.drawn)

    @property
    def _measured(self):
        return sum(map(_ran, self.rows.values()))

    @property
    def _left(self):
        """How many machines the search may still measure."""
        return self.todo - self._chance - self._measured

    def _first_new(self, numbers):
        """Of ``numbers``, each once, as many as may still be measured."""
        left, found = self._left, []
        for number in dict.fromkeys(numbers):
            if number not in self.rows and left:
                found.append(number)
                left -= not self._candidate(number).status
        return found

    def _tell(self, study, trial, row):
        if row is None or row["status"] not in ("measured", "outside"):
            study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_constraint("space", 0.0 if row["status"] == "measured" else 1.0)
        study.tell(trial, [row["figures"][name] for name in self.space.objectives])


def _ran(row):
    """Whether a machine was asked for, whatever became of it."""
    return row["status"] not in ("refused", "excluded")


def _row(candidate, found=None):
    """What is known of a machine, as results have it."""
    found   = found or {"status": candidate.status, "reason": candidate.reason}
    figures = candidate.known | found.get("metrics", {})
    if candidate.config is not None:
        figures = {path: value for path, value in all_knobs(candidate.config).items()
                   if isinstance(value, int | float)} | figures
    return {"machine": candidate.number, "knobs": candidate.knobs, "status": found["status"],
            "reason": found["reason"], "figures": figures, "units": found.get("units"),
            "seconds": found.get("seconds")}
