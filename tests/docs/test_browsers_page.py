"""The samples of docs/browsers.md, in a real Chromium, on a page of another origin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, Response

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.browser import running_browser
from tests.support.fixed_tokens import FixedTokens, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto
from tests.support.pages import serving

PAGE: Final = Path(__file__).parents[2] / "docs" / "browsers.md"
SECONDS: Final = 60.0
MILLISECONDS: Final = 20_000
SAMPLES: Final = {
    f"/{name}": ("text/javascript", text.encode())
    for name, text in re.findall(r"```js\n// (\w+\.js)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
}
FOLLOW: Final = """async ([bridge, token, topics]) => {
    const { follow } = await import("/stream.js");
    window.seen = { messages: [], gaps: [], ends: [] };
    window.stop = follow(bridge, token, topics, {
        message: (message) => seen.messages.push(message.payload),
        gap: (gap) => seen.gaps.push(gap.reason),
        end: (reason) => seen.ends.push(reason),
    });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Where the page with the samples is."""
    with serving(SAMPLES) as origin:
        yield origin


@pytest.fixture
def page(browser: Browser, origin: str) -> Iterator[Page]:
    """A page of that origin."""
    context = browser.new_context()
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    page.goto(origin)
    yield page
    context.close()


@pytest.fixture
def bridge(mosquitto: Mosquitto, origin: str) -> Iterator[Bridge]:
    """A bridge for one test, which the page's origin may use."""
    with running_bridge(mosquitto.url, **options(origin)) as bridge:
        yield bridge


def options(origin: str, method: list[FixedTokens] | None = None) -> dict[str, Any]:
    """A principal ``panel`` that may do everything below ``browsers/``."""
    authentication, found = tokens_of(principal("panel", publish=["browsers/#"], subscribe=["browsers/#"]))
    if method is not None:
        method.append(found)
    return {"authentication": authentication, "cors_origins": (origin,)}


def publish(bridge: Bridge, topic: str, payload: str) -> None:
    """Publish by HTTP."""
    answer = bridge.client.post(f"/v1/topics/{topic}", content=payload, headers=bearer("panel"))
    assert 200 == answer.status_code


def seen(page: Page, kind: str) -> Any:
    """What the sample has told the page."""
    return page.evaluate("kind => window.seen[kind]", kind)


class Streams:
    """The streams that a page has opened: each is subscribed, since its answer has begun."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.opened: list[str] = []
        page.on("response", self._note)

    def _note(self, response: Response) -> None:
        if "/v1/subscribe" in response.url and response.status == 200:
            self.opened.append(response.url)

    def wait_for(self, count: int) -> None:
        """Wait until this many were opened."""
        # the page is asked something, as its news come meanwhile
        wait_until(lambda: bool(self._page.evaluate("true")) and len(self.opened) >= count, SECONDS)


def test_all_samples_are_found() -> None:
    """The page has the three that are run here."""
    assert {"/stream.js", "/lines.js", "/socket.js"} == set(SAMPLES)


def test_eventsource_with_tickets(page: Page, mosquitto: Mosquitto, origin: str) -> None:
    """Whenever its stream ends, it comes back with a new ticket and the last id, and misses nothing."""
    streams = Streams(page)
    with running_bridge(mosquitto.url, stream_lifetime_seconds=0.5, **options(origin)) as bridge:
        page.evaluate(FOLLOW, [f"{bridge.url}/", "panel", ["browsers/#"]])
        streams.wait_for(1)
        published = 0
        while len(streams.opened) < 4:
            published += 1
            publish(bridge, "browsers/a", str(published))
            page.evaluate("true")
        wait_until(lambda: seen(page, "messages") == list(range(1, published + 1)))
        assert ([], []) == (seen(page, "gaps"), seen(page, "ends"))
        assert len(streams.opened) == len({url.partition("ticket=")[2][:43] for url in streams.opened})
        page.evaluate("window.stop()")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_eventsource_after_a_restart(page: Page, mosquitto: Mosquitto, origin: str) -> None:
    """Tickets are gone with the bridge that gave them; the page asks the new one, and is told of the gap."""
    streams = Streams(page)
    with running_bridge(mosquitto.url, **options(origin)) as first:
        port = first.port
        page.evaluate(FOLLOW, [f"{first.url}/", "panel", ["browsers/restart"]])
        streams.wait_for(1)
        publish(first, "browsers/restart", "1")
        wait_until(lambda: seen(page, "messages") == [1])
    with running_bridge(mosquitto.url, port=port, **options(origin)) as second:
        streams.wait_for(2)
        publish(second, "browsers/restart", "2")
        wait_until(lambda: seen(page, "messages") == [1, 2])
        assert ["unknown_id"] == seen(page, "gaps")


def test_eventsource_that_is_refused(page: Page, bridge: Bridge) -> None:
    """The page is told why, and it does not try again."""
    page.evaluate(FOLLOW, [f"{bridge.url}/", "panel", ["elsewhere/#"]])
    wait_until(lambda: len(seen(page, "ends")) == 1)
    assert "you may not subscribe to 'elsewhere/#'" in seen(page, "ends")[0]


def test_fetch_with_a_header(page: Page, bridge: Bridge) -> None:
    """Messages come; a refusal is an error with the bridge's words; the id of the last goes on from there."""
    streams = Streams(page)
    page.evaluate(
        """async ([bridge, token]) => {
            const { lines } = await import("/lines.js");
            window.seen = { messages: [], lastId: "" };
            window.stop = new AbortController();
            window.read = async (options) => {
                try {
                    for await (const line of lines(bridge, token, ["browsers/lines"], options)) {
                        seen.lastId = line.id;
                        seen.messages.push(line.event ?? line.payload);
                    }
                } catch (error) { if (error.name !== "AbortError") seen.messages.push(error.message); }
            };
            read({ signal: stop.signal });
        }""",
        [f"{bridge.url}/", "panel"],
    )
    streams.wait_for(1)
    publish(bridge, "browsers/lines", "1")
    wait_until(lambda: seen(page, "messages") == [1])
    page.evaluate("stop.abort()")
    wait_until(lambda: bridge.app.state.hub.listeners == 0)
    publish(bridge, "browsers/lines", "2")
    page.evaluate("() => { read({ lastEventId: seen.lastId }); }")
    wait_until(lambda: seen(page, "messages") == [1, 2])
    refused = page.evaluate(
        """async ([bridge]) => {
            const { lines } = await import("/lines.js");
            return lines(bridge, "wrong", ["browsers/a"]).next().catch((error) => error.message);
        }""",
        [f"{bridge.url}/"],
    )
    assert "the token is not known" == refused


def test_websocket_with_a_ticket(page: Page, bridge: Bridge) -> None:
    """It subscribes and publishes within what the ticket was asked for."""
    answers = page.evaluate(
        """async ([bridge, token]) => {
            const { connect } = await import("/socket.js");
            const socket = await connect(bridge, token, { publish: ["browsers/socket"] });
            const told = [];
            const done = new Promise((resolve) => {
                socket.onmessage = ({ data }) => {
                    const frame = JSON.parse(data);
                    told.push(frame.op === "error" ? frame.problem.type : frame.payload ?? frame.op);
                    if (frame.id === 1) {
                        socket.send('{"id": 2, "op": "publish", "topic": "browsers/other", "payload": 1}');
                        socket.send('{"id": 3, "op": "publish", "topic": "browsers/socket", "payload": 7}');
                    }
                    if (frame.op === "message") resolve();
                };
            });
            socket.send('{"id": 1, "op": "subscribe", "topics": ["browsers/socket"]}');
            await done;
            socket.close();
            return told;
        }""",
        [f"{bridge.url}/", "panel"],
    )
    assert "ack" == answers[0]
    assert {"urn:tidegate:problem:not-granted", 7} <= set(answers)
