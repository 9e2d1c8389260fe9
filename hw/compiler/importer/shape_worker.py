"""The process in which shapes of a file are inferred first, where that may end it.

A model comes in; the exit code says whether its shapes follow. Runs as a script that imports
nothing of ours, so that it starts soon.
"""

import sys

import onnx

if __name__ == "__main__":
    onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(sys.stdin.buffer.read()),
                                      data_prop=True)
