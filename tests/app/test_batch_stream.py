from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import Command
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.upload import Upload, chunk

PATH = "/v1/publish/batch"
NDJSON = "application/x-ndjson"
HEADERS = {"Content-Type": NDJSON}
MEBIBYTE = 1_048_576


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture(scope="module")
def impatient_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that waits a second for more of a body."""
    with running_bridge(mosquitto.url, body_timeout_seconds=1) as running:
        yield running


def message(payload: Any = 1, **members: Any) -> dict[str, Any]:
    """A message to a topic that nobody listens to."""
    return {"topic": "nobody/listens", "payload": payload, **members}


def kinds(results: list[dict[str, Any]]) -> list[str]:
    """The problem types of results, or ``taken``."""
    prefix = "urn:tidegate:problem:"
    return [
        each["problem"]["type"].removeprefix(prefix) if "problem" in each else "taken" for each in results
    ]


def tasks(bridge: Bridge) -> int:
    """How many tasks the bridge has."""

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    assert bridge._loop is not None
    return asyncio.run_coroutine_threadsafe(count(), bridge._loop).result()


def test_results_come_while_the_body_does(bridge: Bridge) -> None:
    """With ``Accept: application/x-ndjson`` each line is answered when the broker has taken it."""
    with Upload(bridge.port, accept=NDJSON) as upload:
        for index in range(3):
            upload.send(message(index))
            upload.read_until(lambda: len(upload.objects) == index + 1)  # noqa: B023
        upload.send(b"{nope\n")
        upload.read_until(lambda: len(upload.objects) == 4)
        upload.end()
        upload.read_to_end()
        *results, last = upload.objects
        assert (200, {"accepted": 3, "failed": 1}) == (upload.status, last)
        assert [0, 1, 2, 3] == [each["index"] for each in results]
        assert ["taken", "taken", "taken", "malformed-body"] == kinds(results)


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
def test_a_client_that_sends_all_before_it_reads(bridge: Bridge, accept: str) -> None:
    """Httpx does; its answer is larger than what the kernel holds for it, and nobody waits for the other."""
    count, piece = 100_000, 1000
    line = json.dumps(message(qos=0)).encode() + b"\n"
    answer = httpx.post(
        bridge.url + PATH,
        content=(line * piece for _ in range(count // piece)),
        headers={**HEADERS, "Accept": accept},
        timeout=60,
        trust_env=False,
    )
    if accept == NDJSON:
        *results, last = map(json.loads, answer.text.splitlines())
        assert {"accepted": count, "failed": 0} == last
    else:
        results = answer.json()["results"]
    assert list(range(count)) == [each["index"] for each in results]


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
def test_a_reader_that_takes_nothing_is_let_go(mosquitto: Mosquitto, accept: str) -> None:
    """Once the batch is through, its answer waits for so long, and leaves no task behind."""
    with running_bridge(mosquitto.url, stream_send_timeout_seconds=0.5) as bridge:
        before = tasks(bridge)
        with Upload(bridge.port, accept=accept, receive_bytes=4096) as upload:
            piece = chunk(*[message(qos=0)] * 1000)
            for _ in range(20):
                upload.send_raw(piece)
            wait_until(lambda: tasks(bridge) > before)
            upload.end()
            wait_until(lambda: tasks(bridge) == before)
            with pytest.raises((AssertionError, ConnectionError)):
                upload.read_to_end()


def test_a_body_that_stops(impatient_bridge: Bridge) -> None:
    """What came before is published and told; the status says that it was not all."""
    with Upload(impatient_bridge.port) as upload:
        upload.send(message(), message(qos=0))
        upload.read_to_end()
        found = json.loads(upload.received.partition(b"\r\n\r\n")[2])
        assert (408, 2, 0, 2) == (upload.status, found["accepted"], found["failed"], len(found["results"]))


def test_an_answer_in_lines_to_a_body_that_stops(impatient_bridge: Bridge) -> None:
    """Where the status is sent already, the last line has the problem."""
    with Upload(impatient_bridge.port, accept=NDJSON) as upload:
        upload.send(message())
        upload.read_to_end()
        assert (200, ["taken", "body-timeout"]) == (upload.status, kinds(upload.objects))
        assert 1 == upload.objects[-1]["accepted"]
        upload.read_to_close()


def test_a_client_that_leaves(fresh_mosquitto: Mosquitto) -> None:
    """What it sent is published, and nothing of the request stays."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        before, session = tasks(bridge), bridge.app.state.link.session
        fresh_mosquitto.pause()
        with Upload(bridge.port) as upload:
            upload.send(message("left", topic="batch/left", retain=True), *[message()] * 29)
            wait_until(lambda: session.in_flight + session.waiting == 30)
        wait_until(lambda: tasks(bridge) == before)
        fresh_mosquitto.resume()
        wait_until(lambda: session.in_flight + session.waiting == 0)
        assert "left" == bridge.client.get("/v1/topics/batch/left").json()


def test_failures_that_nobody_asks_for(fresh_mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    """What fails after its client left is not logged as forgotten."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        before, session = tasks(bridge), bridge.app.state.link.session
        fresh_mosquitto.pause()
        with Upload(bridge.port) as upload:
            upload.send(*[message(qos=2)] * 3)
            wait_until(lambda: session.in_flight == 3)
        wait_until(lambda: tasks(bridge) == before)
        fresh_mosquitto.kill()
        wait_until(lambda: session.in_flight == 0)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_messages_do_not_wait_for_one_another(fresh_mosquitto: Mosquitto) -> None:
    """As many are with the broker as it takes, here 20, and as many again wait behind them."""
    with running_bridge(fresh_mosquitto.url) as bridge, Upload(bridge.port) as upload:
        session = bridge.app.state.link.session
        fresh_mosquitto.pause()
        upload.send(*[message()] * 200)
        upload.end()
        wait_until(lambda: (session.in_flight, session.waiting) == (20, 20))
        fresh_mosquitto.resume()
        upload.read_to_end()
        assert 200 == upload.status


def test_a_sender_is_held_back(fresh_mosquitto: Mosquitto) -> None:
    """While the broker takes nothing no more is read than is in work, and later everything arrives."""
    with running_bridge(fresh_mosquitto.url) as bridge, Upload(bridge.port, accept=NDJSON) as upload:
        session = bridge.app.state.link.session
        fresh_mosquitto.pause()
        piece = chunk(*[message("x" * 900)] * 100)
        sent = upload.send_until_full(piece, quiet_seconds=0.5)
        outstanding = session.in_flight + session.waiting
        fresh_mosquitto.resume()
        upload.send_rest(piece, sent)
        upload.end()
        upload.read_to_end()
        assert 40 == outstanding
        count = -(-sent // len(piece)) * 100
        assert count > outstanding
        assert {"accepted": count, "failed": 0} == upload.objects[-1]


def test_the_window_is_what_the_broker_takes(mosquitto: Mosquitto) -> None:
    """A batch does not fill a waiting room with more than it can hope to send, and none of it fails."""
    with running_bridge(mosquitto.url, max_in_flight=2, max_waiting=4) as bridge:
        answer = bridge.client.post(
            PATH,
            content=b"".join(json.dumps(message(i)).encode() + b"\n" for i in range(500)),
            headers=HEADERS,
        )
        assert (200, 500, 0) == (answer.status_code, answer.json()["accepted"], answer.json()["failed"])


def test_half_of_the_waiting_room_is_for_others() -> None:
    """While a batch waits for a broker that is away, a single message still finds room."""
    with (
        ReservedPort() as port,
        running_bridge(
            f"mqtt://{LOOPBACK}:{port.number}",
            wait_until_ready=False,
            max_waiting=20,
            publish_timeout_seconds=2,
        ) as bridge,
        Upload(bridge.port) as upload,
    ):
        session = bridge.app.state.link.session
        upload.send(*[message()] * 100)
        upload.end()
        wait_until(lambda: session.waiting == 10)
        answer = bridge.client.post("/v1/topics/a", content=b"x")
        assert (503, "broker-unavailable") == (answer.status_code, kinds([{"problem": answer.json()}])[0])
        upload.read_to_end()
        assert 503 == upload.status
        assert b"retry-after: " in upload.received.lower()


def test_a_broker_that_is_away(mosquitto: Mosquitto) -> None:
    """The first messages wait for it; those behind them fail at once with the same problem."""
    with (
        ReservedPort() as port,
        running_bridge(
            f"mqtt://{LOOPBACK}:{port.number}", wait_until_ready=False, publish_timeout_seconds=0.5
        ) as bridge,
    ):
        body = (json.dumps(message()).encode() + b"\n") * 20_000
        answer = bridge.client.post(PATH, content=body, headers=HEADERS)
        found = answer.json()
        assert (503, 0, 20_000) == (answer.status_code, found["accepted"], found["failed"])
        assert {"broker-unavailable"} == set(kinds(found["results"]))
        told = [each["problem"]["detail"] for each in found["results"]]
        waited = sum("nothing of this batch got through" not in each for each in told)
        assert 1000 <= waited <= 2000
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("fault", ["pause", "kill"])
def test_a_broker_that_fails_amid_a_batch(fresh_mosquitto: Mosquitto, fault: str) -> None:
    """What was not acknowledged in time is told as it is; when the broker is back, the batch goes on."""
    with (
        running_bridge(fresh_mosquitto.url, publish_timeout_seconds=1) as bridge,
        Upload(bridge.port, accept=NDJSON) as upload,
    ):
        upload.send(message())
        upload.read_until(lambda: len(upload.objects) == 1)
        getattr(fresh_mosquitto, fault)()
        if fault == "kill":
            wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        upload.send(message(), message(), message(qos=2))
        upload.read_until(lambda: len(upload.objects) == 4)
        upload.send(message())
        upload.read_until(lambda: len(upload.objects) == 5)
        getattr(fresh_mosquitto, {"pause": "resume", "kill": "start"}[fault])()
        wait_until(lambda: bridge.client.post("/v1/topics/nobody/listens", content=b"x").status_code == 200)
        upload.send(message())
        upload.read_until(lambda: len(upload.objects) == 6)
        upload.end()
        upload.read_to_end()
        *results, last = upload.objects
        failure = "outcome-unknown" if fault == "pause" else "broker-unavailable"
        later = "queue-full" if fault == "pause" else "broker-unavailable"
        assert ["taken", failure, failure, failure, later, "taken"] == kinds(results)
        assert {"accepted": 2, "failed": 4} == last


def peak_mebibytes(pid: int) -> float:
    """The most that a process ever had in memory."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.timeout(300)  # it is ten seconds of work, on a machine with nothing else to do
@pytest.mark.parametrize(("accept", "count"), [("application/json", 1_000_000), (NDJSON, 300_000)])
def test_a_body_without_measure(mosquitto: Mosquitto, accept: str, count: int) -> None:
    """A million lines, and an answer as long, pass through a bridge that grows by less than 40 MB."""
    piece = 1000
    line = json.dumps({"topic": "nobody/listens", "payload": 1, "qos": 0}).encode() + b"\n"
    with ReservedPort() as port:
        settings = {"TIDEGATE_BROKER_URL": mosquitto.url, "TIDEGATE_PORT": str(port.number)}
    with Command("serve", settings=settings) as bridge, httpx.Client(timeout=60, trust_env=False) as client:
        bridge.wait_for("connected to")
        url = f"http://{LOOPBACK}:{port.number}{PATH}"
        headers = {**HEADERS, "Accept": accept}
        client.post(url, content=line * piece, headers=headers)
        before = peak_mebibytes(bridge.pid)
        body = (line * piece for _ in range(count // piece))
        length, end = 0, b""
        with client.stream("POST", url, content=body, headers=headers) as answer:
            for part in answer.iter_raw(MEBIBYTE):
                length += len(part)
                end = (end + part)[-200:]
        grown = peak_mebibytes(bridge.pid) - before
        assert 50 * count < length
        assert b'{"index":%d,' % (count - 1) in end
        assert grown < 40
