"""Answers remembered by id: the same again, a conflict, a wait, and what is let go of."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.protocol.commands import Command, NewSession, SetSteeringMode
from nous.runtime.remembered import MAX_REMEMBERED, MAX_REMEMBERED_BYTES, RememberedAnswers, repeated_answer
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


def command(command_id: str, raw: bytes = b"{}") -> Command:
    return Command(command_id, NewSession(), raw)


def answer(answers: RememberedAnswers, command_id: str, payload: bytes = b"{}") -> None:
    assert answers.begin(command(command_id)) is None
    answers.finish(command_id, "session", payload)


async def test_the_same_again() -> None:
    answers = RememberedAnswers()
    answer(answers, "a", b'{"x":1}')
    earlier = answers.begin(command("a"))
    assert earlier is not None
    assert await repeated_answer(earlier) == ("session", b'{"x":1}')
    assert answers.begin(command("b")) is None


async def test_another_body_or_type_is_a_conflict() -> None:
    answers = RememberedAnswers()
    answer(answers, "a")
    for other in (command("a", b'{"y":2}'), Command("a", SetSteeringMode(mode="all"), b"{}")):
        with pytest.raises(NousError) as caught:
            answers.begin(other)
        assert caught.value.code == "id_conflict"


async def test_a_pending_one_is_waited_for() -> None:
    answers = RememberedAnswers()
    assert answers.begin(command("a")) is None
    earlier = answers.begin(command("a"))
    assert earlier is not None
    heard: list[tuple[str, bytes] | None] = []

    async def wait() -> None:
        heard.append(await repeated_answer(earlier))

    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await checkpoint()
            assert heard == []
            answers.finish("a", "session", b"{}")
    assert heard == [("session", b"{}")]


async def test_a_refused_one_is_forgotten_also_by_who_waits() -> None:
    answers = RememberedAnswers()
    assert answers.begin(command("a")) is None
    earlier = answers.begin(command("a"))
    assert earlier is not None
    answers.forget("a")
    assert await repeated_answer(earlier) is None
    assert answers.begin(command("a", b'{"y":2}')) is None


async def test_the_oldest_go_first() -> None:
    answers = RememberedAnswers()
    for number in range(MAX_REMEMBERED + 3):
        answer(answers, str(number))
    known = [number for number in range(MAX_REMEMBERED + 3) if number > 2]
    assert all(answers.begin(command(str(number))) is not None for number in known)
    assert answers.begin(command("2")) is None


async def test_a_pending_one_is_never_let_go_of() -> None:
    answers = RememberedAnswers()
    assert answers.begin(command("pending")) is None
    for number in range(2 * MAX_REMEMBERED):
        answer(answers, str(number))
    assert answers.begin(command("pending")) is not None


async def test_all_of_it_fits_the_bound() -> None:
    answers = RememberedAnswers()
    for number in range(8):
        answer(answers, str(number), b'"%b"' % (b"p" * (MAX_REMEMBERED_BYTES // 4)))
    assert answers.begin(command("7")) is not None
    assert answers.begin(command("0")) is None
