"""``GET /v1/status``: the connection to the broker, what it negotiated, and who follows what."""

from __future__ import annotations

import ssl
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.credential_models import CertificateAnswer
from app.broker.link import BrokerLink
from app.credentials.in_use import CredentialInUse
from app.hub.hub import Hub
from app.problems import ProblemType, documented
from app.publishing.replies import ReplyCounts
from app.publishing.schemas import Schemas
from app.security.authentication import Authentication

if TYPE_CHECKING:
    from app.redis_watch import RedisWatch

MAX_SUBSCRIPTIONS: Final = 1000


class BrokerLimitsStatus(BaseModel):
    """What the broker said in CONNACK (MQTT 5 §3.2.2.3), within the limits of its profile."""

    mqtt_version: str = Field(
        description="`5`, or `3.1.1`, which has no properties and no reason codes.", examples=["5"]
    )
    receive_maximum: int = Field(description="Messages of QoS 1 and 2 that may be in flight.", examples=[20])
    maximum_qos: int = Field(description="The highest quality of service.", examples=[2])
    maximum_packet_size: int | None = Field(description="In bytes; null for no limit.", examples=[268435455])
    maximum_payload_bytes: int | None = Field(
        description="In bytes; null for no limit but the packet's.", examples=[131_072]
    )
    maximum_topic_bytes: int | None = Field(
        description="Of a topic or filter, in UTF-8; null for MQTT's own.", examples=[256]
    )
    maximum_topic_slashes: int | None = Field(
        description="In a topic or filter; null for no limit of the broker's.", examples=[7]
    )
    maximum_filters: int = Field(description="Topic filters in one SUBSCRIBE.", examples=[100])
    topic_alias_maximum: int = Field(
        description="The highest topic alias that the broker takes.", examples=[10]
    )
    keepalive_seconds: int = Field(description="The Keep Alive in force.", examples=[15])
    retain_available: bool = Field(description="Whether messages can be retained.")
    wildcard_available: bool = Field(description="Whether filters may have wildcards.")
    shared_available: bool = Field(description="Whether `$share` may be subscribed to.")
    subscription_identifiers_available: bool = Field(
        description="Whether copies tell for which subscription they were sent."
    )
    session_present: bool = Field(description="Whether the broker had kept the session.")


class BrokerStatus(BaseModel):
    """The connection to the broker."""

    state: str = Field(
        description="`connecting`, `connected`, `disconnected` or `closed`.", examples=["connected"]
    )
    address: str = Field(description="Host and port.", examples=["localhost:1883"])
    profile: str = Field(
        description="The kind of broker: `generic` or `aws-iot`, as set or found.", examples=["generic"]
    )
    last_round_trip_seconds_ago: float | None = Field(
        description="The age of the last proven round trip; null without a connection.", examples=[0.8]
    )
    last_error: str | None = Field(description="Why there is no connection, in words.", examples=[None])
    in_flight: int = Field(description="Messages sent and not acknowledged.", examples=[3])
    waiting: int = Field(description="Messages that wait for the broker.", examples=[0])
    limits: BrokerLimitsStatus | None = Field(description="Null without a connection.")


class TlsStatus(BaseModel):
    """What the connection to the broker is made with."""

    credential: str | None = Field(
        description="The name of the credential in use; null where it is the files of the settings.",
        examples=["plant-7"],
    )
    revision: str | None = Field(description="Its version.", examples=[None])
    certificate: CertificateAnswer | None = Field(description="The client's certificate, where it has one.")
    days_left: int | None = Field(
        description="Whole days until the first certificate ends that is needed; null without any.",
        examples=[83],
    )
    verified: bool = Field(description="Whether the broker's certificate and name are verified.")
    warnings: list[str] = Field(
        description="What has to be seen to: an end within 30 days, and a credential that is wanted and not "
        "in use.",
        examples=[[]],
    )
    credential_days_left: dict[str, int] = Field(
        description="The same days for each credential of the store, by name.", examples=[{"plant-7": 83}]
    )


class StreamsStatus(BaseModel):
    """The streams of this bridge."""

    open: int = Field(description="How many are open, WebSockets and each of their subscriptions included.")
    ended: dict[str, int] = Field(
        description="How many ended since the start, for each reason.", examples=[{"client_left": 12}]
    )
    kept_messages: int = Field(description="Messages that the journal keeps for clients that come back.")


class RequestsStatus(BaseModel):
    """Requests that wait for replies, and what became of others since the start."""

    waiting: int = Field(description="Requests that wait for a reply, or for their turn.", examples=[2])
    answered: int = Field(description="Requests that were answered, in part maybe.", examples=[120])
    timed_out: int = Field(description="Requests that were sent and got no reply in time.", examples=[1])
    late_replies: int = Field(
        description="Replies to requests that waited no longer; they were dropped.", examples=[1]
    )
    unmatched_replies: int = Field(
        description="Messages on a reply topic that answered no request; they were dropped.", examples=[0]
    )


class SubscriptionStatus(BaseModel):
    """One filter that the bridge holds at the broker."""

    filter: str = Field(description="The topic filter.", examples=["sensors/#"])
    qos: int = Field(description="The quality of service granted.", examples=[1])
    listeners: int = Field(description="How many follow it; 0 where it is kept for one that left.")


class SchemasStatus(BaseModel):
    """The JSON Schemas of `TIDEGATE_SCHEMAS_FILE`, and what did not match them since the start."""

    entries: int = Field(description="How many schemas there are.", examples=[3])
    refused: int = Field(description="Publishes that were refused.", examples=[2])
    flagged: int = Field(
        description="Messages from the broker that went on with `valid` false. The broker may send a message "
        "once for each filter that matches; each copy counts.",
        examples=[0],
    )
    dropped: int = Field(
        description="Messages from the broker that were dropped, counted likewise.", examples=[7]
    )


class AuthenticationStatus(BaseModel):
    """How callers show who they are."""

    required: bool = Field(description="Whether they have to.")
    faults: list[str] = Field(
        description="What is wrong with the files and keys that it leans on, in words. What was read of them "
        "before holds meanwhile.",
        examples=[[]],
    )


class RedisStatus(BaseModel):
    """The Redis or Valkey that replicas share (`TIDEGATE_REDIS_URL`)."""

    connected: bool = Field(
        description="Whether it can be used. While not, requests with an `Idempotency-Key`, and those for a "
        "ticket or with one, are refused."
    )


class Status(BaseModel):
    """Where a bridge stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "0.1.0",
                    "broker": {
                        "state": "connected",
                        "address": "localhost:1883",
                        "profile": "generic",
                        "last_round_trip_seconds_ago": 0.8,
                        "last_error": None,
                        "in_flight": 3,
                        "waiting": 0,
                        "limits": None,
                    },
                    "tls": None,
                    "authentication": {"required": True, "faults": []},
                    "redis": {"connected": True},
                    "streams": {"open": 12, "ended": {"client_left": 12}, "kept_messages": 4096},
                    "schemas": None,
                    "requests": {
                        "waiting": 2,
                        "answered": 120,
                        "timed_out": 1,
                        "late_replies": 1,
                        "unmatched_replies": 0,
                    },
                    "subscriptions": [{"filter": "sensors/#", "qos": 1, "listeners": 3}],
                    "subscriptions_total": 1,
                }
            ]
        }
    )

    version: str = Field(description="The bridge's version.", examples=["0.1.0"])
    broker: BrokerStatus
    tls: TlsStatus | None = Field(description="Null for a connection without TLS.")
    authentication: AuthenticationStatus
    redis: RedisStatus | None = Field(description="Null where none is set.")
    streams: StreamsStatus
    schemas: SchemasStatus | None = Field(description="Null where no schemas are set.")
    requests: RequestsStatus
    subscriptions: list[SubscriptionStatus] = Field(
        description=f"The filters held at the broker, at most {MAX_SUBSCRIPTIONS} of them."
    )
    subscriptions_total: int = Field(description="How many there are.")


def create_router(
    link: BrokerLink,
    hub: Hub,
    counts: ReplyCounts,
    authentication: Authentication,
    schemas: Schemas | None,
    in_use: CredentialInUse,
    redis: RedisWatch | None,
) -> APIRouter:
    """The call, for one broker link, its hub, its callers, what became of requests, its schemas, what the
    bridge connects with, and what replicas share.
    """
    router = APIRouter(tags=["status"])

    @router.get(
        "/v1/status",
        operation_id="get_status",
        summary="Where does the bridge stand?",
        responses=documented(ProblemType.UNKNOWN_PARAMETER),
    )
    async def get_status(response: Response) -> Status:
        """Answers whatever the broker does; for probes there are `/livez` and `/readyz`."""
        response.headers["Cache-Control"] = "no-store"
        held = hub.subscriptions
        return Status(
            version=version("tidegate-bridge"),
            broker=_broker(link),
            tls=_tls(in_use),
            authentication=AuthenticationStatus(
                required=authentication.is_required, faults=authentication.faults
            ),
            redis=None if redis is None else RedisStatus(connected=redis.is_up),
            streams=StreamsStatus(
                open=hub.listeners,
                ended={reason.reason: count for reason, count in hub.ended.items()},
                kept_messages=len(hub.journal),
            ),
            schemas=None if schemas is None else _schemas(schemas),
            requests=RequestsStatus(**asdict(counts)),
            subscriptions=[
                SubscriptionStatus(filter=name, qos=qos, listeners=listeners)
                for name, qos, listeners in held[:MAX_SUBSCRIPTIONS]
            ],
            subscriptions_total=len(held),
        )

    return router


def _tls(in_use: CredentialInUse) -> TlsStatus | None:
    bundle, context, end, credential = in_use.bundle, in_use.options.tls, in_use.end, in_use.credential
    if bundle is None or context is None:
        return None
    return TlsStatus(
        credential=None if credential is None else credential.name,
        revision=None if credential is None else credential.revision,
        certificate=None if bundle.certificate is None else CertificateAnswer.of(bundle.certificate),
        days_left=None if end is None else end.days_left,
        verified=context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED,
        warnings=in_use.warnings,
        credential_days_left={name: days for name, days in in_use.credential_days().items() if name},
    )


def _schemas(schemas: Schemas) -> SchemasStatus:
    return SchemasStatus(
        entries=len(schemas), refused=schemas.refused, flagged=schemas.flagged, dropped=schemas.dropped
    )


def _broker(link: BrokerLink) -> BrokerStatus:
    session = link.session
    limits = session.limits
    error = session.last_error
    return BrokerStatus(
        state=session.state.value,
        address=session.address,
        profile=session.profile,
        last_round_trip_seconds_ago=session.last_round_trip_seconds_ago,
        last_error=None if error is None else str(error),
        in_flight=session.in_flight,
        waiting=session.waiting,
        limits=None
        if limits is None
        else BrokerLimitsStatus(
            mqtt_version="5" if limits.protocol_version == 5 else "3.1.1",
            receive_maximum=limits.receive_maximum,
            maximum_qos=limits.maximum_qos,
            maximum_packet_size=limits.maximum_packet_size,
            maximum_payload_bytes=limits.maximum_payload_bytes,
            maximum_topic_bytes=limits.maximum_topic_bytes,
            maximum_topic_slashes=limits.maximum_topic_slashes,
            maximum_filters=limits.maximum_filters,
            topic_alias_maximum=limits.topic_alias_maximum,
            keepalive_seconds=limits.keepalive_seconds,
            retain_available=limits.retain_available,
            wildcard_available=limits.wildcard_available,
            shared_available=limits.shared_available,
            subscription_identifiers_available=limits.subscription_identifiers_available,
            session_present=limits.session_present,
        ),
    )
