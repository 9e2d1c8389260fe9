"""What the units run for a graph."""

from golden.arbitrary import arbitrary_graph
from hw.compiler.ops import lower


def test_a_gated_map_is_stored_once():
    """Pooled in the encoder, which cannot read it in the decoder's rows; that made two copies of
    one name, of which one was never run."""
    network = lower(arbitrary_graph(9))
    names   = [layer.name for layer in network.layers]
    assert "gated12_stored" in names
    assert len(names) == len(set(names))
