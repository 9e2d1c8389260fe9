"""Random networks: that they agree, that a fault is found, shrunk and replayed."""

from dataclasses import replace

import pytest
from rich.console import Console

from golden.arbitrary import arbitrary_graph
from golden.integer import Conv
from hw.compiler.ops import PACKED, lower
from hw.config import TINY
from sim.campaigns import fuzz as module
from sim.campaigns.fuzz import Case, cut, differences, find, fuzz, main, shrink
from sim.model import kernel

SMALL = Case(3, depth=1, widest=6, side=12)


def quiet():
    return Console(quiet=True)


@pytest.mark.parametrize("seed", range(2))
def test_interpreter_agrees(seed):
    assert find(replace(SMALL, seed=seed), TINY, engine="interpreter", referee=True) is None


def test_a_gate_over_a_map_that_is_cut_otherwise_than_its_factors():
    """A factor for each channel, and channels that came side by side from two maps."""
    case = Case(266, cut="gated24")
    assert f"sum17{PACKED}" in lower(case.graph()).made
    assert find(case, TINY, engine="interpreter") is None


def faulty(monkeypatch, of):
    """A compiler that flips a bit in the bias of the layer that ``of`` picks."""
    compile_network = module.compile_network

    def compiled(graph, config):
        name = of(graph)
        layers = tuple(
            replace(layer, bias=layer.bias ^ 0x4000) if layer.name == name else layer
            for layer in graph.layers)
        return compile_network(replace(graph, layers=layers), config)

    monkeypatch.setattr(module, "compile_network", compiled)


def first_conv(graph):
    return next(layer.name for layer in graph.layers if isinstance(layer, Conv))


def test_a_fault_is_found_shrunk_and_replayed(monkeypatch, capsys):
    faulty(monkeypatch, first_conv)
    case = Case(3, depth=2, widest=8, side=16)
    (small, config, line), _ = fuzz([case], [TINY], quiet(), engine="interpreter")
    assert (small.depth, small.widest, small.side) == (1, 3, 8)
    graph = small.graph()
    assert graph.output == small.cut == first_conv(graph)
    assert line.startswith(f"{small.cut} differs at channel ")
    command = small.command(config, "interpreter", False)
    assert command == (f"make fuzz N=1 SEED=3 DEPTH=1 WIDEST=3 SIDE=8 CUT={small.cut} CONFIG=tiny "
                       "ENGINE=interpreter")
    options = [part.split("=") for part in command.split()[2:]]
    assert main([text for name, value in options for text in (f"--{name.lower()}", value)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == command


def test_what_does_not_fit_must_fit_as_told(monkeypatch):
    """A refusal is no failure if what it says to set is enough; it is one if that is not."""
    small = Case(4, depth=1, widest=24, side=8)
    tight = replace(TINY, decoder=replace(TINY.decoder, weight_words=64))
    wrong, refused = fuzz([small], [TINY, tight], quiet(), engine="interpreter")
    assert wrong is None
    assert refused == [(small, tight)]
    assert find(small, tight, engine="interpreter")[0] == "refused"

    compiler = module.compile_network
    monkeypatch.setattr(module, "compile_network", lambda graph, config: compiler(
        graph, replace(config, decoder=tight.decoder)))
    kind, line = find(small, tight, engine="interpreter")
    assert kind == "compile"
    assert line.startswith("does not compile: ")


def test_shrinking_keeps_what_fails():
    case = Case(5, depth=3, widest=48, side=40)
    tried = []
    small = shrink(case, lambda x: x.depth >= 2 and x.side >= 12, tried=tried.append)
    assert (small.depth, small.widest, small.side) == (2, 3, 12)
    assert small.cut == small.graph().layers[1].name
    assert len(tried) == 2 + 1 + 2 + 1


def test_nothing_smaller_fails():
    case = Case(5, depth=1, widest=3, side=8)
    assert shrink(case, lambda x: False) == case


def test_a_cut_network_ends_at_its_tensor():
    graph = arbitrary_graph(5, depth=2, widths=(3, 6), largest_side=16)
    name  = graph.layers[-3].name
    part  = cut(graph, name)
    assert part.output == name
    assert part.outputs == (name,)
    assert part.layers[-1].name == name
    assert set(part.tensors) == {layer.name for layer in part.layers}


def test_differences_are_named():
    graph = arbitrary_graph(5, depth=1, widths=(3, 6), largest_side=16)
    assert differences(graph, graph) == []
    conv  = graph.layer(first_conv(graph))
    moved = replace(conv, bias=conv.bias + 1)
    again = replace(graph, layers=tuple(moved if layer is conv else layer
                                        for layer in graph.layers))
    assert differences(graph, again) == [f"bias of {conv.name!r} changed"]
    t     = graph.tensors[conv.name]
    again = replace(graph, tensors={**graph.tensors, conv.name: replace(t, scale=t.scale * 1.001)})
    assert differences(graph, again) == [f"tensor {conv.name!r} changed"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--n", "0"], "N must be positive, not 0"),
    (["--engine", "magic"], ("argument --engine: invalid choice: 'magic' (choose from 'rtl', "
                             "'interpreter'); see `make help`")),
    (["--config", "none"], None),
])
def test_what_cannot_be_done_is_one_line(arguments, message, capsys):
    assert main(["--engine", "interpreter", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    if message:
        assert error == f"error: {message}\n"


@pytest.mark.cosim
def test_rtl_agrees():
    assert find(SMALL, TINY, engine="rtl") is None


@pytest.mark.cosim
def test_a_counter_of_the_cycle_model_that_differs_is_found(monkeypatch):
    """Of a network at whose end a refresh is under way, so that it matters in which cycle the host
    looks."""
    case = Case(348, depth=1, widest=8, side=12)
    assert find(case, TINY, engine="rtl") is None
    monkeypatch.setattr(kernel, "CYCLES_TO_READ", kernel.CYCLES_TO_READ + 1)
    kind, line = find(case, TINY, engine="rtl")
    assert kind == "cycles"
    assert line.startswith("the cycle model differs in 1 counters: off-chip memory, refresh_cycles")


def test_machines_without_bounds_for_each_channel_are_given_none():
    """Otherwise hardly a network would fit them as they are."""
    def bounded(case):
        return [layer for layer in case.graph().layers
                if getattr(layer, "floor", None) is not None]

    case = next(case for case in (Case(seed, depth=1, widest=6, side=8) for seed in range(99))
                if bounded(case))
    without = replace(TINY, channel_bounds=False)
    assert not bounded(replace(case, bounds=False))
    assert find(case, without, engine="interpreter")[0] == "refused"
    assert fuzz([case], [TINY, without], quiet(), engine="interpreter") == (None, [])
