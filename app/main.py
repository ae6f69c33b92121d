"""Wires the parts into one application; the only place that knows them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from app import openapi
from app.api import console, health, status
from app.api.input import headers
from app.api.input.body import BodyReader
from app.api.input.strict_query import StrictQuery
from app.api.output import exceptions
from app.api.publish import PublishRoute
from app.api.raw_route import RawRoutes
from app.api.stream.subscriptions import Subscriptions
from app.api.subscribe import SubscribeRoute
from app.api.topics import TopicsRoute
from app.api.websocket import UpgradeRoute, WebSocketRoute
from app.broker.link import BrokerLink
from app.hub.hub import Hub
from app.hub.journal import Journal
from app.publishing.gate import Gate
from app.settings import Settings
from tidegate.connection import Connect


def create_app(settings: Settings, *, connect: Connect | None = None) -> FastAPI:
    """Make the application; nothing runs before its lifespan begins.

    Args:
        settings: everything that can be set.
        connect: what opens connections to the broker, for a test; the default client where it is left out.
    """
    link = BrokerLink(settings, settings.connect_options(), connect=connect)
    journal = Journal(
        max_messages=settings.journal_max_messages,
        max_bytes=settings.journal_max_bytes,
        max_age_seconds=settings.journal_max_age_seconds,
    )
    hub = Hub(
        link,
        journal=journal,
        grace_seconds=settings.journal_grace_seconds,
        max_pending_bytes=settings.streams_max_bytes,
    )
    link.attach(hub)
    bodies = BodyReader(max_bytes=settings.max_body_bytes, timeout_seconds=settings.body_timeout_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await link.start()
        try:
            yield
        finally:
            hub.drain()
            await hub.close()
            await link.close()

    def describe() -> dict[str, Any]:
        return openapi.document(app)

    app: FastAPI = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="Tidegate",
        version=version("tidegate-bridge"),
        summary="Joins HTTP to MQTT: publish, read and follow a broker's topics.",
        lifespan=lifespan,
        redirect_slashes=False,
        dependencies=[Depends(StrictQuery(describe))],
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.state.link = link
    app.state.hub = hub
    app.include_router(health.create_router(link, hub))
    app.include_router(status.create_router(link, hub))
    app.include_router(console.router)
    gate = Gate(link)
    topics = TopicsRoute(
        gate,
        link,
        hub,
        bodies,
        retained_timeout_seconds=settings.retained_timeout_seconds,
        max_retained_messages=settings.max_retained_messages,
    )
    subscriptions = Subscriptions(hub, settings)
    raw_routes = [
        topics,
        PublishRoute(gate, bodies),
        SubscribeRoute(hub, subscriptions, bodies, settings),
        WebSocketRoute(gate, hub, subscriptions, settings),
        UpgradeRoute(),
    ]
    app.add_middleware(RawRoutes, routes=raw_routes)
    app.openapi = describe  # type: ignore[method-assign]
    exceptions.install(app, lambda: describe()["paths"])
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "POST", "PUT"],
            allow_headers=["Content-Type", "Last-Event-ID", *headers.REQUEST_HEADERS],
            expose_headers=["Last-Event-ID", "Retry-After", *headers.ANSWER_HEADERS],
        )
    return app
