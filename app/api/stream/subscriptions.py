"""Makes listeners out of what clients ask for, within the bounds of the settings."""

from __future__ import annotations

from app.api.input.stream_options import SubscriptionOptions
from app.api.input.topic_rules import require_filter
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from app.hub.position import Position
from app.problems import ProblemError, ProblemType
from app.security.authorization import Authorization
from app.security.principal import Principal
from app.security.rates import Rates
from app.settings import Settings


class Subscriptions:
    """Opens subscriptions.

    Args:
        hub: whom listeners join.
        authorization: decides whether a principal may follow a filter.
        settings: the bounds.
        rates: how often a principal may open one.
    """

    def __init__(self, hub: Hub, authorization: Authorization, settings: Settings, rates: Rates) -> None:
        self._hub = hub
        self._authorization = authorization
        self._settings = settings
        self._rate = rates.streams

    async def open(
        self,
        principal: Principal,
        options: SubscriptionOptions,
        last_event_id: str = "",
        *,
        field: str,
        form: str,
    ) -> tuple[Listener, Position]:
        """Join the hub with a new listener; whoever asked has to see to it that it leaves.

        Args:
            principal: who asks.
            options: what was asked for.
            last_event_id: the last event that the client has seen.
            field: where the filters came from, for a problem.
            form: what the stream is counted as.

        Returns:
            The listener, and where the client stands before the first event.

        Raises:
            ProblemError: the principal is good no more, a filter, a grant or a bound does not allow it, or
                the bridge stops.
            RefusedError: the broker refused a filter.
            MQTTError: the broker is away or does not answer.
        """
        settings = self._settings
        self._authorization.require_current(principal)
        if len(options.topics) > settings.max_filters_per_stream:
            raise ProblemError(
                ProblemType.INVALID_PARAMETER,
                f"{len(options.topics)} filters; TIDEGATE_MAX_FILTERS_PER_STREAM allows "
                f"{settings.max_filters_per_stream}",
                field=field,
                hint="use a filter with a wildcard, or several streams",
            )
        for index, topic_filter in enumerate(options.topics):
            place = f"{field}/{index}" if field.startswith("/") else field
            require_filter(topic_filter, field=place)
            self._authorization.require_subscribe(principal, topic_filter, options.qos, field=place)
        if self._hub.listeners >= settings.max_streams:
            raise ProblemError(
                ProblemType.TOO_MANY_STREAMS,
                f"{settings.max_streams} streams are open: as many as TIDEGATE_MAX_STREAMS allows",
            )
        if self._rate is not None:
            self._rate.take(principal.bounded_as, principal)
        listener = Listener(
            options.topics,
            qos=options.qos,
            retained=options.retained,
            policy=options.overflow,
            interval_seconds=options.interval,
            limit=options.limit,
            max_messages=settings.listener_max_messages,
            max_bytes=settings.listener_max_bytes,
            form=form,
        )
        position = await self._hub.join(listener, last_event_id)
        if listener.close_reason is CloseReason.SHUTDOWN:
            self._hub.leave(listener)
            raise ProblemError(ProblemType.SHUTTING_DOWN, "the bridge stops; connect again in a moment")
        return listener, position
