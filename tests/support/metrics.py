"""Reading ``/metrics`` in a test, with the parser of Prometheus' own client."""

from __future__ import annotations

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families


def scrape(url: str, *, token: str = "") -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """All samples at a URL: by name, and then by their labels; with a token where the bridge wants one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(f"{url}/metrics", headers=headers, trust_env=False)
    assert 200 == answer.status_code, answer.text
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for each in family.samples:
            found.setdefault(each.name, {})[frozenset(each.labels.items())] = each.value
    return found


def value(url: str, name: str, **labels: Any) -> float:
    """One sample; zero where there is none of these labels yet."""
    wanted = frozenset((key, str(each)) for key, each in labels.items())
    return scrape(url).get(name, {}).get(wanted, 0.0)
