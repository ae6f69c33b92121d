"""Requests whose client certificate a trusted proxy has verified, and whose subject it passes in a header.

Rules:

1. The header counts from the addresses of the proxy alone. From anybody else it is a forgery, and refused.
2. The proxy has to put its own header in the place of one that a client sent. Two are refused.
3. The subject that the header tells is compared as a whole with those of the file; how it stands there is for
   ``app.security.subject_forms``.
4. A browser presents a certificate whatever page asks, so the request is marked as one from a cookie is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from app.problems import ProblemError, ProblemType
from app.security.authentication import AMBIENT, Ended, Scope
from app.security.principal import Principal, Source
from app.security.subject_forms import Form, whole
from app.security.subjects import Subjects
from app.security.watched_file import WatchedFile

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SUCCESS: Final = "SUCCESS"
"""What nginx's ``$ssl_client_verify`` is for a certificate that it verified."""


class ClientCertificates:
    """A way to show who one is (``Method``).

    Args:
        subjects: who may do what; whoever made it starts and closes it.
        header: the header with the subject.
        proxies: the addresses of the proxies.
        verify_header: a header that has to say ``SUCCESS`` beside it; none where it is empty.
        form: how the subject stands in the header.
    """

    challenge = ""

    def __init__(
        self,
        subjects: WatchedFile[Subjects],
        *,
        header: str,
        proxies: Sequence[Network],
        verify_header: str = "",
        form: Form = whole,
    ) -> None:
        self._subjects = subjects
        self._header_name = header
        self._header = header.lower().encode()
        self._verify_name = verify_header
        self._verify_header = verify_header.lower().encode()
        self._proxies = tuple(proxies)
        self._form = form

    def recall(self, scope: Scope) -> Principal | None:
        """None: the address and the headers are looked at each time."""
        return None

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The principal of a request with a subject; None where it has none.

        Raises:
            ProblemError: UNAUTHENTICATED where it does not come from the proxy, or is not good.
        """
        values = [value for name, value in scope["headers"] if name == self._header]
        if not any(values):
            return None
        if not self._is_trusted(scope.get("client")):
            raise self._refusal("comes from an address that is no trusted proxy's")
        if len(values) > 1:
            raise self._refusal("is there several times: the proxy has to replace it")
        self._require_success(scope)
        try:
            subject = self._form(values[0])
        except ValueError as error:
            raise self._refusal(str(error)) from None
        principal = self._subjects.value.get(subject)
        if principal is None:
            raise self._refusal("has a subject that the bridge does not know")
        scope[AMBIENT] = True
        return principal

    def why_ended(self, principal: Principal) -> Ended | None:
        """Whether a subject is gone from the file, or may do other things now."""
        if principal.source is not Source.CLIENT_CERTIFICATE:
            return None
        now = self._subjects.value.get(principal.credential_id or "")
        return None if now is principal else Ended.REVOKED

    async def close(self) -> None:
        """Nothing is held."""

    def _is_trusted(self, client: Any) -> bool:
        if not client:
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._proxies)

    def _require_success(self, scope: Scope) -> None:
        if self._verify_header:
            said = [value for name, value in scope["headers"] if name == self._verify_header]
            if said != [_SUCCESS.encode()]:
                raise ProblemError(
                    ProblemType.UNAUTHENTICATED,
                    f"the proxy did not verify the client certificate: {self._verify_name} is not {_SUCCESS}",
                    field=self._verify_name,
                )

    def _refusal(self, words: str) -> ProblemError:
        return ProblemError(
            ProblemType.UNAUTHENTICATED,
            f"the header {self._header_name} {words}",
            field=self._header_name,
            hint="the proxy in front of the bridge sets it; a client cannot",
        )
