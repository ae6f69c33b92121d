"""The settings: where they come from, what is refused, and in which words."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr, ValidationError

from app.settings import Settings
from app.settings.errors import allowed, describe_errors
from tests.support.certificates import Certificates
from tests.support.issued import NOW, issue
from tidegate.errors import TLSError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().startswith("TIDEGATE_"):
            monkeypatch.delenv(name)


def refusal(**options: Any) -> str:
    """The text for settings that are refused."""
    with pytest.raises(ValidationError) as caught:
        Settings(**options)
    return describe_errors(caught.value)


def test_every_setting_has_a_meaning_and_an_example_that_is_allowed() -> None:
    """The page of settings can explain each, and its examples work."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.examples, name
        assert allowed(field), name


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("TIDEGATE_BROKER_URL", "mqtt://broker.example", "broker_url", SecretStr("mqtt://broker.example")),
        ("tidegate_port", "0", "port", 0),
        ("TIDEGATE_PORT", "65535", "port", 65_535),
        ("TIDEGATE_PORT", "", "port", 8080),
        ("TIDEGATE_HOST", "::1", "host", "::1"),
        ("TIDEGATE_HOST", "localhost", "host", "localhost"),
        ("TIDEGATE_LOG_LEVEL", "WARNING", "log_level", "warning"),
        ("TIDEGATE_DRAIN_SECONDS", "0.5", "drain_seconds", 0.5),
        ("TIDEGATE_CORS_ORIGINS", "https://a.example, http://b:8080", "cors_origins",
         ("https://a.example", "http://b:8080")),
        ("TIDEGATE_BROKER_PROTOCOL", "3.1.1", "broker_protocol", "3.1.1"),
        ("TIDEGATE_BROKER_PROFILE", "aws-iot", "broker_profile", "aws-iot"),
    ],
)  # fmt: skip
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    """Each variable is read, whatever its case; an empty one leaves the default."""
    monkeypatch.setenv(variable, value)
    assert expected == getattr(Settings(), field)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("TIDEGATE_PORT", "65536", ["TIDEGATE_PORT='65536'", "whole number from 0 to 65535"]),
        ("TIDEGATE_PORT", "-1", ["TIDEGATE_PORT='-1'", "whole number from 0 to 65535"]),
        ("TIDEGATE_PORT", "http", ["TIDEGATE_PORT='http'", "whole number from 0 to 65535"]),
        ("TIDEGATE_PORT", "tcp://10.0.0.7:80", ["TIDEGATE_PORT", "enableServiceLinks: false"]),
        ("TIDEGATE_MAX_WAITING", "0", ["TIDEGATE_MAX_WAITING='0'", "from 1 up"]),
        ("TIDEGATE_DRAIN_SECONDS", "0", ["TIDEGATE_DRAIN_SECONDS='0'", "above 0, up to 3600"]),
        ("TIDEGATE_DRAIN_SECONDS", "nan", ["TIDEGATE_DRAIN_SECONDS='nan'", "a number"]),
        ("TIDEGATE_DRAIN_SECONDS", "inf", ["TIDEGATE_DRAIN_SECONDS='inf'", "a number"]),
        ("TIDEGATE_INSECURE", "perhaps", ["TIDEGATE_INSECURE='perhaps'", "true or false"]),
        ("TIDEGATE_LOG_LEVEL", "loud", ["TIDEGATE_LOG_LEVEL='loud'", "one of debug, info, warning, error"]),
        ("TIDEGATE_BROKER_PROTOCOL", "4", ["TIDEGATE_BROKER_PROTOCOL='4'", "one of auto, 5, 3.1.1"]),
        ("TIDEGATE_BROKER_KEEPALIVE_SECONDS", "0", ["TIDEGATE_BROKER_KEEPALIVE_SECONDS", "from 1 to 65535"]),
        ("TIDEGATE_BROKER_URL", "http://127.0.0.1", ["TIDEGATE_BROKER_URL", "a bridge", "mqtts"]),
        ("TIDEGATE_BROKER_URL", "broker.example", ["TIDEGATE_BROKER_URL", "mqtt://", "mqtt://broker.example?"]),
        ("TIDEGATE_BROKER_URL", "amqp://b", ["'amqp://', and must begin with one of mqtt://, mqtts://, ws://, wss://"]),
        ("TIDEGATE_BROKER_CA_FILE", "/no/ca.pem", ["TIDEGATE_BROKER_CA_FILE='/no/ca.pem'", "no file"]),
        ("TIDEGATE_SECRETS_DIR", "/nowhere", ["TIDEGATE_SECRETS_DIR='/nowhere'", "no directory"]),
        ("TIDEGATE_CORS_ORIGINS", "*", ["TIDEGATE_CORS_ORIGINS", "'*'", "https://panel.example"]),
        ("TIDEGATE_CORS_ORIGINS", "https://a.example/", ["TIDEGATE_CORS_ORIGINS", "is no origin"]),
        ("TIDEGATE_CLOUDEVENTS_SOURCE", "a b", ["TIDEGATE_CLOUDEVENTS_SOURCE: 'a b' is no URI"]),
        ("TIDEGATE_SCHEMAS_FILE", "/no/file", ["TIDEGATE_SCHEMAS_FILE='/no/file'", "no file"]),
        ("TIDEGATE_BROKER_PASSWORD", "hunter2", ["TIDEGATE_BROKER_PASSWORD needs TIDEGATE_BROKER_USERNAME"]),
        ("TIDEGATE_REDIS_URL", "http://redis.example", ["TIDEGATE_REDIS_URL", "redis://redis.example:6379/0"]),
        ("TIDEGATE_REDIS_URL", "redis://", ["TIDEGATE_REDIS_URL", "redis://redis.example:6379/0"]),
        ("TIDEGATE_PROT", "8080", ["TIDEGATE_PROT is no setting", "did you mean TIDEGATE_PORT?"]),
        ("tidegate_broker_pasword", "hunter2", ["did you mean TIDEGATE_BROKER_PASSWORD?"]),
        ("TIDEGATE_XYZZY", "1", ["TIDEGATE_XYZZY is no setting", "docs/configuration.md"]),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.7", ["TIDEGATE_SERVICE_HOST", "enableServiceLinks: false"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    """The text is one line that names the variable and what it may be."""
    monkeypatch.setenv(variable, value)
    text = refusal()
    assert [] == [word for word in words if word not in text], text
    assert "\n" not in text


def test_every_fault_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the bridge learns of all faults at once."""
    monkeypatch.setenv("TIDEGATE_PORT", "x")
    monkeypatch.setenv("TIDEGATE_MAX_STREAMS", "0")
    monkeypatch.setenv("TIDEGATE_PROT", "1")
    assert 3 == len(refusal().splitlines())


def test_an_argument_that_is_no_setting_is_refused() -> None:
    """A slip in code is not silence either."""
    assert "did you mean TIDEGATE_PORT?" in refusal(prot=1)


@pytest.mark.parametrize(
    "variable", ["TIDEGATE_URL", "TIDEGATE_TOKEN", "TIDEGATE_TLS", "TIDEGATE_TLS_PASSPHRASE"]
)
def test_the_sdk_s_variables_are_let_be(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A program may use the SDK and start a bridge."""
    monkeypatch.setenv(variable, "http://127.0.0.1:8080")
    assert 8080 == Settings().port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "bridge.example", "localhost.example"])
def test_beyond_loopback_needs_insecure(host: str) -> None:
    """Without authentication nobody else is let in by accident."""
    text = refusal(host=host)
    assert f"TIDEGATE_HOST={host!r}" in text
    assert "TIDEGATE_INSECURE=1" in text
    assert host == Settings(host=host, insecure=True).host


def test_an_argument_wins_over_a_variable_and_a_variable_over_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The nearest to the command line counts."""
    (tmp_path / "TIDEGATE_PORT").write_text("1\n")
    (tmp_path / "tidegate_max_streams").write_text("2\n")
    monkeypatch.setenv("TIDEGATE_SECRETS_DIR", str(tmp_path))
    assert (1, 2) == (Settings().port, Settings().max_streams)
    monkeypatch.setenv("TIDEGATE_PORT", "3")
    assert 3 == Settings().port
    assert 4 == Settings(port=4).port


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    """A mounted secret is a setting, without the line break that ends its file; other files are let be."""
    (tmp_path / "TIDEGATE_BROKER_USERNAME").write_text("bridge\n")
    (tmp_path / "TIDEGATE_BROKER_PASSWORD").write_text("hunter2\n")
    (tmp_path / "ca.crt").write_text("not a setting")
    options = Settings(secrets_dir=tmp_path).connect_options()
    assert ("bridge", "hunter2") == (options.username, options.password)


def test_a_misnamed_secret_file_is_refused(tmp_path: Path) -> None:
    """A slip in the name of a file is not silence either."""
    (tmp_path / "TIDEGATE_BROKER_PASWORD").write_text("hunter2")
    text = refusal(secrets_dir=tmp_path)
    assert "did you mean TIDEGATE_BROKER_PASSWORD?" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "options",
    [
        {"broker_url": "mqtt://bridge:hunter2@broker.example:none"},
        {"broker_url": "mqtt://bridge:hunter2@broker.example/path"},
        {"broker_url": "mqqt://bridge:hunter2@broker.example"},
        {"broker_url": "bridge:hunter2@broker.example"},
        {"broker_password": "hunter2"},
        {"cors_origins": "https://user:hunter2@panel.example"},
        {"cloudevents_source": "https://user:hunter2@plant.example/mqtt"},
        {"allowed_hosts": "user:hunter2@bridge.example"},
        {"credentials_test_hosts": "mqtts://user:hunter2@broker.example"},
        {"credentials_test_hosts": "user:hunter2@broker.example"},
        {"jwt_jwks_url": "https://user:hunter2@login.example/jwks.json"},
        {"redis_url": "hunter2"},
        {"redis_url": "redis://redis.example:hunter2"},
        {"redis_url": "redis://redis.example/0?hunter2=1"},
        {"redis_url": "redis://:hunter2@redis.example/0?db=hunter2"},
        {"host": "0.0.0.0", "redis_url": "redis://:hunter2@redis.example"},
        {"broker_password": 5, "broker_username": "hunter2"},
        {"host": "0.0.0.0", "broker_url": "mqtt://bridge:hunter2@broker.example"},
    ],
)
def test_no_error_text_has_a_password(options: dict[str, Any]) -> None:
    """Neither our words for a fault nor the library's repeat a secret."""
    with pytest.raises(ValidationError) as caught:
        Settings(**options)
    assert "hunter2" not in describe_errors(caught.value)
    assert "hunter2" not in str(caught.value)


def test_no_repr_has_a_password() -> None:
    """Settings may be logged."""
    settings = Settings(
        broker_url=SecretStr("mqtt://u:hunter2@broker.example"),
        broker_username="bridge",
        broker_password="hunter3",  # type: ignore[arg-type]
        redis_url="redis://:hunter4@redis.example",  # type: ignore[arg-type]
    )
    for text in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert "hunter" not in text
    assert "hunter" not in repr(settings.connect_options())


def test_settings_are_frozen() -> None:
    """Nobody changes them on the way."""
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_settings_win_over_the_url() -> None:
    """A setting of its own counts where it is given; else what the URL says, else the default."""
    url = "mqtt://u:p@broker.example:1884?client_id=c&keepalive=20&protocol=3.1.1"
    options = Settings(broker_url=SecretStr(url)).connect_options()
    found = (options.host, options.port, options.username, options.password, options.client_id)
    assert ("broker.example", 1884, "u", "p", "c") == found
    assert (20, 4) == (options.keepalive_seconds, options.protocol_version)
    options = Settings(
        broker_url=SecretStr(url),
        broker_username="u2",
        broker_password="p2",  # type: ignore[arg-type]
        broker_client_id="c2",
        broker_keepalive_seconds=15,
        broker_protocol="auto",
    ).connect_options()
    assert ("u2", "p2", "c2") == (options.username, options.password, options.client_id)
    assert (15, None) == (options.keepalive_seconds, options.protocol_version)


def test_tls_files_without_tls_are_refused(certificates: Certificates) -> None:
    """A certificate authority that nobody asks would be silently ignored."""
    text = refusal(broker_url="mqtt://broker.example", broker_ca_file=certificates.ca)
    assert "TIDEGATE_BROKER_CA_FILE has no use without TLS" in text
    assert "mqtts" in text


def test_a_key_without_its_certificate_is_refused(certificates: Certificates) -> None:
    """Half a pair is a slip."""
    text = refusal(broker_url="mqtts://broker.example", broker_key_file=certificates.client_key)
    assert "TIDEGATE_BROKER_KEY_FILE needs TIDEGATE_BROKER_CERTIFICATE_FILE" in text


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, certificates: Certificates) -> None:
    """The error names the file at fault."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    for options in (
        {"broker_ca_file": wrong},
        {"broker_certificate_file": wrong},
        {"broker_certificate_file": certificates.client_certificate, "broker_key_file": wrong},
        {
            "broker_certificate_file": certificates.client_certificate,
            "broker_key_file": certificates.server_key,
        },
    ):
        settings = Settings(broker_url="mqtts://broker.example", **options)  # type: ignore[arg-type]
        with pytest.raises(TLSError, match=str(list(options.values())[-1])):
            settings.connect_options()


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path: Path, certificates: Certificates) -> None:
    """A service that asks for a passphrase at a terminal would wait for ever."""
    key = serialization.load_pem_private_key(certificates.client_key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    settings = Settings(
        broker_url=SecretStr("mqtts://broker.example"),
        broker_certificate_file=certificates.client_certificate,
        broker_key_file=encrypted,
    )
    with pytest.raises(
        TLSError, match=r"encrypted\.key is encrypted; give its TIDEGATE_BROKER_KEY_PASSPHRASE"
    ):
        settings.connect_options()
    for passphrase, words in (("hunter2", None), ("hunter3", "TIDEGATE_BROKER_KEY_PASSPHRASE does not open")):
        given = settings.model_dump(exclude_unset=True) | {"broker_key_passphrase": passphrase}
        settings = Settings(**given)
        assert "hunter" not in repr(settings)
        if words is None:
            assert settings.connect_options().tls is not None
        else:
            with pytest.raises(TLSError, match=words):
                settings.connect_options()


def test_a_pkcs12_file_is_certificate_and_key(tmp_path: Path) -> None:
    """With its passphrase, and without a file for the key."""
    file = tmp_path / "bridge.p12"
    file.write_bytes(issue("bridge").pkcs12(passphrase="hunter2"))
    given: dict[str, Any] = {"broker_url": "mqtts://broker.example", "broker_certificate_file": file}
    assert Settings(**given | {"broker_key_passphrase": "hunter2"}).connect_options().tls is not None
    with pytest.raises(TLSError, match="give its TIDEGATE_BROKER_KEY_PASSPHRASE"):
        Settings(**given).connect_options()


def test_a_passphrase_without_its_certificate_is_refused() -> None:
    """It would open nothing."""
    text = refusal(broker_url="mqtts://broker.example", broker_key_passphrase="hunter2")
    assert "TIDEGATE_BROKER_KEY_PASSPHRASE needs TIDEGATE_BROKER_CERTIFICATE_FILE" in text
    assert "hunter2" not in text


def test_a_certificate_that_has_expired_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The bridge starts all the same, and its handshakes tell what the broker thinks of it."""
    old = issue("bridge", ends=NOW - timedelta(hours=1))
    (tmp_path / "pair.pem").write_bytes(old.pem + old.key())
    settings = Settings(
        broker_url=SecretStr("mqtts://broker.example"), broker_certificate_file=tmp_path / "pair.pem"
    )
    assert settings.connect_options().tls is not None
    assert [True] == ["CN=bridge" in each.message and "expired" in each.message for each in caplog.records]


@pytest.mark.parametrize("prefix", ["", "a/+", "a/#", "$SYS/replies", "a\nb"])
def test_a_prefix_of_reply_topics_is_a_topic(prefix: str) -> None:
    """The bridge subscribes below it, and devices publish there."""
    assert refusal(reply_topic_prefix=prefix).startswith("TIDEGATE_REPLY_TOPIC_PREFIX")


def test_the_usual_time_out_of_requests_is_within_its_bound() -> None:
    """Else a request that says nothing would be refused for what it did not say."""
    assert "TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS" in refusal(
        request_timeout_seconds=20, max_request_timeout_seconds=10
    )


def test_a_client_id_that_the_broker_does_not_take_is_refused_at_the_start() -> None:
    """AWS IoT closes the connection on one of more than 128 bytes, found by the host name or set."""
    too_long = "x" * 129
    for options in (
        {"broker_url": "mqtts://a1b2c3-ats.iot.eu-west-1.amazonaws.com"},
        {"broker_profile": "aws-iot"},
    ):
        assert "takes at most 128" in refusal(broker_client_id=too_long, **options)
    assert Settings(broker_client_id=too_long).broker_client_id == too_long
