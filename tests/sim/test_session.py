"""The machine from Python: one interface, three engines, the same bytes."""

import json

import jsonschema
import numpy as np
import pytest

from golden.errors import InputError
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
