"""Extensions as a client sees them, over every transport: real programs, what they change, what is told of them."""

from __future__ import annotations

import pytest

from tests.support.extension_programs import write_extension
from tests.support.harness import OpenPeer, check_replays
from tests.support.home import Home, Setup
from tests.support.lines import of_type

pytestmark = pytest.mark.anyio

TOUCH = [[{"tool_call": {"id": "c1", "name": "bash", "arguments": {"command": "touch ran"}}}], [{"text": "Done."}]]


@pytest.fixture
def user_place(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the daemon of the transport in memory look where those in processes look."""
    monkeypatch.setenv("HOME", str(home.root))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def install(home: Home, body: str, hook_timeout_ms: int = 20_000) -> None:
    """Write an extension into the user's own place, where it needs no trust."""
    place = home.root / ".config" / "nous" / "extensions"
    write_extension(place, "guard", body, hooks=["tool_call"], hook_timeout_ms=hook_timeout_ms)


@pytest.mark.usefixtures("user_place")
async def test_a_blocked_call_does_not_run_and_the_model_reads_why(nous: OpenPeer, home: Home) -> None:
    install(home, "for call in calls(): result(call, block='not on Sundays')")
    async with nous(Setup(script=TOUCH)) as peer:
        run = await peer.run("go")
        [end] = of_type(run, "tool_execution_end")
        assert (end.payload["result"], end.payload["is_error"]) == ("Blocked: not on Sundays", True)
        assert run[-1].payload["status"] == "completed"
        [info] = (await peer.ok("get_state"))["extensions"]
        assert (info["name"], info["version"], info["state"]) == ("guard", "1.0", "up")
    assert not (home.workdir / "ran").exists()
    check_replays(home)


@pytest.mark.usefixtures("user_place")
async def test_a_guard_that_does_not_answer_is_warned_of_and_nothing_passes(nous: OpenPeer, home: Home) -> None:
    install(home, "for call in calls(): time.sleep(1000)", hook_timeout_ms=300)
    async with nous(Setup(script=TOUCH)) as peer:
        run = await peer.run("go")
        [warning] = [w.payload for w in of_type(run, "warning") if w.payload["code"] == "extension_timeout"]
        assert (warning["extension"], warning["hook"], warning["timeout_ms"]) == ("guard", "tool_call", 300)
        assert of_type(run, "tool_execution_end")[0].payload["is_error"] is True
        assert run[-1].payload["status"] == "completed"
    assert not (home.workdir / "ran").exists()
    check_replays(home)


@pytest.mark.usefixtures("user_place")
async def test_a_call_runs_with_the_arguments_it_was_left_with(nous: OpenPeer, home: Home) -> None:
    install(home, "for call in calls(): result(call, arguments={'command': 'touch other'})")
    async with nous(Setup(script=TOUCH)) as peer:
        assert (await peer.run("go"))[-1].payload["status"] == "completed"
    assert (home.workdir / "other").exists()
    assert not (home.workdir / "ran").exists()
    check_replays(home)
