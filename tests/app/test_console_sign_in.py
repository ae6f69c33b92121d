"""Signing in to the console, in a real Chromium, against a bridge that asks who one is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.browser import running_browser
from tests.support.fixed_tokens import FixedTokens, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto

MILLISECONDS: Final = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with running_browser() as browser:
        yield browser


class Site:
    """A bridge with principals, and what may be done to their tokens."""

    def __init__(self, bridge: Bridge, method: FixedTokens) -> None:
        self.bridge = bridge
        self.method = method

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish by HTTP, as somebody who may."""
        answer = self.bridge.client.post(f"/v1/topics/{topic}", content=payload, headers=bearer("writer"))
        assert 200 == answer.status_code


@pytest.fixture
def site(mosquitto: Mosquitto) -> Iterator[Site]:
    """A bridge for one test."""
    authentication, method = tokens_of(
        principal("writer", publish=["#"], subscribe=["#"]),
        principal("panel", publish=["sign-in/set"], subscribe=["sign-in/a/#", "sign-in/b"]),
        principal("operator", publish=["#"], subscribe=["#"], scopes=["status:read"]),
        principal("nobody"),
    )
    with running_bridge(mosquitto.url, authentication=authentication) as bridge:
        yield Site(bridge, method)


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A fresh page at the console."""
    context = browser.new_context()
    context.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    page = context.new_page()
    page.goto(f"{site.bridge.url}/console")
    yield page
    context.close()


def sign_in(page: Page, token: str) -> None:
    """Type a token into the dialog that is open, and wait until it is taken."""
    page.get_by_label("API key or token").fill(token)
    page.get_by_role("button", name="Sign in", exact=True).last.click()
    expect(page.locator("#sign-in")).to_be_hidden()


def follow(page: Page, topic_filter: str) -> None:
    """Follow one more filter."""
    page.get_by_label("Topic filter").fill(topic_filter)
    page.get_by_role("button", name="Follow", exact=True).click()


def value(page: Page, name: str) -> str:
    """The value shown for a topic that ends with this level."""
    row = page.locator("[role=treeitem]:visible", has=page.locator(f".name:text-is('{name}')"))
    expect(row.locator(".value")).not_to_be_empty()
    return row.locator(".value").inner_text()


def test_it_asks_and_shows_who_one_is(page: Page, site: Site) -> None:
    """A token that is not good is refused in words; a good one opens the stream and shows what is granted."""
    expect(page.locator("#sign-in")).to_be_visible()
    page.get_by_label("API key or token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in-fault")).to_contain_text("the token is not known")
    sign_in(page, "panel")
    follow(page, "sign-in/a/#")
    expect(page.locator("#stream-state")).to_have_text("live")
    site.publish("sign-in/a/x", b"21")
    assert "21" == value(page, "x")
    page.get_by_role("button", name="Signed in as panel").click()
    facts = page.locator("#account-facts")
    for text in ("panel", "api key", "until it is revoked", "sign-in/a/#", "sign-in/set", "nothing"):
        expect(facts).to_contain_text(text)


def test_the_token_is_in_the_pages_memory_alone(page: Page, site: Site) -> None:
    """In no storage, no cookie and no address; it goes into one header; a reload forgets it."""
    urls: list[str] = []
    authorized: list[str] = []

    def look(request: Request) -> None:
        urls.append(request.url)
        authorized.append(request.headers.get("authorization", ""))

    page.on("request", look)
    sign_in(page, "panel")
    follow(page, "sign-in/b")
    expect(page.locator("#stream-state")).to_have_text("live")
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
    assert [0, 0, ""] == kept[:3]
    assert not [each for each in [*urls, kept[3]] if "panel" in each]
    assert {"Bearer panel"} == {each for each in authorized if each}
    assert "" == page.locator("#token").input_value()
    assert not page.evaluate("indexedDB.databases().then((all) => all.length)")
    page.reload()
    expect(page.locator("#sign-in")).to_be_visible()
    expect(page.locator("#stream-state")).to_have_text("signed out")
    sign_in(page, "panel")
    expect(page.locator("#stream-state")).to_have_text("live")


def test_the_keyboard_is_enough(page: Page) -> None:
    """The field has the focus, Escape puts the dialog away, and the button in the header brings it back."""
    expect(page.get_by_label("API key or token")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#sign-in")).to_be_hidden()
    page.locator("#who").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("API key or token")).to_be_focused()
    page.keyboard.type("panel")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Signed in as panel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#account")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#account")).to_be_hidden()


def test_what_is_granted_is_followed(page: Page, site: Site) -> None:
    """Of a filter that goes too far the granted parts are, and the page says so."""
    sign_in(page, "panel")
    follow(page, "#")
    expect(page.locator("#chips code")).to_have_text(["sign-in/a/#", "sign-in/b"])
    expect(page.locator("#stream-state")).to_have_text("live")
    expect(page.locator("#notice")).to_contain_text("you may not subscribe to '#'")
    site.publish("sign-in/b", b"1")
    assert "1" == value(page, "b")


def test_what_is_not_granted_is_told(page: Page) -> None:
    """Which filter, which topic and which scope, in the bridge's own words; what is granted goes on."""
    sign_in(page, "panel")
    follow(page, "sign-in/b")
    expect(page.locator("#stream-state")).to_have_text("live")
    follow(page, "elsewhere/#")
    expect(page.locator("#notice")).to_contain_text("you may not subscribe to 'elsewhere/#'")
    expect(page.locator("#stream-state")).to_have_text("live")
    expect(page.locator("#chips code")).to_have_text(["sign-in/b"])
    page.get_by_label("Topic", exact=True).fill("sign-in/a")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_contain_text("you may not publish to 'sign-in/a'")
    expect(page.locator("#broker-state")).to_have_text("broker: hidden, needs the scope status:read")
    expect(page.locator("#broker-state")).to_have_attribute("data-state", "idle")


def test_who_is_not_signed_in_is_told_to(page: Page) -> None:
    """Publishing says where, and not which header to send; what the broker does is unknown, not bad."""
    expect(page.locator("#sign-in")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_have_text(
        "Not authenticated: sign in first, by the button at the top of the page."
    )
    expect(page.locator("#broker-state")).to_have_attribute("data-state", "idle")


def test_what_is_granted_is_offered(page: Page, site: Site) -> None:
    """Before, the page says to sign in; then one click follows what is granted, if anything is."""
    expect(page.locator("#next")).to_contain_text("Sign in")
    expect(page.locator("#offers button")).to_have_count(0)
    sign_in(page, "panel")
    expect(page.locator("#offers button")).to_have_text(["Follow sign-in/a/#", "Follow sign-in/b"])
    page.get_by_role("button", name="Follow sign-in/b").click()
    expect(page.locator("#stream-state")).to_have_text("live")
    site.publish("sign-in/b", b"1")
    assert "1" == value(page, "b")
    page.goto("about:blank")
    page.goto(f"{site.bridge.url}/console")
    sign_in(page, "nobody")
    expect(page.locator("#next")).to_contain_text("Nothing is granted to you")


def test_with_the_scope_the_broker_shows(page: Page) -> None:
    """And the form publishes, with the token."""
    sign_in(page, "operator")
    expect(page.locator("#broker-state")).to_contain_text("MQTT 5")
    page.get_by_label("Topic", exact=True).fill("sign-in/form")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#outcome")).to_contain_text("acknowledged")
    expect(page.locator("#try")).to_contain_text("$TOKEN")


def test_signing_out_leaves_nothing(page: Page, site: Site) -> None:
    """The stream is closed, the page is a new one, and the next to sign in sees only its own."""
    sign_in(page, "operator")
    follow(page, "sign-in/b")
    expect(page.locator("#stream-state")).to_have_text("live")
    site.publish("sign-in/b", b"1")
    assert "1" == value(page, "b")
    page.locator("#who").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#sign-in")).to_be_visible()
    wait_until(lambda: site.bridge.app.state.hub.listeners == 0)
    expect(page.locator("[role=treeitem]")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("No messages yet.")
    sign_in(page, "nobody")
    expect(page.locator("#stream-state")).to_have_text("not following")
    expect(page.locator("#notice")).to_contain_text("you may not subscribe to 'sign-in/b'")


def test_a_token_that_is_revoked_is_asked_for_again(page: Page, site: Site) -> None:
    """Its stream ends and the dialog says why; with a good one all goes on as it was."""
    sign_in(page, "panel")
    follow(page, "sign-in/b")
    expect(page.locator("#stream-state")).to_have_text("live")
    site.method.revoke("panel")
    expect(page.locator("#sign-in-reason")).to_have_text("The key or token was revoked.")
    expect(page.locator("#stream-state")).to_have_text("signed out")
    sign_in(page, "operator")
    expect(page.locator("#stream-state")).to_have_text("live")
    expect(page.locator("#chips code")).to_have_text(["sign-in/b"])


def test_a_call_that_is_refused_asks_again(page: Page, site: Site) -> None:
    """Without a stream it is the next call that tells, in the bridge's words."""
    sign_in(page, "panel")
    site.method.revoke("panel")
    page.evaluate("document.getElementById('publish').requestSubmit()")
    expect(page.locator("#sign-in-reason")).to_have_text("the token is not known")


def test_somebody_else_sees_nothing_of_it(page: Page, site: Site) -> None:
    """Whoever signs in after a token was revoked does not see what another was shown."""
    sign_in(page, "operator")
    follow(page, "sign-in/b")
    expect(page.locator("#stream-state")).to_have_text("live")
    site.publish("sign-in/b", b"1")
    assert "1" == value(page, "b")
    site.method.revoke("operator")
    expect(page.locator("#sign-in")).to_be_visible()
    expect(page.locator("[role=treeitem]:visible")).to_have_count(2)
    sign_in(page, "nobody")
    expect(page.locator("[role=treeitem]:visible")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("No messages yet.")
    expect(page.locator("#notice")).to_contain_text("you may not subscribe to 'sign-in/b'")


def test_a_stream_that_ends_with_its_token_asks_again(page: Page) -> None:
    """The event `close` says so; the page does not come back with the same token by itself."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "subscribe" in request.url else None)
    sign_in(page, "panel")
    page.route(
        "**/v1/subscribe*",
        lambda route: route.fulfill(
            content_type="text/event-stream",
            body='event: close\ndata: {"reason":"token_expired","may_reconnect":false}\n\n',
        ),
    )
    follow(page, "sign-in/b")
    expect(page.locator("#sign-in-reason")).to_have_text("The key or token has expired.")
    expect(page.locator("#log")).to_contain_text("close: reason token_expired")
    assert 1 == len(asked)
    page.unroute("**/v1/subscribe*")
    sign_in(page, "operator")
    expect(page.locator("#stream-state")).to_have_text("live")
