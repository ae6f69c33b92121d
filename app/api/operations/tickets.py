"""Tickets for browsers."""

from __future__ import annotations

from typing import Any

from app.api import tickets
from app.api.operations.parts import QUERY_PROBLEMS, REF, problems
from app.problems import ProblemType


def paths() -> dict[str, Any]:
    """Each path with its operations."""
    return {
        tickets.PATH: {
            "post": {
                "operationId": "create_ticket",
                "tags": ["security"],
                "summary": "Get a ticket for a browser's EventSource or WebSocket",
                "description": "A ticket stands for the caller, with what it was asked for and no more, for "
                "half a minute and once. Whatever ends the caller's key or token ends what a ticket opened.",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": REF + "TicketRequest"}}},
                },
                "responses": {
                    "200": {
                        "description": "The ticket.",
                        "content": {"application/json": {"schema": {"$ref": REF + "TicketAnswer"}}},
                    },
                    **problems(
                        (
                            *QUERY_PROBLEMS,
                            ProblemType.INVALID_HEADER,
                            ProblemType.UNSUPPORTED_HEADER,
                            ProblemType.INVALID_TOPIC,
                            ProblemType.RESERVED_TOPIC,
                            ProblemType.NOT_GRANTED,
                            ProblemType.BODY_TIMEOUT,
                            ProblemType.BODY_TOO_LARGE,
                            ProblemType.MALFORMED_BODY,
                            ProblemType.UNSUPPORTED_MEDIA_TYPE,
                            ProblemType.INVALID_BODY,
                            ProblemType.TOO_MANY_REQUESTS,
                            ProblemType.TICKETS_UNAVAILABLE,
                        )
                    ),
                },
            }
        }
    }
