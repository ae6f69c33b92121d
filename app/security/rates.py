"""How often a principal may do something, and all of them together.

Rules:

1. A bound that is not set costs nothing: there is no ``Rate`` for it.
2. What is refused is not counted: who waits as long as ``Retry-After`` says gets through.
3. A refusal names the setting and its value, and tells nothing of what others do.
4. Of a bridge without authentication the address of the caller stands for the principal.
5. A refusal is told to the audit log, with who it was.
6. Who has one address of IPv6 has 2^64 of them: the network that they are in counts.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, NoReturn

from limits import RateLimitItem, parse
from limits.strategies import SlidingWindowCounterRateLimiter

from app.problems import ProblemError, ProblemType
from app.security.audit import Throttled
from app.security.principal import Principal
from app.security.rate_counters import RateCounters
from app.settings import Settings
from app.settings.sources import variable

_ALL: Final = "all"


@lru_cache(maxsize=1024)
def counted_as(address: str) -> str:
    """What counts as one caller's address: one of IPv4, or a network of IPv6 with 64 bits.

    Args:
        address: of a connection, as ASGI tells it; what is none counts as it is.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


class Rate:
    """The bounds of one kind of thing.

    Args:
        name: what is counted, in the plural; the name of the policy in headers too.
        each: the setting of the bound of one caller.
        total: the setting of the bound of all together; empty where there is none.
        settings: where both are.
        counters: what counts.
        throttled: is told of refusals.
    """

    def __init__(
        self,
        name: str,
        each: str,
        total: str,
        settings: Settings,
        counters: RateCounters,
        throttled: Throttled,
    ) -> None:
        self.name = name
        self._each = _Bound(each, f"{name} of", settings, counters)
        self._total = _Bound(total, f"{name} by", settings, counters)
        self._throttled = throttled
        item = self._each.item
        self._policy = "" if item is None else f'"{name}";q={item.amount};w={item.get_expiry()}'

    @property
    def is_set(self) -> bool:
        """Whether anything is bounded."""
        return self._each.item is not None or self._total.item is not None

    def take(self, owner: str, principal: Principal | None = None) -> None:
        """Count one.

        Args:
            owner: who does it: ``Principal.bounded_as``, or an address.
            principal: who that is, for the audit log; None where nobody knows.

        Raises:
            ProblemError: TOO_MANY_REQUESTS, with ``Retry-After``.
        """
        if not self._each.count(owner):
            self._refuse(self._each, owner, "of one caller", owner, principal)
        if not self._total.count(_ALL):
            self._refuse(self._total, _ALL, "of all callers together", owner, principal)

    def _refuse(
        self, bound: _Bound, counted: str, whose: str, owner: str, principal: Principal | None
    ) -> NoReturn:
        problem = bound.refusal(counted, f"{self.name} {whose}")
        self._throttled.note(bound.variable, owner, principal, problem)
        raise problem

    def give_back(self, owner: str) -> None:
        """It came to nothing, and does not count."""
        self._each.give_back(owner)
        self._total.give_back(_ALL)

    def fields(self, owner: str) -> tuple[str, str] | None:
        """The caller's own bound, and what is left of it, as items of the two headers."""
        if self._each.item is None:
            return None
        left, seconds = self._each.look(owner)
        return self._policy, f'"{self.name}";r={left};t={seconds}'


class _Bound:
    def __init__(self, setting: str, namespace: str, settings: Settings, counters: RateCounters) -> None:
        self.variable = variable(setting)
        self._value: str = getattr(settings, setting) if setting else ""
        self._counters = counters
        self._limiter = SlidingWindowCounterRateLimiter(counters)
        self.item: RateLimitItem | None = None
        if self._value:
            self.item = parse(self._value)
            self.item.namespace = namespace

    def count(self, owner: str) -> bool:
        item = self.item
        return item is None or self._limiter.hit(item, owner)

    def refusal(self, owner: str, what: str) -> ProblemError:
        seconds = self.look(owner)[1]
        return ProblemError(
            ProblemType.TOO_MANY_REQUESTS,
            f"too many {what}: {self.variable} allows {self._value}",
            hint=f"try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )

    def give_back(self, owner: str) -> None:
        if self.item is not None:
            self._counters.give_back(self.item.key_for(owner), self.item.get_expiry())

    def look(self, owner: str) -> tuple[int, int]:
        """What is left, and in how many seconds more will be."""
        assert self.item is not None
        item = self.item
        return self._counters.outlook(item.key_for(owner), item.amount, item.get_expiry())


class Rates:
    """All bounds of the settings; None for what is not bounded.

    Args:
        settings: the bounds.
        throttled: is told of refusals.

    Attributes:
        requests: HTTP requests, handshakes and frames of WebSockets.
        publishes: messages published, whichever way.
        streams: streams, WebSockets and their subscriptions opened.
        attempts: requests that fail to show who makes them, by address.
    """

    def __init__(self, settings: Settings, throttled: Throttled) -> None:
        shared = RateCounters()
        apart = RateCounters()  # strangers push nobody else's counts out

        def rate(name: str, each: str, total: str = "", counters: RateCounters = shared) -> Rate | None:
            made = Rate(name, each, total, settings, counters, throttled)
            return made if made.is_set else None

        self.requests = rate("requests", "rate_limit_requests", "rate_limit_requests_total")
        self.publishes = rate("publishes", "rate_limit_publishes", "rate_limit_publishes_total")
        self.streams = rate("streams", "rate_limit_streams", "rate_limit_streams_total")
        self.attempts = rate("failed attempts", "rate_limit_failed_attempts", counters=apart)
        kinds = (self.requests, self.publishes, self.streams)
        self._told = tuple(each for each in kinds if each is not None)

    @property
    def has_headers(self) -> bool:
        """Whether a caller is to be told of its bounds."""
        return bool(self._told)

    def headers(self, owner: str) -> list[tuple[bytes, bytes]]:
        """``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10 §3 and §4)."""
        found = [fields for each in self._told if (fields := each.fields(owner)) is not None]
        if not found:
            return []
        policies, states = zip(*found, strict=True)
        return [
            (b"ratelimit-policy", ", ".join(policies).encode("ascii")),
            (b"ratelimit", ", ".join(states).encode("ascii")),
        ]
