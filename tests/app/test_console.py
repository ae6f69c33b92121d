"""The console in a real Chromium, against a real bridge and a real broker."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from app.api import console
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.sse import following

CHROMIUM: Final = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MILLISECONDS: Final = 20_000
HOSTILE: Final = '<img src=x onerror="document.title=\'run\'"><script>document.title="run"</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for all tests."""
    with running_bridge(mosquitto.url) as bridge:
        yield bridge


class Visit:
    """A page and everything that the browser complained about.

    Attributes:
        page: the page.
        complaints: errors and warnings of the browser's console, and uncaught exceptions.
        hosts: hosts that were asked for something.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def follow(self, topic_filter: str) -> None:
        """Subscribe, and wait until the stream is open."""
        self.page.get_by_label("Topic filter").fill(topic_filter)
        self.page.get_by_role("button", name="Subscribe").click()
        expect(self.page.locator("#state")).to_have_text(f"live: {topic_filter}")

    def value(self, topic: str) -> str:
        """The value shown for a topic, waiting for its row."""
        row = self.page.locator("#rows tr", has=self.page.get_by_role("button", name=topic, exact=True))
        expect(row).to_have_count(1)
        return row.locator(".value").inner_text()


@pytest.fixture
def visit(browser: Browser, bridge: Bridge) -> Iterator[Visit]:
    """A fresh page at the console."""
    context = browser.new_context()
    context.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    visit = Visit(context.new_page())
    visit.page.goto(f"{bridge.url}/console")
    yield visit
    context.close()


def publish(bridge: Bridge, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish by HTTP."""
    query = {"topic": topic, "retain": "true"} if retain else {"topic": topic}
    assert 200 == bridge.client.post("/v1/topics", params=query, content=payload).status_code


def test_a_published_message_shows(visit: Visit, bridge: Bridge) -> None:
    """The latest value of each topic is in the table, the topics in order."""
    visit.follow("console/shows/#")
    publish(bridge, "console/shows/b", b'{"celsius": 20.5}')
    publish(bridge, "console/shows/a", "überall".encode())
    publish(bridge, "console/shows/c", b"\xff\x00")
    publish(bridge, "console/shows/b", b'{"celsius": 21.5}')
    expect(visit.page.locator("#summary")).to_have_text("4 messages, 3 topics.")
    assert '{"celsius":21.5}' == visit.value("console/shows/b")
    assert "überall" == visit.value("console/shows/a")
    assert "base64 /wA=" == visit.value("console/shows/c")
    topics = visit.page.locator("#rows .topic button").all_inner_texts()
    assert ["console/shows/a", "console/shows/b", "console/shows/c"] == topics
    assert [] == visit.complaints


def test_a_hostile_message_is_text(visit: Visit, bridge: Bridge) -> None:
    """Neither a topic nor a payload becomes HTML, whichever encoding it comes in."""
    visit.follow("console/hostile/#")
    publish(bridge, "console/hostile/text", HOSTILE.encode())
    publish(bridge, "console/hostile/json", f'["{HOSTILE.replace(chr(34), "")}"]'.encode())
    publish(bridge, f"console/hostile/{HOSTILE.replace('/', '')}", b"topic")
    expect(visit.page.locator("#summary")).to_have_text("3 messages, 3 topics.")
    assert HOSTILE == visit.value("console/hostile/text")
    assert "<img src=x onerror=" in visit.value("console/hostile/json")
    assert 0 == visit.page.locator("main img, main script").count()
    assert "Tidegate console" == visit.page.title()
    assert [] == visit.complaints


def test_a_retained_message_is_marked(visit: Visit, bridge: Bridge) -> None:
    """What was kept is told from what comes live."""
    publish(bridge, "console/kept/a", b"1", retain=True)
    visit.follow("console/kept/#")
    tag = visit.page.locator("#rows .tag")
    expect(tag).to_be_visible()
    publish(bridge, "console/kept/a", b"2")
    expect(tag).to_be_hidden()
    assert "2" == visit.value("console/kept/a")


def test_publishing_from_the_form(visit: Visit, bridge: Bridge) -> None:
    """The form publishes with the QoS and the retain flag that it shows, and says what came of it."""
    page = visit.page
    topic = "console/form/a b+c%?&é"
    page.get_by_label("Topic", exact=True).fill(topic.replace("+", "-"))
    page.get_by_label("Payload").fill("21.5")
    page.get_by_label("QoS").select_option("2")
    page.get_by_label("retain").check()
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_contain_text("acknowledged: ")
    kept = bridge.client.get("/v1/topics", params={"topic": topic.replace("+", "-")})
    assert (200, b"21.5") == (kept.status_code, kept.content)
    with following(bridge, topic.replace("+", "-"), qos="2") as stream:
        stream.wait_for_messages(1)
    assert (2, True) == (stream.events[0].data["qos"], stream.events[0].data["retain"])
    assert "text/plain" not in kept.headers["content-type"]
    assert [] == visit.complaints


def test_a_refused_publish_says_why(visit: Visit) -> None:
    """The bridge's own words are shown, and the browser's complaint is only of the status."""
    page = visit.page
    page.get_by_label("Topic", exact=True).fill("console/+")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_have_attribute("data-outcome", "bad")
    expect(page.locator("#outcome")).to_contain_text("+")
    assert all("400" in complaint for complaint in visit.complaints)


def test_a_refused_filter_says_why(visit: Visit) -> None:
    """EventSource hides the answer; the console asks for it and shows it."""
    page = visit.page
    page.get_by_label("Topic filter").fill("console/#/x")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.locator("#notice")).to_contain_text("#")
    expect(page.locator("#state")).to_have_text("not subscribed")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_stop_ends_the_stream(visit: Visit, bridge: Bridge) -> None:
    """The bridge has no listener left, and the page keeps what it had."""
    visit.follow("console/stop/#")
    publish(bridge, "console/stop/a", b"1")
    assert "1" == visit.value("console/stop/a")
    visit.page.get_by_role("button", name="Stop", exact=True).click()
    expect(visit.page.locator("#state")).to_have_text("not subscribed")
    wait_until(lambda: "console/stop/#" not in bridge.app.state.hub.filters)
    assert "1" == visit.value("console/stop/a")


def test_a_filter_in_the_address_is_followed_at_once(visit: Visit, bridge: Bridge) -> None:
    """A link leads to a live view."""
    visit.page.goto(f"{bridge.url}/console?topic=console/link/%23")
    expect(visit.page.locator("#state")).to_have_text("live: console/link/#")


def test_a_broker_that_leaves_and_returns_is_told(visit: Visit, browser: Browser) -> None:
    """The state says that the broker is away, and that it is back."""
    with Mosquitto() as broker, running_bridge(broker.url) as other:
        visit.page.goto(f"{other.url}/console?topic=%23")
        state = visit.page.locator("#state")
        expect(state).to_have_text("live: #")
        broker.stop()
        expect(state).to_have_text("the bridge lost its broker")
        broker.start()
        expect(state).to_have_text("live: #")
        expect(visit.page.locator("#notice")).to_contain_text("missed")


def test_a_bridge_that_stops_is_told(visit: Visit, mosquitto: Mosquitto) -> None:
    """The farewell of the bridge is shown, and the browser goes on trying."""
    with running_bridge(mosquitto.url) as other:
        visit.page.goto(f"{other.url}/console?topic=console/bye/%23")
        expect(visit.page.locator("#state")).to_have_text("live: console/bye/#")
    expect(visit.page.locator("#notice")).to_contain_text("shutdown")
    expect(visit.page.locator("#state")).to_have_text("connection lost, trying again")


def test_the_keyboard_is_enough(visit: Visit, bridge: Bridge) -> None:
    """Everything can be reached by Tab and done by Enter; a topic in the table goes to the form."""
    page = visit.page
    page.get_by_label("Topic filter").fill("console/keys/#")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("live: console/keys/#")
    publish(bridge, "console/keys/a", b"1")
    assert "1" == visit.value("console/keys/a")
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "console/keys/a":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_label("Topic", exact=True)).to_have_value("console/keys/a")
    expect(page.get_by_label("Payload")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_on_a_phone(browser: Browser, bridge: Bridge, scheme: str) -> None:
    """A narrow screen needs no sideways scrolling, however long a topic or a value is."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    visit = Visit(context.new_page())
    visit.page.goto(f"{bridge.url}/console")
    visit.follow("console/phone/#")
    topic = "console/phone/" + "long" * 40
    publish(bridge, topic, b'"' + b"x" * 500 + b'"')
    assert "xxx" in visit.value(topic)
    width = visit.page.evaluate(
        "[document.documentElement.scrollWidth, document.querySelector('.table').scrollWidth]"
    )
    assert max(width) <= 360
    context.close()


def test_many_messages_touch_the_page_once_a_frame(visit: Visit, bridge: Bridge) -> None:
    """A burst, as a filter with many retained messages brings, is shown in full in a few changes."""
    for number in range(200):
        publish(bridge, f"console/burst/{number}", b"%d" % number, retain=True)
    visit.page.evaluate(
        "window.changes = 0;"
        "new MutationObserver(() => { window.changes += 1; })"
        ".observe(document.getElementById('summary'), { childList: true })"
    )
    visit.follow("console/burst/#")
    expect(visit.page.locator("#summary")).to_have_text("200 messages, 200 topics.")
    assert 0 < visit.page.evaluate("window.changes") < 50
    assert 200 == visit.page.locator("#rows tr").count()


def test_everything_comes_from_the_bridge(visit: Visit, bridge: Bridge) -> None:
    """No other host is asked for anything, and none of the page's files is missing."""
    visit.follow("console/hosts/#")
    assert {bridge.url.removeprefix("http://")} == visit.hosts
    assert [] == visit.complaints


@pytest.mark.parametrize("path", ["/console", *(f"/console/{name}" for name in console.MEDIA_TYPES)])
def test_every_file_has_the_strict_policy(bridge: Bridge, path: str) -> None:
    """The policy lets nothing run that is not a file of the bridge."""
    answer = bridge.client.get(path)
    assert 200 == answer.status_code
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert not re.search(r"unsafe|https?:|\*|data:", answer.headers["content-security-policy"])
    assert "nosniff" == answer.headers["x-content-type-options"]


def test_the_policy_is_enforced(visit: Visit) -> None:
    """A script that were put into the page would not run: the browser refuses it."""
    with pytest.raises(Exception, match=r"Trusted|TrustedHTML|CSP|policy"):
        visit.page.evaluate("document.body.innerHTML = '<img src=x>'")


def test_the_page_names_no_other_host() -> None:
    """Nothing in the files points elsewhere, and no file has a script or a style within the page."""
    folder = Path(console.STATIC)
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|(?:src|href)=\"//", text), file.name
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_the_console_is_no_part_of_the_api(bridge: Bridge) -> None:
    """The description of the interface leaves the page out."""
    document = httpx.get(f"{bridge.url}/openapi.json", trust_env=False).json()
    assert [] == [path for path in document["paths"] if path.startswith("/console")]
