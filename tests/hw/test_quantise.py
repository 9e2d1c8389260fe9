"""`make quantise`: float files of PyTorch in, files that the machine runs out."""

import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from monai.networks import nets
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from golden.integer import Gate, Lookup, Sum
from golden.referee import session
from hw import freeze, quantise
from hw.compiler.importer import import_onnx
from hw.compiler.importer.rewrites import KNOWN
from hw.config import TINY
from hw.squeeze import in_steps
from hw.stacked import unstacked
from tests.hw.compiler.running import runs

MACHINE = replace(TINY, onchip_bytes=1 << 20, offchip_bytes=1 << 24)


class Modern(nn.Module):
    """A stem as ResNets have it, and activations of every make."""

    def __init__(self, tail):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8),
                                  nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.a = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.SiLU())
        self.c = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.GELU())
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.d = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.Hardswish(), nn.Conv2d(8, 4, 1),
                               nn.PixelShuffle(2), nn.PReLU(), nn.Conv2d(1, 1, 1))
        self.tail = tail

    def forward(self, x):
        s = self.stem(x)
        x = self.c(self.b(self.a(self.pool(s))))
        return self.tail(self.d(torch.cat([self.up(x), s], 1)))


def exported(path, network, *, shape=(3, 32, 32), opset=17, **how):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.rand(1, *shape),), path, input_names=["image"],
                          output_names=["mask"], opset_version=opset, dynamo=False, **how)
    return path


@pytest.mark.parametrize("tail", [nn.Sigmoid(), nn.Identity()])
def test_a_float_file_runs(tmp_path, capsys, tail):
    torch.manual_seed(0)
    path = exported(tmp_path / "net.onnx", Modern(tail))
    assert quantise.main([f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:4"]) == 0
    out, _ = capsys.readouterr()
    made = tmp_path / "net-int8.onnx"
    assert f"next: make check-model MODEL={made}" in out
    share = float(out.split("mask: ")[1].split("%")[0])
    assert share > 95
    imported = runs(onnx.load(made))
    tables = [layer for layer in imported.graph.layers if isinstance(layer, Lookup)]
    assert len(tables) == 5             # one for each activation but Relu and the last sigmoid
    assert not any(isinstance(layer, Gate) for layer in imported.graph.layers)


def test_pictures_of_a_folder_without_masks(tmp_path):
    for number in range(40):
        for name in (f"{number:02}.png", f"{number:02}_mask.png"):
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / name)
    found = quantise.calibrated(str(tmp_path))
    assert len(found) == 32 and not any("mask" in path.name for path in found)
    assert [path.name for path in found][:3] == ["00.png", "01.png", "02.png"]
    assert found[-1].name == "38.png"


def test_rows_and_columns_that_the_file_leaves_open(tmp_path, capsys):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1))
    path = exported(tmp_path / "open.onnx", network, shape=(1, 16, 16), dynamic_axes={
        "image": {0: "batch", 2: "rows", 3: "columns"}})
    out = tmp_path / "q.onnx"
    assert quantise.main([f"--model={path}", f"--out={out}", "--calibration=phantom:2"]) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: input 'image' has the dynamic shape ? x 1 x ? x ?; export with fixed rows "
        "and columns, or give SIZE\n")
    assert not out.exists()
    assert quantise.main([f"--model={path}", f"--out={out}", "--calibration=phantom:2",
                          "--size=24"]) == 0
    graph = import_onnx(out).graph
    assert graph.tensors[graph.input].height == graph.tensors[graph.input].width == 24


def model(path, operator, kind=TensorProto.FLOAT, **how):
    graph = helper.make_graph(
        [helper.make_node(operator, ["image"], ["mask"], "odd", **how)], "small",
        [helper.make_tensor_value_info("image", kind, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("mask", kind, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              path)
    return path


@pytest.mark.parametrize(("make", "message"), [
    (lambda folder: model(folder / "x.onnx", "LRN", size=3),
     (f"{{path}} does not run\n  node 'odd' (LRN): the engine has no such operator; {KNOWN}\n"
      "  0 of 1 operators would run as they are")),
    (lambda folder: model(folder / "x.onnx", "Neg", TensorProto.DOUBLE),
     ("{path}: input 'image' is of type DOUBLE; declare it as one of float, float16, uint8, int8")),
    (lambda folder: model(folder / "x.onnx", "Neg", TensorProto.FLOAT16),
     "{path}: input 'image' is not float32; export with float32"),
    (lambda folder: folder / "none.onnx", "No file {path}; MODEL is the path of an ONNX file"),
    (lambda folder: "elec4848", ("MODEL must be an ONNX file, not 'elec4848'; the project's own "
                                 "networks are quantised already")),
])
def test_refusals(tmp_path, capsys, make, message):
    path, out = make(tmp_path), tmp_path / "out"
    assert quantise.main([f"--model={path}", f"--out={out}", "--calibration=phantom:1"]) == 2
    assert capsys.readouterr().err == f"error: {message.format(path=path)}\n"
    assert not out.exists()


def test_no_pictures(tmp_path, capsys):
    path, none = model(tmp_path / "x.onnx", "Neg"), tmp_path / "none"
    assert quantise.main([f"--model={path}", f"--calibration={none}"]) == 2
    assert capsys.readouterr().err == (
        f"error: No folder {str(none)!r}; CALIBRATION is a folder of pictures such as the network "
        "will see, or phantom:N\n")
    assert quantise.main([f"--model={path}", f"--calibration={tmp_path}"]) == 2
    assert capsys.readouterr().err == (
        f"error: No pictures in {str(tmp_path)!r}; CALIBRATION is a folder of PNG, JPEG or BMP "
        "files, or phantom:N\n")


def test_quantised_already(tmp_path, capsys):
    path = exported(tmp_path / "net.onnx", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    assert quantise.main([f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:1"]) == 0
    again = tmp_path / "net-int8.onnx"
    capsys.readouterr()
    assert quantise.main([f"--model={again}", "--calibration=phantom:1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {again} is quantised already; `make sim MODEL={again}` takes it as it is\n")


def batch_normalised(network):
    """The network with batch normalisation where MONAI leaves no choice but instance's."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features))
    return network


MONAI = {
    "AttentionUnet": lambda: batch_normalised(nets.AttentionUnet(2, 3, 1, (4, 8, 16), (2, 2))),
    "UNet": lambda: nets.UNet(2, 3, 1, (4, 8, 16), (2, 2), num_res_units=2, norm="batch"),
    "BasicUNet": lambda: nets.BasicUNet(2, 3, 1, (4, 4, 8, 8, 16, 4), norm="batch"),
    "DynUNet": lambda: nets.DynUNet(2, 3, 1, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 16),
                                    norm_name="batch", res_block=True),
    "SegResNet": lambda: nets.SegResNet(2, 4, 3, 1, norm="batch", blocks_down=(1, 1, 2),
                                        blocks_up=(1, 1)),
}


@pytest.mark.parametrize("name", MONAI)
def test_networks_of_monai(tmp_path, capsys, name):
    """Exported and quantised without a thought for the machine, they run on it."""
    torch.manual_seed(0)
    network = MONAI[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = exported(tmp_path / f"{name}.onnx", network)
    assert quantise.main([f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:2"]) == 0
    runs(onnx.load(tmp_path / f"{name}-int8.onnx"), MACHINE)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8),
                                  nn.GroupNorm(1, 8)])
def test_norms_of_a_frame_are_frozen(tmp_path, capsys, norm):
    """To the statistics of the calibration, which convolutions take in."""
    torch.manual_seed(0)
    nn.init.uniform_(norm.weight, -1, 1)
    nn.init.normal_(norm.bias)
    path = exported(tmp_path / "net.onnx", nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 1, 1)))
    given = [f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:1"]
    assert quantise.main(given) == 2
    assert quantise.main([*given, "--freeze"]) == 0
    assert float(capsys.readouterr().out.split("mask: ")[1].split("%")[0]) > 99    # of one frame
    assert len(runs(onnx.load(tmp_path / "net-int8.onnx")).graph.layers) == 3


def test_statistics_are_those_of_the_frames():
    random = np.random.default_rng(0)
    frames = [{"image": random.normal(index, 1 + index, (1, 4, 6, 5)).astype(np.float32)}
              for index in range(3)]
    for groups in (None, 2):
        nodes = [helper.make_node("InstanceNormalization", ["image", "gain", "offset"], ["mask"])]
        if groups:
            nodes = [helper.make_node("Reshape", ["image", "wide"], ["parts"]),
                     helper.make_node("InstanceNormalization", ["parts", "gain", "offset"],
                                      ["made"]),
                     helper.make_node("Shape", ["image"], ["shape"]),
                     helper.make_node("Reshape", ["made", "shape"], ["mask"])]
        count = groups or 4
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 6, 5])
        made  = freeze.frozen(helper.make_model(helper.make_graph(
            nodes, "norm", [image],
            [helper.make_tensor_value_info("mask", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.arange(1, count + 1, dtype=np.float32), "gain"),
             numpy_helper.from_array(np.zeros(count, np.float32), "offset"),
             numpy_helper.from_array(np.int64([0, 2, -1]), "wide")]),
            opset_imports=[helper.make_opsetid("", 17)], ir_version=8), frames)
        node, = made.graph.node
        assert node.op_type == "BatchNormalization"
        parts = {x.name: numpy_helper.to_array(x) for x in made.graph.initializer}
        gain, _, mean, variance = (parts[name] for name in node.input[1:])
        map_FGN = np.stack([frame["image"].reshape(count, -1) for frame in frames])
        each    = 4 // count
        assert np.allclose(mean, map_FGN.mean(2).mean(0).repeat(each), atol=1e-5)
        assert np.allclose(variance, map_FGN.var(2).mean(0).repeat(each), rtol=1e-5)
        assert np.array_equal(gain, np.arange(1, count + 1).repeat(each))


@pytest.mark.parametrize("end", [nn.LeakyReLU(), nn.SiLU(), nn.Sigmoid(), nn.GELU(),
                                 nn.Sequential(nn.Tanh(), nn.Sigmoid())])
def test_activations_at_the_end(tmp_path, end):
    path = exported(tmp_path / "net.onnx", nn.Sequential(nn.Conv2d(3, 1, 3), end))
    assert quantise.main([f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:1"]) == 0
    runs(onnx.load(tmp_path / "net-int8.onnx"))


def test_a_file_from_before_scales_for_each_channel(tmp_path):
    path = exported(tmp_path / "old.onnx", nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU()),
                    opset=11)
    assert quantise.main([f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:1"]) == 0
    made = onnx.load(tmp_path / "old-int8.onnx")
    assert {x.domain: x.version for x in made.opset_import}[""] == quantise.OPSET
    runs(made)


# Squeeze and excitation.

class Excited(nn.Module):
    """Factors for each channel, as people write them."""

    def __init__(self, channels, kind):
        super().__init__()
        make = (lambda a, b: nn.Conv2d(a, b, 1)) if kind == "convolutions" else nn.Linear
        self.kind   = kind
        self.layers = nn.Sequential(make(channels, channels // 4), nn.SiLU(),
                                    make(channels // 4, channels),
                                    nn.Hardsigmoid() if kind == "mean" else nn.Sigmoid())

    def forward(self, x):
        pooled = nn.functional.adaptive_avg_pool2d(x, 1)
        match self.kind:
            case "convolutions":
                return x * self.layers(pooled)
            case "flatten":
                return x * self.layers(pooled.flatten(1))[:, :, None, None]
            case "view":
                return x * self.layers(pooled.view(x.shape[:2])).view(*x.shape[:2], 1, 1)
        return x * self.layers(x.mean((2, 3))).view(*x.shape[:2], 1, 1)


def squeezed(kind):
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), Excited(12, kind),
        nn.Conv2d(12, 8, 3, padding=1, stride=2), nn.ReLU(), Excited(8, kind), nn.Conv2d(8, 1, 1))


@pytest.mark.parametrize("kind", ["convolutions", "flatten", "view", "mean"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 30, 22)])
def test_squeeze_and_excitation(tmp_path, kind, shape):
    torch.manual_seed(0)
    path = exported(tmp_path / "net.onnx", squeezed(kind), shape=shape)
    model = onnx.load(path)
    frame = {"image": np.random.default_rng(0).random((1, *shape), np.float32)}
    exact, stepped = (session(each).run(None, frame)[0] for each in (model, in_steps(model)))
    assert np.allclose(exact, stepped, atol=1e-5)
    imported = runs(quantise.load_calibrated(path, "phantom:2").model)
    assert sum(isinstance(each, Gate) for each in imported.graph.layers) == 2


def test_vectors_that_stay_vectors(tmp_path):
    """The rewriting leaves alone what ends as a vector, and what no map of one pixel has."""
    class Classes(nn.Module):
        def __init__(self, end):
            super().__init__()
            self.end = end

        def forward(self, x):
            return self.end(x.mean((2, 3)))
    for end in (nn.Sigmoid(), nn.Sequential(nn.Softmax(-1), nn.Sigmoid())):
        graph = onnx.load(exported(tmp_path / "net.onnx", Classes(end), shape=(3, 8, 8)))
        made  = in_steps(graph)
        frame = {"image": np.random.default_rng(0).random((1, 3, 8, 8), np.float32)}
        assert np.allclose(*(session(each).run(None, frame)[0] for each in (graph, made)))


class Stacked(nn.Module):
    """How segmentation-models-pytorch's FPN merges its levels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.end = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.end(torch.stack([self.a(x), self.b(x), self.c(x)]).sum(dim=0))


def test_maps_that_are_stacked_and_added_up(tmp_path):
    path = exported(tmp_path / "net.onnx", Stacked(), shape=(3, 8, 8))
    before = onnx.load(path)
    assert {"Unsqueeze", "ReduceSum"} <= {node.op_type for node in before.graph.node}
    made = unstacked(before)
    assert [node.op_type for node in made.graph.node if node.op_type != "Conv"] == ["Add"] * 2
    frame = {"image": np.random.default_rng(0).random((1, 3, 8, 8), np.float32)}
    seen, wanted = (session(model).run(None, frame)[0] for model in (made, before))
    assert np.allclose(seen, wanted, atol=1e-6)
    assert unstacked(made) is made
    assert quantise.main([f"--model={path}", f"--out={tmp_path}", "--calibration=phantom:1"]) == 0
    imported = runs(onnx.load(tmp_path / "net-int8.onnx"))
    assert sum(isinstance(layer, Sum) for layer in imported.graph.layers) == 2
