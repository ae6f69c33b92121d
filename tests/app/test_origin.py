"""What pages of other origins may do, and by which names the bridge may be called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from app.settings import Settings
from tests.support.bridge import Bridge, RawAnswer, running_bridge
from tests.support.fixed_tokens import COOKIE, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

PAGE: Final = "https://panel.example"
EVIL: Final = {"Origin": "http://evil.example"}
UNSAFE: Final = (
    ("POST", "/v1/topics/origin/a", b"1"),
    ("PUT", "/v1/topics/origin/a", b"1"),
    ("DELETE", "/v1/topics/origin/a", b""),
    ("POST", "/v1/publish", b'{"topic": "origin/a", "payload": 1}'),
    ("POST", "/v1/publish/batch", b'[{"topic": "origin/a", "payload": 1}]'),
    ("POST", "/v1/requests/origin/a?timeout=0.1", b"1"),
    ("POST", "/v1/tickets", b'{"for": "websocket"}'),
    ("POST", "/v1/subscribe", b'{"topics": ["origin/a"]}'),
    ("GET", "/v1/subscribe?topic=origin/a", b""),
    ("GET", "/v1/%73ubscribe?topic=origin/a", b""),
)


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge without authentication, which one other origin may use."""
    with running_bridge(mosquitto.url, cors_origins=(PAGE,)) as running:
        yield running


def asked(bridge: Bridge, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """Status, and the problem's field where there is one; a stream is not read."""
    json = {"Content-Type": "application/json"} if body.startswith((b"{", b"[")) else {}
    with bridge.client.stream(method, path, content=body or None, headers={**json, **headers}) as answer:
        if answer.status_code < 400:
            return answer.status_code, ""
        answer.read()
        return answer.status_code, answer.json().get("field", "")


@pytest.mark.parametrize(("method", "path", "body"), UNSAFE)
def test_pages_of_others_change_nothing_and_open_no_stream(
    bridge: Bridge, method: str, path: str, body: bytes
) -> None:
    """A page needs no permission to send these, only to read the answer; so they are refused."""
    assert (403, "Origin") == asked(bridge, method, path, body, EVIL)
    assert (403, "Origin") == asked(bridge, method, path, body, {"Origin": "null"})
    site = {"Sec-Fetch-Site": "cross-site"}
    assert (403, "Sec-Fetch-Site") == asked(bridge, method, path, body, site)


@pytest.mark.parametrize(("method", "path", "body"), UNSAFE)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": PAGE},
        {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:{port}"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "https://behind.a.proxy.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_programs_own_pages_and_listed_ones_are_let(
    bridge: Bridge, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    """Programs say nothing of a page; own pages are known by the browser's word, also behind a proxy."""
    given = {name: value.format(port=bridge.port) for name, value in headers.items()}
    status, _ = asked(bridge, method, path, body, given)
    assert status in ({504} if "requests" in path else {200}), status


def test_what_a_proxy_adds_makes_no_page_an_own_one(bridge: Bridge) -> None:
    """Whoever can send such a header can send any."""
    for name in ("X-Forwarded-Host", "X-Original-Host", "Forwarded"):
        value = "host=evil.example" if name == "Forwarded" else "evil.example"
        headers = {**EVIL, name: value}
        assert (403, "Origin") == asked(bridge, "POST", "/v1/topics/origin/a", b"1", headers)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_the_browsers_word_counts_more_than_a_likeness(bridge: Bridge, site: str) -> None:
    """A page of the same host by plain HTTP is another origin than the bridge's behind TLS."""
    headers = {"Origin": f"http://127.0.0.1:{bridge.port}", "Sec-Fetch-Site": site}
    assert (403, "Origin") == asked(bridge, "POST", "/v1/topics/origin/a", b"1", headers)
    with SocketClient(
        bridge.port,
        origin=f"http://127.0.0.1:{bridge.port}",
        headers={"Sec-Fetch-Site": site},
        is_open=False,
    ) as client:
        assert 403 == client.status


def test_what_only_reads_is_for_cors(bridge: Bridge) -> None:
    """A link from another site may lead here; a script of that site can't read the answer."""
    headers = {**EVIL, "Sec-Fetch-Site": "cross-site"}
    for path in ("/v1/status", "/v1/principal", "/livez", "/docs", "/console"):
        answer = bridge.client.get(path, headers=headers)
        assert 200 == answer.status_code, path
        assert "access-control-allow-origin" not in answer.headers
        assert "same-origin" == answer.headers["cross-origin-resource-policy"]


def test_a_cookie_is_not_enough_for_pages_of_others(mosquitto: Mosquitto) -> None:
    """The browser sends it whoever's page asks; a token in a header the page has to have itself."""
    authentication, _ = tokens_of(principal("panel", publish=["#"], subscribe=["#"]), takes_cookies=True)
    cookie = {"Cookie": f"{COOKIE}=panel"}
    with running_bridge(mosquitto.url, authentication=authentication, cors_origins=(PAGE,)) as bridge:
        for method, path, body in UNSAFE:
            if "requests" in path:
                continue
            assert (403, "Origin") == asked(bridge, method, path, body, {**cookie, **EVIL})
            for headers in (cookie, {**cookie, "Origin": PAGE}, {**bearer("panel"), **EVIL}):
                assert 200 == asked(bridge, method, path, body, headers)[0], (path, headers)
        assert 200 == bridge.client.get("/v1/principal", headers={**cookie, **EVIL}).status_code
        with SocketClient(bridge.port, origin=EVIL["Origin"], headers=cookie, is_open=False) as client:
            assert 403 == client.status
        with SocketClient(
            bridge.port, origin=EVIL["Origin"], headers=bearer("panel"), is_open=False
        ) as client:
            assert 403 == client.status


def test_what_is_refused_is_in_the_audit_log(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """With the page, or the name."""
    caplog.set_level("WARNING", "tidegate.audit")
    assert (403, "Origin") == asked(bridge, "POST", "/v1/topics/origin/a", b"1", EVIL)
    assert 421 == by_name(bridge, "evil.example").status
    shown = [each.getMessage() for each in caplog.records if each.name == "tidegate.audit"]
    assert 2 == len(shown)
    assert "origin refused: POST /v1/topics/origin/a: web pages of http://evil.example" in shown[0]
    assert "evil.example" in shown[1]


# Names: DNS rebinding makes an attacker's page one of the bridge's own origin.


def by_name(bridge: Bridge, host: str, method: str = "GET", path: bytes = b"/v1/principal") -> RawAnswer:
    """An answer to a request for this host."""
    return bridge.raw(method, path, headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "notlocalhost",
        "evil",
        "",
        "[::1].evil.example:80",
    ],
)
def test_a_name_that_is_not_the_bridges_is_refused(bridge: Bridge, host: str) -> None:
    """Reading too: such a page could read everything."""
    for method, path in (
        ("GET", b"/v1/principal"),
        ("GET", b"/v1/topics/origin/a"),
        ("GET", b"/v1/subscribe?topic=a"),
        ("POST", b"/v1/topics/origin/a"),
    ):
        answer = by_name(bridge, host, method, path)
        assert (421, "urn:tidegate:problem:unknown-host", "Host") == (
            answer.status,
            answer.json()["type"],
            answer.json()["field"],
        )
        assert "TIDEGATE_ALLOWED_HOSTS" in answer.json()["hint"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "bridge.localhost:1",
        "[::1]",
        "[::1]:8080",
        "192.168.1.7:8080",
    ],
)
def test_addresses_and_names_of_this_machine_are_the_bridges(bridge: Bridge, host: str) -> None:
    """Nobody can point these elsewhere."""
    assert 200 == by_name(bridge, host).status


def test_health_is_told_under_any_name(bridge: Bridge) -> None:
    """Probes call a bridge as they like."""
    assert (200, 200) == (
        by_name(bridge, "pod-7.example", path=b"/livez").status,
        by_name(bridge, "pod-7.example", path=b"/readyz").status,
    )


def test_the_settings_name_more(mosquitto: Mosquitto) -> None:
    """TIDEGATE_ALLOWED_HOSTS, with any port; a part of a name is not the name."""
    with running_bridge(mosquitto.url, allowed_hosts=("Bridge.example",)) as bridge:
        for host, status in {
            "bridge.example": 200,
            "BRIDGE.example:443": 200,
            "a.bridge.example": 421,
            "bridge.example.evil.example": 421,
            "localhost": 200,
        }.items():
            assert status == by_name(bridge, host).status, host


def test_with_authentication_any_name_will_do(mosquitto: Mosquitto) -> None:
    """A page by another name has no key, token or cookie of the bridge's; unless names are set."""
    authentication, _ = tokens_of(principal("panel"))
    headers = {**bearer("panel"), "Host": "any.example"}
    with running_bridge(mosquitto.url, authentication=authentication) as bridge:
        assert 200 == bridge.raw("GET", b"/v1/principal", headers=headers).status
    with running_bridge(
        mosquitto.url, authentication=authentication, allowed_hosts=("bridge.example",)
    ) as bridge:
        assert 421 == bridge.raw("GET", b"/v1/principal", headers=headers).status


def test_where_everybody_is_let_in_any_name_will_do(mosquitto: Mosquitto) -> None:
    """TIDEGATE_INSECURE at another address: whoever reaches the port may do everything anyway."""
    with running_bridge(mosquitto.url, host="0.0.0.0", insecure=True) as bridge:
        assert 200 == by_name(bridge, "tidegate.plant.svc").status


@pytest.mark.parametrize("host", ["bridge.example:80", "https://bridge.example", "*.example", "a/b"])
def test_a_host_name_is_a_name_alone(host: str) -> None:
    """Anything else is refused at the start."""
    with pytest.raises(ValueError, match="is no host name"):
        Settings(allowed_hosts=(host,))
