"""Which pages may read answers, asked as browsers ask (Fetch standard, CORS protocol)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge
from tests.support.fixed_tokens import COOKIES, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto

PAGE: Final = "https://panel.example"


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge with authentication that one other origin may use."""
    authentication, _ = tokens_of(principal("panel", subscribe=["cors/#"]))
    with running_bridge(mosquitto.url, authentication=authentication, cors_origins=(PAGE,)) as running:
        yield running


def preflight(bridge: Bridge, origin: str, *headers: str, method: str = "POST") -> httpx.Response:
    """What a browser asks before the call itself."""
    return bridge.client.options(
        "/v1/topics/cors/a",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(headers),
        },
    )


def test_a_browser_may_ask_without_showing_who_it_is(bridge: Bridge) -> None:
    """The preflight carries no token, and the call itself may carry one in the header."""
    answer = preflight(bridge, PAGE, "authorization", "content-type", "last-event-id", "idempotency-key")
    assert (200, PAGE) == (answer.status_code, answer.headers["access-control-allow-origin"])
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    for method in ("GET", "PUT", "DELETE"):
        assert 200 == preflight(bridge, PAGE, "authorization", method=method).status_code


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{PAGE}.evil.example", "http://panel.example"]
)
def test_other_pages_are_told_nothing(bridge: Bridge, origin: str) -> None:
    """Neither beforehand nor with an answer."""
    for answer in (
        preflight(bridge, origin, "authorization"),
        bridge.client.get("/v1/principal", headers={**bearer("panel"), "Origin": origin}),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/principal", {}, 401),
        ("/v1/status", bearer("panel"), 403),
        ("/v1/subscribe?topic=other", bearer("panel"), 403),
        ("/v1/subscribe?topic=cors/a&ticket=x", {}, 401),
        ("/v1/nothing", bearer("panel"), 404),
        ("/v1/topics/cors/none", bearer("panel"), 404),
        ("/v1/principal", bearer("panel"), 200),
    ],
)
def test_a_page_can_read_why_it_was_refused(
    bridge: Bridge, path: str, headers: dict[str, str], status: int
) -> None:
    """Errors carry the same headers as answers, and caches know that these depend on the origin."""
    answer = bridge.client.get(path, headers={**headers, "Origin": PAGE})
    assert (status, PAGE) == (answer.status_code, answer.headers["access-control-allow-origin"])
    assert "origin" in answer.headers["vary"].lower()
    exposed = answer.headers["access-control-expose-headers"]
    for name in ("WWW-Authenticate", "Retry-After", "RateLimit", "RateLimit-Policy", "Last-Event-ID"):
        assert name in exposed.split(", ")
    assert "access-control-allow-credentials" not in answer.headers


def test_answers_depend_on_the_origin_for_all(bridge: Bridge) -> None:
    """Also where none was sent: a cache would hand that answer to a page."""
    answer = bridge.client.get("/v1/principal", headers=bearer("panel"))
    assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-origin" not in answer.headers


def test_cookies_come_along_only_where_one_is_configured(mosquitto: Mosquitto) -> None:
    """And only for the pages that are listed, each by name."""
    authentication, _ = tokens_of(principal("panel"), takes_cookies=True)
    with running_bridge(
        mosquitto.url, authentication=authentication, cors_origins=(PAGE,), **COOKIES
    ) as bridge:
        answer = bridge.client.get("/v1/principal", headers={"Cookie": "session=panel", "Origin": PAGE})
        assert (200, PAGE, "true") == (
            answer.status_code,
            answer.headers["access-control-allow-origin"],
            answer.headers["access-control-allow-credentials"],
        )
        assert "true" == preflight(bridge, PAGE).headers["access-control-allow-credentials"]
        other = bridge.client.get(
            "/v1/principal", headers={"Cookie": "session=panel", "Origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in other.headers


def test_without_origins_there_is_no_cors(mosquitto: Mosquitto) -> None:
    """No page of another origin reads anything."""
    with running_bridge(mosquitto.url) as bridge:
        answer = bridge.client.get("/v1/principal", headers={"Origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert 405 == preflight(bridge, PAGE).status_code
