"""A secret in every place where one can be, and a search for it in all that the bridge writes and answers.

The table ``Canaries`` names them all. Another secret is a line there, a line in ``environment_of`` or in
``CALLS``, and, where there is a new place to look at, one in ``LOOKED_AT``.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from traceback import TracebackException
from typing import Any, Final

import httpx
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from app.main import create_app
from app.settings import Settings
from tests.support.bridge import wait_until
from tests.support.certificates import Certificates
from tests.support.command import Command, run_command
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK
from tests.support.raw_stream import RawStream
from tests.support.tokens import token
from tests.support.valkey import Valkey
from tests.support.websocket import SocketClient
from tidegate.errors import ConfigurationError

COOKIE: Final = "session"
JSON: Final = "application/json"
KEPT: Final = "/v1/credentials"
CRASHES: Final = "/v1/principal"
"""A call that fails with a fault in the program below, so that there is a stack trace."""

PROGRAM: Final = (
    "-c",
    """
import runpy, sys
from app.api import principal

def fail(scope):
    raise RuntimeError("a fault")

principal.principal_of = fail
sys.argv = ["tidegate", *sys.argv[1:]]
runpy.run_module("app", run_name="__main__", alter_sys=True)
""",
)

LOOKED_AT: Final = (
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/asyncapi.json",
    "/docs",
    "/console",
    "/v1/status",
    CRASHES,
)


def _word() -> str:
    return f"canary{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True)
class Canaries:
    """The secrets, each of its own; those that the bridge makes are added while it runs."""

    broker_password: str = field(default_factory=_word)
    redis_password: str = field(default_factory=_word)
    jwt_key: str = field(default_factory=_word)
    key_passphrase: str = field(default_factory=_word)
    credentials_key: str = field(default_factory=lambda: Fernet.generate_key().decode())
    basic_password: str = field(default_factory=_word)
    bare_header: str = field(default_factory=_word)
    query_value: str = field(default_factory=_word)
    body_member: str = field(default_factory=_word)
    made: dict[str, str] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, str]:
        """Name and text of each; of a token the signature, which is what makes it good."""
        texts = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "made"}
        return texts | {name: text.rpartition(".")[2] for name, text in self.made.items()}

    def found_in(self, text: str) -> list[str]:
        """The names of those that are in a text, as they are or in base64."""
        inner = {name: base64.b64encode(b"user:" + each.encode()).decode() for name, each in self.all.items()}
        return [name for name, each in self.all.items() if each in text or inner[name].rstrip("=") in text]


CALLS: Final[tuple[tuple[str, str, dict[str, str], str], ...]] = (
    # With a key or token that is good.
    ("GET", "/v1/status", {"Authorization": "Bearer {api_key}"}, ""),
    ("POST", "/v1/topics/canary/a", {"Authorization": "Bearer {api_key}"}, "1"),
    ("POST", "/v1/topics/canary/a", {"Authorization": "Bearer {jwt}", "Idempotency-Key": "canary-1"}, "1"),
    ("GET", "/v1/topics/canary/none", {"Cookie": f"{COOKIE}={{jwt}}"}, ""),
    ("POST", "/v1/topics/others/a", {"Authorization": "Bearer {jwt}"}, "1"),
    ("GET", "/v1/subscribe?topic=others", {"Authorization": "Bearer {api_key}"}, ""),
    ("POST", "/v1/requests/canary/ask?timeout=0.1", {"Authorization": "Bearer {api_key}"}, "1"),
    ("POST", "/v1/topics/canary/a", {"Cookie": f"{COOKIE}={{jwt}}", "Origin": "https://evil.example"}, "1"),
    (
        "POST",
        "/v1/publish",
        {"Authorization": "Bearer {api_key}", "Content-Type": "application/json"},
        '{{"topic": "canary/a", "password": "{body_member}"}}',
    ),
    (
        "POST",
        "/v1/publish/batch",
        {"Authorization": "Bearer {jwt}", "Content-Type": "application/json"},
        '[{{"topic": "canary/a", "token": "{body_member}"}}, "{body_member}"]',
    ),
    ("POST", "/v1/publish", {"Authorization": "Bearer {jwt}"}, "{body_member}"),
    # TLS credentials: taken, refused, tried, taken into use.
    ("PUT", "/v1/credentials/plant", {"Authorization": "Bearer {api_key}", "Content-Type": JSON}, "{pair}"),
    ("PUT", "/v1/credentials/plant", {"Authorization": "Bearer {api_key}", "Content-Type": JSON}, "{lone}"),
    (
        "PUT",
        "/v1/credentials/locked",
        {
            "Authorization": "Bearer {api_key}",
            "Content-Type": "application/x-pem-file",
            "Credential-Passphrase": "{bare_header}",
        },
        "{encrypted}",
    ),
    ("PUT", "/v1/credentials/plant", {"Authorization": "Bearer {jwt}", "Content-Type": JSON}, "{pair}"),
    ("GET", "/v1/credentials", {"Authorization": "Bearer {api_key}"}, ""),
    ("GET", "/v1/credentials/plant", {"Authorization": "Bearer {api_key}"}, ""),
    ("POST", "/v1/credentials/plant/test", {"Authorization": "Bearer {api_key}"}, ""),
    ("POST", "/v1/credentials/plant/activate", {"Authorization": "Bearer {api_key}"}, ""),
    ("DELETE", "/v1/credentials/plant", {"Authorization": "Bearer {api_key}"}, ""),
    # In the wrong place, or in a wrong form.
    ("GET", "/v1/status?token={query_value}", {"Authorization": "Bearer {api_key}"}, ""),
    ("GET", "/v1/subscribe?topic=canary&access_token={query_value}", {"Authorization": "Bearer {jwt}"}, ""),
    ("POST", "/v1/topics/canary/a?api_key={api_key}", {"Authorization": "Bearer {jwt}"}, "1"),
    ("GET", "/v1/status?ticket={ticket}", {"Authorization": "Bearer {api_key}"}, ""),
    ("GET", "/v1/subscribe?topic=canary&ticket={ticket}&ticket={ticket}", {}, ""),
    ("GET", "/v1/ws?ticket={ticket}", {}, ""),
    ("GET", "/livez?token={query_value}", {}, ""),
    ("GET", "/nowhere?token={query_value}", {}, ""),
    ("GET", "/v1/status", {"Authorization": "Basic {basic}"}, ""),
    ("GET", "/v1/status", {"Authorization": "{bare_header}"}, ""),
    ("GET", "/v1/status", {"Authorization": "Bearer {bare_header}"}, ""),
    ("GET", "/v1/status", {"Authorization": "Bearer {api_key}x"}, ""),
    ("GET", "/v1/status", {"Authorization": "Bearer tg_{bare_header}"}, ""),
    ("GET", "/v1/status", {"Authorization": "Bearer {jwt}x"}, ""),
    ("GET", "/v1/status", {"Authorization": "Bearer {expired}"}, ""),
    ("GET", "/v1/status", {"Cookie": f"{COOKIE}={{expired}}"}, ""),
    ("GET", "/v1/status", {"Cookie": f"{COOKIE}={{jwt}}; {COOKIE}={{jwt}}"}, ""),
    ("BREW", "/v1/status", {"Authorization": "Bearer {bare_header}"}, ""),
)
"""Method, target, headers and body."""


def bearer(secret: str) -> dict[str, str]:
    """The header that carries a key or token."""
    return {"Authorization": f"Bearer {secret}"}


def environment_of(
    canaries: Canaries, broker: Mosquitto, valkey: Valkey, certificates: Certificates, directory: Path
) -> dict[str, str]:
    """The settings, with a secret wherever one may be."""
    encrypted = directory / "client.key"
    key = load_pem_private_key(certificates.client_key.read_bytes(), None)
    passphrase = BestAvailableEncryption(canaries.key_passphrase.encode())
    encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, passphrase))
    return {
        "TIDEGATE_LOG_LEVEL": "debug",
        "TIDEGATE_PORT": "0",
        "TIDEGATE_BROKER_URL": f"mqtts://bridge:{canaries.broker_password}@{LOOPBACK}:{broker.port}",
        "TIDEGATE_BROKER_CA_FILE": str(certificates.ca),
        "TIDEGATE_BROKER_CERTIFICATE_FILE": str(certificates.client_certificate),
        "TIDEGATE_BROKER_KEY_FILE": str(encrypted),
        "TIDEGATE_BROKER_KEY_PASSPHRASE": canaries.key_passphrase,
        "TIDEGATE_REDIS_URL": valkey.url,
        "TIDEGATE_API_KEYS_FILE": str(directory / "keys.yaml"),
        "TIDEGATE_JWT_KEY": canaries.jwt_key,
        "TIDEGATE_JWT_COOKIE": COOKIE,
        "TIDEGATE_CREDENTIALS_DIR": str(directory / "credentials"),
        "TIDEGATE_CREDENTIALS_KEY": canaries.credentials_key,
        "TIDEGATE_AUDIT_PUBLISH_SAMPLE": "1",
        "TIDEGATE_ACCESS_LOG": "1",
        "TIDEGATE_PUBLISH_TIMEOUT_SECONDS": "1",
        "HOME": str(directory),
        "TMPDIR": str(directory),
    }


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bridge runs, and with what.

    Attributes:
        canaries: the secrets.
        broker: its broker, which asks for the password.
        valkey: what its replicas would share.
        settings: its environment.
        directory: where it may write.
        parts: bodies with a private key, by the name that ``CALLS`` gives them.
    """

    canaries: Canaries
    broker: Mosquitto
    valkey: Valkey
    settings: dict[str, str]
    directory: Path
    parts: dict[str, str]


@pytest.fixture
def place(certificates: Certificates, tmp_path: Path) -> Iterator[Place]:
    """A broker, a Valkey and an environment with secrets in all of them."""
    canaries = Canaries()
    passwords = {"bridge": canaries.broker_password}
    with (
        Mosquitto(passwords=passwords, tls=certificates) as broker,
        Valkey(password=canaries.redis_password) as valkey,
    ):
        settings = environment_of(canaries, broker, valkey, certificates, tmp_path)
        made = run_command(
            *("key", "create", "operator", "--publish", "canary/#", "--subscribe", "canary/#"),
            *("--scope", "status:read", "--scope", "metrics:read"),
            *("--scope", "credentials:read", "--scope", "credentials:write"),
            settings=settings,
        )
        canaries.made["api_key"] = made.stdout.strip()
        grants = {"publish": ["canary/#"], "subscribe": ["canary/#"]}
        canaries.made["jwt"] = token(canaries.jwt_key, mqtt=grants)
        canaries.made["expired"] = token(canaries.jwt_key, exp=1)
        parts = parts_of(certificates, (tmp_path / "client.key").read_text())
        canaries.made["private_key"] = certificates.client_key.read_text().splitlines()[2]
        yield Place(canaries, broker, valkey, settings, tmp_path, parts)


def parts_of(certificates: Certificates, encrypted: str) -> dict[str, str]:
    """A credential that is whole, one whose certificate is missing, and a file whose key is locked."""
    key, ca = certificates.client_key.read_text(), certificates.ca.read_text()
    certificate = certificates.client_certificate.read_text()
    return {
        "pair": json.dumps({"ca": ca, "certificate": certificate, "private_key": key}),
        "lone": json.dumps({"ca": ca, "private_key": key}),
        "encrypted": certificate + encrypted,
    }


def client_of(command: Command) -> httpx.Client:
    """A client of a bridge that has begun to serve."""
    command.wait_for("serving at ")
    found = re.search(r"serving at (http://[\w.:]+)", command.output)
    assert found is not None
    return httpx.Client(base_url=found[1], trust_env=False, timeout=20)


def shown(answer: httpx.Response) -> str:
    """All of an answer."""
    return f"{answer.status_code} {answer.headers.multi_items()} {answer.text}"


def ticket_of(client: httpx.Client, canaries: Canaries, **wanted: Any) -> str:
    """A new ticket, which its answer shows and nothing else may."""
    answer = client.post("/v1/tickets", json=wanted, headers=bearer(canaries.made["api_key"]))
    assert answer.status_code == 200, answer.text
    ticket: str = answer.json()["ticket"]
    canaries.made[f"ticket {len(canaries.made)}"] = ticket
    return ticket


def exercise(client: httpx.Client, place: Place) -> list[str]:
    """Everything that is answered, of successes and failures."""
    canaries = place.canaries
    answers = []
    for method, target, headers, body in CALLS:
        words = canaries.made | canaries.all | canaries.made | place.parts
        words["ticket"] = ticket_of(client, canaries, **{"for": "subscribe", "topics": ["canary"]})
        words["basic"] = base64.b64encode(f"user:{canaries.basic_password}".encode()).decode()
        filled = {name: value.format(**words) for name, value in headers.items()}
        answer = client.request(
            method, target.format(**words), headers=filled, content=body.format(**words).encode()
        )
        answers.append(shown(answer))
    answers += [
        shown(client.get(path, headers=bearer(canaries.made["api_key"]), follow_redirects=True))
        for path in LOOKED_AT
    ]
    return answers


def stream(client: httpx.Client, canaries: Canaries) -> list[str]:
    """What streams and WebSockets with tickets are told."""
    port = client.base_url.port
    assert port is not None
    ticket = ticket_of(client, canaries, **{"for": "subscribe", "topics": ["canary"]})
    with RawStream(port, "canary", ticket=ticket) as opened:
        told = [f"{opened.headers} {bytes(opened.text)!r}"]
    ticket = ticket_of(client, canaries, **{"for": "websocket"})
    with SocketClient(port, path=f"/v1/ws?ticket={ticket}") as socket:
        socket.ask("subscribe", id=1, topics=["canary/ws"], token=canaries.body_member)
        socket.ask("publish", id=2, topic="canary/ws", payload=1)
        told += socket.texts
    with SocketClient(port, path=f"/v1/ws?ticket={ticket}", is_open=False) as replayed:
        assert replayed.status == 401
        told.append(json.dumps(replayed.problem))
    with SocketClient(port, path=f"/v1/ws?token={canaries.query_value}", is_open=False) as stranger:
        told.append(json.dumps(stranger.problem))
    return told


def written(place: Place) -> str:
    """All that is in files below the directory, but for the key that was put there."""
    files = [each for each in place.directory.rglob("*") if each.is_file()]
    assert place.directory / "keys.yaml" in files
    return "".join(each.read_text(errors="replace") for each in files)


def test_no_secret_is_in_what_a_bridge_logs_answers_or_writes(place: Place) -> None:
    """Of successes, refusals and faults, at the level ``debug``, also when Valkey and the broker are lost."""
    canaries = place.canaries
    with Command("serve", settings=place.settings, program=PROGRAM) as command, client_of(command) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        answers = exercise(client, place)
        assert [answers[-1][:3], answers[0][:3], answers[1][:3]] == ["500", "200", "200"]
        kept = [each[:3] for (_, target, *_), each in zip(CALLS, answers, strict=False) if KEPT in target]
        assert kept == ["201", "422", "422", "403", "200", "200", "200", "200", "409"]
        answers += stream(client, canaries)
        arguments = Path(f"/proc/{command.pid}/cmdline").read_text()
        place.valkey.kill()
        place.broker.kill()
        headers = {**bearer(canaries.made["jwt"]), "Idempotency-Key": "canary-2"}
        lost = client.post("/v1/topics/canary/a", content=b"1", headers=headers)
        assert lost.status_code == 503
        answers.append(shown(lost))
        wait_until(lambda: client.get("/readyz").status_code == 503)
        answers += [
            shown(client.get(path, headers=bearer(canaries.made["api_key"]))) for path in LOOKED_AT[:-1]
        ]
        assert 0 == command.interrupt(signal.SIGTERM)
    assert "RuntimeError: a fault" in command.output
    assert "debug" in command.output
    assert [] == canaries.found_in(command.output)
    for answer in answers:
        assert [] == canaries.found_in(answer), answer
    assert [] == canaries.found_in(arguments)
    assert [] == canaries.found_in(written(place))


def test_a_broker_that_refuses_the_password_makes_nobody_show_it(place: Place) -> None:
    """Nor does a Valkey that does; in the log, in answers and by ``tidegate doctor``."""
    canaries = place.canaries
    wrong = canaries.bare_header
    settings = place.settings | {
        "TIDEGATE_BROKER_URL": place.settings["TIDEGATE_BROKER_URL"].replace(canaries.broker_password, wrong),
        "TIDEGATE_REDIS_URL": place.valkey.url.replace(canaries.redis_password, wrong),
    }
    headers = {**bearer(canaries.made["jwt"]), "Idempotency-Key": "canary-3"}
    with Command("serve", settings=settings) as command, client_of(command) as client:
        status = bearer(canaries.made["api_key"])
        wait_until(
            lambda: client.get("/v1/status", headers=status).json()["broker"]["last_error"] is not None
        )
        answers = [
            shown(client.get("/v1/status", headers=status)),
            shown(client.get("/readyz")),
            shown(client.post("/v1/topics/canary/a", content=b"1", headers=headers)),
            shown(client.post("/v1/topics/canary/a", content=b"1", headers=status)),
            shown(client.post("/v1/tickets", json={"for": "websocket"}, headers=status)),
        ]
    doctor = run_command("doctor", settings=settings)
    assert 0 != doctor.returncode
    for text in (*answers, command.output, doctor.stdout, doctor.stderr):
        assert [] == canaries.found_in(text), text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEGATE_BROKER_URL", "mqtt://bridge:{}@localhost:port"),
        ("TIDEGATE_BROKER_URL", "mqtt://bridge:{}@localhost?nonsense=1"),
        ("TIDEGATE_BROKER_URL", "bridge:{}@localhost"),
        ("TIDEGATE_BROKER_URL", "https://bridge:{}@localhost"),
        ("TIDEGATE_REDIS_URL", "redis://:{}@localhost:port"),
        ("TIDEGATE_REDIS_URL", "http://:{}@localhost"),
        ("TIDEGATE_JWT_JWKS_URL", "https://user:{}@localhost/"),
        ("TIDEGATE_CORS_ORIGINS", "https://user:{}@localhost"),
        ("TIDEGATE_CREDENTIALS_TEST_HOSTS", "mqtts://user:{}@localhost"),
        ("TIDEGATE_CLOUDEVENTS_SOURCE", "https://user:{}@localhost"),
        ("TIDEGATE_JWT_KEY", "{:.20}"),
        ("TIDEGATE_JWT_KEY", "-----BEGIN PUBLIC KEY-----{}"),
        ("TIDEGATE_BROKER_PASSWORD", "{}"),
        ("TIDEGATE_BROKER_KEY_PASSPHRASE", "{}"),
        ("TIDEGATE_BROKER_PASWORD", "{}"),
    ],
)
def test_a_setting_that_is_refused_is_not_shown_where_it_holds_a_secret(name: str, value: str) -> None:
    """The refusal names the setting."""
    canary = _word()
    answer = run_command("serve", settings={name: value.format(canary)})
    assert 2 == answer.returncode, answer.stderr
    assert name in answer.stderr
    assert canary[:20] not in answer.stdout + answer.stderr


def test_settings_show_no_secret_of_theirs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a text, as a table, as JSON, and as what is kept of them for the broker."""
    settings = settings_of(place, monkeypatch)
    dumped = settings.model_dump()
    assert "broker_url" in dumped
    for text in (
        repr(settings),
        str(settings),
        repr(dumped),
        settings.model_dump_json(),
        repr(settings.connect_options()),
    ):
        assert [] == place.canaries.found_in(text)


def test_a_stack_trace_with_its_variables_shows_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some tools write those of every frame, here of a bridge that cannot be made."""
    schemas = tmp_path / "schemas.yaml"
    schemas.write_text("schemas: nonsense")
    monkeypatch.setenv("TIDEGATE_SCHEMAS_FILE", str(schemas))
    settings = settings_of(place, monkeypatch)
    with pytest.raises(ConfigurationError) as caught:
        create_app(settings)
    assert caught.tb.tb_next is not None  # without this test's own frame
    trace = TracebackException(caught.type, caught.value, caught.tb.tb_next, capture_locals=True)
    text = "".join(trace.format())
    assert "settings = Settings(" in text
    assert [] == place.canaries.found_in(text)


def settings_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of the bridge, in this process."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    return Settings()
