import copy
import html.parser
import json
import re

import pytest
from PIL import Image

from hw.isa import Engine
from sim.page import __main__ as page_main
from sim.page import render, write_page
from sim.page.build import _findings
from sim.page.figures import written
from sim.page.timeline import layer_causes, timeline
from sim.page.words import BOUNDS, CAUSES, CLASSES, ENGINES, WORDS
from tests.sim.pages import assert_figure, whole_report

MISMATCH = {"frame": 0, "layer": "d2a", "channel": 3, "row": 17, "column": 5, "expected": 200,
            "got": 201}


class Page(html.parser.HTMLParser):
    """Figures, visible text, pictures and links of a page."""

    def __init__(self, text):
        super().__init__()
        self.figures, self.images, self.stacks, self.text = [], [], {}, ""
        self._open, self._hidden, self._engine = None, False, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "data":
            self._open = found | {"text": ""}
            self.figures.append(self._open)
        if tag == "img":
            self.images.append(found)
        if tag == "div" and "row" in found.get("class", "").split():
            self._engine = found.get("data-engine")
        if tag == "data" and self._engine and found.get("data-style") == "width":
            self.stacks.setdefault(self._engine, []).append(int(found["value"]))
        self._hidden = tag in ("script", "style")
        if tag in ("td", "th", "dt", "dd"):
            self.text += " "

    def handle_endtag(self, tag):
        if tag == "data":
            self._open = None
        self._hidden = False

    def handle_data(self, data):
        if self._open is not None:
            self._open["text"] += data
        if not self._hidden:
            self.text += data


def shown(report, trace=None, pictures=()):
    return Page(render(report, pictures, trace))


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("report", [
    whole_report(), whole_report(3),
    whole_report(mismatched=1, first_mismatch=MISMATCH)], ids=["one", "three", "wrong"])
def test_every_figure_is_that_of_the_report(report):
    figures = shown(report).figures
    assert len(figures) > 150
    for one in figures:
        assert_figure(report, one["data-path"], one["text"], one["value"], one.get("data-style"),
                      one.get("data-of"))


def test_stacks_sum_to_the_cycles():
    report = whole_report()
    stacks = shown(report).stacks
    assert stacks.keys() == report["units"].keys() and len(stacks) == len(Engine)
    for name, cycles in stacks.items():
        assert sum(cycles) == report["cycles"]["total"], name


def test_every_name_of_the_report_has_a_word():
    report = whole_report()
    assert {name for members in ENGINES.values() for name in members} == {
        *report["units"], "monitor"}
    assert all(unit["stack"].keys() == CAUSES.keys() for unit in report["units"].values())
    assert report["traffic"]["offchip"]["classes"].keys() == CLASSES.keys()
    assert {layer["bound_by"] for layer in report["layers"]} <= {None, *BOUNDS}


def test_verdict_of_a_run_that_is_exact():
    text = flat(shown(whole_report()).text)
    assert "✓ Bit-exact: hardware and golden model agree on 2 tensors, 99 bytes." in text
    assert "mismatch" not in text


def test_verdict_names_the_first_mismatch():
    report = whole_report(mismatched=1, first_mismatch=MISMATCH, problems=["7 of <c1> missing"])
    text   = flat(shown(report).text)
    assert ("✗ Not bit-exact: 1 of 2 compared tensors differ from the golden model. First "
            "mismatch: frame 0, layer d2a, channel 3, row 17, column 5: expected 200, got 201. "
            "7 of <c1> missing See the waveform: make wave RUN=reports/latest AT=mismatch") in text
    assert "✓" not in text


def test_a_mismatch_without_a_place():
    report = whole_report(mismatched=2, problems=["c1 was never written"])
    assert "First mismatch" not in shown(report).text
    assert "c1 was never written" in shown(report).text


def test_truth_is_shown_where_it_is_known():
    unknown, known = whole_report(), whole_report()
    known["mask"]["dice_truth"] = 0.875
    assert "truth not known" in flat(shown(unknown).text)
    assert "0.875 Dice against the truth" in flat(shown(known).text)


def test_weights_that_mean_nothing_are_named():
    report = whole_report()
    assert "not trained" not in shown(report).text
    report["input"]["trained"] = False
    assert "Weights not trained: the mask means nothing." in flat(shown(report).text)


def test_steady_state_and_every_frame_of_a_stream():
    report = whole_report(2)
    report["stream"] = {
        "frames": [{"image": "a.png", "started": 10, "ended": 110, "latency": 100,
                    "interval": None},
                   {"image": "b.png", "started": 50, "ended": 160, "latency": 110,
                    "interval": 50}],
        "latency": {"jitter": 10}, "interval": {"jitter": 0}}
    page = shown(report)
    assert "in steady state" in page.text
    assert "0 a.png 10 110 100 – 1 b.png 50 160 110 50 largest − smallest 10 0" in flat(page.text)
    assert "Frames 0" not in flat(shown(whole_report()).text)


def test_nothing_is_fetched():
    text  = render(whole_report())
    links = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert links == {"http://www.w3.org/2000/svg"}          # a name space, not an address
    assert "default-src 'none'" in text
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?!data:)", text)


def test_no_acronym_without_its_meaning():
    page    = shown(whole_report(mismatched=1, first_mismatch=MISMATCH))
    meaning = " ".join(f"{word.name} {word.meaning}" for word in WORDS.values())
    known   = {"TRACE", "RUN", "AT", "CONFIG",         # variables of make
               "EIE", "ISCA", "ISSCC", "TN"}           # titles of sources
    for acronym in set(re.findall(r"\b[A-Z]{2,}[a-z]?\b", page.text)) - known:
        assert acronym.rstrip("s") in meaning, acronym


def test_what_others_wrote_cannot_become_markup():
    report = whole_report()
    report["command"] = "make sim IMAGE='</script><b>.png'"
    report["model"]   = "<i>"
    text = render(report)
    assert "<b>.png" not in text and "<i> on" not in text
    assert json.loads(re.search(r'id="report-json">(.*?)</script>', text).group(1)) == report


@pytest.mark.parametrize("value, style, text", [
    (40430213, "int", "40,430,213"), (0, "int", "0"), (2.5e3, "int", "2,500"),
    (1023, "bytes", "1,023\u00a0B"), (1536, "bytes", "1.50\u00a0KiB"),
    (150 * 2**20, "bytes", "150.0\u00a0MiB"), (5 * 2**30, "bytes", "5.00\u00a0GiB"),
    (15.76e9, "many", "15.76\u00a0G"), (12, "many", "12"), (0.4349, "percent", "43.5\u00a0%"),
    (0.99985, "percent", "99.985\u00a0%"), (1.0, "percent", "100.0\u00a0%"),
    (1.23456, 3, "1.235"), (None, "int", "–")])
def test_numbers_as_text(value, style, text):
    assert written(value, style) == text


# trace.json as sim/README.md describes it: two instructions of the encoder's array, and a row sent.
TRACE = {
    "otherData": {
        "clock_mhz": 100, "cycles": 300, "frames": [{"start": 20, "end": 290}],
        "engines": [{"name": "encoder_conv", "unit": "encoder", "pid": 3, "tid": 6}],
        "layers": [{"id": 1, "name": "e1a"}], "interval": 100, "instructions_per_slice": 1},
    "traceEvents": [
        {"ph": "M", "pid": 7, "name": "process_name", "args": {"name": "monitor"}},
        {"ph": "X", "pid": 3, "tid": 6, "name": "e1a", "ts": 1.1, "dur": 0.5,
         "args": {"cycle": 110, "cycles": 50, "op": "conv", "row": 1, "index": 2,
                  "by_cause": {"issue": 40, "fill_drain": 10}, "waited": {"dependency": 7}}},
        {"ph": "X", "pid": 3, "tid": 6, "name": "e1a", "ts": 0.5, "dur": 0.5,
         "args": {"cycle": 53, "cycles": 50, "op": "conv", "row": 0, "index": 1,
                  "by_cause": {"issue": 50}}},
        {"ph": "X", "pid": 3, "tid": 6, "name": "e1a", "ts": 0.4, "dur": 0.01,
         "args": {"cycle": 40, "cycles": 1, "op": "sync", "row": 0, "index": 0,
                  "by_cause": {"dependency": 1}}},
        {"ph": "X", "pid": 7, "tid": 1, "name": "alpha", "ts": 2, "dur": 0.1,
         "args": {"cycle": 200, "cycles": 10, "row": 4}},
        *({"ph": "C", "pid": 8, "name": name, "ts": time, "args": args}
          for name, samples in {
              "off-chip bytes read": [{"weights": 64}, {"weights": 0, "frame": 8}, {}],
              "off-chip bytes written": [{"mask": 0}, {"mask": 16}, {}],
              "off-chip row accesses": [{"hits": 3, "misses": 1}, {"hits": 1, "misses": 0}, {}],
          }.items() for time, args in zip((0, 1, 2.5), samples, strict=True)),
    ],
}


def test_timeline_of_a_trace():
    found = timeline(whole_report(), TRACE)
    rows  = {row["name"]: row["slices"] for row in found["rows"]}
    assert len(rows) == len(Engine) + 1
    # Five numbers a slice: gap, length, layer, row, operation.
    assert rows["encoder"] == [53, 50, 0, 0, 0, 7, 50, 0, 1, 0]
    assert rows["monitor"] == [200, 10, 1, 4, 1] and rows["gate"] == []
    assert (found["layers"], found["operations"]) == (["e1a", "alpha"], ["conv", "send"])
    assert found["counters"] == {
        "edges": [0, 100, 250], "read": {"weights": [64, 0]}, "write": {"mask": [0, 16]},
        "hits": [3, 1], "misses": [1, 0]}
    assert found["frames"] == [{"start": 20, "end": 290}]


def test_cycles_of_a_layer_by_cause_from_a_trace():
    causes = layer_causes(TRACE)
    assert causes == {("encoder", "e1a"): {
        **dict.fromkeys(CAUSES, 0), "issue": 90, "fill_drain": 10, "dependency": 8}}


def test_timeline_without_a_trace_has_the_layers():
    found = timeline(whole_report())
    assert [row["name"] for row in found["rows"]] == ["encoder", "gate"]
    assert found["rows"][0]["slices"] == [3000, 3000, 0, 0, 0]
    assert found["rows"][1]["slices"] == [7500, 1500, 1, 0, 0]
    assert found["layers"] == ["e1a", "gated1"] and found["counters"] is None


def test_layers_whose_rows_alternate_share_a_slice():
    report = whole_report()
    report["layers"].append({**report["layers"][0], "name": "c1", "first_row": 4000, "last": 6500})
    found = timeline(report)
    assert found["rows"][0]["slices"] == [3000, 3500, 0, 0, 0]
    assert found["layers"][0] == "e1a, c1"


def test_bandwidth_over_time_needs_a_trace():
    assert "plot-bandwidth" in render(whole_report(), (), TRACE).split("<script>")[0]
    text = render(whole_report()).split("<script>")[0]
    assert "plot-bandwidth" not in text and "TRACE=1" in text


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(whole_report()))
    for name in ("input", "mask-golden", "mask-hardware", "alpha1-hardware", "alpha2-golden"):
        Image.new("L", (8, 8), 7).save(tmp_path / f"{name}.png")
    return tmp_path


def test_page_of_a_folder(folder, capsys):
    assert page_main.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    page = Page((folder / "report.html").read_text())
    assert [image["alt"].split(":")[0] for image in page.images] == [
        "Input", "Golden mask", "Hardware mask", "Attention map, Gate 1, as the monitor saw it",
        "Attention map, Gate 2, of the golden model; the monitor saw none"]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_page_of_a_folder_with_a_trace(folder):
    (folder / "trace.json").write_text(json.dumps(TRACE))
    assert "event trace" in Page(write_page(folder).read_text()).text


def test_page_without_pictures(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(whole_report()))
    page = Page(write_page(tmp_path).read_text())
    assert page.images == [] and "This run left no pictures." in page.text


def changed(**changes):
    """A report with changes by dotted name, as text."""
    report = whole_report()
    for name, value in changes.items():
        *path, last = name.split(".")
        place = report
        for key in path:
            place = place[key]
        place[last] = value
    return json.dumps(report)


def test_a_page_of_a_report_from_before_a_figure_was_there(tmp_path, capsys):
    report = whole_report()
    del report["frames_per_second"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert page_main.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {str(tmp_path / 'report.json')!r} has not all that a page shows "
        "('frames_per_second'): it was written by an older version; run again\n")


@pytest.mark.parametrize("spoil, what", [
    (lambda trace: trace.pop("otherData"), "it has no events"),
    (lambda trace: trace["otherData"].update(engines=7), "it has no list of engines"),
    (lambda trace: trace["otherData"].update(clock_mhz=0), "it has no clock"),
    (lambda trace: trace["traceEvents"].insert(0, 7), "event 0 has no name, phase or track"),
    (lambda trace: trace["traceEvents"].insert(0, {"ph": "X", "name": "x", "pid": 2, "tid": 1}),
     "event 0 has no track or no cycles"),
    (lambda trace: trace["traceEvents"].clear(), "its counters have not the same samples"),
])
def test_a_trace_that_no_run_wrote(tmp_path, capsys, spoil, what):
    trace = copy.deepcopy(TRACE)
    spoil(trace)
    (tmp_path / "report.json").write_text(json.dumps(whole_report()))
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    assert page_main.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {str(tmp_path / 'trace.json')!r} is no trace of a run: {what}; repeat the run "
        "with TRACE=1\n")


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(whole_report()))
    (tmp_path / "report.html").mkdir()
    assert page_main.main([str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


NO_JSON   = "'{path}' cannot be read as JSON"
NO_REPORT = "'{path}' is no report of a run:"


@pytest.mark.parametrize("text, line", [
    (None, "No file '{path}': no run is there; `make sim` makes one"),
    ("[", f"{NO_JSON} (Expecting value: line 1 column 2 (char 1)); repeat the run"),
    ("[" * 100_000, f"{NO_JSON} (nested too deeply); repeat the run"),
    (changed(ipc=float("inf")), f"{NO_JSON} (Infinity is no number); repeat the run"),
    (changed(ipc=1e300), f"{NO_JSON} (a number beyond 1e18); repeat the run"),
    (changed(schema=2), f"{NO_REPORT} schema is 2, against 'const' of its schema; repeat the run"),
    (changed(macs=-1), f"{NO_REPORT} macs is -1, against 'minimum' of its schema; repeat the run"),
    (changed(**{"units.gate": 7}),
     f"{NO_REPORT} units.gate is 7, against 'type' of its schema; repeat the run"),
    (changed(stream=None),
     f"{NO_REPORT} stream is None, against 'type' of its schema; repeat the run"),
])
def test_bad_folder_is_one_line(tmp_path, capsys, text, line):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    assert page_main.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {line.format(path=path)}\n"
    assert not (tmp_path / "report.html").exists()


def test_no_folder_named(capsys):
    assert page_main.main([]) == 2
    assert capsys.readouterr().err == (
        "error: the following arguments are required: RUN; see `make help`\n")


def test_no_work_is_no_loss():
    """The busiest engine "loses most to no work (has run its whole stream)"."""
    report = whole_report()
    stack  = {"issue": 600, "dependency": 30, "no_work": 370}
    report["units"] = {"encoder": {"stack": stack}}
    assert _findings(report)["lost"] == "dependency"
    stack |= {"dependency": 0, "no_work": 400}
    assert _findings(report)["lost"] is None


def test_a_command_can_be_pasted():
    """`make wave RUN=my attune (1)/x` could not."""
    report = whole_report(mismatched=1, first_mismatch=MISMATCH)
    assert "make wave RUN=&#39;my attune (1)/x&#39; AT=mismatch" in render(
        report, folder="my attune (1)/x")


def test_keys_print_and_forced_colours_have_their_way():
    page = render(whole_report())
    assert page.index('href="#main"') < page.index("<header") and 'id="main"' in page
    assert "forced-color-adjust: none" in page and "@page { margin" in page
    assert "section.first { break-inside: auto; }" in page
    assert "<th></th>" not in page
