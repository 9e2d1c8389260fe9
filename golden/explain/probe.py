"""A float network made transparent: every ReLU and every named tensor is a module one can hook.

The networks call ``F.relu``, which no hook sees: a guided backpropagation on them as they are would
be a plain one. So their trace is read with ``torch.fx`` and rewritten; the weights are shared, and
the results are the same.
"""

import torch
import torch.nn.functional as F
from torch import nn

from golden.classes import lesion_logit
from golden.networks.operations import operations

__all__ = ["BATCH", "Probe", "Score"]

BATCH = 8           # frames per pass, where parts of a frame are hidden
RELU_FUNCTIONS = (F.relu, F.relu_, torch.relu, torch.relu_)
RELU_METHODS = ("relu", "relu_")


class Probe(nn.Module):
    """A network whose ReLUs are ``nn.ReLU`` and whose named tensors pass through `point`.

    Takes frames in 0..1, N x 3 x H x W, and returns what ``trace`` of the network does.
    """

    def __init__(self, network):
        super().__init__()
        self.traced, _ = operations(network.eval())
        graph = self.traced.graph
        for index, node in enumerate(list(graph.nodes)):
            if ((node.op == "call_function" and node.target in RELU_FUNCTIONS)
                    or (node.op == "call_method" and node.target in RELU_METHODS)):
                self._replace(graph, node, f"relu_{index}", nn.ReLU())
        for module in self.traced.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        for name, node in graph.output_node().args[0].items():
            self._insert(graph, node, f"point_{name}", nn.Identity())
        self.traced.recompile()

    def _replace(self, graph, node, name, module):
        self.traced.add_submodule(name, module)
        with graph.inserting_after(node):
            node.replace_all_uses_with(graph.call_module(name, (node.args[0],)))
        graph.erase_node(node)

    def _insert(self, graph, node, name, module):
        self.traced.add_submodule(name, module)
        with graph.inserting_after(node):
            inserted = graph.call_module(name, (node,))
        node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)

    def point(self, name):
        """The module through which tensor ``name`` passes."""
        return self.traced.get_submodule(f"point_{name}")

    def forward(self, frame_N3HW):
        return self.traced(frame_N3HW)


class Score(nn.Module):
    """What explanations explain: the sum of a probe's mask logits, of lesion of any class, over
    some pixels, per frame.

    ``passed``, if given, is called with the number of frames of every pass.
    """

    def __init__(self, probe, pixels_HW, *, passed=None):
        super().__init__()
        self.probe, self.passed = probe, passed
        self.register_buffer("pixels_HW", pixels_HW.to(torch.float32))

    def forward(self, frame_N3HW):
        logit_N1HW = lesion_logit(self.probe(frame_N3HW)["logit"])
        score_N = (logit_N1HW * self.pixels_HW).sum((1, 2, 3))
        if self.passed:
            self.passed(len(frame_N3HW))
        return score_N
