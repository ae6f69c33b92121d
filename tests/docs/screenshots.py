"""``python -m tests.docs.screenshots``: the pictures of docs/, taken of what runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from playwright.sync_api import expect

from app.dev.sensors import SENSORS
from tests.support.bridge import Bridge, running_bridge
from tests.support.browser import running_browser
from tests.support.command import ROOT
from tests.support.mosquitto import Mosquitto
from tests.support.prometheus import Prometheus

IMAGES: Final = ROOT / "docs" / "images"
MILLISECONDS: Final = 20_000
WIDTH: Final = 1280
HEIGHT: Final = 960
ROUNDS: Final = 12
"""How many values each sensor has told when the picture is taken."""

PANEL: Final = "Publishes by outcome"
SCRAPES: Final = 60
"""How many seconds the graph of that panel shows."""


def publish(bridge: Bridge, number: int) -> None:
    """Have each of the made-up sensors tell a value; the same ones each time."""
    for index, sensor in enumerate(SENSORS):
        value = sensor.usual + sensor.step * ((number * 7 + index * 3) % 11 - 5)
        bridge.client.post(
            f"/v1/topics/{sensor.topic}",
            content=json.dumps({sensor.quantity: round(value, 2)}),
            params={"retain": str(sensor.retain).lower()},
            headers={"Content-Type": "application/json"},
        ).raise_for_status()


def take_console(bridge: Bridge, path: Path) -> None:
    """The console: a tree of topics, one of them opened, and a message that was published."""
    with running_browser() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        page.goto(f"{bridge.url}/console?topic=demo/%23")
        expect(page.locator("#stream-state")).to_have_text("live")
        for number in range(ROUNDS):
            publish(bridge, number)
        page.get_by_role("button", name="Publish", exact=True).click()
        expect(page.locator("#outcome")).not_to_be_empty()
        page.get_by_role("button", name="Expand all").click()
        row = page.locator("[role=treeitem]:visible", has=page.locator('.name:text-is("roof")'))
        expect(row).to_have_count(1)
        page.locator("[role=treeitem]:visible", has=page.locator('.name:text-is("temperature")')).last.click()
        expect(page.locator("#details")).to_be_visible()
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=path)


def take_graph(broker: Mosquitto, bridge: Bridge, path: Path) -> None:
    """A query of the dashboard, drawn by Prometheus: publishes by outcome, and no broker for a while."""
    dashboard = json.loads((ROOT / "deploy/grafana/tidegate.json").read_text())
    (panel,) = (each for each in dashboard["panels"] if each["title"] == PANEL)
    query = panel["targets"][0]["expr"].replace("$job", ".*").replace("$instance", ".*")
    with Prometheus(bridge.port) as prometheus, running_browser() as browser:
        for number in range(SCRAPES):
            if number == SCRAPES // 2:
                broker.stop()
            if number == SCRAPES * 3 // 4:
                broker.start()
                bridge.wait_until_ready()
            for _ in range(1 + number % 3):
                bridge.client.post("/v1/topics/demo/a", content=b"1")
            prometheus.wait_for_scrape()
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        asked = {"g0.expr": query.replace("$__rate_interval", "5s"), "g0.tab": 0, "g0.range_input": "1m"}
        page.goto(f"{prometheus.url}/graph?{urlencode(asked)}")
        expect(page.locator(".legend .line")).to_have_count(2)
        page.screenshot(path=path)


def main() -> int:
    """Take them all."""
    IMAGES.mkdir(exist_ok=True)
    with Mosquitto() as broker, running_bridge(broker.url) as bridge:
        take_console(bridge, IMAGES / "console.png")
    with Mosquitto() as broker, running_bridge(broker.url, publish_timeout_seconds=0.2) as bridge:
        take_graph(broker, bridge, IMAGES / "prometheus.png")
    for path in sorted(IMAGES.glob("*.png")):
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
