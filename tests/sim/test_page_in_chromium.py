"""The page of a run as a person sees it: in a browser, in light and in dark, with few nodes and many."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.fault import Strike
from sim.faults import Crash, Pause
from sim.journal import Journal
from sim.page import page
from sim.scenario import Scenario, run
from sim.workload import Request

pytestmark = [pytest.mark.browser, pytest.mark.process]

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars"
).split()
CONTRAST_MIN = 4.5
"""WCAG 2.1 AA for text."""

CONTRASTS = """
const luminance = (text) => {
  const parts = text.match(/[0-9.]+/g).map(Number).slice(0, 3).map((v) => {
    const share = v / 255;
    return share <= 0.03928 ? share / 12.92 : Math.pow((share + 0.055) / 1.055, 2.4);
  });
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const back = luminance(getComputedStyle(document.body).backgroundColor);
const ratio = (colour) => {
  const front = luminance(colour);
  return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
};
const inside = (e) => e.classList.contains('inside');
const texts = [...document.querySelectorAll('p, td, th, h2, span, svg text')].filter((e) => !inside(e));
const colour = (e) => getComputedStyle(e)[e instanceof SVGElement ? 'fill' : 'color'];
return Math.min(...texts.map((e) => ratio(colour(e))));
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator:
    from selenium import webdriver  # slow to import, and only these tests want it

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1400"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.mark.parametrize("nodes", [5, 24])
def test_the_page_fits_its_window_and_can_be_read_in_light_and_dark(browser, nodes: int, tmp_path: Path):
    names = tuple(f"node-{index}" for index in range(nodes))
    requests = tuple(
        Request("node-0", 3.0 + index / 2, f"story {index}", 7 + index, 200) for index in range(6)
    )
    strikes = (Strike(4.0, Crash("node-3")), Strike(4.5, Pause("node-4", 1.5)))
    journal = Journal()
    result = run(Scenario("page", 3, nodes, 3, requests, strikes, 6.0, names), listen=journal.attach)
    path = tmp_path / "page.html"
    path.write_text(page(result, journal, "python -m sim run"))
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.get(path.as_uri())
        width = browser.execute_script("return [document.body.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1]
        assert browser.execute_script(CONTRASTS) >= CONTRAST_MIN, scheme
        assert browser.get_log("browser") == []
        labels = [text.text for text in browser.find_elements("css selector", "svg text")]
        assert {f"node-{index}" for index in range(nodes)} <= set(labels)
        folder = os.environ.get("INFERNO_SCREENSHOTS")
        if folder:
            browser.save_screenshot(str(Path(folder) / f"sim-{nodes}-{scheme}.png"))
