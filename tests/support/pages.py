"""Web pages of another origin: a server of its own on a loopback port."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.ports import LOOPBACK

BLANK = b"<!doctype html><title>page</title><body></body>"


@contextmanager
def serving(files: Mapping[str, tuple[str, bytes]] | None = None) -> Iterator[str]:
    """Serve pages until the block ends, and give their origin.

    Args:
        files: content type and body by path; a path that is not there is a blank page.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content_type, body = (files or {}).get(self.path.partition("?")[0], ("text/html", BLANK))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
