"""The page of a real run in a real browser: drawn, complete, silent, and in the reader's hand."""

import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from sim import run
from tests.sim.pages import assert_figure

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS  = 2
MOST     = 8 * 2**20
PATIENCE = 180_000          # milliseconds, where every core is busy

pytestmark = [
    pytest.mark.cosim,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; `make test` installs "
                                                "it where it can"),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Folder and report of a run with its event trace."""
    folder = tmp_path_factory.mktemp("run")
    report = run.run(run.Options(config="tiny", trace=True, out=str(folder)), Console(quiet=True))
    return folder, report


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox,
                                             timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, measured):
    """Opens the page; whatever it says or asks for fails the test in the end."""
    said, contexts = [], []

    def start(width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith(
            ("file:", "data:", "blob:")) else None)
        page.goto((measured[0] / "report.html").as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert said == []


def test_page_is_light_and_opens_at_once(open_page, measured):
    assert (measured[0] / "report.html").stat().st_size <= MOST
    page    = open_page()
    session = page.context.new_cdp_session(page)
    # What the page's own thread computes, so that a busy machine fails nothing.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    metrics = {one["name"]: one["value"]
               for one in session.send("Performance.getMetrics")["metrics"]}
    assert 0 < metrics["TaskDuration"] < SECONDS
    assert page.evaluate("performance.getEntriesByType('resource')"
                         ".filter((one) => !one.name.startsWith('data:')).length") == 0


def test_all_pictures_are_drawn(open_page):
    drawn = open_page().evaluate(
        "[...document.images].map((image) => [image.alt.split(':')[0], image.naturalWidth])")
    assert [name.split(",")[0] for name, _ in drawn] == [
        "Input", "Truth", "Golden mask", "Hardware mask", "Difference", "Overlay",
        *["Attention map"] * 4]
    assert all(width > 0 for _, width in drawn)


def test_every_figure_is_that_of_the_report(open_page, measured):
    figures = open_page().evaluate(
        "[...document.querySelectorAll('data.fig')].map((one) => ["
        "one.dataset.path, one.textContent, one.value, one.dataset.style, one.dataset.of ?? null])")
    assert len(figures) > 500
    for figure in figures:
        assert_figure(measured[1], *figure)
    paths = {figure[0] for figure in figures}
    assert {"execution_time_ms", "frames_per_second", "mac_utilization.latency", "ipc", "cpi",
            "traffic.offchip.ratio", "traffic.offchip.total"} <= paths


def test_stacks_are_drawn_to_scale_and_sum(open_page, measured):
    rows = open_page().evaluate("""() => Object.fromEntries(
        [...document.querySelectorAll("#engine-stacks [data-engine]")].map((row) => [
            row.dataset.engine, [...row.querySelectorAll("data[data-style=width]")].map((one) => [
                Number(one.value), one.getBoundingClientRect().width])]))""")
    total = measured[1]["cycles"]["total"]
    wide  = sum(width for _, width in rows["encoder"])
    assert rows.keys() == measured[1]["units"].keys() and wide > 300
    for name, parts in rows.items():
        assert sum(cycles for cycles, _ in parts) == total, name
        for cycles, width in parts:
            assert width == pytest.approx(cycles / total * wide, abs=1), name


def test_cycles_of_every_layer_by_cause_are_those_of_its_ledger(open_page, measured):
    rows = open_page().evaluate("""() => Object.fromEntries(
        [...document.querySelectorAll("#layer-stacks [data-layer]")].map((row) => [
            row.dataset.layer, Object.fromEntries([...row.querySelectorAll("i[data-cause]")].map(
                (one) => [one.dataset.cause, Number(one.dataset.cycles)]))]))""")
    layers = {layer["name"]: layer for layer in measured[1]["layers"] if layer["cycles"]}
    assert rows.keys() == layers.keys()
    for name, causes in rows.items():
        assert causes["issue"] == layers[name]["issued"], name
        assert sum(causes.values()) >= layers[name]["cycles"], name


def test_traffic_by_class_sums_to_what_the_memory_counted(measured):
    offchip = measured[1]["traffic"]["offchip"]
    layers  = [layer["traffic"] for layer in measured[1]["layers"]]
    assert sum(offchip["classes"].values()) == offchip["total"]
    assert offchip["total"] == sum(offchip["counted_by_memory"].values())
    for name, count in offchip["classes"].items():
        if name != "program":       # the program belongs to no layer
            assert sum(layer.get(name, 0) for layer in layers) == count, name


def test_blocks_over_time_stay_within_what_was_ever_used(measured):
    occupancy = measured[1]["occupancy"]
    over_time = occupancy["over_time"]
    assert over_time["source"] == "trace"
    assert 0 < over_time["peak"] <= occupancy["onchip_peak"] <= occupancy["onchip_capacity"]
    assert all(0 < block["first"] <= block["last"] <= measured[1]["cycles"]["total"]
               for block in over_time["blocks"])


@pytest.mark.parametrize("heading, key", [
    ("cycles", lambda layer: layer["cycles"]),
    ("MACs", lambda layer: layer["macs"]),
    ("off-chip, bytes", lambda layer: layer["offchip_bytes"]),
    ("layer", lambda layer: layer["name"].lower())])
def test_layers_sort_by_every_heading(open_page, measured, heading, key):
    page  = open_page()
    head  = page.locator("#layer-table thead th").filter(has_text=heading).last
    if heading == "layer":
        head = page.locator("#layer-table thead th").first
    names = "[...document.querySelectorAll('#layer-table tbody th')].map((one) => one.textContent)"
    value = {layer["name"]: key(layer) for layer in measured[1]["layers"]}
    before = page.evaluate(names)
    box    = head.bounding_box()
    position = {"x": box["width"] - 6, "y": box["height"] - 4}      # beside the word's own link
    head.click(position=position)
    once  = [value[name] for name in page.evaluate(names)]
    head.click(position=position)
    twice = [value[name] for name in page.evaluate(names)]
    down  = sorted(value.values(), reverse=True)
    assert sorted(page.evaluate(names)) == sorted(before)
    assert once == (down[::-1] if heading == "layer" else down)
    assert twice == once[::-1]
    assert head.get_attribute("aria-sort") in ("ascending", "descending")


def test_zoom_follows_buttons_and_drags(open_page, measured):
    page   = open_page()
    total  = measured[1]["cycles"]["total"]
    canvas = page.locator("#plot-engines canvas")
    pixels = "document.querySelector('#plot-occupancy canvas').toDataURL()"

    def window():
        words = page.locator("#window").text_content().replace(",", "").split()
        return int(words[1]), int(words[3])

    everything = page.evaluate(pixels)
    assert window() == (0, total)
    page.click("[data-zoom=in]")
    start, end = window()
    assert end - start == pytest.approx(total / 2, abs=2)
    assert page.evaluate(pixels) != everything
    page.click("[data-zoom=right]")
    assert window()[0] > start
    page.click("[data-zoom=all]")
    assert window() == (0, total) and page.evaluate(pixels) == everything

    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 420, box["y"] + 60, steps=4)
    page.mouse.up()
    start, end = window()
    assert 0 < start < end < total
    assert end - start == pytest.approx(120 / (box["width"] - 158) * total, rel=0.02)
    canvas.dblclick(position={"x": 400, "y": 60})
    assert window() == (0, total)


def test_hovering_names_the_layer(open_page, measured):
    page   = open_page()
    layer  = next(one for one in measured[1]["layers"] if one["name"] == "encoding")
    total  = measured[1]["cycles"]["total"]
    canvas = page.locator("#plot-engines canvas")
    canvas.scroll_into_view_if_needed()
    box    = canvas.bounding_box()
    middle = (layer["first_row"] + layer["last"]) / 2
    x = box["x"] + 150 + middle / total * (box["width"] - 158)
    page.mouse.move(x, box["y"] + 16 + 4.5 * 21)        # the fifth engine: the encoder's array
    text = page.locator("#tip").text_content()
    assert text.startswith("encoder MAC array\nencoding, conv, row ")


def test_roofline_has_every_layer_with_macs(open_page, measured):
    dots   = open_page().evaluate("""() => [...document.querySelectorAll("#plot-roof .dot")].map(
        (one) => [one.dataset.layer, Number(one.dataset.rate), Number(one.dataset.intensity)])""")
    report = measured[1]
    wanted = [[layer["name"], layer["macs"] / layer["cycles"],
               layer["macs"] / layer["offchip_bytes"]]
              for layer in report["layers"] if layer["macs"]]
    wanted.append(["whole run", report["macs"] / report["cycles"]["total"],
                   report["macs"] / report["traffic"]["offchip"]["total"]])
    assert [dot[0] for dot in dots] == [name for name, *_ in wanted]
    for dot, (_, *values) in zip(dots, wanted, strict=True):
        assert dot[1:] == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(open_page, width):
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sticking_out = page.evaluate("""(width) => [...document.querySelectorAll("main *, header *")]
        .filter((one) => !one.closest(".scroll") && one.getBoundingClientRect().right > width + 1)
        .map((one) => one.outerHTML.slice(0, 80))""", width)
    assert sticking_out == []


def test_words_open_at_a_tap(open_page):
    page = open_page(390, has_touch=True)
    page.locator("main a.word").filter(has_text="MAC utilisation").first.tap()
    assert page.locator("#tip").text_content().startswith("Useful MACs of the model over")
    assert page.evaluate("location.hash") == ""


def test_light_dark_and_print(open_page):
    page = open_page(color_scheme="dark")
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(back)
    page.click("#theme")
    light = page.evaluate(back)
    assert dark != light
    assert open_page(color_scheme="light").evaluate(back) == light
    page.click("#theme")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000
    assert page.evaluate(back) == dark


def test_report_can_be_saved(open_page, measured):
    page = open_page()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "report.json"
    assert (json.loads(Path(download.value.path()).read_text())
            == json.loads((measured[0] / "report.json").read_text()))
