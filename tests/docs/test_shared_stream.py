"""The sample with one stream for all tabs, in a real Chromium, against a real bridge and a real broker."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.browser import running_browser
from tests.support.mosquitto import Mosquitto
from tidegate.topics import matches

SAMPLE: Final = Path(__file__).parents[2] / "docs" / "examples" / "shared-stream"
POLICY: Final = b"default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'"
SECONDS: Final = 20.0
PAGES: Final = 8
MAX_NUMBERS: Final = 20_000
"""Where a publisher stops that nobody stopped."""

JOIN: Final = """async ([filters, qos]) => {
  const { SharedStream } = await import("/shared/shared-stream.js");
  window.seen = [];
  window.gaps = [];
  window.told = [];
  window.stream = new SharedStream("/v1/subscribe", filters, { qos });
  window.stream.addEventListener("message", ({ detail }) => window.seen.push(detail));
  window.stream.addEventListener("gap", ({ detail }) => window.gaps.push(detail));
  const note = (type, key) =>
    window.stream.addEventListener(type, ({ detail }) => window.told.push(`${type} ${detail[key]}`));
  note("broker", "state");
  note("gap", "reason");
  note("close", "reason");
}"""
COMPARE: Final = """async ([name, pairs]) => {
  const module = await import("/shared/shared-stream.js");
  return pairs.map(([one, other]) => module[name](one, other));
}"""
REPEAT: Final = """(ending) => {
  const { id, current, ...detail } = window.seen[0];
  const address = new URL("/v1/subscribe?qos=1", location.href);
  const channel = new BroadcastChannel(`shared-stream ${address}`);
  const say = (key, payload) =>
    channel.postMessage({ kind: "event", type: "message", id: key, detail: { ...detail, payload } });
  say(id.split("-", 1)[0] + ending, "twice");
  say("another-id", "repeated");
}"""
"""Says a message again under its id, and then one under another, as a leader would."""
HOSTILE: Final = "<img src=x onerror=\"document.title='run'\">"


class WithPolicy:
    """Files under a strict content security policy."""

    def __init__(self, directory: Path) -> None:
        self._files = StaticFiles(directory=directory, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self._files(scope, receive, send_with_policy)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with running_browser() as browser:
        yield browser


def mount(app: FastAPI) -> None:
    """Serve the sample too."""
    app.mount("/shared", WithPolicy(SAMPLE))


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge for one test, which also serves the sample."""
    with running_bridge(mosquitto.url, prepare=mount) as bridge:
        yield bridge


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What tabs of one browser share."""
    context = browser.new_context()
    context.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    yield context
    context.close()


def visit(context: BrowserContext, bridge: Bridge, query: str = "") -> tuple[Page, list[str]]:
    """A tab at the sample, and what the browser complains about there."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{bridge.url}/shared/{query}")
    return page, complaints


def join(context: BrowserContext, bridge: Bridge, *filters: str, qos: int = 1) -> Page:
    """A tab that follows filters, once the stream that has them is open."""
    page, _ = visit(context, bridge)
    page.evaluate(JOIN, [filters, qos])
    wait_until(lambda: bool(page.evaluate("window.stream.state.stream === 'open'")), SECONDS)
    return page


def roles(pages: list[Page]) -> list[str]:
    """What each tab is."""
    return [page.evaluate("window.stream.state.role") for page in pages]


def payloads(page: Page) -> list[Any]:
    """What a tab has seen."""
    seen: list[Any] = page.evaluate("window.seen.map(({ payload }) => payload)")
    return seen


def wait_for(page: Page, payload: object) -> None:
    """Wait until a tab has seen a payload."""
    # Page.wait_for_function evaluates a string, which the policy forbids.
    wait_until(lambda: payload in payloads(page), SECONDS)


def wait_until_told(page: Page, control: str) -> None:
    """Wait until a tab has heard a control event."""
    wait_until(lambda: control in page.evaluate("window.told"), SECONDS)


def publish(bridge: Bridge, topic: str, payload: object, *, retain: bool = False) -> None:
    """Publish by HTTP."""
    query = {"topic": topic, "retain": "true"} if retain else {"topic": topic}
    answer = bridge.client.post("/v1/topics", params=query, content=json.dumps(payload))
    assert 200 == answer.status_code


class Numbers:
    """Publishes 0, 1, 2 … one after the other, from a thread.

    Attributes:
        count: how many were published.
    """

    def __init__(self, url: str, topic: str) -> None:
        self.count = 0
        self._url = url
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Publish no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            while self.count < MAX_NUMBERS and not self._stop.is_set():
                content = str(self.count)
                client.post("/v1/topics", params={"topic": self._topic}, content=content).raise_for_status()
                self.count += 1


def test_eight_tabs_share_one_stream(context: BrowserContext, bridge: Bridge) -> None:
    """More tabs than a browser has connections to a host all hear, and the bridge has one listener."""
    pages = [join(context, bridge, "shared/eight/#") for _ in range(PAGES)]
    assert ["follower"] * (PAGES - 1) + ["leader"] == sorted(roles(pages))
    publish(bridge, "shared/eight/a", "hello")
    for page in pages:
        wait_for(page, "hello")
        assert ["hello"] == payloads(page)
        assert [] == page.evaluate("window.gaps")
    assert 1 == bridge.app.state.hub.listeners


@pytest.mark.parametrize("way", ["tab closed", "stream closed"])
def test_a_leader_that_goes_leaves_no_hole(context: BrowserContext, bridge: Bridge, way: str) -> None:
    """While messages keep coming the leader goes, twice: the others see every one, once, in order."""
    pages = [join(context, bridge, "shared/going/#") for _ in range(4)]
    with Numbers(bridge.url, "shared/going/number") as numbers:
        for _ in range(2):
            for page in pages:
                wait_for(page, numbers.count + 20)
            leader = pages.pop(roles(pages).index("leader"))
            if way == "tab closed":
                leader.close()
            else:
                leader.evaluate("window.stream.close()")
            for page in pages:
                wait_for(page, numbers.count + 20)
            assert 1 == roles(pages).count("leader")
        numbers.stop()
        for page in pages:
            wait_for(page, numbers.count - 1)
            live = page.evaluate("window.seen.filter(({ retain }) => !retain).map(({ payload }) => payload)")
            assert list(range(live[0], numbers.count)) == live
            assert live[0] == 0
            assert [] == page.evaluate("window.gaps")
    assert 1 == bridge.app.state.hub.listeners


def test_a_quiet_stream_is_handed_over_too(context: BrowserContext, bridge: Bridge) -> None:
    """What comes while nobody holds the stream is not missed, though no message ever told a position."""
    first = join(context, bridge, "shared/quiet/#")
    second = join(context, bridge, "shared/quiet/#")

    def publish_first(route: Route) -> None:
        publish(bridge, "shared/quiet/a", 1)
        route.continue_()

    context.route("**/v1/subscribe*", publish_first)
    first.close()
    wait_for(second, 1)
    assert ["leader"] == roles([second])
    assert [1] == payloads(second)
    assert [] == second.evaluate("window.gaps")


def test_the_next_leader_begins_after_the_last_message(context: BrowserContext, bridge: Bridge) -> None:
    """The bridge is asked for what came after the last message heard, not for all that the tab ever saw."""
    first = join(context, bridge, "shared/position/#")
    second = join(context, bridge, "shared/position/#")
    for payload in (1, 2):
        publish(bridge, "shared/position/a", payload)
    wait_for(second, 2)
    with context.expect_event("request", lambda request: "/v1/subscribe" in request.url) as asked:
        first.close()
    wait_until(lambda: roles([second]) == ["leader"], SECONDS)
    position = parse_qs(urlsplit(asked.value.url).query)["last_event_id"]
    assert second.evaluate("window.seen.map(({ id }) => id)")[-1:] == position


def test_a_newcomer_gets_current_values(context: BrowserContext, bridge: Bridge) -> None:
    """A tab that comes later is told the newest value of each topic that it follows, and nothing else."""
    publish(bridge, "shared/current/kept", 0, retain=True)
    first = join(context, bridge, "shared/current/#")
    for payload in (1, 2, 3):
        publish(bridge, "shared/current/a", payload)
    publish(bridge, "shared/current/b/deep", 4)
    wait_for(first, 4)
    newcomer = join(context, bridge, "shared/current/#")
    wait_for(newcomer, 4)
    assert [(0, True), (3, True), (4, True)] == [
        (each["payload"], each["current"]) for each in newcomer.evaluate("window.seen")
    ]
    publish(bridge, "shared/current/a", 5)
    wait_for(newcomer, 5)
    assert [0, 3, 4, 5] == payloads(newcomer)
    assert [0, 1, 2, 3, 4, 5] == payloads(first)


def test_new_filters_are_added_to_the_stream(context: BrowserContext, bridge: Bridge) -> None:
    """Tabs see what their own filters match; a filter that is new brings what is retained, and its gap."""
    publish(bridge, "shared/own/b/kept", "kept", retain=True)
    first = join(context, bridge, "shared/own/a/+")
    second = join(context, bridge, "shared/own/b/#")
    wait_for(second, "kept")
    assert ["gap not_kept"] == second.evaluate("window.told")
    for topic in ("a/x", "b/x", "c", "a/end", "b/end"):
        publish(bridge, f"shared/own/{topic}", topic)
    wait_for(first, "a/end")
    wait_for(second, "b/end")
    assert ["a/x", "a/end"] == payloads(first)
    assert ["kept", "b/x", "b/end"] == payloads(second)
    assert [] == first.evaluate("window.told")
    assert 1 == bridge.app.state.hub.listeners


def test_a_stream_is_open_when_it_has_a_tabs_filters(context: BrowserContext, bridge: Bridge) -> None:
    """A tab with other filters is not told that the stream is open before it is open with those."""
    join(context, bridge, "shared/early/a")
    for name in ("b", "c", "d"):
        page = join(context, bridge, f"shared/early/{name}")
        assert f"shared/early/{name}" in bridge.app.state.hub.filters
        publish(bridge, f"shared/early/{name}", name)
        wait_for(page, name)


def test_a_gap_is_told_to_whom_it_may_concern(context: BrowserContext, bridge: Bridge) -> None:
    """What comes while an overlapping filter is added may be lost, and is told; a tab apart hears nothing."""
    wide = join(context, bridge, "shared/gap/#")
    apart = join(context, bridge, "shared/apart/c")
    publish(bridge, "shared/gap/b", "before")
    wait_for(wide, "before")

    def publish_first(route: Route) -> None:
        publish(bridge, "shared/gap/b", "meanwhile")
        route.continue_()

    context.route("**/v1/subscribe*", publish_first)
    crossing = join(context, bridge, "shared/+/b")
    context.unroute("**/v1/subscribe*")
    for page, topic in ((wide, "gap/b"), (apart, "apart/c"), (crossing, "gap/b")):
        publish(bridge, f"shared/{topic}", "after")
        wait_for(page, "after")
    gaps = [page.evaluate("window.gaps.map(({ filters }) => filters)") for page in (wide, apart, crossing)]
    assert [["shared/apart/c"]] == gaps[1]
    assert 1 == len(gaps[0])
    assert gaps[0] == gaps[2]
    assert "shared/+/b" in gaps[0][0]


def test_a_lost_broker_is_told_to_every_tab(context: BrowserContext) -> None:
    """Each tab hears once that the broker went, came back, and what may be missing."""
    with Mosquitto() as broker, running_bridge(broker.url, prepare=mount) as bridge:
        pages = [join(context, bridge, "shared/broker/#") for _ in range(2)]
        broker.stop()
        for page in pages:
            wait_until_told(page, "broker down")
        broker.start()
        for page in pages:
            wait_until_told(page, "gap broker_connection")
        publish(bridge, "shared/broker/a", "again")
        for page in pages:
            wait_for(page, "again")
            assert ["broker down", "broker up", "gap broker_connection"] == page.evaluate("window.told")


def test_a_restart_of_the_bridge_is_survived(context: BrowserContext, mosquitto: Mosquitto) -> None:
    """All tabs hear the farewell and that the bridge does not know their position; messages follow."""
    with running_bridge(mosquitto.url, prepare=mount) as first:
        pages = [join(context, first, "shared/restart/#") for _ in range(2)]
    with running_bridge(mosquitto.url, prepare=mount, port=first.port) as second:
        for page in pages:
            wait_until_told(page, "gap unknown_id")
        publish(second, "shared/restart/a", "again")
        for page in pages:
            wait_for(page, "again")
            assert ["close shutdown", "gap unknown_id"] == page.evaluate("window.told")
        assert 1 == second.app.state.hub.listeners


def test_an_error_status_does_not_end_it(context: BrowserContext, bridge: Bridge) -> None:
    """EventSource gives up on a 503; the sample asks again, and says meanwhile that it waits."""
    context.route("**/v1/subscribe*", lambda route: route.fulfill(status=503))
    page, _ = visit(context, bridge, "?topic=shared/error/%23")
    expect(page.locator("#stream")).to_have_text("waiting")
    context.unroute("**/v1/subscribe*")
    expect(page.locator("#stream")).to_have_text("open")
    publish(bridge, "shared/error/a", "after all")
    expect(page.locator("#rows td").last).to_have_text('"after all"')


def test_a_hostile_message_is_text(context: BrowserContext, bridge: Bridge) -> None:
    """Neither a topic nor a payload becomes HTML, and the page keeps to a strict policy."""
    page, complaints = visit(context, bridge, "?topic=shared/hostile/%23")
    expect(page.locator("#role")).to_have_text("leader")
    expect(page.locator("#stream")).to_have_text("open")
    publish(bridge, f"shared/hostile/{HOSTILE}", HOSTILE)
    expect(page.locator("#rows td").first).to_have_text(f"shared/hostile/{HOSTILE}")
    expect(page.locator("#rows td").last).to_have_text(json.dumps(HOSTILE))
    assert 0 == page.locator("img").count()
    assert "Shared stream" == page.title()
    assert [] == complaints


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "a/b#", "a\0"])
def test_an_invalid_filter_is_refused(context: BrowserContext, bridge: Bridge, topic_filter: str) -> None:
    """It would have the bridge refuse the filters of all tabs."""
    page, _ = visit(context, bridge)
    with pytest.raises(Exception, match="topic filters are needed"):
        page.evaluate(JOIN, [[topic_filter], 1])
    assert 0 == bridge.app.state.hub.listeners


def test_it_matches_as_the_bridge_does(context: BrowserContext, bridge: Bridge) -> None:
    """Wildcards, empty levels, topics that begin with a dollar sign and shared subscriptions."""
    filters = ["#", "+", "+/+", "/+", "+/#", "/#", "a", "a/", "/a", "a/#", "a/+", "a/+/c", "a/+/#", "+/b/#"]
    filters += ["a//b", "a/+/b", "A/#", "é/+", "$SYS/#", "$SYS/+", "+/x", "$share"]
    filters += ["$share/g/a/#", "$share/g/+/x"]
    topics = ["a", "a/", "/", "/a", "a/b", "a/b/c", "a//b", "//", "$SYS", "$SYS/x", "$x/x", "b/x", "é/x"]
    topics += ["A/b", "$share", "a/$SYS", "a/\n"]
    pairs = list(itertools.product(filters, topics))
    page, _ = visit(context, bridge)
    expected = [matches(*pair) for pair in pairs]
    assert {True, False} == set(expected)
    assert dict(zip(pairs, expected, strict=True)) == dict(
        zip(pairs, page.evaluate(COMPARE, ["matches", pairs]), strict=True)
    )


def test_it_knows_which_filters_overlap(context: BrowserContext, bridge: Bridge) -> None:
    """Two filters overlap where there is a topic that both match, and not otherwise."""
    levels = ["a", "b", "", "$x"]
    topics = ["/".join(each) for length in (1, 2, 3) for each in itertools.product(levels, repeat=length)]
    topics.remove("")
    filters = [
        "/".join(each) for length in (1, 2) for each in itertools.product([*levels, "+"], repeat=length)
    ]
    filters.remove("")
    filters += [f"{each}/#" for each in filters] + ["#", "$share/g/a/#", "$share/g/+/b", "+/b/a", "a/+/b"]
    matched = {each: {topic for topic in topics if matches(each, topic)} for each in filters}
    pairs = list(itertools.product(filters, repeat=2))
    expected = [bool(matched[one] & matched[other]) for one, other in pairs]
    page, _ = visit(context, bridge)
    answers = page.evaluate(COMPARE, ["overlap", pairs])
    assert [] == [
        pair for pair, wanted, got in zip(pairs, expected, answers, strict=True) if wanted is not got
    ]


@pytest.mark.parametrize("ending", ["-00000000", "-00000000-r"])
def test_a_late_word_of_a_former_leader_is_not_heard_twice(
    context: BrowserContext, bridge: Bridge, ending: str
) -> None:
    """What two leaders hand on counts once, whether the id is marked or not, and with whatever filters."""
    topic = f"shared/late{ending}/a"
    first = join(context, bridge, topic)
    second = join(context, bridge, topic)
    publish(bridge, topic, 1)
    wait_for(second, 1)
    second.evaluate(REPEAT, ending)
    publish(bridge, topic, 2)
    for page in (first, second):
        wait_for(page, 2)
        wait_for(page, "repeated")
        assert [1, 2, "repeated"] == sorted(payloads(page), key=str)


def test_a_listener_may_close_the_stream(context: BrowserContext, bridge: Bridge) -> None:
    """A leader that leaves while it hands a message on lets the others have it, and another one leads."""
    pages = [join(context, bridge, "shared/leaving/#") for _ in range(2)]
    complaints: list[str] = []
    pages[0].on("pageerror", lambda error: complaints.append(str(error)))
    pages[0].evaluate("window.stream.addEventListener('message', () => window.stream.close())")
    publish(bridge, "shared/leaving/a", 1)
    wait_for(pages[1], 1)
    wait_until(lambda: roles(pages) == ["follower", "leader"], SECONDS)
    publish(bridge, "shared/leaving/a", 2)
    wait_for(pages[1], 2)
    assert [1, 2] == payloads(pages[1])
    assert [1] == payloads(pages[0])
    assert [] == complaints
