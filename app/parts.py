"""What a bridge is made of, without the routes in front of it: made from the settings, started and ended."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.api.stream.holdings import Holdings
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
from app.security.audit import Audit
from app.security.authentication import Authentication
from app.security.authorization import Authorization
from app.security.configured import authentication_of
from app.security.rates import Rates
from app.security.tickets import MemoryTicketStore, Tickets, TicketStore
from app.settings import Settings
from app.tracing.choice import MISSING, is_wanted, load_tracing
from tidegate.connection import Connect

if TYPE_CHECKING:
    from app.redis_watch import RedisWatch
    from app.tracing.spans import Tracing

logger = logging.getLogger("tidegate")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one bridge. The broker is at one end, and the routes are at the other."""

    settings: Settings
    link: BrokerLink
    hub: Hub
    in_use: CredentialInUse
    targets: Targets
    schemas: Schemas | None
    methods: Authentication
    tickets: Tickets
    audit: Audit
    authorization: Authorization
    rates: Rates
    holdings: Holdings
    gate: Gate
    requests: Requests
    idempotency: Idempotency
    redis: RedisWatch | None
    tracing: Tracing | None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start every part that runs; end them in the reverse of who needs whom."""
        if self.tracing is None and is_wanted(os.environ):
            logger.warning(MISSING)
        if self.redis is not None:
            self.redis.start()
        self.methods.start()
        self.link.use(await self.in_use.begin())
        await self.link.start()
        self.in_use.start()
        self.holdings.start()
        try:
            yield
        finally:
            self.hub.drain()
            await self.hub.close()
            await self.in_use.close()
            await self.link.close()
            await self.idempotency.close()
            await self.holdings.close()
            await self.methods.close()
            if self.redis is not None:
                await self.redis.close()
            self.audit.close()
            if self.tracing is not None:
                await self.tracing.close()


def make_parts(
    settings: Settings,
    *,
    connect: Connect | None = None,
    authentication: Authentication | None = None,
    tracing: Tracing | None = None,
) -> Parts:
    """Make the parts; nothing runs yet.

    Args:
        settings: everything that can be set.
        connect: what opens connections to the broker; the default client where it is left out.
        authentication: the ways to show who one is; those of the settings where it is left out.
        tracing: what traces; what the environment asks for where it is left out.

    Raises:
        ConfigurationError: a file or a key that the settings name cannot be used.
    """
    tracing = load_tracing(os.environ) if tracing is None else tracing
    redis = _redis(settings)
    tickets = Tickets(_ticket_store(settings, redis))
    given = authentication_of(settings) if authentication is None else authentication
    methods = given.with_tickets(tickets)
    audit = Audit(
        publish_sample=settings.audit_publish_sample if methods.is_required else 0.0,
        max_refusals=settings.audit_max_refusals_per_second,
    )
    authorization = Authorization(methods, audit)
    rates = Rates(settings, audit.throttled)

    bundle = settings.broker_bundle()
    options = settings.connect_options(bundle)
    link = BrokerLink(settings, options, connect=connect)
    schemas = None if settings.schemas_file is None else _load_schemas(settings.schemas_file)
    hub = _hub(settings, link, schemas)
    link.attach(hub if tracing is None else tracing.receiver(hub))
    make_gate = Gate if tracing is None else tracing.gate
    gate = make_gate(link, authorization, () if schemas is None else (schemas.check,), rates.publishes)
    return Parts(
        settings=settings,
        link=link,
        hub=hub,
        in_use=CredentialInUse(link, options, bundle, open_store(settings), explain=why_refused),
        targets=Targets(settings.credentials_test_hosts, options),
        schemas=schemas,
        methods=methods,
        tickets=tickets,
        audit=audit,
        authorization=authorization,
        rates=rates,
        holdings=Holdings(methods, max_streams=settings.max_streams_per_principal, throttled=audit.throttled),
        gate=gate,
        requests=Requests(gate, hub, settings),
        idempotency=Idempotency(_store(settings, redis), wait_seconds=settings.publish_timeout_seconds),
        redis=redis,
        tracing=tracing,
    )


def _hub(settings: Settings, link: BrokerLink, schemas: Schemas | None) -> Hub:
    journal = Journal(
        max_messages=settings.journal_max_messages,
        max_bytes=settings.journal_max_bytes,
        max_age_seconds=settings.journal_max_age_seconds,
    )
    return Hub(
        link,
        journal=journal,
        grace_seconds=settings.journal_grace_seconds,
        max_pending_bytes=settings.streams_max_bytes,
        judge=None if schemas is None else schemas.judge,
    )


def _load_schemas(file: Path) -> Schemas:
    from app.publishing.schema_file import load_schemas  # noqa: PLC0415 - the library is loaded where it is used

    return load_schemas(file)


def _redis(settings: Settings) -> RedisWatch | None:
    url = settings.redis_url.get_secret_value()
    if not url:
        return None
    from app.redis_watch import RedisWatch  # noqa: PLC0415 - loaded where it is used

    return RedisWatch(url)


def _ticket_store(settings: Settings, redis: RedisWatch | None) -> TicketStore:
    if redis is None:
        return MemoryTicketStore()
    from app.security.tickets_redis import RedisTicketStore  # noqa: PLC0415 - loaded where it is used

    return RedisTicketStore(settings.redis_url.get_secret_value(), lost=redis.lost)


def _store(settings: Settings, redis: RedisWatch | None) -> Store:
    window_seconds = settings.idempotency_window_seconds
    if redis is None:
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
    url = settings.redis_url.get_secret_value()
    return RedisStore(url, window_seconds=window_seconds, lease_seconds=lease_seconds, lost=redis.lost)
