"""An integer graph as an ONNX QDQ file, for any ONNX tool, and back without loss.

Every layer is the float operator between DequantizeLinear and QuantizeLinear. For a tensor ``X``
of the graph the file has ``X_quantized``, its uint8, and ``X``, the real values that these stand
for; a node that makes it is named ``UNIT/X``. The scales of a file are float32, so weight scales
are chosen such that the multiplier and shift of every layer follow from the file exactly
(:func:`golden.quantize.fixed_point` of ``S_x * S_w / S_y`` in float64).
"""

import math

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from golden.integer import (
    AXES,
    Add,
    Concat,
    Conv,
    Gate,
    Input,
    Interpolate,
    Lookup,
    MaxPool,
    Sum,
    TransposedConv,
    Upsample,
)
from golden.quantize import sigmoid_table

__all__ = ["OPSET", "export", "quantized", "real_factor"]

OPSET = 13                      # the oldest with scales per channel
IR_VERSION = 7                  # of the same release
DEAD = 2.0**-40                 # rounds to multiplier 0; moves no sum of int32 by half a step
ULPS = 16                       # how far a logit's scale may move for the sake of its sigmoid
NOTICE = "Research and teaching only: not for clinical use."


def quantized(name):
    """The uint8 tensor of the file that holds tensor ``name`` of the graph."""
    return f"{name}_quantized"


def real_factor(layer):
    """``m * 2**-s`` per output channel in float64; dead channels get a factor too small to count.
    """
    factor_O = layer.multiplier.to(torch.float64) * torch.exp2(-layer.shift.to(torch.float64))
    return torch.where(layer.multiplier == 0, DEAD, factor_O).numpy()


def export(graph):
    """The ONNX model of an :class:`golden.integer.IntegerGraph`.

    Input: the frame as float, N x C x H x W, in 0..1. Outputs: the real values of the graph's
    ``outputs``, bearing their names.
    """
    return _Writer(graph).model()


class _Writer:
    def __init__(self, graph):
        self.graph, self.nodes, self.initializers = graph, [], []
        self.scales = _float32_scales(graph)

    def model(self):
        graph = self.graph
        for layer in graph.layers:
            self._layer(layer)
        made = {output for node in self.nodes for output in node.output}
        shapes = [self._value(name, quantized(name), TensorProto.UINT8) for name in graph.tensors
                  if quantized(name) in made]
        shapes += [self._value(name, self._real(name)) for name in graph.tensors
                   if name not in graph.outputs]
        body = helper.make_graph(
            self.nodes, graph.network.replace("-", "_"), [self._value(graph.input, graph.input)],
            [self._value(name, name) for name in graph.outputs], self.initializers,
            doc_string=NOTICE, value_info=shapes)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)],
                                  ir_version=IR_VERSION, producer_name="attune",
                                  doc_string=NOTICE)
        helper.set_model_props(model, {"network": graph.network})
        onnx.checker.check_model(model, full_check=True)
        return model

    def _value(self, name, stored, kind=TensorProto.FLOAT):
        """Type and shape of tensor ``name`` of the graph, as ``stored`` in the file."""
        t = self.graph.tensors[name]
        return helper.make_tensor_value_info(stored, kind,
                                             ["batch", t.channels, t.height, t.width])

    def _layer(self, layer):
        match layer:
            case Input():
                self._store(layer, layer.name)
            case Conv():
                self._store(layer, self._convolution(
                    layer, "Conv", axis=0, strides=[layer.stride] * 2, group=layer.groups))
            case TransposedConv():
                self._store(layer, self._convolution(layer, "ConvTranspose", axis=1,
                                                     strides=[2, 2]))
            case Lookup():
                self._lookup(layer)
            case MaxPool():
                self._store(layer, self._node(layer, "MaxPool", self._reals(layer),
                                              kernel_shape=[2, 2], strides=[2, 2]))
            case Upsample():
                real, = self._reals(layer)
                value = self._twice(layer, real, layer.mode)
                self._store(layer, self._halves_up(layer, value) if layer.mode == "linear"
                            else value)
            case Interpolate():
                self._store(layer, self._interpolated(layer))
            case Concat():
                self._store(layer, self._node(layer, "Concat", self._reals(layer), axis=1))
            case Add():
                self._node(layer, "Add", self._reals(layer), output=layer.name)
            case Sum():
                self._sum(layer)
            case Gate():
                self._gate(layer)
            case _:
                raise TypeError(f"No ONNX form of {type(layer).__name__}")

    def _convolution(self, layer, operator, *, axis, **attributes):
        """Weights and biases of ``layer`` as constants, and the node that uses them."""
        source, scale_x = layer.inputs[0], self.scales[layer.inputs[0]]
        scale_w_O = np.float32(real_factor(layer) * self.scales[layer.name] / scale_x)
        weight = self._constant(layer, "weight", layer.weight.numpy())
        parts = [weight, self._constant(layer, "weight_scale", scale_w_O),
                 self._constant(layer, "weight_zero_point", np.zeros(len(scale_w_O), np.int8))]
        weight = self._node(layer, "DequantizeLinear", parts, part="weight_real", axis=axis)
        parts = [self._constant(layer, "bias", layer.bias.numpy().astype(np.int32)),
                 self._constant(layer, "bias_scale", np.float32(np.float64(scale_x) * scale_w_O))]
        bias = self._node(layer, "DequantizeLinear", parts, part="bias_real", axis=0)
        return self._node(layer, operator, [self._real(source), weight, bias],
                          kernel_shape=list(layer.weight.shape[2:]), pads=list(layer.padding),
                          **attributes)

    def _lookup(self, layer):
        """The sigmoid; any other table is looked up as it is."""
        source, out = self.graph.tensors[layer.input], self.graph.tensors[layer.name]
        if _is_sigmoid(layer.table, self.scales[layer.input], source.zero_point, out):
            self._store(layer, self._node(layer, "Sigmoid", self._reals(layer)))
            return
        index = self._node(layer, "Cast", [quantized(layer.input)], part="index",
                           to=TensorProto.INT32)
        table = self._constant(layer, "table", layer.table.numpy())
        self._node(layer, "Gather", [table, index], output=quantized(layer.name), axis=0)
        self._grid(layer)
        self._read_back(layer)

    def _twice(self, layer, real, mode, **naming):
        """Twice the rows and columns."""
        how = ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
               if mode == "nearest" else {"coordinate_transformation_mode": "half_pixel"})
        scales = self._constant(layer, "factors", np.float32([1, 1, 2, 2]))
        return self._node(layer, "Resize", [real, "", scales], mode=mode, **how, **naming)

    def _interpolated(self, layer):
        """Other rows or columns. ONNX rounds their number down: so the float32 factor must not be
        the one below the exact one."""
        axis   = AXES.index(layer.axis)
        t      = self.graph.tensors[layer.input]
        length = (t.height, t.width)[axis]
        factor = np.float32(layer.length / length)
        while length * float(factor) < layer.length:
            factor = np.nextafter(factor, np.float32(math.inf))
        factors = np.ones(4, np.float32)
        factors[2 + axis] = factor
        return self._node(layer, "Resize", [
            *self._reals(layer), "", self._constant(layer, "factors", factors)], mode="linear",
            coordinate_transformation_mode=layer.place)

    def _halves_up(self, layer, value):
        """Raise results, in 1/16 of a step, by 1/64: halves round up, not to even, and no other."""
        rise = self._constant(layer, "rise", np.float32(self.scales[layer.name] / 64))
        return self._node(layer, "Add", [value, rise], part="raised")

    def _sum(self, layer):
        """Both operands, read with scales in the exact ratio of the weights, added or, where the
        second's is below zero, subtracted."""
        step, terms = real_factor(layer)[0] * self.scales[layer.name], []
        for part, name, weight in (("a", layer.a, layer.weight_a), ("b", layer.b, layer.weight_b)):
            scale = self._constant(layer, f"{part}_scale", np.float32(abs(weight) * step))
            terms.append(self._node(layer, "DequantizeLinear", [
                quantized(name), scale, f"{name}_zero_point"], part=f"{part}_real"))
        self._store(layer, self._node(layer, "Add" if layer.weight_b > 0 else "Sub", terms))

    def _gate(self, layer):
        """Alpha times skip, plus the bias, times the gain: batch normalisation, folded."""
        alpha, skip = (self.graph.tensors[name] for name in layer.inputs)
        alpha_real, skip_real = self._reals(layer)
        if (alpha.height, alpha.width) != (skip.height, skip.width):
            alpha_real = self._twice(layer, alpha_real, "nearest", part="upsampled")
        product = self._node(layer, "Mul", [alpha_real, skip_real], part="product")
        unit = np.float64(self.scales[layer.alpha]) * self.scales[layer.skip]
        bias = self._node(layer, "DequantizeLinear", [
            self._constant(layer, "bias", layer.bias.numpy().astype(np.int32)[:, None, None]),
            self._constant(layer, "bias_scale", np.float32(unit))], part="bias_real")
        moved = self._node(layer, "Add", [product, bias], part="moved")
        gain_C = np.float32(real_factor(layer) * self.scales[layer.name] / unit)
        gain = self._constant(layer, "gain", gain_C[:, None, None])
        self._store(layer, self._node(layer, "Mul", [moved, gain]))

    def _store(self, layer, value):
        """Bound a float result and round it to uint8."""
        t, scale = self.graph.tensors[layer.name], self.scales[layer.name]
        low, high = getattr(layer, "low", 0), getattr(layer, "high", 255)
        if getattr(layer, "floor", None) is not None:
            for part, operator, bound_O in (("floor", "Max", layer.floor),
                                            ("ceiling", "Min", layer.ceiling)):
                real_O = (bound_O.numpy().astype(np.float64) - t.zero_point) * scale
                bound = self._constant(layer, part, np.float32(real_O)[:, None, None])
                value = self._node(layer, operator, [value, bound], part=f"{part}_kept")
        elif (low, high) == (t.zero_point, 255) and low > 0:
            value = self._node(layer, "Relu", [value], part="bounded")
        elif (low, high) != (0, 255):
            bounds = [self._constant(layer, part, np.float32((bound - t.zero_point) * scale))
                      for part, bound in (("low", low), ("high", high))]
            value = self._node(layer, "Clip", [value, *bounds], part="bounded")
        self._node(layer, "QuantizeLinear", [value, *self._grid(layer)], part="quantized")
        self._read_back(layer)

    def _grid(self, layer):
        """Scale and zero point of a layer's result, as constants."""
        zero_point = np.uint8(self.graph.tensors[layer.name].zero_point)
        return [self._constant(layer, "scale", self.scales[layer.name]),
                self._constant(layer, "zero_point", zero_point)]

    def _read_back(self, layer):
        """The real values of the stored bytes, under the name that consumers know."""
        grid = [f"{layer.name}_scale", f"{layer.name}_zero_point"]
        self._node(layer, "DequantizeLinear", [quantized(layer.name), *grid], part="dequantized",
                   output=self._real(layer.name))

    def _real(self, name):
        return f"{name}_dequantized" if name == self.graph.input else name

    def _reals(self, layer):
        return [self._real(name) for name in layer.inputs]

    def _constant(self, layer, part, value):
        name = f"{layer.name}_{part}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, layer, operator, inputs, *, part="", output=None, **attributes):
        """Append a node; without ``part`` it is the one that bears the layer's name."""
        name = f"{layer.name}_{part}" if part else layer.name
        output = output or (name if part else f"{name}_result")
        unit = getattr(layer, "unit", "input")
        self.nodes.append(helper.make_node(operator, inputs, [output], f"{unit}/{name}",
                                           **attributes))
        return output


def _is_sigmoid(table, scale, zero_point, out):
    """Whether the file's Sigmoid, between the file's scales, stands for exactly this table."""
    return ((out.scale, out.zero_point) == (1 / 256, 0)
            and torch.equal(table, sigmoid_table(float(scale), zero_point)))


def _float32_scales(graph):
    """The float32 scale of each tensor.

    The nearest one, but where a sigmoid's table would come out different from the float32 scale of
    its logit: then a neighbour that makes the same table, if there is one.
    """
    scales = {t.scale: np.float32(t.scale) for t in graph.tensors.values()}
    for layer in graph.layers:
        if isinstance(layer, Lookup):
            t, out = graph.tensors[layer.input], graph.tensors[layer.name]
            scales[t.scale] = next(
                (scale for scale in _neighbours(scales[t.scale])
                 if _is_sigmoid(layer.table, scale, t.zero_point, out)), scales[t.scale])
    return {name: scales[t.scale] for name, t in graph.tensors.items()}


def _neighbours(scale):
    """A float32 and those next to it, nearest first."""
    yield scale
    below = above = scale
    for _ in range(ULPS):
        below = np.nextafter(below, np.float32(0))
        above = np.nextafter(above, np.float32(math.inf))
        yield above
        yield below
