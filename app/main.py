"""Wires the parts into one application; the only place that knows them all."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from app import asyncapi, openapi
from app.api import console, credential_use, credentials, docs, health, metrics, principal, status
from app.api.access import Guard
from app.api.access_log import AccessLog
from app.api.batch import BatchRoute
from app.api.cors import add_cors
from app.api.input.body import BodyReader
from app.api.input.strict_query import StrictQuery
from app.api.management import NO_TELEMETRY, create_management
from app.api.origin import Origins
from app.api.output import exceptions
from app.api.output.once import Once
from app.api.publish import PublishRoute
from app.api.raw_route import RawRoutes
from app.api.requests import RequestsRoute
from app.api.stream.holdings import Holdings
from app.api.stream.subscriptions import Subscriptions
from app.api.subscribe import SubscribeRoute
from app.api.tickets import TicketsRoute
from app.api.topics import TopicsRoute
from app.api.websocket import UpgradeRoute, WebSocketRoute
from app.broker.link import BrokerLink
from app.credentials.in_use import CredentialInUse
from app.credentials.opening import open_store
from app.credentials.targets import Targets
from app.diagnosis.credential import why_refused
from app.hub.hub import Hub
from app.hub.journal import Journal
from app.metrics.exposition import BridgeCollector, Exposition
from app.metrics.refusals import AuthenticationRefusals
from app.problems import ProblemError, ProblemType
from app.publishing.gate import Gate
from app.publishing.idempotency import Idempotency
from app.publishing.idempotency_store import MemoryStore, Store
from app.publishing.requests import Requests
from app.publishing.schemas import Schemas
from app.security.audit import Audit
from app.security.authentication import Authentication
from app.security.authorization import Authorization
from app.security.configured import authentication_of
from app.security.rates import Rates
from app.security.tickets import MemoryTicketStore, Tickets, TicketStore
from app.settings import Settings
from app.settings.server import is_loopback
from app.tracing.choice import MISSING, is_wanted, load_tracing
from tidegate.connection import Connect

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

logger = logging.getLogger("tidegate")


def create_app(
    settings: Settings,
    *,
    connect: Connect | None = None,
    authentication: Authentication | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Make the application; nothing runs before its lifespan begins.

    Args:
        settings: everything that can be set.
        connect: what opens connections to the broker, for a test; the default client where it is left out.
        authentication: the ways to show who one is, for a test; those of the settings where it is left out.
        tracing: what traces, for a test; what the environment asks for where it is left out.

    Raises:
        ConfigurationError: a file or a key that the settings name cannot be used.
    """
    tickets = Tickets(_ticket_store(settings))
    given = authentication_of(settings) if authentication is None else authentication
    methods = given.with_tickets(tickets)
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
    tracing = load_tracing(os.environ) if tracing is None else tracing
    link.attach(hub if tracing is None else tracing.receiver(hub))
    idempotency = Idempotency(_store(settings), wait_seconds=settings.publish_timeout_seconds)
    bodies = BodyReader(max_bytes=settings.max_body_bytes, timeout_seconds=settings.body_timeout_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if tracing is None and is_wanted(os.environ):
            logger.warning(MISSING)
        methods.start()
        link.use(await in_use.begin())
        await link.start()
        in_use.start()
        holdings.start()
        try:
            yield
        finally:
            hub.drain()
            await hub.close()
            await in_use.close()
            await link.close()
            await idempotency.close()
            await holdings.close()
            await methods.close()
            audit.close()
            if tracing is not None:
                await tracing.close()

    def describe() -> dict[str, Any]:
        return openapi.document(app, cookie=settings.jwt_cookie)

    app: FastAPI = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="Tidegate",
        version=version("tidegate-bridge"),
        summary="Joins HTTP to MQTT: publish, read and follow a broker's topics.",
        lifespan=lifespan,
        redirect_slashes=False,
        dependencies=[Depends(StrictQuery(describe))],
        telemetry=NO_TELEMETRY,
    )
    app.state.describe_streams = lambda: asyncapi.document(app)
    app.state.link = link
    app.state.hub = hub
    app.state.in_use = in_use
    health_router = health.create_router(link, hub, idempotency.memory, in_use)
    app.include_router(health_router)
    audit = Audit(
        publish_sample=settings.audit_publish_sample if methods.is_required else 0.0,
        max_refusals=settings.audit_max_refusals_per_second,
    )
    authorization = Authorization(methods, audit)
    holdings = Holdings(methods, max_streams=settings.max_streams_per_principal, throttled=audit.throttled)
    rates = Rates(settings, audit.throttled)
    make_gate = Gate if tracing is None else tracing.gate
    gate = make_gate(link, authorization, () if schemas is None else (schemas.check,), rates.publishes)
    app.state.gate = gate
    once = Once(idempotency)
    requests = Requests(gate, hub, settings)
    app.include_router(status.create_router(link, hub, requests.counts, methods, schemas, in_use))
    app.include_router(principal.router)
    app.include_router(docs.router)
    app.include_router(credentials.create_router(in_use, body_timeout_seconds=settings.body_timeout_seconds))
    app.include_router(
        credential_use.create_router(
            in_use,
            Targets(settings.credentials_test_hosts, options),
            body_timeout_seconds=settings.body_timeout_seconds,
        )
    )
    app.include_router(console.router)
    problems = Counter[ProblemType]()
    app.state.refusals = AuthenticationRefusals()
    app.state.collector = BridgeCollector(
        link,
        hub,
        gate.counts,
        requests.counts,
        problems,
        schemas,
        app.state.refusals,
        audit.refusals,
        settings,
    )
    app.state.collector.days_left = in_use.credential_days
    metrics_router = metrics.create_router(Exposition(app.state.collector))
    app.state.management = None
    if settings.management_port is None:
        app.include_router(metrics_router)
    else:
        app.state.management = create_management([health_router, metrics_router])
    topics = TopicsRoute(
        gate,
        link,
        hub,
        bodies,
        once,
        authorization,
        retained_timeout_seconds=settings.retained_timeout_seconds,
        max_retained_messages=settings.max_retained_messages,
        cloudevents_source=settings.cloudevents_source,
    )
    subscriptions = Subscriptions(hub, authorization, settings, rates)
    raw_routes = [
        topics,
        PublishRoute(gate, bodies, once),
        BatchRoute(gate, bodies, once, authorization, settings),
        RequestsRoute(gate, requests, bodies, once, authorization, settings),
        SubscribeRoute(hub, subscriptions, holdings, bodies, settings),
        TicketsRoute(tickets, bodies, authorization, settings, audit.throttled),
        WebSocketRoute(gate, hub, subscriptions, holdings, settings, rates),
        UpgradeRoute(),
    ]
    app.add_middleware(RawRoutes, routes=raw_routes, problems=problems)

    def count_refusal(problem: ProblemError) -> None:
        problems[problem.kind] += 1
        if problem.kind.status == 401:
            app.state.refusals.count(problem.kind.slug)

    app.add_middleware(
        Guard,
        authentication=methods,
        authorization=authorization,
        origins=_origins(settings, methods),
        rates=rates,
        audit=audit,
        on_refusal=count_refusal,
    )
    app.openapi = describe  # type: ignore[method-assign]
    exceptions.install(app, lambda: describe()["paths"], problems)
    add_cors(app, settings.cors_origins, allow_credentials=bool(settings.jwt_cookie))
    if tracing is not None:
        tracing.add_to(app)
    if settings.access_log:
        app.add_middleware(AccessLog)
    return app


def _load_schemas(file: Path) -> Schemas:
    from app.publishing.schema_file import load_schemas  # noqa: PLC0415 - the library is loaded where it is used

    return load_schemas(file)


def _origins(settings: Settings, authentication: Authentication) -> Origins:
    hosts = settings.allowed_hosts
    is_checked = bool(hosts) or (not authentication.is_required and is_loopback(settings.host))
    return Origins(settings.cors_origins, hosts if is_checked else None)


def _ticket_store(settings: Settings) -> TicketStore:
    url = settings.redis_url.get_secret_value()
    if not url:
        return MemoryTicketStore()
    from app.security.tickets_redis import RedisTicketStore  # noqa: PLC0415 - loaded where it is used

    return RedisTicketStore(url)


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
