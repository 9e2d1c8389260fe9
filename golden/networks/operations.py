"""The operations behind a network's trace, followed by ``torch.fx``."""

from torch import fx, nn

__all__ = ["operations"]


class _Traced(nn.Module):
    """Has the trace for its result."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, frame_N3HW):
        return self.network.trace(frame_N3HW)


def operations(network):
    """The trace as a graph module that shares the weights, and the name of each node it returns.

    Names are in the order of the trace.
    """
    traced = fx.symbolic_trace(_Traced(network))
    return traced, {node: name for name, node in traced.graph.output_node().args[0].items()}
