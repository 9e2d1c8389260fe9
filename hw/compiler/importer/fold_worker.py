"""The process in which :mod:`hw.compiler.importer.fold` evaluates what may take long or much.

Models come in, graphs of constants go out; a graph's name says why there are none. Runs as a script
that imports nothing of ours, so that it starts soon and its limit is for the evaluation.
"""

import resource
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


def evaluated(model):
    """Outputs of a model without inputs."""
    found = ReferenceEvaluator(model).run(None, {})
    if any(isinstance(value, list | dict) or value is None for value in found):
        raise ValueError("a sequence, or nothing")
    return [np.asarray(value) for value in found]


def send(stream, blob):
    """Write bytes, and how many."""
    stream.write(len(blob).to_bytes(8, "little") + blob)
    stream.flush()


def receive(stream):
    """What :func:`send` wrote; nothing at the end of the stream."""
    size = stream.read(8)
    return stream.read(int.from_bytes(size, "little")) if len(size) == 8 else b""


def main():
    """Answer until there is nothing more; arguments are the limits, in bytes, of memory and of
    results."""
    limit, largest = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while blob := receive(sys.stdin.buffer):
        answer = onnx.GraphProto()
        try:
            found = evaluated(onnx.ModelProto.FromString(blob))
            if sum(value.nbytes for value in found) > largest:
                raise MemoryError(f"more than {largest:,} bytes")
            answer.initializer.extend(numpy_helper.from_array(value) for value in found)
        except Exception as error:
            del answer.initializer[:]
            answer.name = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        send(sys.stdout.buffer, answer.SerializeToString())


if __name__ == "__main__":
    main()
