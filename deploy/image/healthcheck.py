"""Asks the bridge in this container whether it is alive; the image's HEALTHCHECK.

It asks for liveness and not for readiness: a container that is restarted because the broker is away helps
nobody. The port is that of ``TIDEGATE_MANAGEMENT_PORT``, else of ``TIDEGATE_PORT``, else 8080.
"""

from __future__ import annotations

import http.client
import os
import sys
from typing import Final

SECONDS: Final = 4.0


def main() -> int:
    """Ask; 0 where the answer is 200, else 1 with the reason on stderr."""
    port = os.environ.get("TIDEGATE_MANAGEMENT_PORT") or os.environ.get("TIDEGATE_PORT") or "8080"
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=SECONDS)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"port {port} does not answer: {error}\n")
        return 1
    finally:
        connection.close()
    if status != http.client.OK:
        sys.stderr.write(f"port {port} answers /livez with {status}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
