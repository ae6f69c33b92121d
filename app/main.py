"""Wires the parts into one application; the only place that knows them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from app import openapi
from app.api import console, credential_use, credentials, health, status
from app.api.batch import BatchRoute
from app.api.input import headers, idempotency_key
from app.api.input.body import BodyReader
from app.api.input.cloud_event import EVENT_HEADERS
from app.api.input.strict_query import StrictQuery
from app.api.output import exceptions
from app.api.output.once import Once
from app.api.publish import PublishRoute
from app.api.raw_route import RawRoutes
from app.api.requests import RequestsRoute
from app.api.stream.subscriptions import Subscriptions
from app.api.subscribe import SubscribeRoute
from app.api.topics import TopicsRoute
from app.api.websocket import UpgradeRoute, WebSocketRoute
from app.broker.link import BrokerLink
from app.credentials.in_use import CredentialInUse
from app.credentials.opening import open_store
from app.credentials.targets import Targets
from app.diagnosis.credential import why_refused
from app.hub.hub import Hub
from app.hub.journal import Journal
from app.publishing.gate import Gate
from app.publishing.idempotency import Idempotency
from app.publishing.idempotency_store import MemoryStore, Store
from app.publishing.requests import Requests
from app.publishing.schemas import Schemas
from app.publishing.trace_context import NAMES
from app.settings import Settings
from tidegate.connection import Connect


def create_app(settings: Settings, *, connect: Connect | None = None) -> FastAPI:
    """Make the application; nothing runs before its lifespan begins.

    Args:
        settings: everything that can be set.
        connect: what opens connections to the broker, for a test; the default client where it is left out.

    Raises:
        ConfigurationError: a file that the settings name cannot be used.
    """
    bundle = settings.broker_bundle()
    options = settings.connect_options(bundle)
    link = BrokerLink(settings, options, connect=connect)
    in_use = CredentialInUse(link, options, bundle, open_store(settings), explain=why_refused)
    journal = Journal(
        max_messages=settings.journal_max_messages,
        max_bytes=settings.journal_max_bytes,
        max_age_seconds=settings.journal_max_age_seconds,
    )
    schemas = None if settings.schemas_file is None else _load_schemas(settings.schemas_file)
    hub = Hub(
        link,
        journal=journal,
        grace_seconds=settings.journal_grace_seconds,
        max_pending_bytes=settings.streams_max_bytes,
        judge=None if schemas is None else schemas.judge,
    )
    link.attach(hub)
    idempotency = Idempotency(_store(settings), wait_seconds=settings.publish_timeout_seconds)
    bodies = BodyReader(max_bytes=settings.max_body_bytes, timeout_seconds=settings.body_timeout_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        link.use(await in_use.begin())
        await link.start()
        in_use.start()
        try:
            yield
        finally:
            hub.drain()
            await hub.close()
            await in_use.close()
            await link.close()
            await idempotency.close()

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
    app.state.in_use = in_use
    app.include_router(health.create_router(link, hub, idempotency.memory, in_use))
    gate = Gate(link, () if schemas is None else (schemas.check,))
    app.state.gate = gate
    once = Once(idempotency)
    requests = Requests(gate, hub, settings)
    app.include_router(status.create_router(link, hub, requests.counts, schemas, in_use))
    app.include_router(credentials.create_router(in_use, body_timeout_seconds=settings.body_timeout_seconds))
    app.include_router(
        credential_use.create_router(
            in_use,
            Targets(settings.credentials_test_hosts, options),
            body_timeout_seconds=settings.body_timeout_seconds,
        )
    )
    app.include_router(console.router)
    topics = TopicsRoute(
        gate,
        link,
        hub,
        bodies,
        once,
        retained_timeout_seconds=settings.retained_timeout_seconds,
        max_retained_messages=settings.max_retained_messages,
        cloudevents_source=settings.cloudevents_source,
    )
    subscriptions = Subscriptions(hub, settings)
    raw_routes = [
        topics,
        PublishRoute(gate, bodies, once),
        BatchRoute(gate, bodies, once, settings),
        RequestsRoute(gate, requests, bodies, once, settings),
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
            allow_headers=[
                "Content-Type",
                "Last-Event-ID",
                idempotency_key.IDEMPOTENCY_KEY,
                *headers.REQUEST_HEADERS,
                *EVENT_HEADERS,
                *NAMES,
            ],
            expose_headers=[
                "Last-Event-ID",
                "Retry-After",
                idempotency_key.IDEMPOTENCY_REPLAYED,
                *headers.ANSWER_HEADERS,
                *EVENT_HEADERS,
                *NAMES,
            ],
        )
    return app


def _load_schemas(file: Path) -> Schemas:
    from app.publishing.schema_file import load_schemas  # noqa: PLC0415 - the library is loaded where it is used

    return load_schemas(file)


def _store(settings: Settings) -> Store:
    url = settings.redis_url.get_secret_value()
    window_seconds = settings.idempotency_window_seconds
    if not url:
        return MemoryStore(
            window_seconds=window_seconds,
            max_keys=settings.idempotency_max_keys,
            max_bytes=settings.idempotency_max_bytes,
        )
    from app.publishing.idempotency_redis import (  # noqa: PLC0415 - loaded where it is used
        LEASE_MARGIN_SECONDS,
        RedisStore,
    )

    lease_seconds = settings.publish_timeout_seconds + LEASE_MARGIN_SECONDS
    return RedisStore(url, window_seconds=window_seconds, lease_seconds=lease_seconds)
