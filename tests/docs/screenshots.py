"""``python -m tests.docs.screenshots``: the pictures of docs/, taken of what runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from app.dev.sensors import SENSORS
from tests.support.bridge import Bridge, running_bridge
from tests.support.browser import running_browser
from tests.support.command import ROOT
from tests.support.mosquitto import Mosquitto

IMAGES: Final = ROOT / "docs" / "images"
MILLISECONDS: Final = 20_000
WIDTH: Final = 1280
HEIGHT: Final = 960
ROUNDS: Final = 12
"""How many values each sensor has told when the picture is taken."""


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


def main() -> int:
    """Take them all."""
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / "console.png"
    with Mosquitto() as broker, running_bridge(broker.url) as bridge:
        take_console(bridge, path)
    sys.stdout.write(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
