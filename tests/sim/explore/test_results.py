import csv
import io
import json
import re

import pytest
from rich.console import Console

from hw.config import preset
from sim.explore.certify import contradictions
from sim.explore.evaluate import Network
from sim.explore.journal import Journal
from sim.explore.results import make_results, page, verdict, write_results
from sim.explore.search import Exploration
from sim.progress import MachineProgress
from tests.sim.explore.spaces import SIX, found_of, space_of
from tests.sim.reports import imaginary

HEAD    = {"space": "a", "sources": "b", "name": "six", "network": "elec4848"}
NETWORK = Network("elec4848", 16, 4, 1)


@pytest.fixture
def results(tmp_path):
    """Of the six, one that does not run, and one that is called with a tag."""
    space = space_of(tmp_path, SIX.replace("[1, 2, 4]", "[1, 2, 4, 16]"))
    with Journal(tmp_path / "out", HEAD) as journal:
        exploration = Exploration(space, journal, 100)
        exploration.run(lambda configs: (
            (number, found_of(number, config) if number else
             {"status": "failed", "reason": "<script>x</script> does not fit", "seconds": 1})
            for number, config in configs))
        made = make_results(exploration, NETWORK, {5: [], 3: ["cycles: 1 in the RTL"]})
        write_results(made, space.machine(made["winner"]), tmp_path / "out")
    return made, tmp_path / "out"


def test_json(results):
    made, folder = results
    assert json.loads((folder / "explore.json").read_text()) == json.loads(json.dumps(made))
    assert (made["front"], made["winner"], made["proved"]) == ([5, 3, 1], 5, True)
    assert made["counts"] == {"failed": 1, "measured": 5, "refused": 2}
    assert made["cpu_s"] == 3.5
    assert verdict(made) == ("all 6 possible machines of 8 were tried: the front is proved within "
                             "the space; it has 3 machines")
    assert sorted(path.name for path in folder.iterdir()) == [
        "explore.csv", "explore.html", "explore.json", "journal.jsonl", "winner.toml"]


def test_csv(results):
    made, folder = results
    rows = list(csv.DictReader(io.StringIO((folder / "explore.csv").read_text())))
    assert [row["machine"] for row in rows] == list("01234567")
    assert [row["front"] for row in rows] == list("01010100")
    assert [row["certified"] for row in rows][3:6] == ["contradicted", "", "equal"]
    assert rows[0]["reason"] == "<script>x</script> does not fit"
    assert (rows[5]["decoder.outputs"], rows[5]["latency"]) == ("4", str(10**6 // 112 - 64))


def test_the_winner_is_a_machine_file(results):
    made, folder = results
    config = preset(str(folder / "winner.toml"))
    assert (config.name, config.decoder.outputs, config.onchip_bytes) == ("six-5", 4, 65536)
    assert config.encoder == preset("tiny").encoder


def test_a_search_proves_nothing(results):
    made, _ = results
    made |= {"enumerated": False, "proved": False, "machines": 10**6}
    assert verdict(made) == (
        "of 1000000 machines 5 were found to run and meet the constraints, the others were not "
        "tried, or do not: nothing is proved of the others; it has 3 machines")


def test_page(results):
    made, folder = results
    text = (folder / "explore.html").read_text()
    assert text == page(made)
    assert not re.search(r"(src|href)=\"(?!data:,\")|https?://(?!www.w3.org/2000/svg)", text)
    assert "&lt;script&gt;x&lt;/script&gt; does not fit" in text and "<script>x" not in text
    rows = re.findall(r'<tr id="m(\d)"( class="front")?>', text)
    assert rows == [("5", ' class="front"'), ("3", ' class="front"'), ("1", ' class="front"'),
                    ("4", ""), ("2", "")]
    data = json.loads(re.search(r'id="data">(.*)</script>', text)[1])
    assert [machine["machine"] for machine in data["machines"]] == [5, 3, 1, 4, 2]
    latency = [name for name, _ in data["figures"]].index("latency")
    assert data["machines"][0]["figures"][latency] == 10**6 // 112 - 64
    assert data["machines"][0]["knobs"] == {"decoder.outputs": "4", "onchip_bytes": "64 KiB"}
    assert [machine["certified"] for machine in data["machines"]] == [
        "equal", "contradicted", "", "", ""]


def test_what_the_rtl_contradicts():
    report  = imaginary()
    report["cycle_model"] = {"cycles": 1000, "differences": []}
    report["traffic"]["offchip"]["total"] = 4711
    figures = {"cycles": report["cycles"]["total"], "latency": report["cycles"]["latency"],
               "interval": report["cycles"]["interval"], "mac_lanes": report["mac_lanes"],
               "offchip_bytes_moved": 4711}
    assert contradictions(figures, report) == []
    assert contradictions(figures | {"latency": 1}, report) == [
        f"latency: {report['cycles']['latency']} in the RTL, 1 in the search"]
    report["cycle_model"]["differences"] = ["cycles: 2 in the hardware, 1 in the model"]
    report["bit_exact"] = False
    assert len(contradictions(figures, report)) == 2


def test_progress_line():
    line = MachineProgress(Console(quiet=True), 8, "latency").describe(2, 35179, 4)
    assert line == ("━━━━━━··················  25%  2 of 8 machines  1,800 an hour  best latency: "
                    "35,179  12 s left")
    assert "best milliseconds: 0.352  0 s left" in MachineProgress(
        Console(quiet=True), 8, "milliseconds").describe(8, 0.352, 4)
    assert "best x: none yet" in MachineProgress(Console(quiet=True), 8, "x").describe(1, None, 4)


def test_a_knob_may_be_an_objective(tmp_path):
    space = space_of(tmp_path, SIX.replace('"mac_lanes"]', '"onchip_bytes"]'))
    with Journal(tmp_path / "out", HEAD) as journal:
        exploration = Exploration(space, journal, 100)
        exploration.run(lambda configs: ((number, found_of(number, config))
                                         for number, config in configs))
    made = make_results(exploration, NETWORK, {})
    write_results(made, space.machine(made["winner"]), tmp_path / "out")
    assert made["front"] == [5, 4]
    data = json.loads(re.search(r'id="data">(.*)</script>', page(made))[1])
    assert data["axes"][:2] == ["latency", "onchip_bytes"]
    assert data["machines"][1]["figures"][1] == 32768
    head = (tmp_path / "out" / "explore.csv").read_text().splitlines()[0].split(",")
    assert len(set(head)) == len(head) and "onchip_bytes" in head
