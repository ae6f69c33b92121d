"""The end of a credential: which of its certificates ends first, and when that is told."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.credentials.expiry import Reminders, end_of
from tests.support.bridge import running_bridge
from tests.support.issued import NOW, issue
from tests.support.tls_brokers import make_plant, strict_broker
from tidegate.bundles import Bundle, read_bundle

ROOT = issue("Root", is_authority=True, ends=NOW + timedelta(days=400, hours=1))


def bundle(days: float, *, old_root: bool = False) -> Bundle:
    """A certificate that ends in so many days and an hour."""
    device = issue("device-7", ROOT, starts=NOW - timedelta(days=900), ends=after(days))
    others = issue("Old", is_authority=True, ends=after(1)).pem if old_root else b""
    return read_bundle(device.key() + device.pem + ROOT.pem + others, validity="warn")


def after(days: float) -> datetime:
    """So many days and an hour from now."""
    return NOW + timedelta(days=days, hours=1)


def test_what_ends_first_counts() -> None:
    """The certificate before its authority; of several authorities the last."""
    end = end_of(bundle(90, old_root=True), NOW)
    assert end is not None
    assert (90, "client certificate", "CN=device-7") == (end.days_left, end.kind, end.certificate.label)
    end = end_of(bundle(500), NOW)
    assert end is not None
    assert (400, "certificate of the authority") == (end.days_left, end.kind)
    assert end_of(Bundle("nothing")) is None


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (31, None),
        (30, "expires in 30 days"),
        (1, "expires in 1 day,"),
        (0, "expires in less than a day"),
        (-3, "has expired"),
    ],
)
def test_the_warning(days: int, words: str | None) -> None:
    """From 30 days on."""
    end = end_of(bundle(days), NOW)
    assert end is not None
    assert days == end.days_left
    if words is None:
        assert end.warning is None
    else:
        assert end.warning is not None
        assert words in end.warning


def test_each_threshold_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At 30, 14, 7 and 1 days and at the end; a process that starts late tells the nearest alone."""
    found = bundle(40)
    reminders = Reminders()
    told: list[tuple[int, int]] = []
    for hour in range(24 * 45):
        caplog.clear()
        reminders.look(end_of(found, NOW + timedelta(hours=hour)))
        end = end_of(found, NOW + timedelta(hours=hour))
        assert end is not None
        told += [(end.days_left, record.levelno) for record in caplog.records]
    expected = [(30, logging.WARNING), (14, logging.WARNING), (7, logging.WARNING)]
    assert [*expected, (1, logging.ERROR), (0, logging.ERROR), (-1, logging.ERROR)] == told
    caplog.clear()
    late = Reminders()
    for _ in range(3):
        late.look(end_of(found, NOW + timedelta(days=30)))
    assert 1 == len(caplog.records)


def test_the_settings_files_are_counted_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log, the status and readiness say it; readiness stays."""
    plant = make_plant(tmp_path, ends=NOW + timedelta(days=90))
    device = plant.device("old", ends=NOW + timedelta(days=5, hours=1))
    plant.files.client_certificate.write_bytes(device.pem)
    plant.files.client_key.write_bytes(device.key())
    with (
        caplog.at_level(logging.WARNING),
        strict_broker(plant) as broker,
        running_bridge(
            broker.url,
            broker_ca_file=plant.files.ca,
            broker_certificate_file=plant.files.client_certificate,
            broker_key_file=plant.files.client_key,
        ) as bridge,
    ):
        ready = bridge.client.get("/readyz")
        assert 200 == ready.status_code
        (warning,) = ready.json()["warnings"]
        assert "the client certificate (CN=old) expires in 5 days" in warning
        told = bridge.client.get("/v1/status").json()["tls"]
        assert (5, [warning], None) == (told["days_left"], told["warnings"], told["credential"])
        assert {"": 5} == bridge.app.state.in_use.credential_days()
        assert warning in caplog.text
