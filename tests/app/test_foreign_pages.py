"""What a real browser lets web pages of other origins do to a bridge, and what the bridge makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.browser import running_browser
from tests.support.fixed_tokens import COOKIE, COOKIES, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto
from tests.support.pages import serving
from tests.support.sse import following

MILLISECONDS: Final = 20_000
REBOUND: Final = "evil.example"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for which a name of an attacker's leads to this machine, as after DNS rebinding."""
    with running_browser(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as browser:
        yield browser


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """An origin of its own on another port."""
    with serving() as origin:
        yield origin


@pytest.fixture
def page(browser: Browser, foreign: str) -> Iterator[Page]:
    """A page of the other origin."""
    context = browser.new_context()
    context.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    page = context.new_page()
    page.goto(foreign)
    yield page
    context.close()


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge without authentication on loopback, as `tidegate dev` runs."""
    with running_bridge(mosquitto.url) as running:
        yield running


STREAM: Final = """url => new Promise(resolve => {
    const source = new EventSource(url);
    source.onopen = () => resolve("open");
    source.onmessage = (event) => { source.close(); resolve(event.data); };
    source.onerror = () => { if (source.readyState === 2) resolve("refused"); };
})"""
SOCKET: Final = """url => new Promise(resolve => {
    const socket = new WebSocket(url, "tidegate.v1");
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
})"""
IMAGE: Final = """url => new Promise(resolve => {
    const image = new Image();
    image.onerror = image.onload = resolve;
    image.src = url;
})"""
BLIND_POST: Final = """url => fetch(url, { method: "POST", mode: "no-cors", body: "1" }).then(
    (answer) => answer.type, (error) => String(error))"""
FORM: Final = """url => {
    document.body.innerHTML = `<iframe name="target"></iframe>
        <form method="post" enctype="text/plain" target="target"><input name="a" value="1"></form>`;
    document.forms[0].action = url;
    document.forms[0].submit();
}"""
READ: Final = """url => fetch(url).then((answer) => answer.text(), (error) => String(error))"""


def ws(bridge: Bridge) -> str:
    """The URL of the WebSocket."""
    return bridge.url.replace("http", "ws", 1) + "/v1/ws"


def test_a_page_of_another_origin_publishes_nothing(page: Page, bridge: Bridge) -> None:
    """A POST of plain text needs no permission of the bridge's to be sent, by script or by form."""
    with following(bridge, "foreign/#") as stream:
        page.evaluate(BLIND_POST, f"{bridge.url}/v1/topics/foreign/script")
        with page.expect_response(lambda answer: "foreign/form" in answer.url) as caught:
            page.evaluate(FORM, f"{bridge.url}/v1/topics/foreign/form")
        assert 403 == caught.value.status
        assert 200 == bridge.client.post("/v1/topics/foreign/own", content=b"1").status_code
        assert [("foreign/own", 1, False)] == stream.wait_for_messages(1)


def test_a_page_of_another_origin_opens_no_stream(page: Page, bridge: Bridge) -> None:
    """Neither an EventSource nor a WebSocket, nor one that it could not read, as an image; none was made."""
    hub = bridge.app.state.hub
    wait_until(lambda: hub.listeners == 0)
    before = Counter(hub.ended)
    assert "refused" == page.evaluate(STREAM, f"{bridge.url}/v1/subscribe?topic=foreign/a")
    assert "refused" == page.evaluate(SOCKET, ws(bridge))
    page.evaluate(IMAGE, f"{bridge.url}/v1/subscribe?topic=foreign/image")
    assert (0, before) == (hub.listeners, hub.ended)


def test_a_page_of_another_origin_reads_nothing(page: Page, bridge: Bridge) -> None:
    """The browser keeps the answer from it."""
    for path in ("/v1/principal", "/v1/status", "/v1/topics/foreign/a"):
        assert page.evaluate(READ, bridge.url + path).startswith("TypeError")


def test_the_bridges_own_pages_do_all_of_it(page: Page, bridge: Bridge) -> None:
    """The same calls, from the console's origin."""
    page.goto(f"{bridge.url}/console")
    with following(bridge, "foreign/own-page") as stream:
        assert "basic" == page.evaluate(BLIND_POST, f"{bridge.url}/v1/topics/foreign/own-page")
        assert [("foreign/own-page", 1, False)] == stream.wait_for_messages(1)
    assert "open" == page.evaluate(STREAM, f"{bridge.url}/v1/subscribe?topic=foreign/a")
    assert "open" == page.evaluate(SOCKET, ws(bridge))


def test_a_name_that_is_pointed_at_the_bridge_reads_nothing(page: Page, bridge: Bridge) -> None:
    """DNS rebinding: to the browser the attacker's page and the bridge are one origin then."""
    page.goto(f"http://{REBOUND}:{bridge.port}/livez")
    for path in ("/v1/principal", "/v1/status", "/v1/topics/foreign/a", "/v1/topics/%23"):
        assert "urn:tidegate:problem:unknown-host" in page.evaluate(READ, path)
    assert "refused" == page.evaluate(STREAM, "/v1/subscribe?topic=foreign/a")
    assert "refused" == page.evaluate(SOCKET, f"ws://{REBOUND}:{bridge.port}/v1/ws")
    with following(bridge, "foreign/rebound") as stream:
        page.evaluate(BLIND_POST, "/v1/topics/foreign/rebound")
        assert 200 == bridge.client.post("/v1/topics/foreign/rebound", content=b"2").status_code
        assert [("foreign/rebound", 2, False)] == stream.wait_for_messages(1)


def test_a_listed_page_uses_a_token(page: Page, foreign: str, mosquitto: Mosquitto) -> None:
    """In a header, which the browser asks for first; it can read why it is refused, too."""
    authentication, _ = tokens_of(principal("panel", publish=["foreign/#"], subscribe=["foreign/#"]))
    call = """async ([url, token]) => {
        const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
        const answer = await fetch(url, { method: "POST", headers, body: "1" });
        return [answer.status, (await answer.json()).type ?? "", answer.headers.get("WWW-Authenticate")];
    }"""
    with running_bridge(mosquitto.url, authentication=authentication, cors_origins=(foreign,)) as bridge:
        url = f"{bridge.url}/v1/topics/foreign/token"
        assert [200, "", None] == page.evaluate(call, [url, "panel"])
        assert [401, "urn:tidegate:problem:unauthenticated", "Bearer"] == page.evaluate(call, [url, "x"])
        other = f"{bridge.url}/v1/topics/elsewhere"
        assert [403, "urn:tidegate:problem:not-granted", None] == page.evaluate(call, [other, "panel"])
        ticket = {"for": "subscribe", "topics": ["foreign/a"]}
        given = bridge.client.post("/v1/tickets", json=ticket, headers=bearer("panel")).json()["url"]
        assert "open" == page.evaluate(STREAM, f"{bridge.url}/v1/{given}")
        given = bridge.client.post("/v1/tickets", json={"for": "websocket"}, headers=bearer("panel")).json()
        assert "open" == page.evaluate(SOCKET, f"{ws(bridge)}?ticket={given['ticket']}")


def with_cookie(page: Page, bridge: Bridge) -> None:
    """Give the browser the bridge's cookie; both origins are one site, so it goes along."""
    cookie: Any = {"name": COOKIE, "value": "panel", "url": bridge.url}
    page.context.add_cookies([cookie])


def test_a_cookie_works_for_listed_pages_alone(
    page: Page, browser: Browser, foreign: str, mosquitto: Mosquitto
) -> None:
    """The browser sends it along for both; a page that is not listed neither reads nor does anything."""
    authentication, _ = tokens_of(principal("panel", publish=["#"], subscribe=["#"]), takes_cookies=True)
    read = """url => fetch(url, { credentials: "include" }).then(
        (answer) => answer.json(), (error) => String(error))"""
    with (
        running_bridge(
            mosquitto.url, authentication=authentication, cors_origins=(foreign,), **COOKIES
        ) as bridge,
        serving() as unlisted,
    ):
        with_cookie(page, bridge)
        assert "panel" == page.evaluate(read, f"{bridge.url}/v1/principal")["subject"]
        stream = STREAM.replace("(url)", "(url, { withCredentials: true })")
        assert "open" == page.evaluate(stream, f"{bridge.url}/v1/subscribe?topic=foreign/a")
        assert "open" == page.evaluate(SOCKET, ws(bridge))
        page.goto(unlisted)
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        assert page.evaluate(read, f"{bridge.url}/v1/principal").startswith("TypeError")
        assert "refused" == page.evaluate(stream, f"{bridge.url}/v1/subscribe?topic=foreign/a")
        assert "refused" == page.evaluate(SOCKET, ws(bridge))
        with page.expect_response(lambda answer: "foreign/form" in answer.url) as caught:
            page.evaluate(FORM, f"{bridge.url}/v1/topics/foreign/form")
        assert 403 == caught.value.status
        assert "panel" in (caught.value.request.all_headers().get("cookie") or "")


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "text/plain"])
def test_a_payload_runs_no_script(page: Page, bridge: Bridge, content_type: str) -> None:
    """A message whose publisher says that it is a page is not one of the bridge's."""
    script = "fetch('/v1/topics/foreign/run', { method: 'POST', body: 'run' })"
    body = (
        f'<svg xmlns="http://www.w3.org/2000/svg"><script>{script}</script></svg>'
        if "svg" in content_type
        else f"<!doctype html><script>{script}</script>"
    )
    topic = f"{bridge.url}/v1/topics/foreign/page"
    headers = {"Content-Type": content_type}
    assert 200 == bridge.client.put(topic, content=body.encode(), headers=headers).status_code
    with following(bridge, "foreign/run") as stream:
        if content_type == "text/plain":
            page.goto(topic)
            expect(page.locator("body")).to_contain_text("fetch")
        else:
            with page.expect_download():
                page.evaluate("url => { location.href = url; }", topic)
        page.goto(f"{bridge.url}/console")
        assert "basic" == page.evaluate(BLIND_POST, f"{bridge.url}/v1/topics/foreign/run")
        assert [("foreign/run", 1, False)] == stream.wait_for_messages(1)
    assert 200 == bridge.client.delete(topic).status_code


def test_the_docs_work_under_their_policy(page: Page, bridge: Bridge) -> None:
    """The page shows the calls, tries one, and the browser has nothing to complain of."""
    complaints: list[str] = []
    page.on(
        "console", lambda each: complaints.append(each.text) if each.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{bridge.url}/docs")
    call = page.locator("#operations-security-get_principal, [id$=get_principal]").first
    call.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(call).to_contain_text("anonymous")
    assert [] == complaints
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "x = 1";
            document.body.append(script);
        }"""
    )
    assert any("Content Security Policy" in each for each in complaints)
