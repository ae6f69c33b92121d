from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.output.batch_answer import BatchWriter, batch_answer
from app.publishing.outcomes import Outcomes
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


@pytest.mark.parametrize("key", ["", "Idempotency-Key: not-read\r\n"])
def test_an_array_whose_answer_is_not_read(mosquitto: Mosquitto, key: str) -> None:
    """The answer waits for so long, with a key too, and leaves no task behind."""
    body = json.dumps([0] * 30_000).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{key}"
    with running_bridge(mosquitto.url, stream_send_timeout_seconds=0.5) as bridge, socket.socket() as client:
        before = tasks(bridge)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect((LOOPBACK, bridge.port))
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: tasks(bridge) > before)
        wait_until(lambda: tasks(bridge) == before)
        received = b""
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65_536):
                received += part
        assert b"]}" not in received[-20:], "the whole answer was kept for it"


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_a_short_answer_that_is_not_read(taken: int) -> None:
    """One part is bounded as many are: whatever the reader takes of it, the connection ends with the rest."""
    outcomes = Outcomes()
    outcomes.accept(1, 0)
    events: list[Any] = []
    aborted = asyncio.Event()

    async def send(event: Any) -> None:
        if len(events) == taken:
            await asyncio.Event().wait()
        events.append(event)

    async def receive() -> Any:
        await aborted.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(20):
        writer = BatchWriter(receive, send, aborted.set, timeout_seconds=0.01)
        await writer.write(batch_answer(outcomes))
    assert (taken, True) == (len(events), aborted.is_set())


def test_junk_does_not_hold_the_loop(bridge: Bridge) -> None:
    """Others have their turn every few messages, also where every one of them fails."""
    count = 20_000
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b""}
    scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "root_path": ""}

    async def turns() -> int:
        loop_turns, turns_at_answer = 0, -1

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps([0] * count).encode()}

        async def send(_: Any) -> None:
            nonlocal turns_at_answer
            if turns_at_answer < 0:
                turns_at_answer = loop_turns

        answering = asyncio.ensure_future(bridge.app(dict(scope), receive, send))
        while not answering.done():
            await asyncio.sleep(0)
            loop_turns += 1
        await answering
        return turns_at_answer

    assert bridge._loop is not None
    assert count // 200 <= asyncio.run_coroutine_threadsafe(turns(), bridge._loop).result()


@pytest.mark.parametrize("results", ["all", "failed"])
def test_an_answer_to_junk_is_bounded(bridge: Bridge, results: str) -> None:
    """Two bytes of a body do not become a hundred of the answer, however many there are."""
    count = 100_000
    body = b"[" + b",".join([b"0"] * count) + b"]"
    headers = {"Content-Type": "application/json"}
    answer = bridge.client.post(PATH, params={"results": results}, content=body, headers=headers)
    found = answer.json()
    assert (422, 0, count) == (answer.status_code, found["accepted"], found["failed"])
    assert count == len(found["results"]) + found["left_out"]
    assert list(range(len(found["results"]))) == [each["index"] for each in found["results"]]
    assert {"invalid-body"} == set(kinds(found["results"]))
    assert len(answer.content) < 9 * MEBIBYTE


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
        in_full = found["failed"] - found["abridged"]
        told = [each["problem"]["detail"] for each in found["results"][:in_full]]
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
