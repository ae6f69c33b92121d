"""Another way for every client of the process, while a test's broker is in place (``tidegate.testing``).

Rules:

1. A client keeps the options that it was told; what changes is its transport, between two calls. A client
   that was told what opens its connections (``connect=``) stays there.
2. Handlers come along: they listen at the new place when ``begin`` returns, and go back, in the background,
   after ``end``.
3. What begins to listen on a detour ends with it, but for decorated functions of a module: these are made
   once, by an import. They listen again on the next detour, and nowhere in between.
4. A client of an event loop that the calling thread runs itself, or that no longer runs, stays where it is.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tidegate.background import engine, running_loop
from tidegate.connection import Connect, ConnectOptions
from tidegate.transports.direct import DirectTransport
from tidegate.transports.transport import Transport

if TYPE_CHECKING:
    from tidegate.client import AsyncClient
    from tidegate.configuration import Options

MOVE_SECONDS: Final = 30.0

_lock: Final = threading.Lock()
_clients: Final[weakref.WeakSet[AsyncClient]] = weakref.WeakSet()
_detours: Final[list[Connect]] = []


@dataclass(frozen=True, slots=True)
class Followed:
    """What one handler listens to.

    Attributes:
        filters: topic filters, each with its QoS.
        depth: how many detours were in place when it began.
        lasts: whether it is a decorated function of a module.
    """

    filters: Sequence[tuple[str, int]]
    depth: int
    lasts: bool


def depth() -> int:
    """How many detours are in place, one within the other."""
    return len(_detours)


def register(client: AsyncClient) -> None:
    """Have a client come along with detours."""
    with _lock:
        _clients.add(client)


def make_transport(options: Options) -> Transport:
    """The transport that these options lead to, or the detour's; the options are checked all the same."""
    if not _detours or options.connect is not None:
        return options.make_transport()
    told = replace(options, tls=None).make_transport()  # no certificate is needed on a detour
    where = told.options if isinstance(told, DirectTransport) else ConnectOptions()
    return DirectTransport(where, connect=_detours[-1])


def opener(options: Options) -> Connect | None:
    """What opens the connections of a client with these options, where it is not the default."""
    return options.connect or (_detours[-1] if _detours else None)


def begin(connect: Connect) -> None:
    """Send every client of the process there; returns when their handlers listen.

    Args:
        connect: what opens connections.
    """
    _detours.append(connect)
    try:
        _move()
        settle()
    except BaseException:
        end(connect)
        raise


def end(connect: Connect) -> None:
    """Send every client back to where it was told."""
    _detours.remove(connect)
    _move()


def settle() -> None:
    """Wait until no handler is on its way to begin listening, for a second at most."""
    for client in _movable():
        _run_on_loop(client, client.settled)


def _move() -> None:
    moving = _movable()
    for client in moving:
        _run_on_loop(client, client.leave)
    made: dict[Transport, Transport] = {}
    for client in [client for client in moving if client.take_transport(made)]:
        _run_on_loop(client, client.arrive)


def _movable() -> list[AsyncClient]:
    with _lock:
        clients = list(_clients)
    here = running_loop()
    return [client for client in clients if client.can_move(here)]


def _run_on_loop(client: AsyncClient, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
    if client.loop is not None:
        engine.require_other_thread()
        asyncio.run_coroutine_threadsafe(call(), client.loop).result(MOVE_SECONDS)
