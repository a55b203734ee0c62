from __future__ import annotations

import pytest

from nous.cli.follow import follow_run
from nous.client.inbox import EventStream, Inbox
from nous.client.lines import Event, decode_line
from nous.errors import CODES
from tests.unit.client.links import event_line

pytestmark = pytest.mark.anyio


class Recorder:
    """Keeps what was shown, and how much was there each time it was flushed."""

    def __init__(self) -> None:
        self.shown: list[Event] = []
        self.flushed_at: list[int] = []

    def show(self, event: Event) -> None:
        self.shown.append(event)

    def flush(self) -> None:
        self.flushed_at.append(len(self.shown))


def make_event(kind: str, run_id: str = "r", **payload: object) -> Event:
    found = decode_line(event_line(run_id, 1, kind, **payload))
    assert isinstance(found, Event)
    return found


async def follow(*events: Event) -> tuple[int, Recorder]:
    inbox, recorder = Inbox(), Recorder()
    inbox.put(list(events))
    inbox.end(None)
    return await follow_run(EventStream(inbox, None), "r", recorder), recorder


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("aborted", 1), ("max_steps", 1)])
async def test_the_exit_code_is_how_the_run_ended(status: str, code: int) -> None:
    found, recorder = await follow(make_event("agent_start"), make_event("agent_end", status=status))
    assert found == code
    assert [event.type for event in recorder.shown] == ["agent_start", "agent_end"]


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("provider_unavailable", 1), ("output_invalid", 2), ("policy_blocked", 3), ("approval_required", 4)],
)
async def test_a_failure_exits_as_its_error_says(code: str, exit_code: int) -> None:
    info = CODES[code]
    error = make_event("error", code=code, message=info.message, category=info.category, retryable=False)
    assert (await follow(error, make_event("agent_end", status="failed")))[0] == exit_code
    assert (await follow(error, make_event("agent_end", status="aborted")))[0] == 1


async def test_an_error_of_a_later_version_exits_by_its_category() -> None:
    error = make_event("error", code="new", message="New.", category="dependency_missing", retryable=False)
    assert (await follow(error, make_event("agent_end", status="failed")))[0] == 7


async def test_other_runs_are_passed_over() -> None:
    _, recorder = await follow(
        make_event("agent_start", "other"), make_event("agent_start"), make_event("agent_end", status="completed")
    )
    assert {event.run_id for event in recorder.shown} == {"r"}


async def test_what_came_together_is_flushed_together() -> None:
    updates = [make_event("message_update", delta="x") for _ in range(10)]
    _, recorder = await follow(*updates, make_event("agent_end", status="completed"))
    assert recorder.flushed_at == [11]


async def test_a_stream_that_ends_before_the_run_is_a_failure() -> None:
    assert (await follow(make_event("agent_start")))[0] == 1
