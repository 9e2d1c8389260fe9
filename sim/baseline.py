"""The same network on the CPU of this machine: what the hardware is compared with."""

import io
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import onnx
import torch

from golden.metrics import binary, dice
from golden.models import load_float, load_graph
from golden.onnx_export import export
from golden.referee import session

__all__ = ["CORE_WATTS", "ENGINES", "Baseline", "measure"]

ENGINES = {"torch_fp32": "PyTorch, fp32", "onnx_fp32": "ONNX Runtime, fp32",
           "onnx_int8": "ONNX Runtime, INT8"}
INPUT   = "frame"

CORE_WATTS = 225 / 64, 205 / 28
"""What a busy core takes: thermal design power over cores of two servers' processors of 2019, AMD
EPYC 7742 and Intel Xeon Platinum 8280; virtual machines do not tell that of their own."""


@dataclass(frozen=True)
class Baseline:
    """One frame at a time: the best of some repetitions, in milliseconds.

    ``milliseconds`` is by key of :data:`ENGINES`; ``dice_truth`` is the float network's, None
    without truth. ``int8_s`` are the processor's seconds, of all threads together, of the fastest
    INT8 frame. ``load`` is the machine's load average right before: where it is not far below
    ``cores``, something else was at work, and the times are too long.
    """
    milliseconds: dict
    dice_truth:   float
    cores:        int
    load:         float
    int8_s:       float

    @property
    def int8_mj(self):
        """mJ of that frame, from and to: its seconds times :data:`CORE_WATTS`."""
        return tuple(1e3 * watts * self.int8_s for watts in CORE_WATTS)


def measure(model, size, width, frame_CHW, truth_HW=None, *, repeats=5):
    """Run a network on one uint8 frame in PyTorch and in ONNX Runtime, fp32 and INT8.

    The INT8 one is the integer graph as ONNX QDQ, run by ONNX Runtime's integer kernels. Each gets
    one run to warm up and ``repeats`` that count; PyTorch gets them with one thread and with all,
    since on small frames its threads cost more than they bring.
    """
    load     = os.getloadavg()[0]
    network  = load_float(model, size, width)
    graph    = load_graph(model, size, width)
    real     = frame_CHW[None].to(torch.float32) / 255
    floating = session(_exported(network, real), optimised=True)
    integer  = session(export(graph), optimised=True)
    mask_HW  = binary(network.segment(frame_CHW))
    runs     = {"torch_fp32": lambda: network.segment(frame_CHW),
                "onnx_fp32":  lambda: floating.run(None, {INPUT: real.numpy()}),
                "onnx_int8":  lambda: integer.run(None, {graph.input: real.numpy()})}
    best     = {name: _best(one, repeats) for name, one in runs.items()}
    with _one_thread():
        best["torch_fp32"] = min(best["torch_fp32"], _best(runs["torch_fp32"], repeats))
    return Baseline(milliseconds={name: 1e3 * wall for name, (wall, _) in best.items()},
                    int8_s=best["onnx_int8"][1], cores=os.cpu_count(), load=load,
                    dice_truth=None if truth_HW is None else dice(mask_HW, truth_HW))


def _best(run, repeats):
    """Seconds of the fastest repetition, and the processor's meanwhile."""
    def timed():
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - wall, time.process_time() - cpu

    run()
    return min(timed() for _ in range(repeats))


@contextmanager
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Mask(torch.nn.Module):
    """A network that returns its mask."""

    def __init__(self, network):
        super().__init__()
        self._network = network

    def forward(self, frame_N3HW):
        return self._network.trace(frame_N3HW)["mask"]


def _exported(network, frame_N3HW):
    """The float network as an ONNX model. PyTorch's older exporter: the newer one takes half a
    minute for the same graph."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of its retirement, and of what it did not fold
        torch.onnx.export(_Mask(network).eval(), (frame_N3HW,), file, dynamo=False,
                          input_names=[INPUT])
    return onnx.load_from_string(file.getvalue())
