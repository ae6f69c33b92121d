"""Keeping what a bridge was asked, and answering some of it in its place."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its path, the Idempotency-Key and Authorization that came with it, and its method."""

    path: str
    key: str | None
    authorization: str | None
    method: str


@dataclass
class Requests:
    """What a bridge was asked; ``prepare`` is for ``running_bridge``.

    Attributes:
        seen: the requests so far.
        answers: statuses that paths are answered with, in place of the bridge; None for its own answer.
    """

    seen: list[Asked] = field(default_factory=list)
    answers: dict[str, list[int | None]] = field(default_factory=dict)

    def of(self, path: str) -> list[Asked]:
        """The requests for paths that begin so."""
        return [each for each in self.seen if each.path.startswith(path)]

    def prepare(self, app: FastAPI) -> None:
        """Stand before an application."""
        app.add_middleware(_Middleware, requests=self)


class _Middleware:
    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = scope["path"]
        asked = Asked(path, headers.get("idempotency-key"), headers.get("authorization"), scope["method"])
        self._requests.seen.append(asked)
        answers = self._requests.answers.get(path, [])
        status = None if not answers else answers[0] if len(answers) == 1 else answers.pop(0)
        if status is None:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
