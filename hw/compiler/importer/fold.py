"""Nodes whose operands are all constants, evaluated in bounded time and memory.

Cheap operators whose results have a known, small size are evaluated here. Everything else is done
by a second process with a memory limit, which is ended when the time is up.
"""

import subprocess
import sys
import threading
import time

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from hw.compiler.importer import fold_worker
from hw.compiler.importer.check import LARGEST_CONSTANTS, told
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.fold_worker import evaluated, receive, send

SECONDS = 20                # for all constants of a file together
MEMORY  = 4 << 30           # bytes of the second process
AT_ONCE = 1 << 24           # elements of a result that is made in this process
REPLACE = "fold constants at export, so that it is one (an initializer)"
BRANCH  = ("If", "Loop", "Scan", "SequenceMap")
RANDOM  = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
           "RandomUniformLike")
CHEAP   = frozenset(
    "Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape Div Equal Exp Expand Flatten Floor "
    "Gather Greater GreaterOrEqual Identity Less LessOrEqual Log Max Min Mod Mul Neg Not Or Pow "
    "QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu "
    "Reshape Round Shape Sigmoid Size Slice Split Sqrt Squeeze Sub Tile Transpose Unsqueeze "
    "Where".split())


class Folder:
    """Evaluates nodes of one file, and counts what that takes."""

    def __init__(self, opset):
        self.opset = opset
        self.left  = float(SECONDS)
        self.bytes = 0
        self.process = None

    def close(self):
        """End the second process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def fold(self, node, inputs):
        """Outputs of ``node`` for constants in the order of its inputs, None for one left out.

        Raises
        ------
        Refusal
            If it cannot be evaluated, or not within the bounds.
        """
        if node.op_type in BRANCH:
            raise Refusal("it is a branch or a loop, which is not followed", REPLACE)
        if node.op_type in RANDOM:
            raise Refusal("its result is another every time", REPLACE)
        model = self._model(node, inputs)
        begin = time.monotonic()
        try:
            small = node.op_type in CHEAP and _elements(model) <= AT_ONCE
            found = evaluated(model) if small else self._elsewhere(model)
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(f"it does not fit its constant operands ({told(error)})",
                          REPLACE) from None
        self.left  -= time.monotonic() - begin
        self.bytes += sum(value.nbytes for value in found)
        if self.bytes > LARGEST_CONSTANTS:
            raise Refusal(f"with it, constants that follow from others take {self.bytes:,} bytes, "
                          "more than any machine has room for", "use a smaller network")
        if self.left < 0:
            self._late()
        return found

    def _model(self, node, inputs):
        """A model of this node alone, its operands inside."""
        named = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
        made  = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph(
            [node], "constant", [], made,
            [numpy_helper.from_array(np.asarray(value), name) for name, value in named.items()])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])

    def _late(self):
        raise Refusal(f"constants that follow from others take longer than {SECONDS} s", REPLACE)

    def _elsewhere(self, model):
        """The same by the second process."""
        if self.left <= 0:
            self._late()
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-I", fold_worker.__file__, str(MEMORY), str(LARGEST_CONSTANTS)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process = self.process
        timer   = threading.Timer(self.left, process.kill)
        timer.start()
        begin   = time.monotonic()
        try:
            send(process.stdin, model.SerializeToString())
            answer = receive(process.stdout)
        except OSError:
            answer = b""
        finally:
            timer.cancel()
        if not answer:
            self.close()
            if time.monotonic() - begin >= self.left:
                self._late()
            raise Refusal(f"it needs more than {MEMORY >> 30} GiB to be evaluated", REPLACE)
        graph = onnx.GraphProto.FromString(answer)
        if graph.name:
            raise Refusal(f"it does not fit its constant operands ({graph.name})", REPLACE)
        return [numpy_helper.to_array(tensor) for tensor in graph.initializer]


def _elements(model):
    """How many elements the outputs have, as far as ONNX tells beforehand."""
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    total = 0
    for info in graph.output:
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            return float("inf")
        count = 1
        for side in tensor.shape.dim:
            if not side.HasField("dim_value") or side.dim_value < 0:
                return float("inf")
            count *= side.dim_value
        total += count
    return total
