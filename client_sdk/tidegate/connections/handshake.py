"""The TLS handshake on a connected socket, in whichever thread connects."""

from __future__ import annotations

import socket
import ssl


def shake_hands(
    plain: socket.socket, context: ssl.SSLContext, *, host: str, alpn: str | None, timeout_seconds: float
) -> ssl.SSLSocket:
    """Make the handshake; where it fails, no socket is left open.

    Args:
        plain: the connected socket; the result has taken its place.
        context: what to trust and show.
        host: the name that the certificate must have, and that is sent as SNI.
        alpn: the protocol to name (RFC 7301), which then stays set on the context; None for none.
        timeout_seconds: bound on each wait for the other side.

    Raises:
        OSError: the handshake failed, as ``ssl`` tells it.
    """
    try:
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        wrapped = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise
    try:
        wrapped.settimeout(timeout_seconds)
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped
