"""Tokens as issuers sign them, and as nobody should; and an issuer that publishes its keys."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from tests.support.ports import LOOPBACK

SECRET: Final = "0123456789abcdef0123456789abcdef"
WEAK_KEY: Final = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
RSA_KEY: Final = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
ED_KEY: Final = ed25519.Ed25519PrivateKey.generate()

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def claims(**more: Any) -> dict[str, Any]:
    """Good claims, with others over them; one that is None is left out."""
    made = {"sub": "line-4", "exp": int(time.time()) + 600, **more}
    return {name: value for name, value in made.items() if value is not None}


def token(
    key: Any = SECRET, algorithm: str = "HS256", header: Mapping[str, Any] | None = None, **more: Any
) -> str:
    """A signed token with ``claims``."""
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=dict(header or {}))


def signed_by_hand(header: Mapping[str, Any], secret: str = SECRET) -> str:
    """A token with ``claims`` that HMAC signs, whatever its header says."""
    head = unsigned(header, claims()).rstrip(".")
    signature = hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def unsigned(header: Mapping[str, Any], content: Mapping[str, Any], signature: bytes = b"") -> str:
    """A token with any header and any signature."""
    parts = [json.dumps(header).encode(), json.dumps(content).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)


def pem(key: PrivateKey) -> str:
    """The public key of a private one as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(key: PrivateKey, algorithm: str, **more: Any) -> dict[str, Any]:
    """The public key of a private one as JWK."""
    made = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {**made, **more}


class Issuer:
    """A server with a set of keys; made by ``running_issuer``.

    Attributes:
        keys: what it publishes.
        status: what it answers with.
        cache_control: what it says of how long that is good.
        location: where it sends who asks, for a redirect.
        text: what it answers in place of the keys.
        fetches: how often it was asked.
        go_on: it answers while this is set.
    """

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.status = 200
        self.cache_control = ""
        self.location = ""
        self.text: bytes | None = None
        self.fetches = 0
        self.go_on = threading.Event()
        self.go_on.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.go_on.wait(60)
                text = json.dumps({"keys": issuer.keys}).encode() if issuer.text is None else issuer.text
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(text)))
                if issuer.location:
                    self.send_header("Location", issuer.location)
                if issuer.cache_control:
                    self.send_header("Cache-Control", issuer.cache_control)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # whoever asked may have had enough
                    self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Run an issuer."""
    issuer = Issuer()
    issuer.start()
    try:
        yield issuer
    finally:
        issuer.stop()
