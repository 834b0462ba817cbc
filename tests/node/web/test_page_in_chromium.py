"""The page as a person sees it: a headless browser types a prompt and waits for tokens."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.http.fake import FakeGateway
from tests.node.http.harness import Ports, running

pytestmark = [pytest.mark.browser, pytest.mark.process]

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars"
).split()
WAIT_S = 20


@pytest.fixture
def ports() -> Iterator[Ports]:
    with running(FakeGateway(pace_s=0.02)) as made:
        yield made


@pytest.fixture
def browser(tmp_path: Path):
    from selenium import webdriver  # slow to import, and only these tests want it

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}", "--window-size=1200,1000"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def wait_for(browser, check) -> object:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(check)


def text(browser, name: str) -> str:
    return browser.find_element("id", name).text


def open_page(browser, ports: Ports) -> None:
    browser.get(ports.http)
    wait_for(browser, lambda _: browser.find_element("id", "run").is_enabled())


def save(browser, name: str) -> None:
    """Keep a screenshot where INFERNO_SCREENSHOTS says, if it does."""
    folder = os.environ.get("INFERNO_SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / name))


def complaints(browser) -> list[str]:
    return [row["message"] for row in browser.get_log("browser")]


def fill(browser, name: str, value: str) -> None:
    field = browser.find_element("id", name)
    field.clear()
    field.send_keys(value)


def test_a_prompt_is_completed_and_the_move_is_seen(browser, ports: Ports):
    open_page(browser, ports)
    fill(browser, "prompt", "# Lib/json/tool.py\n")
    browser.find_element("css selector", "summary").click()
    fill(browser, "max_tokens", "40")
    fill(browser, "seed", "7")
    browser.find_element("id", "run").click()
    wait_for(browser, lambda _: "moved from node-b to node-c" in text(browser, "output"))
    save(browser, "page-running.png")
    wait_for(browser, lambda _: text(browser, "f-tokens") == "40")
    wait_for(browser, lambda _: browser.find_element("id", "run").is_enabled())
    assert "# Lib/json/tool.py" in text(browser, "output")
    assert text(browser, "output").count("def main():") == 6
    assert [text(browser, f"f-{name}") for name in ("entry", "worker", "moves")] == ["node-a", "node-c", "1"]
    assert float(text(browser, "f-rate")) > 1
    [attempt] = ports.gateway.submitted
    assert (attempt.seed, attempt.parameters.max_tokens, attempt.prompt[0].text) == (
        7,
        40,
        "# Lib/json/tool.py\n",
    )
    assert complaints(browser) == []
    save(browser, "page.png")


def test_the_mesh_is_shown(browser, ports: Ports):
    open_page(browser, ports)
    wait_for(browser, lambda _: "node-c" in text(browser, "members"))
    rows = [row.text for row in browser.find_elements("css selector", "#members li")]
    assert [word in row for row, word in zip(rows, ("this page", "alive", "suspect"), strict=True)] == [
        True
    ] * 3


def test_stop_cancels_the_flight(browser, ports: Ports):
    from selenium.webdriver.common.keys import Keys

    open_page(browser, ports)
    browser.find_element("css selector", "summary").click()
    fill(browser, "max_tokens", "5000")
    browser.find_element("id", "prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    wait_for(browser, lambda _: "def main" in text(browser, "output"))
    browser.find_element("id", "stop").click()
    wait_for(browser, lambda _: browser.find_element("id", "run").is_enabled())
    wait_for(browser, lambda _: ports.gateway.closed and not ports.gateway.open)


def test_a_chat_goes_back_and_forth(browser, ports: Ports):
    open_page(browser, ports)
    browser.find_element("id", "tab-chat").click()
    for words in ("first words", "second words"):
        fill(browser, "prompt", words)
        browser.find_element("id", "run").click()
        wait_for(browser, lambda _: browser.find_element("id", "stop").is_enabled())
        wait_for(browser, lambda _: browser.find_element("id", "run").is_enabled())
    assert text(browser, "output").count("def main") >= 2
    assert '"role":"assistant"' in ports.gateway.submitted[-1].prompt[0].text
    save(browser, "page-chat.png")


def test_the_servers_words_are_shown_when_it_refuses(browser, ports: Ports):
    open_page(browser, ports)
    browser.execute_script("document.getElementById('temperature').value = '9'")
    browser.find_element("id", "run").click()
    wait_for(browser, lambda _: "`temperature` is `9`" in text(browser, "output"))
    save(browser, "page-error.png")


def test_a_mesh_without_a_model_says_so(browser, ports: Ports):
    ports.gateway.is_ready = False
    open_page(browser, ports)
    wait_for(browser, lambda _: "still loading" in text(browser, "notice"))
    ports.gateway.is_ready = True
    wait_for(browser, lambda _: not browser.find_element("id", "notice").is_displayed())


def test_a_phone_shows_it_without_scrolling_sideways(browser, ports: Ports):
    browser.set_window_size(390, 844)
    open_page(browser, ports)
    wait_for(browser, lambda _: "node-c" in text(browser, "members"))
    save(browser, "page-phone.png")
    wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
