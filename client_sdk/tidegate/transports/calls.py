"""HTTP calls to one bridge, over connections that are kept.

Rules:

1. A token that a function gives is asked for anew for each call, and once more where the bridge answers 401.
2. The token appears in no error, log or ``repr``.
3. What the bridge answers is returned, whatever its status; no answer at all is an error of the tree.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx

from tidegate.background import engine, handlers
from tidegate.errors import ConfigurationError, NotConnectedError
from tidegate.transports.problems import transport_error

TIMEOUT_SECONDS: Final = 30.0

KEEPALIVE_SECONDS: Final = 3.0
"""Shorter than servers keep an idle connection, so that no request meets one that is being closed."""

MAX_CONNECTIONS: Final = 100
UNAUTHORIZED: Final = 401

Token = str | Callable[[], str | Awaitable[str]] | None
Headers = Sequence[tuple[str, str]]


class Calls:
    """The way to one bridge.

    Args:
        url: the bridge's base URL, without a trailing slash.
        token: a bearer token, or a function or coroutine function that gives one.
        tls: the context for ``https``; the system's authorities where it is left out.

    Attributes:
        stream_client: for streams, which hold their connections and must not take those of calls.
    """

    def __init__(self, url: str, *, token: Token = None, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._token = token
        verify = tls or url.startswith("https:")
        self._client = _client(url, verify, MAX_CONNECTIONS)
        self.stream_client = _client(url, verify, None)
        self._is_closed = False
        self._under_way = 0
        self._last_call: asyncio.Future[None] | None = None

    @property
    def renews_token(self) -> bool:
        """Whether another token may be had."""
        return callable(self._token)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        headers: Headers = (),
        content: bytes | None = None,
        topic: str | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> httpx.Response:
        """Make one call.

        Raises:
            NotConnectedError: the bridge cannot be reached, and nothing was sent.
            OutcomeUnknownError: it was reached, and no answer came.
            TLSError: TLS with it failed.
            ConfigurationError: no header can carry the token.
        """
        self.require_open()
        self._under_way += 1
        try:
            may_renew = self.renews_token
            while True:
                answer = await self._client.request(
                    method,
                    path,
                    params=query,
                    headers=[*headers, *await self.authorization()],
                    content=content,
                    timeout=timeout or TIMEOUT_SECONDS,
                )
                if answer.status_code != UNAUTHORIZED or not may_renew:
                    return answer
                may_renew = False
        except httpx.HTTPError as error:
            raise transport_error(self.url, error, topic=topic) from error
        finally:
            self._under_way -= 1
            if self._last_call is not None and not self._under_way and not self._last_call.done():
                self._last_call.set_result(None)

    async def authorization(self) -> list[tuple[str, str]]:
        """The header that proves who calls, or none."""
        token: object = self._token
        if callable(self._token):
            # A function may block, for it may call a server: it has a thread, and the event loop goes on.
            is_coroutine = inspect.iscoroutinefunction(self._token)
            token = self._token() if is_coroutine else await asyncio.to_thread(_asked, self._token)
        if inspect.isawaitable(token):
            # The SDK's own event loop runs nothing of the user's, who may log, block, or publish.
            is_own = engine.is_loop(asyncio.get_running_loop())
            token = await (asyncio.wrap_future(handlers.submit(_awaited(token))) if is_own else token)
        if not token:
            return []
        if not isinstance(token, str):
            raise ConfigurationError(f"a token is text, not {type(token).__name__}")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigurationError("the token has characters that no HTTP header can carry")
        return [("Authorization", f"Bearer {token}")]

    def require_open(self) -> None:
        """Raises NotConnectedError after ``close``."""
        if self._is_closed:
            raise NotConnectedError("the client was disconnected; make a new one")

    async def finish(self) -> None:
        """Take no more calls, and wait for those under way."""
        self._is_closed = True
        if self._under_way:
            self._last_call = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._last_call], timeout=TIMEOUT_SECONDS)

    async def close(self) -> None:
        """Close the connections."""
        await self.stream_client.aclose()
        await self._client.aclose()


def _asked(token: Callable[[], object]) -> object:
    """What a function gives as a token; one that means to exit must not end everybody's event loop."""
    try:
        return token()
    except Exception:
        raise
    except BaseException as error:
        raise ConfigurationError(
            f"the function that gives the token ended with {type(error).__name__}"
        ) from error


async def _awaited(token: Awaitable[object]) -> object:
    """What a coroutine gives as a token; one that means to exit must not end an event loop of the SDK's."""
    try:
        return await token
    except (SystemExit, KeyboardInterrupt) as error:
        raise ConfigurationError(f"the token's coroutine ended with {type(error).__name__}") from error


def _client(url: str, verify: ssl.SSLContext | bool, max_connections: int | None) -> httpx.AsyncClient:
    limits = httpx.Limits(
        max_connections=max_connections,
        max_keepalive_connections=max_connections,
        keepalive_expiry=KEEPALIVE_SECONDS,
    )
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, verify=verify, limits=limits)
