"""The console in a real Chromium, against a real bridge and a real broker."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from app.api import console
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.browser import running_browser
from tests.support.mosquitto import Mosquitto
from tests.support.sse import following
from tidegate.connection import ConnectOptions
from tidegate.message import Message
from tidegate.session import Session

MILLISECONDS: Final = 20_000
HOSTILE: Final = '<img src=x onerror="document.title=\'run\'"><script>document.title="run"</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with running_browser() as browser:
        yield browser


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
        """Follow one more filter, and wait until the stream is open."""
        chip = self.page.locator("#chips code", has_text=topic_filter)
        self.page.get_by_label("Topic filter").fill(topic_filter)
        self.page.get_by_role("button", name="Follow", exact=True).click()
        expect(chip).to_be_visible()
        expect(self.page.locator("#stream-state")).to_have_text("live")

    def row(self, name: str) -> Locator:
        """The row of a level in the tree, by the level's name."""
        return self.page.locator(
            "[role=treeitem]:visible", has=self.page.locator(f".name:text-is({json.dumps(name)})")
        )

    def value(self, name: str) -> str:
        """The value shown for the topic that ends with this level, waiting for its row."""
        expect(self.row(name)).to_have_count(1)
        expect(self.row(name).locator(".value")).not_to_be_empty()
        return self.row(name).locator(".value").inner_text()


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
    """Each level is a row, in order; a topic's row has its latest value and how many there were."""
    visit.follow("console/shows/#")
    publish(bridge, "console/shows/b", b'{"celsius": 20.5}')
    publish(bridge, "console/shows/a", "überall".encode())
    publish(bridge, "console/shows/c", b"\xff\x00")
    publish(bridge, "console/shows/b", b'{"celsius": 21.50}')
    expect(visit.page.locator("#summary")).to_have_text("4 messages, 3 topics.")
    assert '{"celsius": 21.50}' == visit.value("b")
    assert "überall" == visit.value("a")
    assert "base64 /wA=" == visit.value("c")
    assert "2×" == visit.row("b").locator(".count").inner_text()
    names = visit.page.locator("[role=treeitem]:visible .name").all_inner_texts()
    assert ["console", "shows", "a", "b", "c"] == names
    assert [] == visit.complaints


def test_several_filters_share_one_stream(visit: Visit, bridge: Bridge) -> None:
    """Two filters are two chips and one stream; removing one leaves the other."""
    visit.follow("console/one/#")
    visit.follow("console/two/#")
    wait_until(lambda: {"console/one/#", "console/two/#"} <= set(bridge.app.state.hub.filters))
    wait_until(lambda: bridge.app.state.hub.listeners == 1)
    visit.page.get_by_role("button", name="Stop following console/one/#").click()
    wait_until(lambda: "console/one/#" not in bridge.app.state.hub.filters)
    publish(bridge, "console/two/a", b"2")
    assert "2" == visit.value("a")
    visit.page.get_by_role("button", name="Stop following console/two/#").click()
    expect(visit.page.locator("#stream-state")).to_have_text("not following")
    wait_until(lambda: bridge.app.state.hub.listeners == 0)
    assert "2" == visit.value("a")


def test_a_hostile_message_is_text(visit: Visit, bridge: Bridge) -> None:
    """Neither a topic nor a payload becomes HTML, in the tree or in the details, whatever the encoding."""
    visit.follow("console/hostile/#")
    publish(bridge, "console/hostile/text", HOSTILE.encode())
    publish(bridge, "console/hostile/json", f'["{HOSTILE.replace(chr(34), "")}"]'.encode())
    publish(bridge, f"console/hostile/{HOSTILE.replace('/', '')}", b"topic")
    publish(bridge, "console/hostile/__proto__/constructor", b"1")
    expect(visit.page.locator("#summary")).to_have_text("4 messages, 4 topics.")
    assert HOSTILE == visit.value("text")
    assert "1" == visit.value("constructor")
    visit.row("json").click()
    expect(visit.page.locator("#value")).to_contain_text("<img src=x onerror=")
    assert 0 == visit.page.locator("main img, main script").count()
    assert "Tidegate console" == visit.page.title()
    assert [] == visit.complaints


def test_a_retained_message_is_marked(visit: Visit, bridge: Bridge) -> None:
    """What was kept is told from what comes live."""
    publish(bridge, "console/kept/a", b"1", retain=True)
    visit.follow("console/kept/#")
    expect(visit.row("a").locator(".tag")).to_have_text("retained")
    publish(bridge, "console/kept/a", b"2")
    expect(visit.row("a").locator(".tag")).to_be_empty()
    assert "2" == visit.value("a")


def test_the_details_tell_all_of_a_message(visit: Visit, bridge: Bridge) -> None:
    """JSON is indented with every digit kept; numbers make a curve; properties and the past are there."""
    visit.follow("console/details/#")
    for number in (1, 3, 2):
        answer = bridge.client.post(
            "/v1/topics/console/details/a",
            content=b'{"value": %d.50, "id": 12345678901234567890}' % number,
            headers={"Content-Type": "application/json", "Mqtt-User-Property": "unit=celsius"},
        )
        assert answer.status_code == 200
    expect(visit.row("a").locator(".count")).to_have_text("3×")
    assert 3 == len((visit.row("a").locator("polyline").get_attribute("points") or "").split())
    visit.row("a").click()
    value = visit.page.locator("#value")
    expect(value).to_have_text('{\n  "value": 2.50,\n  "id": 12345678901234567890\n}')
    expect(visit.page.locator("#curve-range")).to_have_text("1.5 to 3.5, the last 3")
    expect(visit.page.locator("#facts")).to_contain_text('[["unit","celsius"]]')
    expect(visit.page.locator("#history li")).to_have_count(2)
    publish(bridge, "console/details/a", b"\xfe\x01")
    expect(value).to_contain_text("fe 01")
    assert [] == visit.complaints


def test_finding_and_folding(visit: Visit, bridge: Bridge) -> None:
    """JSON is indented, every digit kept; numbers make a curve; properties and the past are there."""
    visit.follow("console/fold/#")
    for topic in ("kitchen/light", "kitchen/heat", "hall/light"):
        publish(bridge, f"console/fold/{topic}", b"1")
    expect(visit.row("light")).to_have_count(2)
    visit.page.get_by_label("Find").fill("KITCHEN/h")
    expect(visit.row("heat")).to_have_count(1)
    expect(visit.row("light")).to_have_count(0)
    expect(visit.row("fold")).to_have_count(1)
    visit.page.get_by_label("Find").fill("")
    visit.page.get_by_role("button", name="Collapse all").click()
    expect(visit.row("fold")).to_have_count(0)
    visit.page.get_by_role("button", name="Expand all").click()
    expect(visit.row("light")).to_have_count(2)


def test_a_pause_keeps_what_comes(visit: Visit, bridge: Bridge) -> None:
    """While paused the page stands still and counts; afterwards it has caught up."""
    visit.follow("console/pause/#")
    publish(bridge, "console/pause/a", b"1")
    assert "1" == visit.value("a")
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("p")
    publish(bridge, "console/pause/a", b"2")
    publish(bridge, "console/pause/a", b"3")
    expect(visit.page.locator("#summary")).to_contain_text("paused, 2 messages waiting")
    assert "1" == visit.value("a")
    visit.page.get_by_role("button", name="Go on").click()
    expect(visit.row("a").locator(".value")).to_have_text("3")
    expect(visit.row("a").locator(".count")).to_have_text("3×")


def test_publishing_from_the_form(visit: Visit, bridge: Bridge) -> None:
    """The form publishes with the QoS and the retain flag that it shows, and says what came of it."""
    page = visit.page
    topic = "console/form/a b-c%?&é"
    page.get_by_label("Topic", exact=True).fill(topic)
    page.get_by_label("Payload").fill("21.5")
    page.get_by_label("QoS").select_option("2")
    page.get_by_label("retain").check()
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_contain_text("acknowledged: ")
    kept = bridge.client.get("/v1/topics", params={"topic": topic})
    assert (200, b"21.5") == (kept.status_code, kept.content)
    with following(bridge, topic, qos="2") as stream:
        stream.wait_for_messages(1)
    assert (2, True) == (stream.events[0].data["qos"], stream.events[0].data["retain"])
    assert "text/plain" not in kept.headers["content-type"]
    assert [] == visit.complaints


def test_what_is_retained_can_be_cleared(visit: Visit, bridge: Bridge) -> None:
    """Asked once more, the console clears what the broker keeps for the topic shown."""
    publish(bridge, "console/clear/a", b"1", retain=True)
    visit.follow("console/clear/#")
    visit.row("a").click()
    visit.page.once("dialog", lambda dialog: dialog.accept())
    visit.page.get_by_role("button", name="Clear retained").click()
    expect(visit.page.locator("#outcome")).to_contain_text("acknowledged")
    assert 404 == bridge.client.get("/v1/topics/console/clear/a").status_code


def test_a_refused_publish_says_why(visit: Visit) -> None:
    """The bridge's own words are shown, and the browser's complaint is only of the status."""
    page = visit.page
    page.get_by_label("Topic", exact=True).fill("console/+")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_have_attribute("data-outcome", "bad")
    expect(page.locator("#outcome")).to_contain_text("+")
    assert all("400" in complaint for complaint in visit.complaints)


def test_a_refused_filter_says_why(visit: Visit) -> None:
    """EventSource hides the answer; the console asks for it, shows it, and lets the filter go."""
    page = visit.page
    page.get_by_label("Topic filter").fill("console/#/x")
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#notice")).to_contain_text("Not followed: console/#/x (")
    expect(page.locator("#stream-state")).to_have_text("not following")
    expect(page.locator("#chips li")).to_have_count(0)


def test_a_refused_filter_does_not_end_the_others(visit: Visit, bridge: Bridge) -> None:
    """It is let go with its reason, and what was followed before goes on."""
    page = visit.page
    visit.follow("console/goes-on/#")
    page.get_by_label("Topic filter").fill("console/#/x")
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.locator("#notice")).to_contain_text("Not followed: console/#/x (")
    expect(page.locator("#stream-state")).to_have_text("live")
    expect(page.locator("#chips code")).to_have_text(["console/goes-on/#"])
    publish(bridge, "console/goes-on/a", b"1")
    assert "1" == visit.value("a")
    expect(page.locator("#log")).not_to_contain_text("gap")
    assert "x" not in page.evaluate("location.hash")


def test_each_refused_filter_of_a_link_is_told(visit: Visit, bridge: Bridge) -> None:
    """Of several, the good ones are followed, and every other has its reason."""
    visit.page.goto(f"{bridge.url}/console?topic=a/%23/b&topic=console/link/%23&topic=c%2B")
    expect(visit.page.locator("#stream-state")).to_have_text("live")
    expect(visit.page.locator("#chips code")).to_have_text(["console/link/#"])
    for refused in ("a/#/b", "c+"):
        expect(visit.page.locator("#notice")).to_contain_text(f"Not followed: {refused} (")


def test_one_filter_too_many_is_let_go(visit: Visit, mosquitto: Mosquitto) -> None:
    """A refusal that points to no filter is about the last."""
    with running_bridge(mosquitto.url, max_filters_per_stream=1) as narrow:
        visit.page.goto(f"{narrow.url}/console")
        visit.follow("console/one/#")
        visit.page.get_by_label("Topic filter").fill("console/two/#")
        visit.page.get_by_role("button", name="Follow", exact=True).click()
        expect(visit.page.locator("#notice")).to_contain_text("TIDEGATE_MAX_FILTERS_PER_STREAM")
        expect(visit.page.locator("#stream-state")).to_have_text("live")
        expect(visit.page.locator("#chips code")).to_have_text(["console/one/#"])


def test_a_link_leads_to_a_live_view(visit: Visit, bridge: Bridge) -> None:
    """Filters and the topic shown stand in the address, and a reload keeps them."""
    publish(bridge, "console/link/a", b"1", retain=True)
    visit.page.goto(f"{bridge.url}/console?topic=console/link/%23")
    visit.row("a").click()
    expect(visit.page.locator("#details-title")).to_have_text("console/link/a")
    visit.page.reload()
    expect(visit.page.locator("#stream-state")).to_have_text("live")
    expect(visit.page.locator("#details-title")).to_have_text("console/link/a")


def test_a_first_visit_is_told_what_to_do(visit: Visit, bridge: Bridge) -> None:
    """Where nobody is asked who they are, one click follows what there is, and a second takes it back."""
    page = visit.page
    publish(bridge, "demo/first/visit", b"1", retain=True)
    expect(page.locator("#next")).to_contain_text("Follow a filter")
    expect(page.locator("#offers button")).to_have_text(["Follow demo/#", "Follow #"])
    page.get_by_role("button", name="Follow demo/#", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stream-state")).to_have_text("live")
    assert "1" == visit.value("visit")
    expect(page.get_by_role("button", name="Stop following demo/#")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#stream-state")).to_have_text("not following")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator("#offers button")).to_have_count(2)
    visit.follow("console/first/#")
    expect(page.locator("#next")).to_contain_text("Nothing has come yet")
    expect(page.locator("#offers")).to_be_hidden()
    bridge.client.delete("/v1/topics/demo/first/visit")
    assert [] == visit.complaints


def test_a_broker_that_leaves_and_returns_is_told(visit: Visit) -> None:
    """The state says that the broker is away and that it is back; the gap is in the log."""
    with Mosquitto() as broker, running_bridge(broker.url) as other:
        visit.page.goto(f"{other.url}/console#filter=%23")
        expect(visit.page.locator("#broker-state")).to_contain_text("MQTT 5")
        expect(visit.page.locator("#stream-state")).to_have_text("live")
        broker.stop()
        expect(visit.page.locator("#broker-state")).to_contain_text("away")
        broker.start()
        expect(visit.page.locator("#broker-state")).not_to_contain_text("away")
        expect(visit.page.locator("#log")).to_contain_text("gap: reason broker_connection")


def test_a_restart_of_the_bridge_is_survived(visit: Visit, mosquitto: Mosquitto) -> None:
    """The farewell is told, the stream comes back by itself, says what it cannot know, and values follow."""
    with running_bridge(mosquitto.url) as first:
        port = first.port
        visit.page.goto(f"{first.url}/console#filter=console/restart/%23")
        expect(visit.page.locator("#stream-state")).to_have_text("live")
        publish(first, "console/restart/a", b"1")
        assert "1" == visit.value("a")
    expect(visit.page.locator("#log")).to_contain_text("close: reason shutdown")
    expect(visit.page.locator("#stream-state")).to_have_text("reconnecting")
    with running_bridge(mosquitto.url, port=port) as second:
        expect(visit.page.locator("#stream-state")).to_have_text("live")
        expect(visit.page.locator("#log")).to_contain_text("gap: reason unknown_id")
        expect(visit.row("a")).to_have_class(re.compile("stale"))
        publish(second, "console/restart/a", b"2")
        expect(visit.row("a").locator(".value")).to_have_text("2")
        expect(visit.row("a")).not_to_have_class(re.compile("stale"))


def test_the_keyboard_is_enough(visit: Visit, bridge: Bridge) -> None:
    """Follow, walk through the tree, show a topic and publish to it, without a mouse."""
    page = visit.page
    page.get_by_label("Topic filter").fill("console/keys/#")
    page.keyboard.press("Enter")
    expect(page.locator("#stream-state")).to_have_text("live")
    for name in ("a", "b"):
        publish(bridge, f"console/keys/{name}", name.encode())
    assert "b" == visit.value("b")
    page.locator("#tree").focus()
    page.keyboard.press("End")
    active = page.locator("[role=treeitem].active .name")
    expect(active).to_have_text("b")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator("#details-title")).to_have_text("console/keys/a")
    page.keyboard.press("ArrowLeft")
    expect(active).to_have_text("keys")
    page.keyboard.press("ArrowLeft")
    expect(visit.row("a")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(visit.row("a")).to_have_count(1)
    page.keyboard.press("Home")
    expect(active).to_have_text("console")
    described = page.locator("#tree").get_attribute("aria-activedescendant")
    expect(page.locator(f"#{described}")).to_have_attribute("aria-level", "1")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.get_by_role("button", name="Shortcuts").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Shortcuts")).to_be_focused()
    page.get_by_role("button", name="Publish to it").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Topic", exact=True)).to_have_value("console/keys/a")
    expect(page.get_by_label("Payload")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_all_of_it(browser: Browser, bridge: Bridge, scheme: str) -> None:
    """No sideways scrolling, however long a topic or value is; targets for a finger; text that contrasts."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    visit = Visit(context.new_page())
    visit.page.goto(f"{bridge.url}/console")
    visit.follow("console/phone/#")
    publish(bridge, "console/phone/" + "long" * 40, b'"' + b"x" * 500 + b'"')
    assert "xxx" in visit.value("long" * 40)
    visit.row("long" * 40).click()
    expect(visit.page.locator("#details")).to_be_visible()
    widths = visit.page.evaluate(
        "[document.documentElement, document.getElementById('tree')].map((each) => each.scrollWidth)"
    )
    assert max(widths) <= 360
    heights = visit.page.evaluate(
        "[...document.querySelectorAll('button, input:not([type=checkbox]), select, [role=treeitem]')]"
        ".filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44
    colors = visit.page.evaluate(
        "['.hint', '.value', '#stream-state', '#publish-title'].map((each) => ["
        "getComputedStyle(document.querySelector(each)).color, "
        "getComputedStyle(document.querySelector('section')).backgroundColor])"
    )
    assert all(contrast(*pair) >= 4.5 for pair in colors), colors
    context.close()


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(color: str) -> float:
        parts = [int(each) / 255 for each in re.findall(r"\d+", color)[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


async def flood(port: int, count: int) -> None:
    """Publish past the bridge, as fast as the broker takes it; the last value of each topic is the count."""
    session = Session(ConnectOptions("127.0.0.1", port))
    await session.start()
    for start in range(0, count, 1000):
        await asyncio.gather(
            *(
                session.publish(Message(f"console/flood/{each % 200}", b"%d" % each, 0))
                for each in range(start, start + 1000)
            )
        )
    for topic in range(200):
        await session.publish(Message(f"console/flood/{topic}", b"%d" % count, 1))
    await session.close()


def test_thousands_of_messages_a_second_do_not_freeze_it(visit: Visit) -> None:
    """The page goes on answering while they come, draws only what is in sight, and ends with the newest."""
    with (
        Mosquitto(extra=["max_queued_messages 0"]) as broker,
        running_bridge(broker.url) as flooded,
        ThreadPoolExecutor(1) as executor,
    ):
        visit.page.goto(f"{flooded.url}/console")
        visit.follow("console/flood/#")
        flooding = executor.submit(lambda: asyncio.run(flood(broker.port, 40_000)))
        answered = 0
        while not flooding.done():
            visit.page.get_by_label("Find").fill(f"flood/{answered % 10}")
            visit.page.keyboard.press("Escape")
            answered += 1
        flooding.result()
        visit.page.get_by_label("Find").fill("")
        assert answered > 5
        expect(visit.row("0").locator(".value")).to_have_text("40000")
        visit.page.locator("#tree").focus()
        visit.page.keyboard.press("End")
        expect(visit.row("99").locator(".value")).to_have_text("40000")
        expect(visit.page.locator("#summary")).to_contain_text("200 topics")
        assert visit.page.locator("[role=treeitem]").count() < 60
        assert [] == visit.complaints


def test_thousands_of_topics_are_a_screenful_of_rows(visit: Visit) -> None:
    """Rows exist only for what is in sight; the last of thousands is there when one goes to it."""

    async def fill(port: int) -> None:
        session = Session(ConnectOptions("127.0.0.1", port))
        await session.start()
        for number in range(3000):
            await session.publish(Message(f"console/topics/t{number:04}", b"%d" % number, 1))
        await session.close()

    with (
        # a broker drops what it has no room to queue while the bridge shares its core with the browser
        Mosquitto(extra=["max_queued_messages 0"]) as broker,
        running_bridge(broker.url, listener_max_messages=10_000) as roomy,
    ):
        visit.page.goto(f"{roomy.url}/console")
        visit.follow("console/topics/#")
        with ThreadPoolExecutor(1) as executor:
            executor.submit(lambda: asyncio.run(fill(broker.port))).result()
        expect(visit.page.locator("#summary")).to_contain_text("3,000 topics.")
        visit.page.locator("#tree").focus()
        visit.page.keyboard.press("End")
        assert "2999" == visit.value("t2999")
        assert visit.page.locator("[role=treeitem]").count() < 60


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
