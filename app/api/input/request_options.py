"""What may be said about a request, in its query.

The same pydantic model stands in the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from app.api.input.query import PayloadFormat, QoS, Seconds, TopicName, TopicQuery
from app.api.input.stream_options import count_in, number_in

MAX_TIMEOUT_SECONDS: Final = 86_400.0


class RequestQuery(TopicQuery):
    """What may be said about a request."""

    qos: QoS = Field(1, description="Quality of service of the request (MQTT 5 §4.3).", examples=[1])
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS), BeforeValidator(number_in)] | None = Field(
        None,
        description="Seconds to wait for the reply, from the arrival of the request on; left out, "
        "`TIDEGATE_REQUEST_TIMEOUT_SECONDS`. At most `TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS`.",
        examples=[5],
    )
    replies: Annotated[int, Field(ge=2), BeforeValidator(count_in)] | None = Field(
        None,
        description="Gather the replies of several devices: answers with a list as soon as so many came, or "
        "with those that came in time. At most `TIDEGATE_MAX_REPLIES`.",
        examples=[3],
    )
    expiry: Seconds | None = Field(
        None,
        description="Seconds after which the broker forgets the request (MQTT 5 §3.3.2.3.3); left out, the "
        "time-out rounded up.",
        examples=[5],
    )
    payload_format: PayloadFormat | None = Field(
        None,
        description="1 says that the payload is UTF-8 text, 0 that it is any bytes (MQTT 5 §3.3.2.3.2).",
        examples=[1],
    )
    response_topic: TopicName | None = Field(
        None,
        description="The topic that the device answers on by itself, for one that speaks MQTT 3.1.1; left "
        "out, the bridge names one of its own (MQTT 5 §3.3.2.3.5). Requests with the same one wait for one "
        "another.",
        examples=["devices/7/reply"],
    )
