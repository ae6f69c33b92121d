"""What is told of TLS credentials; never a key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.credentials.expiry import end_of
from app.credentials.store import Activation, Credential
from app.diagnosis.steps import Report, Step
from tidegate.bundles import Certificate

_CERTIFICATE: Final[dict[str, Any]] = {
    "subject": "CN=device-7",
    "issuer": "CN=Plant Issuer",
    "names": ["device-7.plant.example"],
    "not_before": "2026-01-01T00:00:00Z",
    "not_after": "2026-04-01T00:00:00Z",
    "days_left": 83,
    "fingerprint": "7c1f0e5a9b3d4862c0aa51e7f4b6d2983e15a7c40d8b96f2e3710c5d4a8b9f06",
}
_CREDENTIAL: Final[dict[str, Any]] = {
    "name": "plant-7",
    "revision": "9f2c4be1",
    "stored_at": "2026-01-07T12:00:00Z",
    "active": True,
    "active_revision": "9f2c4be1",
    "days_left": 83,
    "certificate": _CERTIFICATE,
    "chain": [],
    "authorities": [],
    "warnings": [],
}


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class CredentialParts(BaseModel):
    """A credential as parts; without a certificate it is the authorities that a broker is verified with."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    ca: str | None = Field(
        None,
        description="Certificates of authorities, as PEM. Left out, those of the system count.",
        examples=["-----BEGIN CERTIFICATE-----\n…"],
    )
    certificate: str | None = Field(
        None,
        description="The client's certificate, with its chain, as PEM.",
        examples=["-----BEGIN CERTIFICATE-----\n…"],
    )
    private_key: str | None = Field(
        None,
        description="Its key, as PEM; read from `certificate` where it is left out.",
        examples=["-----BEGIN PRIVATE KEY-----\n…"],
        repr=False,
    )
    passphrase: str | None = Field(
        None, description="What opens the key, where it is encrypted.", examples=["…"], repr=False
    )


class CertificateAnswer(BaseModel):
    """A certificate (RFC 5280)."""

    subject: str = Field(description="Whom it is for.", examples=["CN=device-7"])
    issuer: str = Field(description="Who signed it.", examples=["CN=Plant Issuer"])
    names: list[str] = Field(
        description="Its subject alternative names.", examples=[["device-7.plant.example"]]
    )
    not_before: datetime = Field(description="The first moment of its validity.")
    not_after: datetime = Field(description="The last moment.")
    days_left: int = Field(description="Whole days until then; negative once it has expired.", examples=[83])
    fingerprint: str = Field(description="The SHA-256 of its DER form, in hexadecimal digits.")

    @classmethod
    def of(cls, certificate: Certificate) -> CertificateAnswer:
        """What is told of a certificate."""
        return cls(
            subject=certificate.subject,
            issuer=certificate.issuer,
            names=list(certificate.names),
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            days_left=certificate.days_left(),
            fingerprint=certificate.fingerprint,
        )


class CredentialAnswer(BaseModel):
    """A credential, without its key."""

    model_config = _shown(_CREDENTIAL)

    name: str = Field(description="Its name.", examples=["plant-7"])
    revision: str = Field(description="Names its newest version.", examples=["9f2c…"])
    stored_at: datetime = Field(description="When that version came.")
    active: bool = Field(description="Whether this bridge connects with a version of it.")
    active_revision: str | None = Field(
        description="The version that it connects with; null where it does not.", examples=[None]
    )
    days_left: int | None = Field(
        description="Whole days until the first certificate ends that is needed; null without any.",
        examples=[83],
    )
    certificate: CertificateAnswer | None = Field(description="The client's certificate.")
    chain: list[CertificateAnswer] = Field(description="What is sent along with it.")
    authorities: list[CertificateAnswer] = Field(
        description="What brokers are verified with; none for the system's."
    )
    warnings: list[str] = Field(description="What is to be said about it.")

    @classmethod
    def of(
        cls, credential: Credential, in_use: Credential | None, warnings: Sequence[str] = ()
    ) -> CredentialAnswer:
        """What is told of a credential."""
        bundle = credential.bundle
        end = end_of(bundle)
        told = list(warnings)
        if end is not None and end.warning is not None and not warnings:
            told.append(end.warning)
        is_active = in_use is not None and in_use.name == credential.name
        return cls(
            name=credential.name,
            revision=credential.revision,
            stored_at=credential.stored_at,
            active=is_active,
            active_revision=in_use.revision if is_active and in_use is not None else None,
            days_left=None if end is None else end.days_left,
            certificate=None if bundle.certificate is None else CertificateAnswer.of(bundle.certificate),
            chain=[CertificateAnswer.of(each) for each in bundle.chain],
            authorities=[CertificateAnswer.of(each) for each in bundle.authorities],
            warnings=told,
        )


class UnreadableCredential(BaseModel):
    """A credential that is there and cannot be read."""

    name: str = Field(description="Its name.", examples=["plant-8"])
    reason: str = Field(description="Why, and what to do.")


class CredentialsAnswer(BaseModel):
    """All credentials of the store."""

    model_config = _shown(
        {
            "credentials": [_CREDENTIAL],
            "unreadable": [
                {
                    "name": "plant-8",
                    "reason": "its key is not in TIDEGATE_CREDENTIALS_KEY",
                }
            ],
        }
    )

    credentials: list[CredentialAnswer] = Field(description="Those that can be read, by name.")
    unreadable: list[UnreadableCredential] = Field(description="Those that cannot.")


class ActivationAnswer(BaseModel):
    """That a credential was taken into use, or that it was tried."""

    name: str = Field(description="Of the credential.", examples=["plant-7"])
    revision: str = Field(description="Of the version.")
    at: datetime = Field(description="When.")
    outcome: Literal["active", "failed"] = Field(description="What came of it.")
    reason: str = Field(description="Why it failed; empty where it did not.", examples=[""])
    by: str = Field(description="Who asked for it; empty for the bridge itself.", examples=["alice"])

    @classmethod
    def of(cls, activation: Activation) -> ActivationAnswer:
        """What is told of an activation."""
        return cls(
            name=activation.name,
            revision=activation.revision,
            at=activation.at,
            outcome=activation.outcome,
            reason=activation.reason,
            by=activation.by,
        )


class ActivationsAnswer(BaseModel):
    """Activations, the newest first."""

    model_config = _shown(
        {
            "activations": [
                {
                    "name": "plant-7",
                    "revision": "9f2c4be1",
                    "at": "2026-01-07T12:05:00Z",
                    "outcome": "active",
                    "reason": "",
                    "by": "alice",
                }
            ]
        }
    )

    activations: list[ActivationAnswer] = Field(description="At most a hundred are kept.")


class TestTarget(BaseModel):
    """Where to try a credential."""

    __test__ = False
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str | None = Field(
        None,
        max_length=2048,
        description="A broker with TLS that `TIDEGATE_CREDENTIALS_TEST_HOSTS` lists. Left out, the "
        "configured one.",
        examples=["mqtts://broker.example:8883"],
    )


class HandshakeAnswer(BaseModel):
    """What TLS agreed on."""

    version: str = Field(description="Of TLS.", examples=["TLSv1.3"])
    cipher: str = Field(description="The cipher suite.", examples=["TLS_AES_256_GCM_SHA384"])
    alpn: str | None = Field(description="The protocol agreed on (RFC 7301).", examples=["x-amzn-mqtt-ca"])
    chain: list[CertificateAnswer] = Field(description="The broker's certificates, its own first.")


class StepAnswer(BaseModel):
    """One step of a test."""

    name: str = Field(description="`credential`, `DNS`, `TCP`, `TLS` or `CONNECT`.", examples=["TLS"])
    ok: bool = Field(description="Whether it went well.")
    milliseconds: float = Field(description="How long it took.", examples=[12.5])
    detail: str = Field(description="What was seen, or why it failed.")
    advice: str = Field(description="What to do; empty where there is nothing to do.")
    tls: HandshakeAnswer | None = Field(description="What TLS agreed on, where that was the step.")

    @classmethod
    def of(cls, step: Step) -> StepAnswer:
        """What is told of a step."""
        found = step.handshake
        return cls(
            name=step.name,
            ok=step.is_ok,
            milliseconds=round(step.milliseconds, 1),
            detail=step.detail,
            advice=step.advice,
            tls=None
            if found is None
            else HandshakeAnswer(
                version=found.version,
                cipher=found.cipher,
                alpn=found.alpn,
                chain=[CertificateAnswer.of(each) for each in found.chain],
            ),
        )


class TestAnswer(BaseModel):
    """What came of a test; after a step that failed, none was taken."""

    __test__ = False
    model_config = _shown(
        {
            "name": "plant-7",
            "revision": "9f2c4be1",
            "address": "broker.example:8883",
            "ok": False,
            "verdict": "Failed at: TCP.",
            "steps": [
                {
                    "name": "DNS",
                    "ok": True,
                    "milliseconds": 1.5,
                    "detail": "192.0.2.7",
                    "advice": "",
                    "tls": None,
                },
                {
                    "name": "TCP",
                    "ok": False,
                    "milliseconds": 0.8,
                    "detail": "nothing listens at port 8883",
                    "advice": "check the port, and whether the broker runs",
                    "tls": None,
                },
            ],
        }
    )

    name: str = Field(description="Of the credential.", examples=["plant-7"])
    revision: str = Field(description="Of the version.")
    address: str = Field(description="Host and port of the broker.", examples=["broker.example:8883"])
    ok: bool = Field(description="Whether the broker accepted it.")
    verdict: str = Field(description="The same in words.", examples=["Failed at: TLS."])
    steps: list[StepAnswer] = Field(description="The steps that were taken.")

    @classmethod
    def of(cls, credential: Credential, address: str, report: Report) -> TestAnswer:
        """What is told of a test."""
        return cls(
            name=credential.name,
            revision=credential.revision,
            address=address,
            ok=report.is_ok,
            verdict=report.verdict,
            steps=[StepAnswer.of(each) for each in report.steps],
        )
