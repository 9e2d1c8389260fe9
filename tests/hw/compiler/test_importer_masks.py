"""Masks are what the file says: of the host's part, of probabilities made before, of classes."""

from functools import partial

import numpy as np
import pytest
import torch
from onnx import TensorProto

from golden import integer
from golden.referee import session
from hw.compiler.importer import Refused, import_onnx
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import picture

TWICE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
         "nearest_mode": "floor"}
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
HALF  = {"kernel_shape": [2, 2], "strides": [2, 2]}
UNIT  = (1 / 256, 0)


def unbiased(small, x, channels=1, gain=1.0):
    """A convolution whose results are as often above as below zero, and differ by channel."""
    steps = np.int8([[90, -80, -10], [-70, -20, 90], [5, 60, -65]])[:channels, :, None, None]
    return small.conv(x, steps.shape, bias=False, weights=small.node(
        "DequantizeLinear", steps, np.float32(0.02 * gain), np.int8(0)))


def logits(small, channels=1, grid=(0.02, 100), x=None):
    return small.quantised(unbiased(small, x or small.image(), channels), *grid)


def sigmoid(small, x=None, grid=UNIT):
    return small.quantised(small.node("Sigmoid", x or logits(small)), *grid)


def resized(small, x, grid=UNIT, **how):
    how = how or TWICE
    return small.quantised(small.node("Resize", x, "", np.float32([1, 1, 2, 2]), **how), *grid)


def lesions(model):
    """The importer's mask, golden's and ONNX Runtime's, and the file's own first output."""
    imported = import_onnx("small.onnx", model=model)
    seen     = picture(imported)
    frame    = imported.frame(seen)
    values   = integer.run(imported.graph, frame)
    mask     = imported.mask(values[imported.graph.output].numpy())[0] > 127
    segment  = (imported.segment(seen) >= 0.5).numpy()
    made,    = session(imported.model).run([model.graph.output[0].name], imported.given(frame))
    return mask, segment, made


ENDS = {
    "sigmoid": (lambda s: sigmoid(s), 0.5),
    "sigmoid by the host": (lambda s: s.node("Sigmoid", logits(s)), 0.5),
    "logits": (lambda s: logits(s), 0),
    "logits within 0..1": (lambda s: logits(s, grid=(1 / 256, 0)), 0),
    "rescaled logits": (lambda s: s.quantised(logits(s), 0.025, 90), 0),
    "rescaled logits, sigmoid": (lambda s: s.node("Sigmoid", s.quantised(logits(s), 0.025, 90)),
                                 0.5),
    "resized sigmoid": (lambda s: resized(s, sigmoid(s)), 0.5),
    "resized twice": (lambda s: resized(s, resized(s, sigmoid(s), (0.004, 1)), (0.005, 3)), 0.5),
    "linearly resized sigmoid": (lambda s: resized(s, sigmoid(s), **LINEAR), 0.5),
    "pooled sigmoid": (lambda s: s.quantised(s.node("MaxPool", sigmoid(s, s.quantised(s.node(
        "Add", unbiased(s, s.image()), np.float32(-0.9)))), **HALF), *UNIT), 0.5),
    "averaged sigmoid": (lambda s: s.quantised(s.node("AveragePool", sigmoid(s), **HALF), *UNIT),
                         0.5),
    "rescaled sigmoid": (lambda s: s.quantised(sigmoid(s), 0.005, 7), 0.5),
    "other way round": (lambda s: s.quantised(s.node(
        "Add", s.node("Mul", sigmoid(s), np.float32(-1)), np.float32(1)), *UNIT), 0.5),
    "product of sigmoids": (lambda s: s.quantised(s.node("Mul", sigmoid(s), sigmoid(s)), *UNIT),
                            0.5),
    "clipped": (lambda s: s.quantised(s.node("Clip", unbiased(s, s.image()),
                                             np.float32(0), np.float32(1)), *UNIT), 0.5),
    "resized logits": (lambda s: resized(s, logits(s), (0.02, 100)), 0),
    "convolution of a sigmoid": (lambda s: s.quantised(unbiased(s, sigmoid(s, logits(s, 3)))), 0),
    "sigmoid of a sigmoid": (lambda s: s.node("Sigmoid", s.quantised(sigmoid(s), 0.005, 7)), 0.5),
    "cast": (lambda s: s.node("Cast", s.node("Sigmoid", logits(s)), to=TensorProto.DOUBLE), 0.5),
    "squeezed": (lambda s: s.node("Squeeze", s.node("Sigmoid", logits(s)), np.int64([0, 1])), 0.5),
    "int8": (lambda s: logits(s), 0),
}


ALL = ("sigmoid of a sigmoid", "logits within 0..1")     # never below the threshold


@pytest.mark.parametrize("end", ENDS)
def test_of_one_channel(end):
    make, threshold = ENDS[end]
    small = Model(kind=np.int8 if end == "int8" else np.uint8)
    if end == "int8":
        make = partial(logits, grid=(0.02, -5))
    mask, segment, made = lesions(small.output(make(small)).model())
    truth = made.reshape(made.shape[-2:]) >= threshold
    rows, columns = (np.arange(side) * here // side
                     for side, here in zip(mask.shape, truth.shape, strict=True))
    truth = truth[rows][:, columns]
    assert 0 < truth.mean() < 1 or end in ALL
    # The machine may be a step away from ONNX Runtime, end to end; and a step from the threshold.
    assert (mask == truth).mean() > 0.9
    assert (segment == truth).all()


def quantised_end(small, x):
    return small.quantised(x, *UNIT)


CLASSES = {
    "logits": lambda s, x: x,
    "softmax": lambda s, x: s.node("Softmax", x, axis=1),
    "softmax, negative axis": lambda s, x: s.node("Softmax", x, axis=-3),
    "log softmax": lambda s, x: s.node("LogSoftmax", x, axis=1),
    "argmax": lambda s, x: s.node("ArgMax", x, axis=1),
    "argmax, no channels left": lambda s, x: s.node("ArgMax", x, axis=1, keepdims=0),
    "argmax of a softmax, cast": lambda s, x: s.node("Cast", s.node("ArgMax", s.node(
        "Softmax", x, axis=1), axis=-3, keepdims=0), to=TensorProto.UINT8),
    "quantised softmax": lambda s, x: quantised_end(s, s.node("Softmax", x, axis=1)),
    "argmax of a quantised softmax": lambda s, x: s.node("ArgMax", quantised_end(s, s.node(
        "Softmax", x, axis=1)), axis=1),
    "squeezed, argmax": lambda s, x: s.node("ArgMax", s.node("Squeeze", x, np.int64([0])), axis=0),
    "sigmoids": lambda s, x: quantised_end(s, s.node("Sigmoid", x)),
    "sigmoids that saturate": lambda s, x: s.node("ArgMax", s.node("Sigmoid", x), axis=1),
}


@pytest.mark.parametrize("end", CLASSES)
@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_of_several_channels(end, scale):
    small = Model()
    x = small.quantised(unbiased(small, small.image(), 3, 50 * scale), scale)
    mask, segment, made = lesions(small.output(CLASSES[end](small, x)).model())
    truth = made if made.dtype.kind in "iu" else made.argmax(1)
    truth = truth.reshape(mask.shape) > 0
    assert 0 < truth.mean() < 1
    assert (segment == truth).all()
    assert (mask == truth).mean() > 0.9


def test_mask_takes_the_bytes_as_the_file_does():
    """The same bytes through the host's part and through ONNX Runtime: equal to the last pixel."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (3, 3, 1, 1)), 0.3, name="last")
    imported = import_onnx("small.onnx", model=small.output(small.node("ArgMax", small.quantised(
        small.node("Softmax", x, axis=1), *UNIT), axis=1)).model())
    stored = torch.randint(0, 256, (3, 8, 12), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0)).numpy()
    real   = torch.from_numpy(np.float32(0.3) * (stored.astype(np.float32) - 100))
    steps  = torch.round(torch.softmax(real, 0) * 256).clamp(0, 255)
    assert np.array_equal(imported.mask(stored) > 0, (steps.argmax(0, keepdim=True) > 0).numpy())


@pytest.mark.parametrize(("end", "reason", "again"), [
    (lambda s, x: s.node("Softmax", x, name="odd", axis=3),
     "(Softmax): it is over axis 3, columns; take it over channels, axis 1",
     lambda s, x: s.node("Softmax", x, axis=1)),
    (lambda s, x: s.node("Softmax", x, name="odd"),
     "(Softmax): it is over axis -1, columns; take it over channels, axis 1",
     lambda s, x: s.node("Softmax", x, axis=1)),
    (lambda s, x: s.node("ArgMax", x, name="odd", axis=2),
     "(ArgMax): it is over axis 2, rows; take it over channels, axis 1",
     lambda s, x: s.node("ArgMax", x, axis=1)),
    (lambda s, x: s.node("ArgMax", x, name="odd"),
     "(ArgMax): it is over axis 0, frames; take it over channels, axis 1",
     lambda s, x: s.node("ArgMax", x, axis=1)),
    (lambda s, x: s.node("ArgMax", s.node("Squeeze", x, np.int64([0])), name="odd", axis=1),
     "(ArgMax): it is over axis 1, rows; take it over channels, axis 0",
     lambda s, x: s.node("ArgMax", s.node("Squeeze", x, np.int64([0])), axis=0)),
    (lambda s, x: s.node("ArgMax", x, name="odd", axis=1, select_last_index=1),
     "(ArgMax): it takes the last of equal classes; use select_last_index=0",
     lambda s, x: s.node("ArgMax", x, axis=1, select_last_index=0)),
    (lambda s, x: s.node("Cast", s.node("Softmax", x, axis=1), name="odd", to=TensorProto.INT64),
     "(Cast): it makes integers of numbers that are not whole; cast to float, or after ArgMax",
     lambda s, x: s.node("Cast", s.node("ArgMax", x, axis=1), to=TensorProto.INT64)),
    (lambda s, x: s.node("ArgMax", s.node("ArgMax", x, axis=1), name="odd", axis=1),
     "(ArgMax): it reads the numbers of classes that ArgMax makes; end the network at ArgMax",
     lambda s, x: s.node("ArgMax", x, axis=1)),
])
def test_other_ends_are_refused_and_their_rewrites_run(end, reason, again):
    small = Model()
    model = small.output(end(small, logits(small, 3))).model()
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=model)
    assert caught.value.reasons == (f"node 'odd' {reason}",)
    small = Model()
    lesions(small.output(again(small, logits(small, 3))).model())


def test_softmax_of_old_opsets_is_over_everything():
    small = Model(opset=12)
    small.kind = np.dtype(np.uint8)
    x = small.quantised(small.conv(small.image(), (3, 3, 1, 1), weights=small.node(
        "DequantizeLinear", np.ones((3, 3, 1, 1), np.int8), np.float32(0.01), np.int8(0))))
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=small.output(small.node("Softmax", x, name="odd",
                                                                axis=1)).model())
    assert caught.value.reasons == (
        ("node 'odd' (Softmax): in opset 12 it is over channels, rows and columns together; export "
         "with opset 13 or newer"),)
