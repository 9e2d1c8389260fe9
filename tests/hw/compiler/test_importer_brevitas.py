"""QCDQ files as Brevitas itself writes them."""

import contextlib
import io
import warnings

import pytest
import torch
from torch import nn

from golden.integer import Concat, Conv, Gate, Lookup, MaxPool, Sum, TransposedConv
from hw.compiler.importer import judge
from hw.network import load_network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from brevitas import nn as qnn
    from brevitas import quant
    from brevitas.export import export_onnx_qcdq
    from brevitas.graph.calibrate import calibration_mode

FRAME = (3, 16, 24)


class Gated(nn.Module):
    """One level of an attention U-Net; QuantTensors go through pooling and concatenation."""

    def __init__(self, weights, positive, signed, bias):
        super().__init__()
        layer = {"weight_quant": weights, "bias_quant": bias}

        def grid(quantiser=signed, kind=qnn.QuantIdentity):
            return kind(act_quant=quantiser, return_quant_tensor=True)

        def block(inputs, outputs, **more):
            return nn.Sequential(
                qnn.QuantConv2d(inputs, outputs, 3, padding=1, **more, **layer),
                grid(positive, qnn.QuantReLU))

        self.image = grid()
        self.first, self.deep = block(3, 6), block(6, 8)
        self.depth = block(8, 8, groups=8)
        self.grow  = nn.Sequential(qnn.QuantConvTranspose2d(8, 6, 2, stride=2, **layer), grid())
        self.query = qnn.QuantConv2d(6, 4, 1, **layer)
        self.key   = qnn.QuantConv2d(6, 4, 1, **layer)
        self.both  = grid()
        self.relu  = grid(positive, qnn.QuantReLU)
        self.psi   = nn.Sequential(qnn.QuantConv2d(4, 1, 1, **layer), grid(),
                                   grid(positive, qnn.QuantSigmoid))
        self.join  = grid()
        self.last  = block(12, 6)
        self.head  = qnn.QuantConv2d(6, 1, 1, output_quant=signed, **layer)

    def forward(self, x):
        skip  = self.first(self.image(x))
        up    = self.grow(self.depth(self.deep(nn.functional.max_pool2d(skip, 2))))
        alpha = self.psi(self.relu(self.both(self.query(up)) + self.both(self.key(skip))))
        return self.head(self.last(torch.cat([self.join(up), self.join(alpha * skip)], 1)))


def exported(network, path, **options):
    """Calibrated on noise, as QCDQ."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        network.eval()
        with calibration_mode(network):
            for _ in range(3):
                network(torch.rand(2, *FRAME))
        export_onnx_qcdq(network, args=torch.rand(1, *FRAME), export_path=str(path),
                         input_names=["image"], output_names=["mask"], **options)
    return str(path)


@pytest.mark.parametrize(("weights", "positive", "signed", "bias", "options"), [
    (quant.Int8WeightPerTensorFloat, quant.Uint8ActPerTensorFloat, quant.Int8ActPerTensorFloat,
     quant.Int32Bias, {"opset_version": 17, "dynamo": False}),
    (quant.Int8WeightPerChannelFloat, quant.ShiftedUint8ActPerTensorFloat,
     quant.ShiftedUint8ActPerTensorFloat, None, {"opset_version": 17, "dynamo": False}),
    (quant.Int8WeightPerTensorFixedPoint, quant.Uint8ActPerTensorFixedPoint,
     quant.Int8ActPerTensorFixedPoint, None, {"opset_version": 18, "dynamo": True}),
], ids=["per tensor", "per channel, shifted", "fixed point, dynamo"])
def test_gated_networks_agree(tmp_path, weights, positive, signed, bias, options):
    torch.manual_seed(1)
    graph, imported = load_network(exported(Gated(weights, positive, signed, bias),
                                            tmp_path / "qcdq.onnx", **options))
    picture = torch.randint(0, 256, FRAME, generator=torch.Generator().manual_seed(0),
                            dtype=torch.uint8)
    for layer in judge(imported, imported.frame(picture)):
        assert layer.steps <= 1, layer
    assert {Concat, Conv, Gate, Lookup, MaxPool, Sum, TransposedConv} <= {
        type(layer) for layer in graph.layers}
    assert graph.tensors[graph.output].channels == 1
