"""``/v1/ws``: subscribe and publish over one WebSocket (RFC 6455), in the subprotocol ``tidegate.v1``."""

from __future__ import annotations

from typing import Any, Final

from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.path import after_prefix
from app.api.input.query import NoQuery, parse_query
from app.api.output.handshake import deny
from app.api.raw_route import RawRoute
from app.api.stream.holdings import Holdings
from app.api.stream.socket import Socket
from app.api.stream.subscriptions import Subscriptions
from app.hub.hub import Hub
from app.hub.listener import Listener
from app.logs.context import ROUTE
from app.problems import ProblemError, ProblemType
from app.publishing.gate import Gate
from app.security.principal import Principal
from app.security.rates import Rates
from app.settings import Settings

PATH: Final = "/v1/ws"
SUBPROTOCOL: Final = "tidegate.v1"
FORM: Final = "websocket"
"""What a socket is counted as."""


class WebSocketRoute(BaseRoute):
    """The call.

    Args:
        gate: the way to the broker.
        hub: the hub.
        subscriptions: makes listeners within the bounds of the settings.
        holdings: knows who holds which WebSocket.
        settings: the bounds.
        rates: how often a principal may connect, and send.
    """

    def __init__(
        self,
        gate: Gate,
        hub: Hub,
        subscriptions: Subscriptions,
        holdings: Holdings,
        settings: Settings,
        rates: Rates,
    ) -> None:
        self._gate = gate
        self._holdings = holdings
        self._hub = hub
        self._subscriptions = subscriptions
        self._settings = settings
        self._rates = rates

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it is a WebSocket at this path."""
        if scope["type"] != "websocket" or after_prefix(scope, PATH.encode()) != b"":
            return Match.NONE, {}
        return Match.FULL, {ROUTE: PATH}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """No path is made from a name here."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept the WebSocket, or refuse it with a problem; then serve it to its end (ASGI)."""
        await receive()
        try:
            parse_query(scope["query_string"], NoQuery)
            subprotocol = _choose(scope["subprotocols"])
            principal = principal_of(scope)
            with self._holdings.room(principal):
                listener = await self._join(principal)
                self._holdings.hold(principal, listener)
        except ProblemError as problem:
            await deny(receive, send, problem)
            return
        socket = Socket(
            principal,
            listener,
            self._gate,
            self._hub,
            self._subscriptions,
            self._settings,
            self._rates.requests,
        )
        await socket.run(scope, receive, send, subprotocol)

    async def _join(self, principal: Principal) -> Listener:
        if self._hub.listeners >= self._settings.max_streams:
            raise ProblemError(
                ProblemType.TOO_MANY_STREAMS,
                f"{self._settings.max_streams} streams are open: as many as TIDEGATE_MAX_STREAMS allows",
            )
        if self._rates.streams is not None:
            self._rates.streams.take(principal.bounded_as, principal)
        listener = Listener([], is_resumable=False, form=FORM)
        await self._hub.join(listener)
        if listener.close_reason is not None:
            raise ProblemError(ProblemType.SHUTTING_DOWN, "the bridge stops; connect again in a moment")
        return listener


class UpgradeRoute(RawRoute):
    """The same path without a WebSocket."""

    path = path_format = PATH
    methods = ("GET",)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say what the path is for (ASGI)."""
        parse_query(scope["query_string"], NoQuery)
        raise ProblemError(
            ProblemType.UPGRADE_REQUIRED,
            f"{PATH} is a WebSocket",
            hint=f"new WebSocket(url, {SUBPROTOCOL!r}); GET /v1/subscribe streams over plain HTTP",
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )


def _choose(offered: list[str]) -> str | None:
    """The subprotocol; a client that offers none is taken at its word."""
    if offered and SUBPROTOCOL not in offered:
        raise ProblemError(
            ProblemType.INVALID_HEADER,
            f"the subprotocol is {SUBPROTOCOL}, and {', '.join(offered)} was offered",
            field="Sec-WebSocket-Protocol",
            hint=f"new WebSocket(url, {SUBPROTOCOL!r})",
        )
    return SUBPROTOCOL if offered else None
