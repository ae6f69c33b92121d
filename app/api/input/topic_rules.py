"""Topics and filters that a caller names, as the HTTP side refuses them."""

from __future__ import annotations

from app.problems import ProblemError, ProblemType
from tidegate.errors import TopicError
from tidegate.topics import validate_filter, validate_topic


def require_topic(topic: str, *, field: str = "topic") -> None:
    """Check a topic to publish to.

    Args:
        topic: the topic name.
        field: where it came from, for the problem.

    Raises:
        ProblemError: INVALID_TOPIC where it is not allowed.
    """
    try:
        validate_topic(topic)
    except TopicError as error:
        raise ProblemError(ProblemType.INVALID_TOPIC, str(error), field=field) from None


def require_filter(topic_filter: str, *, field: str = "topic") -> None:
    """Check a topic filter to read or to follow.

    Args:
        topic_filter: the filter.
        field: where it came from, for the problem.

    Raises:
        ProblemError: INVALID_TOPIC where it is not allowed.
    """
    try:
        validate_filter(topic_filter)
    except TopicError as error:
        # A bare '#' ends a URL: what stood there never came.
        hint = "if it should be '#', write %23" if not topic_filter and field == "topic" else None
        raise ProblemError(ProblemType.INVALID_TOPIC, str(error), field=field, hint=hint) from None
