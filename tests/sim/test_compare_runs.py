import io
import re

import pytest
from rich.console import Console

from golden.errors import InputError
from sim.compare_runs import SIGNS, Change, compare, main, markdown, print_comparison
from sim.pages import render
from tests.sim.reports import imaginary, save


def faster():
    """The same network on a machine that waits less for off-chip memory; it moves more bytes."""
    report = imaginary(**{
        "config": "edge", "cycles.total": 800, "cycles.latency": 700, "frames_per_second": 142857.1,
        "mac_utilization.latency": 0.6378, "ipc": 1.875, "cpi": 1 / 1.875,
        "execution_time_ms": 0.008, "traffic.offchip.read": 1100,
        "traffic.offchip.classes.spill": 200, "layers.0.cycles": 300, "layers.1.cycles": 310,
        "layers.0.mac_utilization": 0.45, "layers.1.offchip_bytes": 400,
        "units.encoder.stack.offchip": 20, "units.encoder.stack.dependency": 110})
    for unit in report["units"].values():
        unit["stack"]["no_work"] += 800 - sum(unit["stack"].values())
    return report


def by_name(changes):
    return {change.name: change for change in changes}


def test_a_change_says_how_much_and_whether_it_is_good():
    less = Change("cycles", 2000, 1500)
    assert (less.difference, less.percent, less.effect) == (-500, -25, "better")
    assert less.texts == ("2 000", "1 500", "-500", "-25.0 %")
    more = Change("frames per second", 10, 12.5, good=1, digits=2)
    assert more.effect == "better" and more.texts == ("10.00", "12.50", "+2.50", "+25.0 %")
    assert Change("cycles", 10, 11).effect == "worse"
    assert Change("cycles", 10, 10).effect == "same"


def test_a_share_changes_by_points():
    share = Change("MAC utilisation", 0.435, 0.925, good=1, share=True)
    assert share.texts == ("43.5 %", "92.5 %", "+49.0 points", "")


def test_what_one_run_lacks_has_no_change():
    alone = Change("interval", None, 5)
    assert alone.effect == "neutral" and alone.texts == ("–", "5", "", "")
    assert Change("bytes", 0, 5).texts == ("0", "5", "+5", "")


def test_whole_run():
    run = by_name(compare(imaginary(), faster()).run)
    assert run["cycles per frame"].texts == ("1 000", "800", "-200", "-20.0 %")
    assert run["frames per second"].effect == run["IPC"].effect == run["CPI"].effect == "better"
    assert run["off-chip bytes per frame"].difference == 200
    assert run["off-chip bytes / compulsory"].texts == ("1.250", "1.500", "+0.250", "+20.0 %")
    assert run["off-chip bytes / compulsory"].effect == "worse"


def test_layers_by_effect():
    layers = compare(imaginary(), faster()).layers
    assert [layer.name for layer in layers] == ["e1a", "c1", "gated1"]
    first, second, third = layers
    assert first.cycles.texts == ("400", "300", "-100", "-25.0 %")
    assert first.utilization.texts[:3] == ("35.0 %", "45.0 %", "+10.0 points")
    assert second.cycles.effect == "worse" and second.bytes.texts[2] == "+200"
    assert third.cycles.effect == "same" and third.utilization.texts[0] == "–"


def test_a_difference_that_nobody_sees_is_none():
    """9 793 against 9 793, "+0, +0.0 %, worse"."""
    change = Change("cycles per frame", 9793, 9793 + 1 / 3)
    assert (change.texts[2], change.effect) == ("+0", "same")
    change = Change("share", 0.5, 0.5004, share=True)
    assert (change.texts[2], change.effect) == ("+0.0 points", "same")


def test_a_bar_is_a_share_of_the_figures(tmp_path):
    """A change of one cycle of a thousand had filled the whole bar."""
    a, b = (imaginary(**{"layers": [{**imaginary()["layers"][0], "cycles": cycles}]})
            for cycles in (1000, 1001))
    page = render("compare_runs.html.j2", c=compare(a, b), signs=SIGNS)
    widths = [float(width) for width in re.findall(r'<i style="width: ([\d.]+)%', page)]
    assert 0 < max(widths) < 1


def test_stalls_by_effect():
    comparison = compare(imaginary(), faster())
    assert [(change.name, change.difference) for change in comparison.stalls[:3]] == [
        ("encoder MAC array: off-chip", -180), ("encoder MAC array: dependency", 10),
        ("load for the encoder: off-chip", 0)]
    assert by_name(comparison.engines)["encoder MAC array"].texts == ("300", "130", "-170",
                                                                      "-56.7 %")
    assert "encoder MAC array: port conflict" not in by_name(comparison.stalls)


def test_traffic_by_class():
    first = compare(imaginary(), faster()).traffic[0]
    assert (first.name, first.difference, first.effect) == ("spilled maps", 200, "worse")


def test_settings_that_differ():
    assert compare(imaginary(), faster()).settings == [
        ("machine", "tiny, 112 MAC lanes", "edge, 112 MAC lanes")]


def test_streams_are_compared_per_frame():
    stream = imaginary(**{"frames": 2, "cycles.interval": 450})
    comparison = compare(imaginary(), stream)
    assert by_name(comparison.run)["cycles per frame"].texts == ("1 000", "500", "-500", "-50.0 %")
    assert comparison.layers[0].cycles.texts[:2] == ("400", "200")
    assert by_name(comparison.engines)["attention MAC array"].after == 250
    assert by_name(comparison.traffic)["weights"].after == 350
    assert ("frames", "1", "2") in comparison.settings


def test_run_that_is_not_exact_is_refused(tmp_path, capsys):
    a = save(tmp_path / "a", imaginary())
    b = save(tmp_path / "b", imaginary(**{"bit_exact": False, "tensors.mismatched": 3}))
    assert main(["--a", a, "--b", b, "--force", "1", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err == ("error: b is not bit-exact: 3 of 5 tensors differ; only figures of "
                           "correct runs are compared\n")
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_different_networks_are_refused_unless_forced():
    other = imaginary(**{"model": "unet-busi", "input.size": 64, "macs": 60_000})
    other["layers"][1]["name"] = "d1a"
    with pytest.raises(InputError, match=(
            r"^A ran elec4848 at 32 x 32, width 4, 50000 MACs and B ran unet-busi at 64 x 64, width"
            r" 4, 60000 MACs; compare runs of one network, or set FORCE=1 to see what they "
            r"share$")):
        compare(imaginary(), other)
    layers = {layer.name: layer for layer in compare(imaginary(), other, force=True).layers}
    assert layers["d1a"].cycles.texts[:2] == ("–", "300")
    assert layers["c1"].cycles.texts[:2] == ("300", "–")


def test_files_and_terminal_have_signs_and_words(tmp_path, capsys):
    a, b = save(tmp_path / "slow", imaginary()), save(tmp_path / "fast", faster())
    assert main(["--a", a, "--b", b, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "out" / "compare.md").read_text()
    page = (tmp_path / "out" / "compare.html").read_text()
    for output in (printed, text, page):
        assert "fast takes 20.0 % fewer cycles per frame than slow." in output
        assert "▲ better" in output and "▼ worse" in output
    assert "| cycles per frame | 1 000 | 800 | -200 | -20.0 % | ▲ better |" in text
    assert ("| e1a | encoder | 400 | 300 | -100 | -25.0 % | 35.0 % | 45.0 % | 500 | 500 | +0 | "
            "▲ better |") in text
    assert '<td class="better">-200</td>' in page
    assert "http" not in page.replace("http-equiv", "")


def test_terminal_shows_the_largest_effects_in_colour():
    shown = io.StringIO()
    print_comparison(Console(file=shown, width=140, color_system="standard", force_terminal=True),
                     compare(imaginary(), faster()))
    assert re.search(r"\x1b\[32m *-180", shown.getvalue())
    assert re.search(r"\x1b\[31m *\+200", shown.getvalue())
    assert "nothing changed" not in shown.getvalue()


def test_equal_runs():
    comparison = compare(imaginary(), imaginary(), ("x", "y"))
    assert comparison.verdict == "Both take the same cycles per frame."
    assert {change.effect for _, _, changes in comparison.sections for change in changes} \
        <= {"same", "neutral"}
    assert "▲" not in markdown(comparison)


@pytest.mark.parametrize("arguments, line", [
    (["--a", "none", "--b", "none"],
     "No report at 'none'; name the folder of a run, such as reports/latest"),
    (["--a", "none"], "the following arguments are required: --b; see `make help`"),
])
def test_bad_input_is_one_line(capsys, arguments, line):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
