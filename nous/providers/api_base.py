"""Where below its address a compatible server's API begins: at the address as it was given, or at ``/v1``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from msgspec import structs

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.faults import ErrorReply
from nous.telemetry.log import get_log

log = get_log("providers")

V1: Final = "/v1"

_VERSION: Final = re.compile(r"/v\d[a-z0-9]*$")
_NOT_THERE: Final = frozenset({404, 405})

Answer = TypeVar("Answer")
Fault = Callable[[ErrorReply], NousError]
Send = Callable[[HttpRequest, Fault], Awaitable[Answer]]


class ApiBase:
    """The address of one provider, ``base`` without a slash at its end.

    Requests go to the address as it was given.  If the server has nothing there (404 or 405) and the address ends with
    no version, the request is sent once more below ``/v1``.  If that is answered otherwise, all later ones go there.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._is_known = _VERSION.search(base) is not None
        self._added = ""

    async def ask(self, request: HttpRequest, fault: Fault, send: Send[Answer]) -> Answer:
        """Return what ``send`` does with the request and ``fault``, at the address that works.

        Raises what ``send`` raises.
        """
        first: list[int] = []
        try:
            return await send(self._placed(request, self._added), _noting(fault, first))
        except NousError as error:
            if self._is_known or not _NOT_THERE.intersection(first):
                raise
            missing = error
        second: list[int] = []
        try:
            answer = await send(self._placed(request, V1), _noting(fault, second))
        except NousError:
            if _NOT_THERE.intersection(second):
                cause = f"{missing.cause} (below {V1} too)"
                raise NousError(missing.code, cause, hint=missing.hint) from None
            if second:
                self._keep_v1()
            raise
        self._keep_v1()
        return answer

    def _keep_v1(self) -> None:
        self._added, self._is_known = V1, True
        log.warning("api_base_completed", configured=self._base, used=self._base + V1)

    def _placed(self, request: HttpRequest, added: str) -> HttpRequest:
        if not added:
            return request
        return structs.replace(request, url=self._base + added + request.url.removeprefix(self._base))


def _noting(fault: Fault, statuses: list[int]) -> Fault:
    """Return ``fault``, which notes the status of what it is asked about."""

    def noted(reply: ErrorReply) -> NousError:
        statuses.append(reply.status)
        return fault(reply)

    return noted
