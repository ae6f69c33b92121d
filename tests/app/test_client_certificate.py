"""The subject of a client certificate, as a trusted proxy passes it (ASVS 4.1.3, 12.1.3)."""

from __future__ import annotations

import ipaddress
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.problems import ProblemError, ProblemType
from app.security.authentication import AMBIENT, Ended
from app.security.client_certificate import ClientCertificates
from app.security.principal import Source
from app.security.subject_forms import Form, form_of, of_certificate, of_envoy, whole
from app.security.subjects import watched_subjects
from app.security.watched_file import WatchedFile
from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate.errors import ConfigurationError

SUBJECTS = """
subjects:
- subject: CN=press-7,O=Plant
  name: press-7
  publish: ["presses/{sub}/#"]
- subject: plain
  subscribe: ["of/{sub}"]
"""
HEADER = "X-Client-Subject"
PROXY = ("10.0.0.7", 4000)
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def watched(tmp_path: Path) -> WatchedFile[Any]:
    """A file of subjects."""
    file = tmp_path / "subjects.yaml"
    file.write_text(SUBJECTS)
    return watched_subjects(file)


def way_of(watched: WatchedFile[Any], **options: Any) -> ClientCertificates:
    """The way, with one address and one network of proxies."""
    given: dict[str, Any] = {
        "header": HEADER,
        "proxies": [ipaddress.ip_network("10.0.0.7"), ipaddress.ip_network("fd00::/8")],
        **options,
    }
    return ClientCertificates(watched, **given)


def request(*values: str, client: Any = PROXY, **others: str) -> dict[str, Any]:
    """The scope of a request with a header, once for each value."""
    headers = [(HEADER.lower().encode(), each.encode()) for each in values]
    headers += [(name.lower().replace("_", "-").encode(), each.encode()) for name, each in others.items()]
    return {"type": "http", "client": client, "headers": headers}


async def refusal(way: ClientCertificates, scope: dict[str, Any]) -> str:
    """Why a request is refused."""
    with pytest.raises(ProblemError) as caught:
        await way.authenticate(scope)
    assert ProblemType.UNAUTHENTICATED is caught.value.kind
    return caught.value.detail


@pytest.mark.parametrize("client", [PROXY, ("::ffff:10.0.0.7", 1), ("fd00::9", 1)])
async def test_a_subject_from_the_proxy_counts(watched: WatchedFile[Any], client: Any) -> None:
    """With what the file grants it; the request is marked like one from a cookie."""
    scope = request("CN=press-7,O=Plant", client=client)
    principal = await way_of(watched).authenticate(scope)
    assert principal is not None
    assert ("press-7", Source.CLIENT_CERTIFICATE) == (principal.subject, principal.source)
    assert principal.grants.why_not_publish("presses/press-7/a", 2, retain=True) is None
    assert principal.grants.why_not_publish("presses/press-8/a", 0, retain=False) is not None
    assert True is scope[AMBIENT]
    assert principal is await way_of(watched).authenticate(request("CN=press-7,O=Plant"))


async def test_without_a_name_the_subject_is_the_principal_s(watched: WatchedFile[Any]) -> None:
    """And {sub} stands for it."""
    principal = await way_of(watched).authenticate(request("plain"))
    assert principal is not None
    assert principal.grants.why_not_subscribe("of/plain", 0) is None


@pytest.mark.parametrize(
    "client",
    [("10.0.0.8", 1), ("127.0.0.1", 1), ("::1", 1), ("::ffff:10.0.0.8", 1), ("10.0.0.7.example", 1), None],
)
async def test_a_subject_from_anybody_else_is_a_forgery(watched: WatchedFile[Any], client: Any) -> None:
    """It is refused, not passed over: whoever sends it means to be somebody else."""
    scope = request("CN=press-7,O=Plant", client=client)
    assert "no trusted proxy's" in await refusal(way_of(watched), scope)
    assert AMBIENT not in scope


@pytest.mark.parametrize("values", [(), ("",), ("", "")])
async def test_without_a_subject_other_ways_are_asked(
    watched: WatchedFile[Any], values: tuple[str, ...]
) -> None:
    """Nginx sends an empty one where a client has no certificate."""
    assert await way_of(watched).authenticate(request(*values)) is None
    assert await way_of(watched).authenticate(request(*values, client=("10.0.0.8", 1))) is None


async def test_several_subjects_are_refused(watched: WatchedFile[Any]) -> None:
    """The proxy added its own to the client's: nobody can tell which is which."""
    for values in (("plain", "CN=press-7,O=Plant"), ("plain", "plain"), ("", "plain"), ("plain", "")):
        assert "several times" in await refusal(way_of(watched), request(*values))


@pytest.mark.parametrize(
    "subject", ["CN=press-8,O=Plant", "cn=press-7,o=plant", "CN=press-7,O=Plant,OU=x", " plain x", "x" * 5000]
)
async def test_an_unknown_subject_is_refused(watched: WatchedFile[Any], subject: str) -> None:
    """It is compared as a whole."""
    await refusal(way_of(watched), request(subject))


@pytest.mark.parametrize(
    ("said", "is_taken"), [("SUCCESS", True), ("NONE", False), ("FAILED:expired", False), ("success", False)]
)
async def test_the_proxy_has_to_have_verified(watched: WatchedFile[Any], said: str, is_taken: bool) -> None:
    """Nginx passes the subject of a certificate that it did not verify, too."""
    way = way_of(watched, verify_header="X-Verify")
    scope = request("plain", X_Verify=said)
    if is_taken:
        assert await way.authenticate(scope) is not None
    else:
        assert "did not verify" in await refusal(way, scope)
    assert "did not verify" in await refusal(way, request("plain"))


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        ('By=spiffe://a;Hash=ab12;Subject="CN=press-7,O=Plant";URI=', True),
        ('Subject="CN=press-7,O=Plant"', True),
        ('Hash=a;Subject="CN=press-7,O=Plant",Hash=b;Subject="CN=x"', False),
        ('Hash=a;Subject="CN=x",Hash=b;Subject="CN=press-7,O=Plant"', False),
        ('Subject="CN=x";Subject="CN=press-7,O=Plant"', False),
        ('URI="a;Subject=\\"CN=press-7,O=Plant\\"";Subject="CN=x"', False),
        ('Subject="CN=x\\";Subject=\\"CN=press-7,O=Plant"', False),
        ('XSubject="CN=press-7,O=Plant"', False),
        ("Subject=CN=press-7", False),
        ("CN=press-7,O=Plant", False),
        ('Subject="CN=press-7,O=Plant"x', False),
    ],
)
async def test_envoy_s_header_has_one_subject(watched: WatchedFile[Any], value: str, is_taken: bool) -> None:
    """Of one element; a name inside quotation marks cannot pose as another."""
    header = "X-Forwarded-Client-Cert"
    way = way_of(watched, header=header, form=form_of("auto", header))
    scope = request(X_Forwarded_Client_Cert=value)
    if is_taken:
        assert await way.authenticate(scope) is not None
    else:
        await refusal(way, scope)


def certificate(**names: str) -> str:
    """A certificate whose subject has these names, as Traefik passes it."""
    oids = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME, "E": NameOID.EMAIL_ADDRESS}
    subject = x509.Name([x509.NameAttribute(oids[name], value) for name, value in names.items()])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
    )
    return b64encode(builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)).decode()


PRESS = certificate(O="Plant", CN="press-7")
OTHER = certificate(CN="x")


CHAINS: dict[str, tuple[str, bool]] = {
    "alone": (PRESS, True),
    "with its chain": (f"{PRESS},{OTHER}", True),
    "escaped": (quote_plus(PRESS), True),
    "escaped, with its chain": (f"{quote_plus(PRESS)},{quote_plus(OTHER)}", True),
    "in the chain of another": (f"{OTHER},{PRESS}", False),
    "another separator": (f"{PRESS};{OTHER}", False),
    "an empty one behind": (f"{PRESS},", False),
    "an empty one in front": (f",{PRESS}", False),
    "a space behind": (f"{PRESS} ", False),
    "a space inside": (f"{PRESS[:100]} {PRESS[100:]}", False),
    "escaped twice": (quote_plus(quote_plus(PRESS)), False),
    "cut off": (PRESS[:-8], False),
    "not of whole bytes": (PRESS.rstrip("=")[:-1], False),
    "two without a comma": (b64encode(b64decode(PRESS) * 2).decode(), False),
    "a whole PEM file": (f"-----BEGIN CERTIFICATE-----{PRESS}-----END CERTIFICATE-----", False),
    "a subject": ("CN=press-7,O=Plant", False),
    "other bytes": ("AAAA", False),
    "too long": (",".join([PRESS] * 200), False),
    "a name with a comma": (certificate(CN="press-7,O=Plant"), False),
    "another order": (certificate(CN="press-7", O="Plant"), False),
    "one name more": (certificate(O="Plant", CN="press-7", E="a@b"), False),
}


@pytest.mark.parametrize("case", CHAINS)
async def test_traefik_s_header_has_certificates(watched: WatchedFile[Any], case: str) -> None:
    """The first is the client's, escaped as in a URL or not; a name that holds a comma is no other name."""
    value, is_taken = CHAINS[case]
    header = "X-Forwarded-Tls-Client-Cert"
    way = way_of(watched, header=header, form=form_of("auto", header))
    scope = request(X_Forwarded_Tls_Client_Cert=value)
    if is_taken:
        principal = await way.authenticate(scope)
        assert principal is not None
        assert "press-7" == principal.subject
        scope = request(X_Forwarded_Tls_Client_Cert=value, client=("10.0.0.8", 1))
        assert "no trusted proxy's" in await refusal(way, scope)
    else:
        await refusal(way, scope)


def test_a_subject_of_a_certificate_is_written_as_openssl_writes_it() -> None:
    """With ``-nameopt RFC2253,-esc_msb,utf8``, so that a line of a terminal can be copied into the file."""
    value = certificate(O='Plant, "A" é', E="a@b", CN=" #7+8;<>=\\")
    expected = r"CN=\ #7\+8\;\<\>=\\,emailAddress=a@b,O=Plant\, \"A\" é"
    assert expected == of_certificate(value.encode())


@pytest.mark.parametrize(
    ("name", "header", "expected"),
    [
        ("auto", "X-Client-Subject", whole),
        ("auto", "x-forwarded-client-cert", of_envoy),
        ("auto", "X-FORWARDED-TLS-CLIENT-CERT", of_certificate),
        ("certificate", "X-Client", of_certificate),
        ("envoy", "X-Client", of_envoy),
        ("subject", "X-Forwarded-Client-Cert", whole),
    ],
)
def test_the_form_is_that_of_the_header_or_another(name: str, header: str, expected: Form) -> None:
    """TIDEGATE_PROXY_SUBJECT_FORM wins."""
    assert expected is form_of(name, header)


async def test_a_changed_subject_ends_what_was_begun(watched: WatchedFile[Any]) -> None:
    """Those whose entry stays the same go on."""
    way = way_of(watched)
    press, plain = (
        await way.authenticate(request("CN=press-7,O=Plant")),
        await way.authenticate(request("plain")),
    )
    assert press is not None
    assert plain is not None
    watched.file.write_text(SUBJECTS.replace("presses/", "press/"))
    watched.look()
    assert Ended.REVOKED is way.why_ended(press)
    assert way.why_ended(plain) is None


def test_a_subject_that_is_there_twice_stops_the_start(tmp_path: Path) -> None:
    """One of the entries would be passed over."""
    file = tmp_path / "subjects.yaml"
    file.write_text("subjects: [{subject: a}, {subject: a, publish: ['#']}]")
    with pytest.raises(ConfigurationError, match="there twice"):
        watched_subjects(file)


def test_a_bridge_behind_traefik(mosquitto: Mosquitto, watched: WatchedFile[Any]) -> None:
    """Over real HTTP; the header of its own name needs no other setting."""
    header = "X-Forwarded-Tls-Client-Cert"
    chain = ",".join([PRESS, *[OTHER] * 20])
    options: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "subjects_file": watched.file}
    with running_bridge(mosquitto.url, proxy_subject_header=header, **options) as bridge:
        answer = bridge.client.get("/v1/principal", headers={header: chain})
        assert (200, "press-7") == (answer.status_code, answer.json()["subject"])
        answer = bridge.client.get("/v1/principal", headers={header: PRESS[:-8]})
        assert (401, f"the header {header} has a certificate that cannot be read") == (
            answer.status_code,
            answer.json()["detail"],
        )
    with running_bridge(
        mosquitto.url, proxy_subject_header="X-Client", proxy_subject_form="certificate", **options
    ) as bridge:
        assert 200 == bridge.client.get("/v1/principal", headers={"X-Client": PRESS}).status_code


@pytest.mark.parametrize(("proxies", "status"), [("127.0.0.1", 200), ("10.0.0.7", 401)])
def test_a_bridge_behind_a_proxy(
    mosquitto: Mosquitto, watched: WatchedFile[Any], proxies: str, status: int
) -> None:
    """Over real HTTP: from the proxy's address it counts; from any other it is refused with words."""
    options: dict[str, Any] = {
        "proxy_subject_header": HEADER,
        "trusted_proxies": proxies,
        "subjects_file": watched.file,
    }
    with running_bridge(mosquitto.url, **options) as bridge:
        answer = bridge.client.get("/v1/principal", headers={HEADER: "CN=press-7,O=Plant"})
        assert status == answer.status_code
        if status == 401:
            assert "no trusted proxy's" in answer.json()["detail"]
        else:
            assert "press-7" == answer.json()["subject"]
        forwarded = {HEADER: "CN=press-7,O=Plant", "X-Forwarded-For": "127.0.0.1"}
        assert status == bridge.client.get("/v1/principal", headers=forwarded).status_code
        assert 401 == bridge.client.get("/v1/principal").status_code
