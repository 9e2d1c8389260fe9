"""What the units run for a graph."""

from dataclasses import replace

from golden.arbitrary import arbitrary_graph
from golden.models import load_graph
from hw.compiler import compile_network
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
