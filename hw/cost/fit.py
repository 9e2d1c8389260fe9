"""The coefficients of :mod:`hw.cost.cells`: some machines fit them, others measure the error."""

import json
import statistics
from dataclasses import dataclass

import numpy as np

from hw.arbitrary import arbitrary_machine, is_arbitrary
from hw.config import preset
from hw.cost.cells import COEFFICIENTS, FITTED, features, kind_of, predicted
from hw.cost.synth import cells_by_block, resources
from hw.top import Chip

__all__ = ["HELD_OUT", "TRAINED", "Error", "errors", "fit", "machine", "points", "synthesised"]

TRAINED  = ("tiny", "random:5", "random:17", "random:20", "random:12")
HELD_OUT = ("edge", "random:21", "random:9")
SWEEPS   = 20_000


def machine(name):
    """A machine by name; ``random:SEED`` is one of :mod:`hw.arbitrary`."""
    return arbitrary_machine(name) if is_arbitrary(name) else preset(name)


def synthesised(name, progress=lambda block: None):
    """``{block: resources}`` of a machine, by Yosys or kept from before."""
    return {block: resources(cells) for block, cells in
            cells_by_block(Chip(machine(name)), progress=progress).items()}


def points():
    """``{machine: {block: resources}}`` that the coefficients were fitted to, or held against."""
    return json.loads(COEFFICIENTS.read_text())["points"]


def fit(measured):
    """``{kind: {resource: {size: coefficient}}}`` that comes nearest to ``{machine: {block:
    resources}}``, in relative terms. No coefficient is negative, so that none can grow wild beyond
    the machines that it comes from."""
    rows = {}
    for name, blocks in measured.items():
        for block, counts in blocks.items():
            rows.setdefault(kind_of(block), []).append((features(machine(name), block), counts))
    found = {}
    for kind, samples in rows.items():
        sizes = list(samples[0][0])
        found[kind] = {}
        for resource in FITTED:
            counts = np.array([max(1, counts[resource]) for _, counts in samples], float)
            table  = np.array([[float(each[size]) for size in sizes] for each, _ in samples])
            best   = _nonnegative(table / counts[:, None])
            found[kind][resource] = {size: round(float(value), 4)
                                     for size, value in zip(sizes, best, strict=True) if value > 0}
    return found


def _nonnegative(table):
    """What of the columns of ``table``, not less than nothing, comes nearest to ones."""
    scale  = np.linalg.norm(table, axis=0)
    scale[scale == 0] = 1
    table  = table / scale
    square, right = table.T @ table, table.sum(axis=0)
    best = np.zeros(len(right))
    for _ in range(SWEEPS):
        before = best.copy()
        for place in np.flatnonzero(np.diag(square)):
            best[place] = max(0, best[place] + right[place] - square[place] @ best)
        if np.abs(best - before).max() < 1e-9:
            break
    return best / scale


@dataclass(frozen=True)
class Error:
    """Of a machine: what was synthesised, and what the model says, by resource."""
    name:      str
    measured:  dict
    predicted: dict

    def of(self, resource):
        """The model's error over what was measured."""
        return self.predicted[resource] / self.measured[resource] - 1


def errors(names, measured, coefficients):
    """An :class:`Error` of each machine, over the blocks that were synthesised."""
    found = []
    for name in names:
        blocks = measured[name]
        found.append(Error(
            name, {resource: sum(counts[resource] for counts in blocks.values())
                   for resource in FITTED},
            {resource: sum(predicted(machine(name), block, resource, coefficients)
                           for block in blocks) for resource in FITTED}))
    return found


def mean_error(found, resource):
    """The mean of what errors are, without their signs."""
    return statistics.mean(abs(error.of(resource)) for error in found)
