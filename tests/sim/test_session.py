"""The machine from Python: one interface, three engines, the same bytes."""

import json

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

from golden.errors import InputError
from golden.images import read_image
from golden.models import load_graph
from golden.onnx_export import export
from sim.report import SCHEMA
from sim.session import Session

SMALL = {"machine": "tiny", "size": 16, "width": 4}


def pictures(frames=1, channels=3, side=16):
    return np.random.default_rng(5).integers(0, 256, (frames, channels, side, side), np.uint8)


def test_inputs_and_outputs_say_what_a_byte_means():
    session = Session("elec4848", engine="golden", **SMALL)
    frame,  = session.get_inputs()
    assert (frame.name, frame.shape, frame.type) == ("image", (None, 3, 16, 16), "tensor(uint8)")
    mask, = session.get_outputs()
    assert mask.shape == (None, 1, 16, 16)
    assert (mask.scale, mask.zero_point) == (1 / 256, 0)


def test_model_gives_golden_s_bytes_and_a_report():
    golden = Session("elec4848", engine="golden", **SMALL)
    model  = Session("elec4848", engine="model", **SMALL)
    feed   = {"image": pictures(2)}
    want,  = golden.run(None, feed)
    got,   = model.run(["mask"], feed)
    assert got.dtype == np.uint8
    assert np.array_equal(got, want)
    assert not np.array_equal(got[0], got[1]), "every frame has its own"
    assert golden.report is None
    jsonschema.validate(model.report, json.loads(SCHEMA.read_text()))
    assert (model.report["engine"], model.report["frames"]) == ("model", 2)


@pytest.mark.cosim
def test_hardware_gives_the_same_bytes_and_cycles():
    feed = {"image": pictures()}
    rtl, model = (Session("elec4848", engine=engine, **SMALL) for engine in ("rtl", "model"))
    assert np.array_equal(rtl.run(None, feed)[0], model.run(None, feed)[0])
    assert rtl.report["bit_exact"]
    assert rtl.report["cycles"] == model.report["cycles"]
    assert rtl.report["units"] == model.report["units"]
    assert rtl.report["layers"] == model.report["layers"]


def test_a_file(tmp_path):
    from onnx import save
    save(export(load_graph("unet-busi", 16, 4)), tmp_path / "net.onnx")
    session = Session(str(tmp_path / "net.onnx"), machine="tiny", engine="model")
    frame   = session.get_inputs()[0]
    out,    = session.run(None, {frame.name: pictures(channels=frame.shape[1])})
    assert out.shape == (1, *session.get_outputs()[0].shape[1:])
    assert session.report["cycles"]["total"] > 0


@pytest.mark.parametrize(("feed", "line"), [
    ({}, "The network takes 'image', not nothing"),
    ({"x": pictures()}, "The network takes 'image', not 'x'"),
    ({"image": pictures(side=8)},
     "'image' must be uint8 of frames x 3 x 16 x 16, not uint8 of 1 x 3 x 8 x 8"),
    ({"image": pictures().astype(np.float32)},
     "'image' must be uint8 of frames x 3 x 16 x 16, not float32 of 1 x 3 x 16 x 16"),
    ({"image": pictures()[:0]},
     "'image' must be uint8 of frames x 3 x 16 x 16, not uint8 of 0 x 3 x 16 x 16"),
])
def test_feeds_that_are_refused(feed, line):
    with pytest.raises(InputError) as refused:
        Session("elec4848", engine="golden", **SMALL).run(None, feed)
    assert str(refused.value) == line


def test_names_that_are_refused():
    with pytest.raises(InputError, match="^No output 'msk'; there is mask$"):
        Session("elec4848", engine="golden", **SMALL).run(["msk"], {"image": pictures()})
    with pytest.raises(InputError, match="^Engine must be one of rtl, model, golden, not 'fpga'$"):
        Session("elec4848", engine="fpga", **SMALL)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return torch.sigmoid(self.b(torch.relu(self.a(x)))), x


def test_a_module_of_pytorch():
    torch.manual_seed(1)
    module  = Small().train()
    module.a.eval()
    session = Session(module, machine="tiny", engine="model", size=12, calibration="phantom:3")
    frame,  = session.get_inputs()
    assert (frame.name, frame.shape) == ("image", (None, 1, 12, 12))
    given   = read_image("phantom:1", 12)[None, :1].numpy()
    mask,   = session.run(None, {"image": given})
    with torch.no_grad():
        real = module(torch.from_numpy(given) / 255)[0].logit().numpy()
    output, = session.get_outputs()         # the host does the sigmoid
    assert np.abs(output.scale * (mask - float(output.zero_point)) - real).max() < 0.03
    assert session.report["model"] == "Small"
    assert [part.training for part in module.modules()] == [True, False, True], "as it was"


@pytest.mark.parametrize("module, options, line", [
    (Small(), {"size": 12}, ("A PyTorch module needs calibration, a folder of pictures or "
                             "phantom:N, and the size of its frame")),
    (nn.ReLU(), {"size": 12, "calibration": "phantom:1"},
     "ReLU has no Conv2d, so nothing tells the channels of its frame; export it as ONNX"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(5, 5)), {"size": 8, "calibration": "phantom:1"},
     ("PyTorch does not export Sequential for frames of 3 x 8 x 8 (mat1 and mat2 shapes cannot be "
      "multiplied (32x8 and 5x5))")),
])
def test_modules_that_cannot_be_taken(module, options, line):
    with pytest.raises(InputError) as error:
        Session(module, machine="tiny", engine="golden", **options)
    assert str(error.value) == line
