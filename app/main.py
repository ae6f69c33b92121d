"""Puts HTTP in front of the parts of a bridge: routes, what guards them, and what counts them."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import BaseRoute

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
from app.api.request_counting import RequestCounting
from app.api.requests import RequestsRoute
from app.api.route_templates import RouteTemplates
from app.api.stream.subscriptions import Subscriptions
from app.api.subscribe import SubscribeRoute
from app.api.tickets import TicketsRoute
from app.api.topics import TopicsRoute
from app.api.websocket import UpgradeRoute, WebSocketRoute
from app.contracts import asyncapi, openapi
from app.metrics.exposition import BridgeCollector, Exposition
from app.metrics.http_counts import HttpCounts
from app.metrics.refusals import AuthenticationRefusals
from app.parts import Parts, make_parts
from app.problems import ProblemError, ProblemType
from app.security.authentication import Authentication
from app.settings import Settings
from app.settings.server import is_loopback
from tidegate.connection import Connect

if TYPE_CHECKING:
    from app.tracing.spans import Tracing


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
    parts = make_parts(settings, connect=connect, authentication=authentication, tracing=tracing)

    def describe() -> dict[str, Any]:
        return openapi.document(app, cookie=settings.jwt_cookie)

    app: FastAPI = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="Tidegate",
        version=version("tidegate-bridge"),
        summary="Joins HTTP to MQTT: publish, read and follow a broker's topics.",
        lifespan=lambda _: parts.running(),
        redirect_slashes=False,
        dependencies=[Depends(StrictQuery(describe))],
        telemetry=NO_TELEMETRY,
    )
    app.openapi = describe  # type: ignore[method-assign]
    app.state.describe_streams = lambda: asyncapi.document(app)
    app.state.link = parts.link
    app.state.hub = parts.hub
    app.state.in_use = parts.in_use
    app.state.gate = parts.gate
    problems = Counter[ProblemType]()
    http_counts = HttpCounts()
    _add_collector(app, parts, problems, http_counts)
    _include_routers(app, parts)
    raw_routes = _raw_routes(parts)
    templates = RouteTemplates(raw_routes, app.routes)
    app.state.request_counting = RequestCounting(http_counts, templates.find)
    app.add_middleware(RawRoutes, routes=raw_routes, problems=problems)
    _add_guard(app, parts, problems)
    exceptions.install(app, lambda: describe()["paths"], problems)
    add_cors(app, settings.cors_origins, allow_credentials=bool(settings.jwt_cookie))
    if parts.tracing is not None:
        parts.tracing.add_to(app)
    if settings.access_log:
        app.add_middleware(AccessLog)
    return app


def _add_collector(
    app: FastAPI, parts: Parts, problems: Counter[ProblemType], http_counts: HttpCounts
) -> None:
    app.state.refusals = AuthenticationRefusals()
    app.state.collector = BridgeCollector(
        parts.link,
        parts.hub,
        parts.gate.counts,
        parts.requests.counts,
        problems,
        parts.schemas,
        app.state.refusals,
        parts.audit.refusals,
        parts.settings,
        http_counts,
        parts.redis,
    )
    app.state.collector.days_left = parts.in_use.credential_days


def _include_routers(app: FastAPI, parts: Parts) -> None:
    """The routes that the framework reads; health and metrics on the management port, where there is one."""
    settings = parts.settings
    health_router = health.create_router(parts.link, parts.hub, parts.idempotency.memory, parts.in_use)
    metrics_router = metrics.create_router(Exposition(app.state.collector))
    app.include_router(health_router)
    app.include_router(
        status.create_router(
            parts.link,
            parts.hub,
            parts.requests.counts,
            parts.methods,
            parts.schemas,
            parts.in_use,
            parts.redis,
        )
    )
    app.include_router(principal.router)
    app.include_router(docs.router)
    app.include_router(
        credentials.create_router(parts.in_use, body_timeout_seconds=settings.body_timeout_seconds)
    )
    app.include_router(
        credential_use.create_router(
            parts.in_use, parts.targets, body_timeout_seconds=settings.body_timeout_seconds
        )
    )
    app.include_router(console.router)
    app.state.management = None
    if settings.management_port is None:
        app.include_router(metrics_router)
    else:
        app.state.management = create_management([health_router, metrics_router])


def _raw_routes(parts: Parts) -> list[BaseRoute]:
    """The routes that read a request from ASGI themselves."""
    settings, gate, hub, authorization = parts.settings, parts.gate, parts.hub, parts.authorization
    bodies = BodyReader(max_bytes=settings.max_body_bytes, timeout_seconds=settings.body_timeout_seconds)
    once = Once(parts.idempotency)
    subscriptions = Subscriptions(hub, authorization, settings, parts.rates)
    topics = TopicsRoute(
        gate,
        parts.link,
        hub,
        bodies,
        once,
        authorization,
        retained_timeout_seconds=settings.retained_timeout_seconds,
        max_retained_messages=settings.max_retained_messages,
        cloudevents_source=settings.cloudevents_source,
    )
    return [
        topics,
        PublishRoute(gate, bodies, once),
        BatchRoute(gate, bodies, once, authorization, settings),
        RequestsRoute(gate, parts.requests, bodies, once, authorization, settings),
        SubscribeRoute(hub, subscriptions, parts.holdings, bodies, settings),
        TicketsRoute(parts.tickets, bodies, authorization, settings, parts.audit.throttled),
        WebSocketRoute(gate, hub, subscriptions, parts.holdings, settings, parts.rates),
        UpgradeRoute(),
    ]


def _add_guard(app: FastAPI, parts: Parts, problems: Counter[ProblemType]) -> None:
    def count_refusal(problem: ProblemError) -> None:
        problems[problem.kind] += 1
        if problem.kind.status == 401:
            app.state.refusals.count(problem.kind.slug)

    app.add_middleware(
        Guard,
        authentication=parts.methods,
        authorization=parts.authorization,
        origins=_origins(parts.settings, parts.methods),
        rates=parts.rates,
        audit=parts.audit,
        on_refusal=count_refusal,
    )


def _origins(settings: Settings, authentication: Authentication) -> Origins:
    hosts = settings.allowed_hosts
    is_checked = bool(hosts) or (not authentication.is_required and is_loopback(settings.host))
    return Origins(settings.cors_origins, hosts if is_checked else None)
