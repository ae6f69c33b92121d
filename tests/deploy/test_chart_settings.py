"""The bridge's settings and the chart: each can be given, no secret ends where everybody reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import helm_python
import pytest
import yaml
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.publishing.schema_file import load_schemas
from app.settings import Settings
from app.settings.sources import variable
from deploy.__main__ import SETTINGS
from deploy.chart import objects, render
from deploy.settings_file import render_settings
from tests.support.chart import EXAMPLES, merged, of_kind, rendered, settings_of, variables_in_a_pod
from tests.support.markdown import blocks

SECRETS: Final = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}

BY_THE_CHART: Final[dict[str, dict[str, Any]]] = {
    "host": {},
    "port": {},
    "management_host": {"management__enabled": True},
    "management_port": {"management__port": 9100},
    "drain_seconds": {"stopping__drainSeconds": 7},
    "broker_client_id": {"broker__stableClientIds": True},
    "insecure": {"access__insecure": True},
    "api_keys_file": {"access__insecure": False, "access__apiKeys__existingSecret": "keys"},
    "credentials_mount": {"broker__url": "mqtts://m", "credentials__existingSecret": "broker"},
    "credentials_dir": {"credentials__existingClaim": "kept", "existingSecrets": ["with-the-key"]},
    "secrets_dir": {"existingSecrets": ["settings"]},
}
"""What the chart sets by itself, and the values that decide it."""

BESIDE: Final[dict[str, dict[str, Any]]] = {
    "broker_url": {"broker__url": ""},
    "broker_session_expiry_seconds": {"broker__stableClientIds": True},
    "credentials_key": {"credentials__existingClaim": "kept"},
    "credentials_passphrase": {"broker__url": "mqtts://m", "credentials__existingSecret": "broker"},
    "jwt_key": {"access__insecure": False},
    "jwt_key_file": {"access__insecure": False},
    "jwt_jwks_url": {"access__insecure": False},
    "proxy_subject_header": {"access__insecure": False},
}
"""What some settings ask for in other values."""

OF_OTHERS: Final[dict[str, dict[str, str]]] = {
    "tidegate-settings": {
        "TIDEGATE_BROKER_USERNAME": "bridge",
        "TIDEGATE_BROKER_PASSWORD": "not a real one",
        "TIDEGATE_REDIS_URL": "redis://redis:6379/0",
    },
    "bridge-settings": {"TIDEGATE_JWT_KEY": "a secret of thirty-two bytes and more"},
    "tidegate-api-keys": {"api-keys": "keys: []\n", "keys.yaml": "keys: []\n"},
    "broker-credential": {"ca.crt": "", "tls.crt": "", "tls.key": ""},
    "tidegate-bridge-broker-credential": {"ca.crt": "", "tls.crt": "", "tls.key": ""},
}
"""What examples and pages expect in Secrets that the chart does not make."""


def written(name: str) -> Any:
    """A value for a setting, as its documentation has it."""
    [example] = Settings.model_fields[name].examples or []
    return example


def beside(name: str) -> dict[str, Any]:
    """Values without which the chart would refuse a setting."""
    if written(name) and str(written(name)).startswith("/etc/tidegate/"):
        return {"files": {Path(written(name)).name: ""}, **BESIDE.get(name, {})}
    return BESIDE.get(name, {})


def test_the_chart_knows_the_settings_of_today() -> None:
    """Files/settings.yaml is made anew by make manifests."""
    assert render_settings() == SETTINGS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_can_be_given(name: str) -> None:
    """By a value of its own, by name in ``settings``, or, being a secret, in ``secretSettings``."""
    if name in BY_THE_CHART:
        given = settings_of(objects(render(merged(**BY_THE_CHART[name]))))
        assert given[variable(name)]
    elif name in SECRETS:
        values = merged(secretSettings={variable(name): written(name)}, **beside(name))
        [secret] = of_kind(values, "Secret")
        assert {variable(name): written(name)} == secret["stringData"]
        assert "TIDEGATE_SECRETS_DIR" in settings_of(objects(render(values)))
    else:
        values = merged(settings={variable(name): written(name)}, **beside(name))
        expected = str(written(name)).removesuffix(".0")
        assert expected == settings_of(objects(render(values)))[variable(name)]


@pytest.mark.parametrize("name", BY_THE_CHART)
def test_what_the_chart_sets_is_not_set_beside_it(name: str) -> None:
    """Two places for one setting would contradict one another; the refusal names the right one."""
    for place in ("settings", "secretSettings"):
        with pytest.raises(helm_python.HelmRenderError, match=f"{variable(name)} is set by the chart; use "):
            render(merged(**{place: {variable(name): "1"}}))


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_ends_in_a_config_map(name: str) -> None:
    """Whoever may read ConfigMaps would have it; a secret setting that is new is known by its type."""
    elsewhere = BESIDE[name] if name == "broker_url" else {}
    with pytest.raises(helm_python.HelmRenderError, match=f"{variable(name)} is a secret") as caught:
        render(merged(settings={variable(name): "unspeakable"}, **elsewhere))
    assert "existingSecrets" in str(caught.value)
    assert "unspeakable" not in str(caught.value)


def test_secrets_are_found_by_type() -> None:
    """So that the tests above are about something."""
    assert {"broker_password", "credentials_key", "jwt_key", "redis_url"} <= SECRETS


def test_a_list_is_written_as_yaml_has_it() -> None:
    """The bridge reads commas."""
    values = merged(settings={"TIDEGATE_CORS_ORIGINS": ["https://a.example", "https://b.example"]})
    assert (
        "https://a.example,https://b.example"
        == (settings_of(objects(render(values)))["TIDEGATE_CORS_ORIGINS"])
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_bridge_starts_with_what_an_example_gives(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings can be used together, and what they name is mounted."""
    assert_starts(objects(rendered(path)), tmp_path, monkeypatch)


def test_the_bridge_starts_with_the_values_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of docs/kubernetes.md."""
    pages = [yaml.safe_load(each.text) for each in blocks("yaml") if each.page == "docs/kubernetes.md"]
    [values] = [each for each in pages if "broker" in each]
    assert_starts(objects(render(values)), tmp_path, monkeypatch)


def test_a_setting_that_the_bridge_refuses_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is nowhere, for instance, so that the tests above mean something."""
    made = objects(render(merged(settings={"TIDEGATE_SCHEMAS_FILE": "/nowhere/schemas.yaml"})))
    with pytest.raises(ValueError, match="schemas_file"):
        assert_starts(made, tmp_path, monkeypatch)


def assert_starts(made: list[dict[str, Any]], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge's own class takes what a pod would have.

    Raises:
        ValidationError: it does not.
    """
    secrets = {name: dict(held) for name, held in OF_OTHERS.items()}
    if any("TIDEGATE_CREDENTIALS_DIR" in each.get("data", {}) for each in made):
        secrets["tidegate-settings"]["TIDEGATE_CREDENTIALS_KEY"] = Fernet.generate_key().decode()
    for name, value in variables_in_a_pod(made, secrets, root).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.insecure or settings.has_authentication
    if settings.schemas_file is not None:
        assert load_schemas(settings.schemas_file)
