"""The table of problem types: what can go wrong with a request, under a name that stays (RFC 9457 §3.1.1).

Run as a module it writes the page docs/problems.md, which a test holds equal to the table.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import Final

URN_PREFIX: Final = "urn:tidegate:problem:"


class ProblemType(Enum):
    """Every type of problem: its name, status, title, and what it means."""

    INVALID_TOPIC = ("invalid-topic", 400, "Topic not allowed", "MQTT forbids the topic name or filter.")
    INVALID_PARAMETER = (
        "invalid-parameter",
        400,
        "Invalid parameter",
        "A query parameter has a value that it cannot have, is missing, or contradicts another.",
    )
    UNKNOWN_PARAMETER = (
        "unknown-parameter",
        400,
        "Unknown parameter",
        "The call has no query parameter of this name; the hint tells the nearest one.",
    )
    REPEATED_PARAMETER = (
        "repeated-parameter",
        400,
        "Repeated parameter",
        "A query parameter that has one value is there several times.",
    )
    INVALID_CLOUD_EVENT = (
        "invalid-cloudevent",
        400,
        "Invalid CloudEvent",
        "The request claims to be a CloudEvent, and is none; field is a header, or a JSON pointer.",
    )
    INVALID_HEADER = ("invalid-header", 400, "Invalid header", "A request header cannot be read.")
    UNSUPPORTED_HEADER = (
        "unsupported-header",
        400,
        "Unsupported header",
        "This version does not honour a header that the request relies on; nothing was done.",
    )
    MALFORMED_BODY = (
        "malformed-body",
        400,
        "Malformed body",
        "The body is not JSON; the detail tells where.",
    )
    EMPTY_RETAINED = (
        "empty-retained",
        400,
        "Empty retained message",
        "A retained message without a payload would clear the topic's value; DELETE does that on purpose.",
    )
    UNSUPPORTED = (
        "unsupported",
        400,
        "Not supported by the broker",
        "The broker, or the MQTT version in use, cannot carry what was asked for; nothing was sent.",
    )
    BAD_REQUEST = ("bad-request", 400, "Bad request", "The request cannot be understood.")
    UNAUTHENTICATED = ("unauthenticated", 401, "Not authenticated", "The call needs valid credentials.")
    RESERVED_TOPIC = (
        "reserved-topic",
        403,
        "Reserved topic",
        "A topic that begins with $ belongs to the broker; publishing there needs a grant that names it.",
    )
    NOT_AUTHORIZED = (
        "not-authorized",
        403,
        "Refused by the broker's access rules",
        "The broker answered with reason code 135, Not authorized.",
    )
    FORBIDDEN_TARGET = (
        "forbidden-target",
        403,
        "Broker not on the list",
        "Credentials are tried at the configured broker, and at those in TIDEGATE_CREDENTIALS_TEST_HOSTS.",
    )
    NOT_GRANTED = (
        "not-granted",
        403,
        "Not granted",
        "No grant of the caller covers the topic or filter with this QoS and retain flag; nothing was sent.",
    )
    FORBIDDEN = ("forbidden", 403, "Not permitted", "The caller may not do this.")
    NOT_FOUND = ("not-found", 404, "No such path", "Nothing is there; the hint tells the nearest known path.")
    NO_CREDENTIAL = ("no-credential", 404, "No such credential", "The store has no credential of this name.")
    NO_RETAINED_MESSAGE = (
        "no-retained-message",
        404,
        "No retained message",
        "The broker keeps no message for the topic.",
    )
    METHOD_NOT_ALLOWED = (
        "method-not-allowed",
        405,
        "Method not allowed",
        "The path takes other methods; the Allow header tells which.",
    )
    NOT_ACCEPTABLE = (
        "not-acceptable",
        406,
        "No acceptable form",
        "The Accept header excludes every form that the answer has.",
    )
    BODY_TIMEOUT = (
        "body-timeout",
        408,
        "Body too slow",
        "The request's body did not arrive in time; nothing was sent but lines of a batch that came before.",
    )
    NO_CREDENTIAL_STORE = (
        "no-credential-store",
        409,
        "No store of credentials",
        "Neither TIDEGATE_CREDENTIALS_DIR nor TIDEGATE_CREDENTIALS_MOUNT is set.",
    )
    CREDENTIAL_ACTIVE = (
        "credential-active",
        409,
        "Credential in use",
        "The credential is in use and stays; activate another one first.",
    )
    CREDENTIALS_READ_ONLY = (
        "credentials-read-only",
        409,
        "Credentials come from elsewhere",
        "What is mounted from a Secret is changed in the Secret.",
    )
    HEADER_TIMEOUT = (
        "header-timeout",
        408,
        "Head too slow",
        "The head of the request did not arrive in time; nothing was done.",
    )
    CONFLICT = ("conflict", 409, "Conflict", "The state of the thing does not allow it now.")
    BODY_TOO_LARGE = (
        "body-too-large",
        413,
        "Body too large",
        "The request's body, or a line of a batch, is larger than TIDEGATE_MAX_BODY_BYTES.",
    )
    PACKET_TOO_LARGE = (
        "packet-too-large",
        413,
        "Too large for the broker",
        "The broker takes no packet of this size.",
    )
    TARGET_TOO_LONG = (
        "target-too-long",
        414,
        "Path and query too long",
        "Path and query are longer than TIDEGATE_MAX_TARGET_BYTES; a WebSocket's handshake has 8,192 bytes.",
    )
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported-media-type",
        415,
        "Unsupported content type",
        "The call takes a body of another content type.",
    )
    INVALID_BODY = (
        "invalid-body",
        422,
        "Invalid body",
        "The body is JSON, but not what the call takes; field is a JSON pointer (RFC 6901) to a fault.",
    )
    INVALID_CREDENTIAL = (
        "invalid-credential",
        422,
        "Invalid credential",
        "The credential cannot be used: its parts do not belong together, have expired, or cannot be read.",
    )
    INVALID_PAYLOAD = (
        "invalid-payload",
        422,
        "Invalid payload",
        "The payload cannot be written as it was asked for, or the broker does not take it.",
    )
    SCHEMA_MISMATCH = (
        "schema-mismatch",
        422,
        "Payload does not match its schema",
        "The JSON Schema of the topic asks for another; field is a JSON pointer into the payload.",
    )
    IDEMPOTENCY_KEY_REUSED = (
        "idempotency-key-reused",
        422,
        "Idempotency-Key of another request",
        "Another request came with this Idempotency-Key before; nothing was sent.",
    )
    TOO_MANY_RETAINED = (
        "too-many-retained",
        422,
        "Too many retained messages",
        "The filter matches more retained messages than one answer may hold; ask for a narrower one.",
    )
    UNKNOWN_HOST = (
        "unknown-host",
        421,
        "Unknown host",
        "The Host header names none of the bridge's own; TIDEGATE_ALLOWED_HOSTS lists more.",
    )
    UPGRADE_REQUIRED = (
        "upgrade-required",
        426,
        "Upgrade required",
        "The path is a WebSocket, and the request is none.",
    )
    TOO_MANY_REQUESTS = (
        "too-many-requests",
        429,
        "Too many requests",
        "A bound of the bridge is reached; the detail names it.",
    )
    QUOTA_EXCEEDED = (
        "quota-exceeded",
        429,
        "Quota of the broker exceeded",
        "The broker answered that a quota, or the rate of messages, is exceeded.",
    )
    HEADERS_TOO_LARGE = (
        "headers-too-large",
        431,
        "Header fields too large",
        "They are larger than TIDEGATE_MAX_HEADER_BYTES, or than those of a WebSocket's handshake may be.",
    )
    INTERNAL_ERROR = ("internal-error", 500, "Internal error", "A fault of the bridge; its log has the rest.")
    CREDENTIAL_UNREADABLE = (
        "credential-unreadable",
        500,
        "Credential cannot be read",
        "The credential is there and cannot be read, for want of its key, or because it is damaged.",
    )
    ACTIVATION_FAILED = (
        "activation-failed",
        502,
        "Activation failed",
        "The broker cannot be used with the credential; the one before stays in use.",
    )
    REFUSED_BY_BROKER = (
        "refused-by-broker",
        502,
        "Refused by the broker",
        "The broker answered with a reason code that says no; reason_code and reason tell which.",
    )
    AUTHENTICATION_UNAVAILABLE = (
        "authentication-unavailable",
        503,
        "Authentication not available",
        "The keys that tokens are verified with cannot be had from their issuer; nothing was done.",
    )
    BROKER_UNAVAILABLE = (
        "broker-unavailable",
        503,
        "Broker unavailable",
        "There is no connection to the broker; nothing was sent, and the same request may be made again.",
    )
    QUEUE_FULL = (
        "queue-full",
        503,
        "Too many messages wait",
        "Too many messages wait for the broker; nothing was sent, and the same request may be made again.",
    )
    IDEMPOTENCY_UNAVAILABLE = (
        "idempotency-unavailable",
        503,
        "Idempotency keys cannot be kept",
        "The store of the keys does not answer; nothing was sent, and the same request may be made again.",
    )
    CREDENTIAL_STORE_UNAVAILABLE = (
        "credential-store-unavailable",
        503,
        "Store of credentials unavailable",
        "The store of the credentials cannot be read or written.",
    )
    TICKETS_UNAVAILABLE = (
        "tickets-unavailable",
        503,
        "Tickets cannot be kept",
        "The store of the tickets does not answer; ask for a ticket again in a moment.",
    )
    NOT_READY = ("not-ready", 503, "Not ready", "No round trip to the broker was seen lately.")
    TOO_MANY_CONNECTIONS = (
        "too-many-connections",
        503,
        "Too many connections",
        "As many connections are open as TIDEGATE_MAX_CONNECTIONS allows.",
    )
    TOO_MANY_STREAMS = (
        "too-many-streams",
        503,
        "Too many streams",
        "As many streams are open as TIDEGATE_MAX_STREAMS allows.",
    )
    TOO_MANY_WAITING = (
        "too-many-waiting",
        503,
        "Too many requests wait for replies",
        "As many requests wait for replies as TIDEGATE_MAX_WAITING_REQUESTS allows; nothing was sent.",
    )
    REPLY_TOPIC_BUSY = (
        "reply-topic-busy",
        503,
        "Reply topic busy",
        "The turn of the request at its fixed reply topic did not come, or too many wait for it already.",
    )
    SHUTTING_DOWN = (
        "shutting-down",
        503,
        "Shutting down",
        "The bridge stops and takes no new streams and requests.",
    )
    OUTCOME_UNKNOWN = (
        "outcome-unknown",
        504,
        "Outcome unknown",
        "The message was sent and the broker's answer did not come: it may have arrived, or not.",
    )
    NO_REPLY = (
        "no-reply",
        504,
        "No reply",
        "The request was sent, with QoS 1 and 2 the broker acknowledged it, and no device replied in time.",
    )
    BROKER_TIMEOUT = ("broker-timeout", 504, "Broker too slow", "The broker did not answer in time.")

    def __init__(self, slug: str, status: int, title: str, meaning: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title
        self.meaning = meaning

    @property
    def uri(self) -> str:
        """What stands in the member ``type`` (RFC 9457 §3.1.1)."""
        return URN_PREFIX + self.slug


def page() -> str:
    """The table as a page for people, in Markdown."""
    rows = [
        f"| `{kind.slug}` | {kind.status} | {kind.title} | {kind.meaning} |"
        for kind in sorted(ProblemType, key=lambda each: (each.status, each.slug))
    ]
    return "\n".join([*_INTRODUCTION, *rows, ""])


_INTRODUCTION: Final = (
    "# Problems",
    "",
    "Every answer of 400 and above is `application/problem+json` (RFC 9457): `type` for programs, `title`",
    "and `detail` for people, `status` again, and where they help `field` (the parameter, the header, or a",
    "JSON pointer into the body), `hint`, and the broker's `reason_code` and `reason`. A type is the URN",
    f"`{URN_PREFIX}` followed by the name below; names stay from version to version.",
    "",
    "With 503 comes `Retry-After`, in seconds. After 503 nothing was sent, and the same request may be made",
    "again; after 504 `outcome-unknown` the message may have arrived.",
    "",
    "| name | status | title | when |",
    "| --- | --- | --- | --- |",
)

if __name__ == "__main__":
    sys.stdout.write(page())
