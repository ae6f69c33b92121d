"""A bridge that is made up: it takes messages, refuses those that a test names, and remembers the order."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TAKEN: dict[str, Any] = {"reason_code": 0}


class MadeUpBridge:
    """Serves ``/v1/topics/…`` and ``/v1/publish/batch`` on a free loopback port.

    Attributes:
        requests: the messages of each request, as ``topic:payload``.
        taken: those that were not refused, in order.
        refusals: problems for messages, each told once.
        retry_after: what an answer with a refusal says in that header.
    """

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.taken: list[str] = []
        self.refusals: dict[str, dict[str, Any]] = {}
        self.retry_after: str | None = None
        bridge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = urlsplit(self.path).path
                if path == "/v1/publish/batch":
                    items = json.loads(body)
                    results = bridge.take([f"{each['topic']}:{each['payload']}" for each in items])
                    self._say(207, {"results": results})
                else:
                    topic = unquote(path.removeprefix("/v1/topics/"))
                    (result,) = bridge.take([f"{topic}:{body.decode()}"])
                    answer = result.get("problem", result)
                    self._say(answer.get("status", 200), answer)

            def do_GET(self) -> None:
                self._say(200, {})

            def _say(self, status: int, answer: dict[str, Any]) -> None:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if bridge.retry_after is not None and b"problem" in content:
                    self.send_header("Retry-After", bridge.retry_after)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def refuse(self, message: str, kind: str, status: int) -> None:
        """Refuse a message once, with a problem of this type."""
        self.refusals[message] = {"type": f"urn:tidegate:problem:{kind}", "status": status, "detail": "no"}

    def take(self, messages: list[str]) -> list[dict[str, Any]]:
        """What becomes of the messages of one request."""
        with self._lock:
            self.requests.append(messages)
            results: list[dict[str, Any]] = []
            for each in messages:
                problem = self.refusals.pop(each, None)
                if problem is None:
                    self.taken.append(each)
                results.append(TAKEN if problem is None else {"problem": problem})
            return results

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
