"""Keys that an issuer publishes: fetched, kept, changed, away; against a server of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.problems import ProblemError, ProblemType
from app.security import jwks as module
from app.security.authentication import Ended
from app.security.jwks import Jwks
from app.security.principal import Principal
from app.security.tokens import Tokens
from app.settings.security import ALGORITHMS
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tests.support.tokens import (
    EC_KEY,
    ED_KEY,
    RSA_KEY,
    WEAK_KEY,
    Issuer,
    jwk,
    pem,
    running_issuer,
    token,
    unsigned,
)

ASYMMETRIC = frozenset(each for each in ALGORITHMS if not each.startswith("HS"))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer with one key, k1."""
    with running_issuer() as made:
        made.keys = [jwk(EC_KEY, "ES256", kid="k1")]
        yield made


@asynccontextmanager
async def way_of(
    url: str, *, algorithms: frozenset[str] = ASYMMETRIC, is_started: bool = False, **options: Any
) -> AsyncIterator[Tokens]:
    """The way, with the keys of an issuer; without its background task where it is not started."""
    keys = Jwks(url, algorithms, **{"gap_seconds": 0.0, **options})
    if is_started:
        keys.start()
    try:
        yield Tokens(keys)
    finally:
        await keys.close()


def request(text: str) -> dict[str, Any]:
    """The scope of a request with a token."""
    return {"type": "http", "headers": [(b"authorization", b"Bearer " + text.encode())]}


async def found(way: Tokens, text: str) -> Principal:
    """The principal of a good token."""
    principal = await way.authenticate(request(text))
    assert principal is not None
    return principal


async def refusal(way: Tokens, text: str) -> ProblemError:
    """Why a token is refused."""
    with pytest.raises(ProblemError) as caught:
        await way.authenticate(request(text))
    return caught.value


def signed(key: Any = EC_KEY, algorithm: str = "ES256", kid: str | None = "k1", **more: Any) -> str:
    """A token that names its key."""
    return token(key, algorithm, {} if kid is None else {"kid": kid}, **more)


async def until(issuer: Issuer, fetches: int) -> None:
    """Wait until the issuer was asked so often."""
    async with asyncio.timeout(15):
        while issuer.fetches < fetches:
            await asyncio.sleep(0.01)


async def test_a_published_key_verifies(issuer: Issuer) -> None:
    """Fetched once, for as many tokens as come."""
    issuer.keys += [jwk(RSA_KEY, "RS256", kid="k2"), jwk(ED_KEY, "EdDSA", kid="k3", use="sig")]
    async with way_of(issuer.url) as way:
        await found(way, signed())
        await found(way, signed(RSA_KEY, "RS512", "k2"))
        await found(way, signed(ED_KEY, "EdDSA", "k3"))
    assert 1 == issuer.fetches


async def test_a_key_that_is_new_is_found(issuer: Issuer) -> None:
    """A token that names it makes the bridge look again."""
    async with way_of(issuer.url) as way:
        await found(way, signed())
        issuer.keys.append(jwk(RSA_KEY, "RS256", kid="k2"))
        await found(way, signed(RSA_KEY, "RS256", "k2"))
    assert 2 == issuer.fetches


async def test_a_key_that_is_gone_ends_its_principals(issuer: Issuer) -> None:
    """An issuer withdraws a key that was stolen; one that stays keeps its principals."""
    issuer.keys.append(jwk(ED_KEY, "EdDSA", kid="k3"))
    async with way_of(issuer.url) as way:
        gone, stays = signed(), signed(ED_KEY, "EdDSA", "k3")
        first, second = await found(way, gone), await found(way, stays)
        issuer.keys = [jwk(RSA_KEY, "RS256", kid="k2"), issuer.keys[1]]
        await found(way, signed(RSA_KEY, "RS256", "k2"))
        assert Ended.REVOKED is way.why_ended(first)
        assert way.recall(request(gone)) is None
        assert way.why_ended(second) is None
        assert second is way.recall(request(stays))
        assert ProblemType.UNAUTHENTICATED is (await refusal(way, gone)).kind


async def test_made_up_keys_do_not_make_it_knock(issuer: Issuer) -> None:
    """A storm of tokens with unknown keys costs one fetch in a while, and is refused with 401."""
    async with way_of(issuer.url, gap_seconds=3600.0) as way:
        await found(way, signed())
        problems = [await refusal(way, signed(kid=f"x{number}")) for number in range(200)]
        assert {ProblemType.UNAUTHENTICATED} == {each.kind for each in problems}
        await found(way, signed(sub="line-5"))
    assert 1 == issuer.fetches


async def test_many_requests_share_one_fetch(issuer: Issuer) -> None:
    """All that come while it is under way wait for it."""
    issuer.go_on.clear()
    async with way_of(issuer.url, gap_seconds=3600.0) as way:
        waiting = [asyncio.create_task(found(way, signed(sub=f"line-{each}"))) for each in range(50)]
        await until(issuer, 1)
        issuer.go_on.set()
        await asyncio.gather(*waiting)
    assert 1 == issuer.fetches


async def test_a_caller_that_leaves_takes_nobody_with_it(issuer: Issuer) -> None:
    """The fetch goes on for the others."""
    issuer.go_on.clear()
    async with way_of(issuer.url) as way:
        first, second = (asyncio.create_task(found(way, signed())) for _ in range(2))
        await until(issuer, 1)
        first.cancel()
        await asyncio.wait([first])
        issuer.go_on.set()
        await second
    assert 1 == issuer.fetches


@pytest.mark.parametrize("fault", ["status", "redirect", "junk", "no set", "no keys", "huge"])
async def test_without_keys_the_answer_is_503(
    issuer: Issuer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A good token may be behind it: try again. The log says why."""
    words = "cannot be had"
    match fault:
        case "status":
            issuer.status, words = 500, "the answer is 500"
        case "redirect":
            issuer.status, issuer.location, words = 302, issuer.url, "redirects are not followed"
        case "junk":
            issuer.text = b"<html>"
        case "no set":
            issuer.text, words = b'{"keys": 5}', "no JSON Web Key Set"
        case "no keys":
            issuer.keys, words = [], "no key of the set"
        case "huge":
            issuer.text, words = b'{"keys": [' + b" " * 600_000 + b"]}", "larger than"
    async with way_of(issuer.url) as way:
        problem = await refusal(way, signed())
    assert ProblemType.AUTHENTICATION_UNAVAILABLE is problem.kind
    assert int(problem.headers["Retry-After"]) >= 1
    assert issuer.url not in problem.detail
    assert words in caplog.text


async def test_an_issuer_that_is_not_there_is_503(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing listens at its port."""
    with ReservedPort() as port:
        async with way_of(f"http://127.0.0.1:{port.number}/jwks") as way:
            assert ProblemType.AUTHENTICATION_UNAVAILABLE is (await refusal(way, signed())).kind


async def test_an_outage_keeps_the_last_good_keys(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of known keys are taken; for a day, and then no more."""
    async with way_of(issuer.url) as way:
        await found(way, signed())
        issuer.status = 503
        assert ProblemType.UNAUTHENTICATED is (await refusal(way, signed(kid="k9"))).kind
        assert "those fetched last hold" in caplog.text
        await found(way, signed(sub="line-5"))
        later = time.monotonic() + module.STALE_SECONDS + 1
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
        assert ProblemType.AUTHENTICATION_UNAVAILABLE is (await refusal(way, signed(sub="line-6"))).kind


async def test_a_slow_issuer_is_given_up(issuer: Issuer) -> None:
    """Whoever waits is told."""
    issuer.go_on.clear()
    async with way_of(issuer.url, fetch_seconds=0.2) as way:
        assert ProblemType.AUTHENTICATION_UNAVAILABLE is (await refusal(way, signed())).kind


async def test_keys_are_fetched_again_before_anybody_asks(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start on, and again when Cache-Control says that they are old."""
    monkeypatch.setattr(module, "_SHORTEST_SECONDS", 0.05)
    issuer.cache_control = "public, max-age=0"
    async with way_of(issuer.url, is_started=True):
        await until(issuer, 3)


async def test_a_start_without_the_issuer_is_made_up_for(issuer: Issuer) -> None:
    """It is asked again and again by itself."""
    issuer.status = 500
    async with way_of(issuer.url, is_started=True, gap_seconds=3600.0) as way:
        await until(issuer, 1)
        issuer.status = 200
        await until(issuer, 2)
        async with asyncio.timeout(15):
            while True:
                try:
                    await found(way, signed())
                    break
                except ProblemError:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("", 600.0),
        ("public, max-age=900", 900.0),
        ("MAX-AGE=900", 900.0),
        ("max-age=1", 60.0),
        ("max-age=999999999", 3600.0),
        ("s-maxage=5, must-revalidate", 600.0),
        ("max-age=soon", 600.0),
    ],
)
def test_how_long_a_set_is_good(cache_control: str, expected: float) -> None:
    """What Cache-Control says, within a minute and an hour (RFC 9111 §5.2.2.1)."""
    assert expected == module._age(cache_control)


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "ES384"},
        {"alg": 5},
        {"kty": "RSA"},
        {"crv": "P-999"},
        {"x": "AAAA"},
        {"kty": None},
    ],
    ids=str,
)
async def test_keys_that_are_for_something_else_are_passed_over(
    issuer: Issuer, change: dict[str, Any]
) -> None:
    """use, key_ops, alg and kty count (RFC 7517 §4); a broken key harms no other."""
    issuer.keys = [{**issuer.keys[0], **change}, jwk(ED_KEY, "EdDSA", kid="k3")]
    async with way_of(issuer.url) as way:
        assert ProblemType.UNAUTHENTICATED is (await refusal(way, signed())).kind
        await found(way, signed(ED_KEY, "EdDSA", "k3"))


async def test_a_key_that_is_too_short_is_passed_over(issuer: Issuer) -> None:
    """RSA has 2048 bits or more (RFC 7518 §3.3)."""
    issuer.keys.append(jwk(WEAK_KEY, "RS256", kid="k2"))
    async with way_of(issuer.url) as way:
        await found(way, signed())
        assert [("k1", "ES256")] == [
            (each.kid, *each.key.algorithms)
            for each in module._read(json.dumps({"keys": issuer.keys}).encode(), ASYMMETRIC)
        ]


async def test_secrets_in_a_set_are_passed_over(issuer: Issuer) -> None:
    """A key that is published is no secret; neither is a public key one for HMAC."""
    issuer.keys.append({"kty": "oct", "kid": "k2", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"})
    async with way_of(issuer.url) as way:
        text = token("0123456789abcdef0123456789abcdef", "HS256", {"kid": "k2"})
        assert "algorithm" in (await refusal(way, text)).detail
        forged = unsigned({"alg": "HS256", "kid": "k1"}, {"sub": "a", "exp": 1e10}, pem(EC_KEY).encode())
        assert "algorithm" in (await refusal(way, forged)).detail
    assert 0 == issuer.fetches


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "' OR 1=1 --", "http://127.0.0.1:1/", "", "k1\0", "K1", "x" * 3000]
)
async def test_a_kid_is_compared_and_nothing_else(issuer: Issuer, kid: str) -> None:
    """It is no path, no URL, no query."""
    async with way_of(issuer.url) as way:
        assert "does not publish" in (await refusal(way, signed(kid=kid))).detail


async def test_a_token_without_a_kid_has_the_one_key_that_fits(issuer: Issuer) -> None:
    """With two that fit nobody can tell."""
    issuer.keys.append(jwk(RSA_KEY, "RS256", kid="k2"))
    async with way_of(issuer.url) as way:
        await found(way, signed(kid=None))
    issuer.keys.append(jwk(EC_KEY, "ES256", kid="k4"))
    async with way_of(issuer.url) as way:
        assert ProblemType.UNAUTHENTICATED is (await refusal(way, signed(kid=None))).kind


async def test_a_wrong_signature_under_a_published_kid_is_refused(issuer: Issuer) -> None:
    """The name of a key proves nothing."""
    async with way_of(issuer.url) as way:
        head, body, _ = signed().split(".")
        other = signed(sub="line-5").split(".")[2]
        assert "signature" in (await refusal(way, f"{head}.{body}.{other}")).detail


def test_a_slow_issuer_holds_nobody_else(mosquitto: Mosquitto, issuer: Issuer) -> None:
    """While one request waits for keys, others are answered, over real HTTP."""
    issuer.go_on.clear()
    with running_bridge(mosquitto.url, jwt_jwks_url=issuer.url, wait_until_ready=False) as bridge:
        headers = {"Authorization": f"Bearer {signed()}"}
        answers: list[int] = []

        def ask() -> None:
            answers.append(httpx.get(f"{bridge.url}/v1/principal", headers=headers, timeout=30).status_code)

        waiting = threading.Thread(target=ask)
        waiting.start()
        wait_until(lambda: issuer.fetches > 0)
        assert 200 == bridge.client.get("/livez").status_code
        assert 401 == bridge.client.get("/v1/principal").status_code
        assert [] == answers
        issuer.go_on.set()
        waiting.join(30)
        assert [200] == answers


def test_a_bridge_without_keys_answers_503(mosquitto: Mosquitto, issuer: Issuer) -> None:
    """With Retry-After, as a problem document."""
    issuer.status = 500
    with running_bridge(mosquitto.url, jwt_jwks_url=issuer.url) as bridge:
        answer = bridge.client.get("/v1/principal", headers={"Authorization": f"Bearer {signed()}"})
        assert 503 == answer.status_code
        assert "urn:tidegate:problem:authentication-unavailable" == answer.json()["type"]
        assert "2" == answer.headers["Retry-After"]
        issuer.status = 200
        wait_until(
            lambda: (
                bridge.client.get(
                    "/v1/principal", headers={"Authorization": f"Bearer {signed()}"}
                ).status_code
                == 200
            )
        )
