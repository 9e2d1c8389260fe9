"""Batches: who is asked together, and what becomes of those whose workers die. No processes."""

from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import distributed
import pytest
from distributed.scheduler import KilledWorker

from golden.models import load_graph
from hw.compiler import compile_network
from hw.config import preset
from sim.explore import workers
from sim.explore.evaluate import Network, _program, evaluate, sources

NETWORK = Network("elec4848", 16, 4, 1)


class Ended(deque):
    """Of :func:`distributed.as_completed`: what was added, until nothing is left."""

    add = deque.append

    def __iter__(self):
        while self:
            yield self.popleft()


class Client:
    """Two threads; who works on the machine ``deadly`` dies."""

    def __init__(self, deadly=None):
        self.deadly, self.asked = deadly, []

    def nthreads(self):
        return {"a": 1, "b": 1}

    def submit(self, _, configs, *__, pure):
        self.asked.append(configs)

        def result():
            if self.deadly in configs:
                raise KilledWorker("evaluate_all", None, 3)
            return [{"status": "measured", "of": config} for config in configs]

        return SimpleNamespace(key=len(self.asked), result=result)


def evaluated(monkeypatch, count, **client):
    monkeypatch.setattr(distributed, "as_completed", Ended)
    made = workers.Workers(NETWORK)
    made._client = Client(**client)
    return made._client.asked, list(made.evaluate((number, f"config {number}")
                                                  for number in range(count)))


@pytest.mark.parametrize("count, sizes", [(1, {1}), (32, {5, 2}), (100, {8, 4})])
def test_neighbours_are_asked_together(monkeypatch, count, sizes):
    asked, found = evaluated(monkeypatch, count)
    assert [config for batch in asked for config in batch] == [f"config {number}"
                                                               for number in range(count)]
    assert {len(batch) for batch in asked} == sizes
    assert found == [(number, {"status": "measured", "of": f"config {number}"})
                     for number in range(count)]


@pytest.mark.parametrize("number", [0, 50, 99])
def test_only_the_machine_that_workers_die_of_is_lost(monkeypatch, number):
    _, found = evaluated(monkeypatch, 100, deadly=f"config {number}")
    assert sorted(each for each, _ in found) == list(range(100))
    assert [each for each, row in found if row["status"] == "lost"] == [number]


def test_machines_that_run_the_same_program_differ_in_what_it_takes(monkeypatch):
    """Clock and off-chip timing are not the compiler's business, and so the program of the machine
    before is taken; figures are those of a program of their own."""
    _program.cache_clear()      # of what other tests compiled
    compiled = []
    monkeypatch.setattr("sim.explore.evaluate.compile_network", lambda *given, **more: (
        compiled.append(given[1]), compile_network(*given, **more))[1])
    tiny     = preset("tiny")
    machines = [tiny, replace(tiny, clock_mhz=50.0), preset("tiny", dram="sdr-ulx3s"),
                replace(tiny, onchip_bytes=32768)]
    found = [evaluate(machine, NETWORK, sources()) for machine in machines]
    assert len(compiled) == 2
    graph = load_graph("elec4848", 16, 4)
    assert len({row["metrics"]["latency"] for row in found[:3]}) == 3
    for machine in machines[:3]:
        assert compile_network(graph, machine).image == compile_network(graph, machines[0]).image
