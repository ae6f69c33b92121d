"""The management port of a real process: what is there, what is not, and for how long."""

from __future__ import annotations

import asyncio
import signal

import httpx

from tests.support.bridge import wait_until
from tests.support.command import Command, run_command
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.metrics import scrape
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort, is_listening


def get(port: int, path: str) -> httpx.Response:
    """One request over a connection of its own."""
    return httpx.get(f"http://{LOOPBACK}:{port}{path}", trust_env=False, timeout=30)


def is_ready(port: int) -> bool:
    """Whether the bridge says that it may be used."""
    try:
        return get(port, "/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_the_management_port_has_health_and_metrics_alone(mosquitto: Mosquitto) -> None:
    """What reads or writes a message is not there, and metrics are nowhere else."""
    with (
        ReservedPort() as main,
        ReservedPort() as management,
        Command(
            "serve",
            "--port",
            str(main.number),
            "--broker-url",
            mosquitto.url,
            settings={"TIDEGATE_MANAGEMENT_PORT": str(management.number)},
        ) as bridge,
    ):
        bridge.wait_for("serving at")
        wait_until(lambda: is_ready(management.number))
        assert (
            1
            == scrape(f"http://{LOOPBACK}:{management.number}")["tidegate_broker_connections_total"][
                frozenset()
            ]
        )
        assert "alive" == get(management.number, "/livez").json()["status"]
        for path in ("/v1/status", "/v1/subscribe?topic=a", "/docs", "/openapi.json", "/console"):
            refused = get(management.number, path)
            assert (404, "urn:tidegate:problem:not-found") == (refused.status_code, refused.json()["type"])
        assert 400 == get(management.number, "/metrics?x=1").status_code
        assert get(management.number, "/livez").headers["x-request-id"]
        assert 404 == get(main.number, "/metrics").status_code
        for path in ("/livez", "/readyz"):
            assert 200 == get(main.number, path).status_code
        assert 0 == bridge.interrupt(signal.SIGTERM), bridge.output
    assert '"level":"error"' not in bridge.output
    assert not is_listening(management.number)


async def test_the_management_port_answers_to_the_end_of_a_drain() -> None:
    """The main port takes nothing more, one request is still to be answered; scrapes go on, not ready."""
    with Mosquitto() as broker, ReservedPort() as main, ReservedPort() as management:
        async with FaultProxy(broker.port) as proxy:
            settings = {
                "TIDEGATE_MANAGEMENT_PORT": str(management.number),
                "TIDEGATE_DRAIN_SECONDS": "60",
            }
            url = f"mqtt://{LOOPBACK}:{proxy.port}"
            command = ("serve", "--port", str(main.number), "--broker-url", url)
            with Command(*command, settings=settings) as bridge:
                await asyncio.to_thread(bridge.wait_for, "serving at")
                await asyncio.to_thread(wait_until, lambda: is_ready(management.number))
                await proxy.set(Fault.BLACK_HOLE)
                async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                    topic = f"http://{LOOPBACK}:{main.number}/v1/topics/management/a"
                    held = asyncio.create_task(client.post(topic, content=b"1"))
                    monitor = f"http://{LOOPBACK}:{management.number}"
                    in_flight = "tidegate_broker_in_flight_messages"
                    await asyncio.to_thread(wait_until, lambda: scrape(monitor)[in_flight][frozenset()] == 1)
                    stopping = asyncio.create_task(asyncio.to_thread(bridge.interrupt, signal.SIGTERM))
                    await asyncio.to_thread(wait_until, lambda: not is_listening(main.number))
                    found = await asyncio.to_thread(scrape, monitor)
                    assert (1, 1) == (found["tidegate_draining"][frozenset()], found[in_flight][frozenset()])
                    assert 503 == (await client.get(f"{monitor}/readyz")).status_code
                    assert 200 == (await client.get(f"{monitor}/livez")).status_code
                    assert not stopping.done()
                    await proxy.set(Fault.PASS)
                    assert 200 == (await held).status_code
                    assert 0 == await stopping, bridge.output
                assert not is_listening(management.number)


def test_a_management_port_that_is_taken_stops_the_start(mosquitto: Mosquitto) -> None:
    """In one line that names it, as with the other port."""
    with ReservedPort() as main:
        outcome = run_command(
            "serve",
            "--port",
            str(main.number),
            "--broker-url",
            mosquitto.url,
            settings={"TIDEGATE_MANAGEMENT_PORT": str(mosquitto.port)},
        )
        assert 1 == outcome.returncode
        assert f"nothing can listen at 127.0.0.1, port {mosquitto.port}: " in outcome.stderr
        assert "name another with TIDEGATE_MANAGEMENT_PORT\n" in outcome.stderr
