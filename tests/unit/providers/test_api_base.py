"""An address that lacks its ``/v1``: as it was given, then with it; what works is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.api_base import ApiBase
from nous.providers.faults import ErrorReply, fault_of_reply

pytestmark = pytest.mark.anyio

Fault = Callable[[ErrorReply], NousError]


class Server:
    """Answers each path with a status; 200 where none is given."""

    def __init__(self, **statuses: int) -> None:
        self.statuses = statuses
        self.asked: list[str] = []

    async def send(self, request: HttpRequest, fault: Fault) -> str:
        path = request.url.removeprefix("http://h")
        self.asked.append(path)
        status = self.statuses.get("v1" if "/v1/" in path else "plain", 200)
        if status != 200:
            raise fault(ErrorReply(status, "", b""))
        return path


async def ask(base: ApiBase, server: Server) -> str:
    return await base.ask(HttpRequest("http://h/api/models", {}), fault_of_reply, server.send)


async def test_what_works_is_kept() -> None:
    base, server = ApiBase("http://h/api"), Server(plain=404)
    assert [await ask(base, server) for _ in range(2)] == ["/api/v1/models"] * 2
    assert server.asked == ["/api/models", "/api/v1/models", "/api/v1/models"]


@pytest.mark.parametrize("status", [401, 429, 500, 400])
async def test_an_address_that_answers_is_the_right_one(status: int) -> None:
    server = Server(plain=status)
    with pytest.raises(NousError) as caught:
        await ask(ApiBase("http://h/api"), server)
    assert (server.asked, f"HTTP {status}" in str(caught.value)) == (["/api/models"], True)


async def test_an_answer_below_v1_that_is_no_success_counts_too() -> None:
    base, server = ApiBase("http://h/api"), Server(plain=405, v1=401)
    for _ in range(2):
        with pytest.raises(NousError) as caught:
            await ask(base, server)
        assert caught.value.code == "provider_auth"
    assert server.asked == ["/api/models", "/api/v1/models", "/api/v1/models"]


async def test_a_server_that_has_nothing_at_either_address() -> None:
    base, server = ApiBase("http://h/api"), Server(plain=404, v1=404)
    with pytest.raises(NousError) as caught:
        await ask(base, server)
    assert caught.value.cause == "HTTP 404 (below /v1 too)"
    server.statuses = {}
    assert await ask(base, server) == "/api/models"


@pytest.mark.parametrize("given", ["http://h/v1", "http://h/v1beta", "http://h/api/v2"])
async def test_an_address_with_a_version_is_used_as_it_is(given: str) -> None:
    server = Server(plain=404, v1=404)
    with pytest.raises(NousError):
        await ApiBase(given).ask(HttpRequest(f"{given}/models", {}), fault_of_reply, server.send)
    assert len(server.asked) == 1
