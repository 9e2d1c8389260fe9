"""explore.html in a real browser: drawn, silent, legible, and in the reader's hand."""

import os
import shutil

import pytest

from sim.explore.evaluate import Network
from sim.explore.journal import Journal
from sim.explore.results import make_results, page
from sim.explore.search import Exploration
from tests.sim.explore.spaces import SIX, found_of, space_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 180_000          # milliseconds, where every core is busy
ENOUGH   = 4.5              # contrast of a text by WCAG 2, level AA; of what is drawn 3

CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => rgb(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, k) => sum + part * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const back = getComputedStyle(element).backgroundColor;
      if (rgb(back)[3] > 0) return back;
    }
    return "white";
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05)
                        / (Math.min(light(a), light(b)) + 0.05);
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((child) =>
      child.nodeType === 3 && child.textContent.trim()));
  const found = texts.map((element) => {
    const svg = element instanceof SVGElement, style = getComputedStyle(element);
    return [ratio(svg ? style.fill : style.color, behind(svg ? element.ownerSVGElement : element)),
            element.outerHTML.slice(0, 80)];
  });
  const dots = [...document.querySelectorAll("circle")].map((dot) =>
    [1.5 * ratio(getComputedStyle(dot).fill, behind(dot.ownerSVGElement)), dot.outerHTML]);
  return [...found, ...dots].sort((a, b) => a[0] - b[0])[0];
}"""

pytestmark = [
    pytest.mark.cosim,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; `make test` installs "
                                                "it where it can"),
]


@pytest.fixture
def file(tmp_path):
    head = {"space": "a", "sources": "b", "name": "six", "network": "elec4848"}
    with Journal(tmp_path / "out", head) as journal:
        exploration = Exploration(space_of(tmp_path, SIX), journal, 10)
        exploration.run(lambda configs: ((number, found_of(number, config))
                                         for number, config in configs))
    made = tmp_path / "explore.html"
    made.write_text(page(make_results(exploration, Network("elec4848", 16, 4, 1), {5: []})))
    return made


def test_the_page(file):
    from playwright.sync_api import sync_playwright
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    said    = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox,
                                             timeout=PATIENCE)
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.set_default_timeout(PATIENCE)
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: said.append(request.url)
                  if not request.url.startswith(("file:", "data:")) else None)
        opened.goto(file.as_uri())
        assert opened.locator("#plot circle").count() == 6

        # By hand, and by keyboard
        heading = opened.locator("#machine-a h3")
        assert heading.inner_text() == "A: machine 5, on the front, RTL equal"
        opened.locator("#plot circle[data-machine='3']").press("Enter")
        assert heading.inner_text() == "A: machine 3, on the front"
        opened.locator("#plot circle[data-machine='1']").press("Shift+Enter")
        assert opened.locator("#machine-b h3").inner_text() == "B: machine 1, on the front"
        opened.get_by_label("show machine 2 as A").press("Enter")
        assert heading.inner_text() == "A: machine 2"
        assert opened.locator("#machine-a .bar").first.get_attribute("aria-label").startswith(
            "encoder MAC array: issuing 12,468 (100.0 %)")
        luts = opened.locator("#machine-a h4 ~ .row")
        assert luts.first.inner_text().startswith("controller")
        assert {"encoder", "decoder", "onchip"} <= {row.inner_text().split()[0]
                                                    for row in luts.all()}

        # A table sorts, and the plot changes its axes
        first = opened.locator("#machines tbody tr").first
        head  = opened.locator("#machines thead th", has_text="latency")
        head.press("Enter")
        assert first.get_attribute("id") == "m0"
        head.press("Enter")
        assert first.get_attribute("id") == "m5"
        place = opened.locator("#plot circle[data-machine='5']").get_attribute("cx")
        opened.locator("#axis-x").select_option("memory_bytes")
        assert opened.locator("#plot circle[data-machine='5']").get_attribute("cx") != place

        # A range is dragged or typed, and the table keeps to it
        opened.locator("#axis-x").select_option("latency")
        opened.set_viewport_size({"width": 1280, "height": 1200})
        opened.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        area = opened.locator("#plot").bounding_box()
        opened.mouse.move(area["x"] + area["width"] * 0.5, area["y"] + area["height"] * 0.1)
        opened.mouse.down()
        opened.mouse.move(area["x"] + area["width"], area["y"] + area["height"] * 0.95)
        opened.mouse.up()
        rows = opened.locator("#machines tbody tr:visible")
        assert [row.get_attribute("id") for row in rows.all()] == ["m3", "m2", "m1", "m0"]
        opened.locator("#from-x").fill("")
        opened.locator("#to-x").fill("12500")
        assert [row.get_attribute("id") for row in rows.all()] == ["m3", "m2"]
        assert opened.locator("#inside").inner_text() == "2 of 6 machines"
        opened.locator("#all").press("Enter")
        assert rows.count() == 6

        # Both machines under their roofs; what a search found how soon; what matters
        assert opened.locator("#roof").get_attribute("aria-label").startswith(
            "A: 40 MACs per cycle of 80 lanes, ")
        assert opened.locator("#roof path").count() == 2
        assert "by chance: " in opened.locator("#progress").get_attribute("aria-label")
        assert opened.locator("#effects tbody tr").count() == 2
        assert opened.locator("#effects tbody tr").first.inner_text().startswith("decoder.outputs")

        for _ in ("light", "dark"):
            contrast, where = opened.evaluate(CONTRAST)
            assert contrast >= ENOUGH, where
            opened.locator("#theme").click()
        opened.set_viewport_size({"width": 360, "height": 640})
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
        opened.emulate_media(media="print")
        assert not opened.locator(".axes:visible").count()
        assert opened.locator("#machines").is_visible()
        browser.close()
    assert said == []
