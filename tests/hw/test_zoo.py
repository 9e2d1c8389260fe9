"""`make zoo`: networks of other libraries, tried one after another."""

import json

from torch import nn

from hw import zoo
from hw.compiler import compile_network
from hw.compiler.importer import import_onnx
from hw.config import TINY


class Global(nn.Module):
    def forward(self, x):
        return x - x.mean((1, 2, 3), keepdim=True)


def networks():
    return {"small": (zoo.MONAI, lambda: nn.Conv2d(3, 4, 3, padding=1)),
            "normal, frozen": (zoo.MONAI, lambda: nn.Sequential(nn.Conv2d(3, 4, 1),
                                                                nn.InstanceNorm2d(4))),
            "dilated": (zoo.MONAI, lambda: nn.Sequential(
                nn.Conv2d(3, 16, 1), nn.Conv2d(16, 64, 3, padding=2, dilation=2),
                nn.Conv2d(64, 1, 1))),
            "global": (zoo.MONAI, Global),
            "elsewhere": ("no_such_library", lambda: None)}


def test_a_table_of_what_runs_and_why_not(tmp_path, capsys, monkeypatch):
    zoo_names = list(zoo.ZOO)
    monkeypatch.setattr(zoo, "ZOO", networks())
    assert zoo.main([f"--out={tmp_path}", "--config=tiny"]) == 0
    out   = capsys.readouterr().out
    names = max(map(len, zoo_names))
    found = json.loads((tmp_path / "zoo.json").read_text())
    table = out.partition("global: ")[0]
    assert max(map(len, table.splitlines())) + names - len("normal, frozen") <= 80
    assert found["not_installed"] == ["no_such_library"]
    assert "not installed, so not tried: no_such_library" in out
    assert "3 of 4 run; ONNX Runtime is " in out
    assert {name: result["runs"] for name, result in found["networks"].items()} == {
        "small": True, "normal, frozen": True, "dilated": True, "global": False}
    # Kernel rows of zeros are not moved, and are not compulsory.
    assert 1 <= found["networks"]["dilated"]["offchip_ratio"] < 1.2
    small = found["networks"]["small"]
    assert small["macs"] == 64 * 64 * 3 * 4 * 9
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dilated.onnx", "normal-frozen.onnx", "small.onnx", "zoo.json"]
    program = compile_network(import_onnx(tmp_path / small["file"]).graph, TINY)
    assert sum(layer.macs for layer in program.layers) == small["macs"]
    assert small["steps"] <= 1 and small["offchip_ratio"] >= 1
    assert f"{small['estimated_cycles']:,}" in out
    assert "global: node " in out and "ReduceMean" in out


def test_every_network_has_a_name_of_its_own_and_a_library():
    assert len(zoo.ZOO) == 20
    assert {library for library, _ in zoo.ZOO.values()} == {zoo.MONAI, zoo.SMP}


def test_sizes(tmp_path, capsys):
    assert zoo.main([f"--out={tmp_path / 'out'}", "--size=40"]) == 2
    assert capsys.readouterr().err == (
        "error: SIZE must be a multiple of 64, not 40: some of the networks halve it six times\n")
    assert not (tmp_path / "out").exists()
