"""What to do about an operator that the engine does not have."""

from golden.places import COMMAND

FREEZE = ("train with BatchNormalization instead, or freeze its statistics: "
          f"`{COMMAND} sim` does with the float file, CALIBRATION=folder and FREEZE=1")
REWRITES = {
    "Gemm":       "use a 1x1 Conv",
    "MatMul":     "use a 1x1 Conv",
    "Flatten":    "keep maps as N x C x H x W",
    "Reshape":    "keep maps as N x C x H x W",
    "InstanceNormalization": FREEZE,
    "GroupNormalization": FREEZE,
    "LayerNormalization": "train with BatchNormalization instead",
    "Transpose":  "export with channels first",
    "MaxUnpool":  "use Resize x2 or ConvTranspose 2x2 with stride 2",
    "Upsample":   "export with opset 13 or newer, which has Resize",
}
KNOWN = ("Conv, ConvTranspose, BatchNormalization, Relu, Clip, Sigmoid, Add, Mul, Concat, MaxPool, "
         "AveragePool, Resize, DepthToSpace, Pad, Identity, Dropout and activations run, and "
         "Softmax and ArgMax at the end")
