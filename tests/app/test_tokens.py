"""Requests with a JSON Web Token (ASVS 9.1.1, 9.1.2, 9.1.3, 9.2.1, 9.2.2, 9.2.3)."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any, Final

import jwt
import pytest

from app.problems import ProblemError, ProblemType
from app.security.authentication import AMBIENT, Ended
from app.security.principal import Principal, Source
from app.security.revoked_tokens import watched_revocations
from app.security.tokens import MAX_TOKEN_BYTES, Tokens
from app.security.verification_keys import StaticKey, read_key
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import run_command
from tests.support.mosquitto import Mosquitto
from tests.support.tokens import (
    EC_KEY,
    ED_KEY,
    RSA_KEY,
    SECRET,
    WEAK_KEY,
    claims,
    pem,
    signed_by_hand,
    token,
    unsigned,
)
from tidegate.errors import ConfigurationError

YEAR_2100: Final = 4_102_444_800


def request(text: str | None = None, **headers: str) -> dict[str, Any]:
    """The scope of a request with a token, and with other headers."""
    given = {name.encode(): value.encode() for name, value in headers.items()}
    if text is not None:
        given[b"authorization"] = b"Bearer " + text.encode()
    return {"type": "http", "headers": list(given.items())}


def tokens(key: str = SECRET, algorithms: tuple[str, ...] = (), **options: Any) -> Tokens:
    """The way, with one key."""
    return Tokens(StaticKey(read_key(key, algorithms, name="TIDEGATE_JWT_KEY")), **options)


async def found(way: Tokens, text: str) -> Principal:
    """The principal of a good token."""
    principal = await way.authenticate(request(text))
    assert principal is not None
    return principal


async def refusal(way: Tokens, text: str) -> str:
    """Why a token is refused."""
    with pytest.raises(ProblemError) as caught:
        await way.authenticate(request(text))
    assert caught.value.kind is ProblemType.UNAUTHENTICATED
    assert 'Bearer realm="tidegate", error="invalid_token"' == caught.value.headers["WWW-Authenticate"]
    return caught.value.detail


@pytest.mark.parametrize(
    ("key", "public", "algorithm"),
    [
        (SECRET, SECRET, "HS256"),
        (SECRET * 2, SECRET * 2, "HS512"),
        (RSA_KEY, pem(RSA_KEY), "RS256"),
        (RSA_KEY, pem(RSA_KEY), "PS384"),
        (EC_KEY, pem(EC_KEY), "ES256"),
        (ED_KEY, pem(ED_KEY), "EdDSA"),
    ],
)
async def test_a_good_token_is_taken(key: Any, public: str, algorithm: str) -> None:
    """Every sort of key verifies what it signed, without a list of algorithms."""
    principal = await found(tokens(public), token(key, algorithm, jti="j1"))
    assert ("line-4", Source.JWT, "j1") == (principal.subject, principal.source, principal.credential_id)


async def test_the_claims_are_the_grants() -> None:
    """Filters as text or object, {sub}, scopes."""
    mqtt = {"publish": ["lines/{sub}/#"], "subscribe": [{"filter": "plant/#", "qos": 1, "retain": False}]}
    principal = await found(tokens(), token(mqtt=mqtt, scope="status:read openid"))
    assert frozenset({"status:read", "openid"}) == principal.scopes
    assert principal.grants.why_not_publish("lines/line-4/a", 2, retain=True) is None
    assert principal.grants.why_not_publish("lines/line-5/a", 0, retain=False) is not None
    assert principal.grants.why_not_subscribe("plant/+", 1) is None
    assert principal.grants.why_not_subscribe("plant/+", 2) is not None


@pytest.mark.parametrize("name", ["scope", "scp"])
async def test_scopes_may_be_a_list(name: str) -> None:
    """As some issuers write them."""
    scopes: dict[str, Any] = {name: ["status:read", "a"]}
    principal = await found(tokens(), token(**scopes))
    assert frozenset({"status:read", "a"}) == principal.scopes


@pytest.mark.parametrize("subject", ["a/b", "+", "#", "a+b", "$SYS"])
async def test_a_subject_cannot_widen_its_grant(subject: str) -> None:
    """It is a principal, and a grant with {sub} gives it nothing."""
    principal = await found(tokens(), token(sub=subject, mqtt={"publish": ["lines/{sub}/x", "{sub}"]}))
    assert subject == principal.subject
    assert () == principal.grants.publish


@pytest.mark.parametrize(
    "mqtt",
    [
        "a/#",
        ["a/#"],
        {"publish": "a/#"},
        {"publish": [1]},
        {"publish": ["a/#/b"]},
        {"publish": ["$share/g/a"]},
        {"publish": [{"filter": "a", "qos": True}]},
        {"publish": [{"filter": "a", "qos": 3}]},
        {"publish": [{"filter": "a", "qos": 1.0}]},
        {"publish": [{"filter": "a", "retain": 0}]},
        {"publish": [{"filter": "a", "max_qos": 0}]},
        {"publish": [{"qos": 0}]},
        {"publish": ["a"], "suscribe": ["b"]},
        {"publish": {"a": 1}},
        {"publish": [["a"]]},
    ],
    ids=str,
)
async def test_a_malformed_claim_refuses_the_token(mqtt: Any) -> None:
    """Nothing of it is dropped, and nothing taken for more than it says."""
    assert "the claim mqtt" in await refusal(tokens(), token(mqtt=mqtt))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"exp": None}, "no claim exp"),
        ({"sub": None}, "no claim sub"),
        ({"sub": ""}, "sub"),
        ({"sub": "a\nb"}, "claim sub"),
        ({"sub": "a" * 300}, "claim sub"),
        ({"exp": int(time.time()) - 11}, "has expired"),
        ({"exp": 1e300}, "claim exp"),
        ({"exp": float("inf")}, "cannot be read"),
        ({"exp": str(YEAR_2100)}, "claim exp"),
        ({"exp": "soon"}, "cannot be read"),
        ({"nbf": YEAR_2100}, "not valid yet"),
        ({"iat": YEAR_2100}, "not valid yet"),
        ({"iat": True}, "claim iat"),
        ({"scope": 5}, "claim scope"),
        ({"scope": ["a b"]}, "claim scope"),
        ({"scope": {"a": 1}}, "claim scope"),
        ({"iss": "https://other.example"}, "another issuer"),
        ({"iss": None}, "no claim iss"),
        ({"aud": "somebody"}, "another audience"),
        ({"aud": None}, "no claim aud"),
        ({"aud": ["somebody", "else"]}, "another audience"),
    ],
    ids=str,
)
async def test_a_claim_that_is_not_good_is_named(more: dict[str, Any], words: str) -> None:
    """Times, subject, issuer, audience: each has its words (RFC 7519 §4.1)."""
    way = tokens(issuer="https://login.example", audience=["tidegate", "other"])
    good: dict[str, Any] = {"iss": "https://login.example", "aud": "tidegate"}
    assert words in await refusal(way, token(**{**good, **more}))
    await found(way, token(**good))


async def test_a_subject_that_is_no_text_is_refused() -> None:
    """Its name would be another's."""
    text = jwt.api_jws.encode(json.dumps(claims(sub=5)).encode(), SECRET, algorithm="HS256")
    assert "subject" in await refusal(tokens(), text)


async def test_a_token_for_an_audience_needs_one_configured() -> None:
    """It was made for somebody else (RFC 7519 §4.1.3)."""
    assert "another audience" in await refusal(tokens(), token(aud="somebody"))


async def test_the_leeway_counts_on_both_sides() -> None:
    """A token of clocks that differ holds, and does not end at once."""
    way = tokens(leeway_seconds=60)
    principal = await found(way, token(exp=int(time.time()) - 30, nbf=int(time.time()) + 30))
    assert way.why_ended(principal) is None
    assert not principal.has_expired()


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "nOnE"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["HS256"]},
        {"alg": "ES256K"},
        {"typ": "JWT"},
    ],
    ids=str,
)
async def test_an_algorithm_that_is_not_taken_is_refused(header: dict[str, Any]) -> None:
    """None is no signature (RFC 8725 §3.1, §3.2)."""
    for public in (SECRET, pem(RSA_KEY)):
        for signature in (b"", b"x" * 32):
            await refusal(tokens(public), unsigned(header, claims(), signature))


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY, ED_KEY])
async def test_a_public_key_is_no_secret(key: Any) -> None:
    """Whoever has the public key could sign with it otherwise."""
    for secret in (pem(key), pem(key).strip()):
        assert "algorithm" in await refusal(tokens(pem(key)), signed_by_hand({"alg": "HS256"}, secret))


async def test_a_list_of_algorithms_narrows() -> None:
    """What the key could do besides is not taken."""
    way = tokens(pem(RSA_KEY), ("PS256",))
    await found(way, token(RSA_KEY, "PS256"))
    assert "algorithm" in await refusal(way, token(RSA_KEY, "RS256"))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../../../dev/null"},
        {"kid": "/dev/null"},
        {"kid": "' OR 1=1 --"},
        {"kid": "http://127.0.0.1:1/key"},
        {"jku": "http://127.0.0.1:1/jwks.json"},
        {"x5u": "http://127.0.0.1:1/cert.pem"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"x5c": ["AAAA"]},
    ],
    ids=str,
)
async def test_keys_that_a_token_names_are_not_looked_at(header: dict[str, Any]) -> None:
    """The configured key decides: it takes what it signed, and refuses what another signed."""
    await found(tokens(), token(header=header))
    assert "signature" in await refusal(tokens(), token("x" * 32, header=header))
    assert "signature" in await refusal(tokens(), token("\0" * 32, header=header))


@pytest.mark.parametrize("header", [{"crit": ["b64"], "b64": True}, {"b64": True}])
async def test_critical_extensions_are_refused(header: dict[str, Any]) -> None:
    """Those that the library would take, too (RFC 7515 §4.1.11)."""
    assert "(crit)" in await refusal(tokens(), signed_by_hand({"alg": "HS256", **header}))


@pytest.mark.parametrize("header", [{"crit": []}, {"crit": ["x"], "x": 1}, {"crit": "b64"}, {"crit": None}])
async def test_critical_extensions_that_nobody_has_are_refused(header: dict[str, Any]) -> None:
    """None is understood."""
    await refusal(tokens(), signed_by_hand({"alg": "HS256", **header}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "e30.e30",
        "e30.e30.e30.e30",
        "!!!.e30.AAAA",
        "eyJhbGciOiJIUzI1NiJ9.e30",
        "eyJhbGciOiJIUzI1NiJ9.%%%.AAAA",
        "W10.e30.AAAA",
        "\x00\xff",
        base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=") + ".e30.AAAA",
        base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000).decode().rstrip("=") + ".e30.AAAA",
    ],
)
async def test_what_is_no_token_is_refused(text: str) -> None:
    """Broken base64, broken JSON, too few or too many parts, brackets without end."""
    await refusal(tokens(), text)


async def test_a_huge_token_is_refused_unread() -> None:
    """The answer names the bound; a good one of that size is refused too."""
    text = token(filler="x" * MAX_TOKEN_BYTES)
    assert f"at most {MAX_TOKEN_BYTES}" in await refusal(tokens(), text)


async def test_a_changed_token_is_refused() -> None:
    """One character of the claims is enough."""
    head, _, signature = token().split(".")
    other = token(sub="line-5").split(".")[1]
    assert "signature" in await refusal(tokens(), f"{head}.{other}.{signature}")


async def test_a_token_is_verified_once() -> None:
    """Its principal is recalled, and is the same object each time."""
    way, text = tokens(), token()
    assert way.recall(request(text)) is None
    principal = await found(way, text)
    assert principal is way.recall(request(text))
    assert principal is await found(way, text)
    assert way.recall(request(token(sub="line-5"))) is None


async def test_an_expired_token_is_not_recalled() -> None:
    """What was verified once does not hold for ever."""
    way = tokens(leeway_seconds=0)
    exp = int(time.time()) + 2
    text = token(exp=exp)
    await found(way, text)
    wait_until(lambda: time.time() > exp)
    assert way.recall(request(text)) is None
    assert "has expired" in await refusal(way, text)


@pytest.mark.parametrize("headers", [2, 3])
async def test_of_several_authorization_headers_none_counts(headers: int) -> None:
    """Nobody can tell which one was meant."""
    scope = {"type": "http", "headers": [(b"authorization", b"Bearer " + token().encode())] * headers}
    assert await tokens(cookie="session").authenticate(scope) is None


async def test_a_cookie_may_hold_the_token() -> None:
    """The request is marked; a header wins over the cookie, and of two cookies none counts."""
    way = tokens(cookie="session")
    scope = request(cookie=f"a=b; session={token()}; c=d")
    principal = await way.authenticate(scope)
    assert principal is not None
    assert True is scope[AMBIENT]
    again = request(cookie=scope["headers"][0][1].decode())
    assert principal is way.recall(again)
    assert True is again[AMBIENT]
    both = request(token(sub="line-5"), cookie=f"session={token()}")
    by_header = await way.authenticate(both)
    assert by_header is not None
    assert "line-5" == by_header.subject
    assert AMBIENT not in both
    assert await way.authenticate(request(cookie=f"session={token()}; session={token()}")) is None
    assert await way.authenticate(request(cookie=f"Session={token()}")) is None
    assert await tokens().authenticate(scope) is None


async def test_a_cookie_s_fault_is_the_cookie_s() -> None:
    """The problem's field tells where the token was."""
    with pytest.raises(ProblemError) as caught:
        await tokens(cookie="session").authenticate(request(cookie="session=x"))
    assert "Cookie" == caught.value.field


@pytest.mark.parametrize(
    ("key", "algorithms", "words"),
    [
        ("short", (), "needs at least 32"),
        (SECRET, ("HS512",), "needs at least 64"),
        (SECRET, ("RS256",), "has to be a public key"),
        (pem(RSA_KEY), ("ES256",), "cannot verify ES256"),
        (pem(EC_KEY), ("HS256",), "cannot verify HS256"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", (), "no public key"),
        (pem(WEAK_KEY), (), "of no use for tokens"),
        ("".join(pem(RSA_KEY).splitlines()[1:-1]), (), "a public key without its lines"),
        ("\n".join(pem(ED_KEY).splitlines()[1:-1]), ("HS256",), "a public key without its lines"),
        ('{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "k1"}', (), "a JSON Web Key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBB a@b", (), "a public key of SSH"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", (), "private key"),
    ],
)
def test_a_key_that_cannot_be_used_is_told(key: str, algorithms: tuple[str, ...], words: str) -> None:
    """At the start, in words, without the key."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        tokens(key, algorithms)
    text = "".join(key.splitlines()[1:-1]) or key
    assert text[:40] not in str(caught.value).replace("\n", "")
    assert key not in str(caught.value)


REVOKED = """
revoked_tokens:
- jti: j1
- sub: line-5
- sub: line-6
  before: 2026-01-01T00:00:00Z
"""


@pytest.mark.parametrize(
    ("more", "is_revoked"),
    [
        ({"jti": "j1"}, True),
        ({"jti": "j2"}, False),
        ({}, False),
        ({"sub": "line-5"}, True),
        ({"sub": "line-6", "iat": 1_767_225_599}, True),
        ({"sub": "line-6", "iat": 1_767_225_600}, False),
        ({"sub": "line-6"}, True),
    ],
)
async def test_revoked_tokens_are_refused(tmp_path: Path, more: dict[str, Any], is_revoked: bool) -> None:
    """By id, by subject, and by subject and time; one without a time of issue counts as an old one."""
    file = tmp_path / "revoked.yaml"
    file.write_text(REVOKED)
    way = tokens(revoked=watched_revocations(file))
    if is_revoked:
        assert "the token is revoked" == await refusal(way, token(**more))
    else:
        await found(way, token(**more))


def api(bridge: Bridge, text: str | None, path: str = "/v1/principal") -> Any:
    """The answer to a request with a token."""
    headers = {} if text is None else {"Authorization": f"Bearer {text}"}
    return bridge.client.get(path, headers=headers)


def test_a_bridge_takes_tokens(mosquitto: Mosquitto) -> None:
    """401 with a challenge without one, 403 beyond its grants, else what was asked for."""
    text = token(mqtt={"publish": ["tok/{sub}/#"]})
    with running_bridge(mosquitto.url, jwt_key=SECRET) as bridge:
        answer = api(bridge, None)
        assert 401 == answer.status_code
        assert 'Bearer realm="tidegate"' == answer.headers["WWW-Authenticate"]
        assert "urn:tidegate:problem:unauthenticated" == answer.json()["type"]
        answer = api(bridge, "x.y.z")
        assert (401, 'Bearer realm="tidegate", error="invalid_token"') == (
            answer.status_code,
            answer.headers["WWW-Authenticate"],
        )
        assert "line-4" == api(bridge, text).json()["subject"]
        headers = {"Authorization": f"Bearer {text}"}
        assert 200 == bridge.client.post("/v1/topics/tok/line-4/a", content=b"1", headers=headers).status_code
        refused = bridge.client.post("/v1/topics/tok/line-5/a", content=b"1", headers=headers)
        assert (403, "urn:tidegate:problem:not-granted") == (refused.status_code, refused.json()["type"])
        basic = bridge.client.get("/v1/principal", headers={"Authorization": "Basic eDp5"})
        assert 401 == basic.status_code
        assert "nothing that the bridge takes" in basic.json()["detail"]
        assert 401 == bridge.client.get(f"/v1/principal?access_token={text}").status_code
        assert 403 == api(bridge, text, "/v1/status").status_code
        assert 200 == api(bridge, token(scope="status:read"), "/v1/status").status_code


def test_a_revocation_counts_while_the_bridge_runs(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The token that was taken is refused within seconds; its principal has ended."""
    file = tmp_path / "revoked.yaml"
    file.write_text("revoked_tokens: []\n")
    text = token(jti="j9")
    with running_bridge(mosquitto.url, jwt_key=SECRET, revoked_tokens_file=file) as bridge:
        assert 200 == api(bridge, text).status_code
        assert 0 == run_command("token", "revoke", "--jti", "j9", "--file", str(file)).returncode
        wait_until(lambda: api(bridge, text).status_code == 401)
        assert "the token is revoked" == api(bridge, text).json()["detail"]


async def test_a_revocation_ends_the_principal(tmp_path: Path) -> None:
    """Streams ask, and are told why."""
    file = tmp_path / "revoked.yaml"
    file.write_text("revoked_tokens: []\n")
    watched = watched_revocations(file)
    way = tokens(revoked=watched)
    principal = await found(way, token(jti="j9"))
    assert way.why_ended(principal) is None
    file.write_text("revoked_tokens: [{jti: j9}]\n")
    watched.look()
    assert Ended.REVOKED is way.why_ended(principal)
    assert way.recall(request(token(jti="j9"))) is None
