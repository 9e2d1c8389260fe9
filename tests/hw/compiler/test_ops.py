"""What the units run for a graph."""

from dataclasses import replace

import pytest
import torch

from golden import integer
from golden.arbitrary import arbitrary_graph
from golden.models import load_graph
from hw.compiler import CompileError, compile_network
from hw.compiler.ops import MADE, lower
from hw.config import TINY


def test_a_gated_map_is_stored_once():
    """Pooled in the encoder, which cannot read it in the decoder's rows; that made two copies of
    one name, of which one was never run."""
    network = lower(arbitrary_graph(9))
    names   = [layer.name for layer in network.layers]
    assert "gated12_stored" in names
    assert len(names) == len(set(names))


def test_weights_are_packed_once_for_all_machines():
    """A search compiles one network thousands of times, and must not grow with each."""
    graph = load_graph("elec4848", size=16, width=4)
    compile_network(graph, TINY)
    parts, packed = (dict(kept) for kept in MADE[graph])
    compile_network(graph, replace(TINY, onchip_bytes=2 * TINY.onchip_bytes))
    assert MADE[graph] == (parts, packed) and packed


def with_layers(graph, count):
    """A network of which units run ``count`` layers: copies of the mask are behind it."""
    layers, tensors = list(graph.layers), dict(graph.tensors)
    for index in range(count - len(lower(graph).layers)):
        source, name = tensors[layers[-1].name], f"copy{index}"
        layers.append(integer.Conv(
            name, source.name, torch.ones(1, 1, 1, 1, dtype=torch.int8),
            torch.zeros(1, dtype=torch.int32), torch.tensor([1 << 14], dtype=torch.int16),
            torch.tensor([14], dtype=torch.uint8), 1, (0, 0, 0, 0), 0, 255, "decoder"))
        tensors[name] = replace(source, name=name)
    return replace(graph, layers=tuple(layers), tensors=tensors, output=name, outputs=(name,))


def test_as_many_layers_as_instructions_can_name():
    """Lent, they would be more, with the copies of gated skips: then no unit lends."""
    graph = load_graph("elec4848", size=16, width=4)
    most  = with_layers(graph, 255)
    assert compile_network(most, TINY).layers[-1].id == 255
    with pytest.raises(CompileError, match="more than 255 layers, as many as"):
        lower(most, lend=True)
    with pytest.raises(CompileError, match="more than 255 layers, as many as"):
        lower(with_layers(graph, 256))
