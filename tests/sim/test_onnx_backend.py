"""ONNX's node tests through compiler and machine."""

import re
import warnings
from importlib import import_module

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case import node

from golden.errors import InputError
from sim import node_tests, onnx_backend
from sim.node_tests import main, outcome, reason_of
from sim.onnx_backend import AttuneBackend, Unfit, grid_of


def cases(*operators):
    """Tests by name. ONNX makes all of them, which takes ten seconds, or those of a module that is
    imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in operators:
            import_module(f"{node.__name__}.{operator.lower()}")
    return {case.name: case for case in node._NodeTestCases
            if case.model.graph.node[0].op_type in operators}


@pytest.mark.parametrize("operator, runs", [
    ("Conv", ["basic_conv_with_padding", "basic_conv_without_padding",
              "conv_with_strides_and_asymmetric_padding"]),
    ("MaxPool", ["maxpool_2d_precomputed_strides", "maxpool_2d_precomputed_same_upper"]),
    ("Max", ["max_two_inputs", "max_uint8", "max_int8"]),       # two inputs in one frame's channels
    ("Split", ["split_equal_parts_2d"]),                        # several outputs
    ("Clip", ["clip_example"]),                                 # opset, bounds, a vector
    ("ConvTranspose", ["convtranspose_autopad_same"]),
])
def test_what_onnx_publishes_comes_out(operator, runs):
    found = cases(operator)
    for name in runs:
        assert outcome(found[f"test_{name}"]) == ("equal", None), name


@pytest.mark.parametrize("operator, name, reason, detail", [
    ("Relu", "relu", "numbers that do not fit 8 bits", ""),
    ("ArgMax", "argmax_no_keepdims_example",
     "values of another type than float32, uint8 or int8", "int64"),
    ("Det", "det_nd", "operators that the machine does not have", "Det"),
    ("MaxPool", "maxpool_2d_uint8", "operators in a form that the machine does not have",
     "MaxPool"),
    ("Det", "det_2d", "arrays of no numbers, or of none or more than 4 dimensions", "0"),
    ("Identity", "identity", "graphs that are no network of one frame", ""),
    ("ReduceMean", "reduce_mean_keepdims_example", "frames that depend on each other", ""),
])
def test_what_does_not_run_is_refused_for_its_reason(operator, name, reason, detail):
    what, error = outcome(cases(operator)[f"test_{name}"])
    assert what == "refused"
    assert reason_of(error) == (reason, detail)


def test_the_machine_computes_them(monkeypatch):
    """A wrong byte of the machine is a different output; ONNX's reference does not stand in."""
    def off_by_one(*arguments):
        seen, tensors = interpreted(*arguments)
        return {name: values ^ 1 for name, values in seen.items()}, tensors

    interpreted = onnx_backend.interpreted
    monkeypatch.setattr(onnx_backend, "interpreted", off_by_one)
    assert outcome(cases("Conv")["test_basic_conv_with_padding"])[0] == "different"


def test_several_frames():
    pool  = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    x     = np.random.default_rng(1).integers(0, 256, (3, 2, 4, 6)).astype(np.float32)
    model = helper.make_model(helper.make_graph([pool], "pool", [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 2, 2, 3))]),
        opset_imports=[helper.make_opsetid("", 17)])
    y, = AttuneBackend.run_model(model, [x])
    assert np.array_equal(y, x.reshape(3, 2, 2, 2, 3, 2).max((3, 5)))


@pytest.mark.parametrize("values, scale, zero", [
    ([0, 255, 1], 1, 0), ([-1, 2], 1, 1), ([0.5, 1.25], 0.25, 0), ([-128, 127], 1, 128),
    ([0, 0], 1, 0), ([2, 3], 1, 0), ([0, 255], 255, 0), ([1 / 3, 0.5], 1 / 6, 0), ([5, 260], 5, 0)])
def test_grids(values, scale, zero):
    found = grid_of(np.array(values, np.float32))
    assert found == (pytest.approx(scale, rel=1e-6), zero)


@pytest.mark.parametrize("values", [[0, 256, 1], [0.1, 0.31415926, 2.5], [float("inf"), 0],
                                    [float("nan"), 1]])
def test_numbers_without_a_grid(values):
    with pytest.raises(Unfit, match="^numbers that do not fit 8 bits$"):
        grid_of(np.array(values, np.float32))


def test_a_device_that_is_none():
    with pytest.raises(InputError, match="^Device must be CPU, on which the machine runs, not "
                                         "'CUDA:0'$"):
        AttuneBackend.prepare(None, "CUDA:0")


def test_the_command_counts(monkeypatch, capsys):
    monkeypatch.setattr(node_tests, "load_model_tests",
                        lambda kind: list(cases("Conv", "Det").values()))
    assert main(["--only=basic_conv_with_p|det"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^1 of 3 node tests of ONNX [\d.]+ run on tiny, with the published outputs$",
                     said, re.MULTILINE)
    assert "    1 refused: operators that the machine does not have (Det 1)\n" in said
    monkeypatch.setattr(node_tests, "outcome", lambda *_: ("different", AssertionError("no")))
    assert main(["--only=basic_conv_with_p", "--list"]) == 1
    assert "different outputs: test_basic_conv_with_padding\n" in capsys.readouterr().out
    assert main(["--only=nothing such"]) == 2
    assert main(["--only=("]) == 2
    assert capsys.readouterr().err.startswith(
        "error: No test of ONNX matches 'nothing such'\nerror: ONLY is no pattern: ")


@pytest.mark.slow
def test_all_of_them(capsys):
    assert main([]) == 0
    equal, of = re.search(r"(\d+) of (\d+) node tests", capsys.readouterr().out).groups()
    assert int(equal) >= 64 and int(of) >= 1884
