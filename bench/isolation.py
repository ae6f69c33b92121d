"""A network of its own for a benchmark: a namespace that has loopback and nothing else.

Mosquitto 2.0.11 binds a WebSocket listener to all addresses, whatever its configuration says. In such a
namespace all addresses are those of loopback.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from typing import Final

SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
REQUEST: Final = "16sH22x"  # struct ifreq: a name and flags (netdevice(7))


def command_prefix() -> list[str] | None:
    """What to put before a command to run it in such a namespace; None where none can be made."""
    prefix = ["unshare", "--net"]
    if os.geteuid() != 0:
        prefix += ["--user", "--map-current-user", "--keep-caps"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return prefix


def raise_loopback() -> None:
    """Bring up ``lo`` in a new namespace, where it is down."""
    with socket.socket() as any_socket:
        request = struct.pack(REQUEST, b"lo", _flags(any_socket, "lo") | IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def is_loopback_only() -> bool:
    """Whether no interface but loopback is up."""
    with socket.socket() as any_socket:
        flags = [_flags(any_socket, name) for _, name in socket.if_nameindex()]
    return all(each & IFF_LOOPBACK for each in flags if each & IFF_UP)


def _flags(any_socket: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack(REQUEST, name.encode(), 0))
    return int(struct.unpack(REQUEST, answer)[1])
