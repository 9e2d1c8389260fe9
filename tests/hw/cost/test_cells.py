import json

import pytest

from hw.config import preset
from hw.cost import cells, fit
from hw.cost.__main__ import main


@pytest.mark.parametrize("width, depth, count", [
    (64, 512, 2), (64, 1024, 4), (64, 4096, 16), (54, 64, 2), (64, 32, 0), (128, 8192, 64),
    (8, 2048, 1), (8, 2049, 2),
])
def test_block_rams(width, depth, count):
    assert cells.block_rams(width, depth) == count


@pytest.mark.parametrize("name", ["edge", "tiny"])
def test_multipliers_and_block_rams_are_those_of_yosys(name):
    """Of all blocks but the controller, which is one of the points of edge alone."""
    blocks = fit.kept_points()[name]
    found  = cells.cells_of_machine(preset(name))
    absent = 0 if "controller" in blocks else cells.CONTROLLER_RAMS
    for resource, missing in (("MULT18X18D", 0), ("DP16KD", absent)):
        assert found[resource] == missing + sum(each[resource] for each in blocks.values())


def test_coefficients_are_those_of_the_points():
    kept = json.loads(cells.COEFFICIENTS.read_text())
    fitted = fit.fit(kept["points"])
    assert set(kept["points"]) == set(fit.POINTS)
    assert fitted.keys() == kept["coefficients"].keys()
    for kind, resources in kept["coefficients"].items():
        for resource, each in resources.items():
            assert fitted[kind][resource] == pytest.approx(each, rel=0.001, abs=0.001)


def test_luts_of_machines_that_were_not_fitted():
    found = fit.unseen(fit.kept_points())
    assert len(found) == len(fit.POINTS)
    assert fit.mean_error(found, "LUT4") <= 0.10
    assert all(abs(error.of("LUT4")) <= 0.15 for error in found)


def test_a_law_is_found_again():
    """Points that follow one: 100 LUTs for each byte of a fill's vector, and 70 flip-flops."""
    def point(name):
        config = fit.machine(name)
        return {f"{unit}.compute.fill": {"LUT4": 100 * config.vector, "FF": 70}
                for unit in config.units}
    measured = {name: point(name) for name in ("tiny", "random:1", "random:3")}
    assert fit.fit(measured) == {"fill": {"LUT4": {"vector": pytest.approx(100, abs=0.01)},
                                          "FF": {"one": pytest.approx(70, abs=0.01)}}}
    assert fit.mean_error(fit.unseen(measured), "LUT4") < 0.001


def test_luts_of_each_place():
    found = cells.luts_by_place(preset("tiny"))
    assert list(found) == ["controller", "load", "stores", "onchip", "encoder", "attention",
                           "decoder", "monitor", "between"]
    total = cells.cells_of_machine(preset("tiny"))["LUT4"]
    assert abs(sum(found.values()) - total) <= len(found)
    wider = cells.luts_by_place(preset("tiny", changes="decoder.outputs=8"))
    assert [place for place in found if wider[place] != found[place]] == ["decoder"]


def test_every_block_has_its_kind():
    kinds = {cells.kind_of(block) for block in (*cells.BLOCKS, "")}
    assert kinds == set(cells.KINDS)
    assert cells.kind_of("decoder.compute.conv.array") == "array"
    assert cells.kind_of("decoder") == "unit"


def test_the_command(capsys):
    assert main(["--config=edge"]) == 0
    printed = capsys.readouterr().out
    assert "131" in printed and "mean error on machines not fitted" in printed
    assert main(["--check"]) == 0
    assert "random:21" in capsys.readouterr().out
    assert main(["--config=huge"]) == 2
