"""Settings of authentication: what contradicts itself is refused, in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.main import create_app
from app.settings import Settings
from app.settings.errors import describe_errors
from tests.support.command import run_command
from tests.support.ports import ReservedPort
from tests.support.tokens import RSA_KEY, SECRET, pem
from tidegate.errors import ConfigurationError

JWKS = "https://login.example/jwks.json"


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jwt_key": SECRET, "jwt_jwks_url": JWKS}, "TIDEGATE_JWT_KEY and TIDEGATE_JWT_JWKS_URL"),
        ({"jwt_key": SECRET, "jwt_key_file": __file__}, "TIDEGATE_JWT_KEY and TIDEGATE_JWT_KEY_FILE"),
        ({"jwt_jwks_url": JWKS, "jwt_algorithms": "HS256"}, "which take a secret"),
        ({"jwt_key": SECRET, "jwt_algorithms": "HS256,RS256"}, "name one kind"),
        ({"jwt_key": SECRET, "jwt_algorithms": "none"}, "'none' is not taken"),
        ({"jwt_key": SECRET, "jwt_algorithms": "hs256"}, "'hs256' is not taken"),
        ({"jwt_algorithms": "HS256"}, "TIDEGATE_JWT_ALGORITHMS needs one of"),
        ({"jwt_issuer": "x"}, "TIDEGATE_JWT_ISSUER needs one of"),
        ({"jwt_audience": "x"}, "TIDEGATE_JWT_AUDIENCE needs one of"),
        ({"jwt_cookie": "x"}, "TIDEGATE_JWT_COOKIE needs one of"),
        ({"revoked_tokens_file": "x"}, "TIDEGATE_REVOKED_TOKENS_FILE needs one of"),
        ({"jwt_key": SECRET, "jwt_leeway_seconds": 61}, "from 0 to 60"),
        ({"jwt_key": SECRET, "jwt_cookie": "a b"}, "'a b' is no name"),
        ({"jwt_key_file": "/no/file"}, "no file"),
        ({"jwt_jwks_url": "http://login.example/jwks.json"}, "write an https URL"),
        ({"jwt_jwks_url": "http://127.0.0.1.example/jwks.json"}, "write an https URL"),
        ({"jwt_jwks_url": "file:///etc/keys"}, "write an https URL"),
        ({"jwt_jwks_url": "https://"}, "write an https URL"),
        ({"jwt_jwks_url": "https://[::1/"}, "no URL"),
        ({"jwt_jwks_url": "https://u:p@login.example/"}, "password is not taken"),
        ({"proxy_subject_header": "X-S"}, "TIDEGATE_TRUSTED_PROXIES and TIDEGATE_SUBJECTS_FILE"),
        ({"trusted_proxies": "10.0.0.7"}, "TIDEGATE_TRUSTED_PROXIES has no use without"),
        ({"subjects_file": "x"}, "TIDEGATE_SUBJECTS_FILE has no use without"),
        ({"proxy_verify_header": "X-V"}, "TIDEGATE_PROXY_VERIFY_HEADER has no use without"),
        ({"proxy_subject_form": "envoy"}, "TIDEGATE_PROXY_SUBJECT_FORM has no use without"),
        ({"proxy_subject_form": "pem"}, "one of auto, subject, envoy, certificate"),
        ({"proxy_subject_header": "x-forwarded-tls-client-cert-info"}, "X-Forwarded-Tls-Client-Cert (pass"),
        ({"proxy_subject_header": "X S"}, "'X S' is no name"),
        ({"trusted_proxies": "proxy.example"}, "'proxy.example' is no address"),
        ({"trusted_proxies": "10.0.0.7/16"}, "'10.0.0.7/16' is no address"),
        ({"trusted_proxies": "0.0.0.0/0"}, "is everybody"),
        ({"trusted_proxies": "::/0"}, "is everybody"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_contradict_one_another_are_refused(options: dict[str, Any], words: str) -> None:
    """The text names the variables, and has no secret."""
    text = refusal(**options)
    assert words in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "options",
    [
        {"api_keys_file": "keys.yaml"},
        {"jwt_key": SECRET},
        {"jwt_jwks_url": JWKS},
        {"jwt_jwks_url": "http://localhost:1/jwks.json"},
        {"proxy_subject_header": "X-S", "trusted_proxies": "10.1.0.0/16,fd00::1", "subjects_file": "s.yaml"},
    ],
    ids=str,
)
def test_with_authentication_any_address_may_be_listened_on(options: dict[str, Any]) -> None:
    """One way is enough; without one only loopback is."""
    assert "0.0.0.0" == Settings(host="0.0.0.0", **options).host
    assert "there is no authentication" in refusal(host="0.0.0.0")


def test_no_repr_has_the_key() -> None:
    """Settings may be logged."""
    assert SECRET not in repr(Settings(jwt_key=SECRET))  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_key_may_come_from_a_file(tmp_path: Path, end: str) -> None:
    """The line break that ends it is none of the secret's."""
    file = tmp_path / "key"
    file.write_text("x" * 31 + end)
    with pytest.raises(ConfigurationError, match="has 31 bytes"):
        create_app(Settings(jwt_key_file=file))
    file.write_text(pem(RSA_KEY))
    create_app(Settings(jwt_key_file=file))


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_key_that_cannot_be_used_ends_the_command(command: str) -> None:
    """Status 2 and one line, without the key."""
    with ReservedPort() as port:
        answer = run_command(command, "--port", str(port.number), settings={"TIDEGATE_JWT_KEY": "too-short"})
    assert (2, "") == (answer.returncode, answer.stdout)
    assert answer.stderr.startswith("tidegate: TIDEGATE_JWT_KEY has 9 bytes")
    assert 1 == answer.stderr.count("\n")
    assert "too-short" not in answer.stderr


def test_a_missing_file_of_keys_ends_the_command(tmp_path: Path) -> None:
    """A bridge that was told to ask never starts to let in everybody, or nobody."""
    settings = {"TIDEGATE_API_KEYS_FILE": str(tmp_path / "keys.yaml")}
    answer = run_command("serve", settings=settings)
    assert 2 == answer.returncode
    assert "keys.yaml cannot be read: No such file or directory" in answer.stderr
