"""The file tools of a real daemon: kept in the working directory while links are swapped, and ended with their call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nous.system.procfs import children_of
from tests.support.harness import open_peer, open_process
from tests.support.home import Home, Setup
from tests.support.lines import of_type
from tests.support.raw import until
from tests.support.swapping import swapping

pytestmark = pytest.mark.anyio

CALLS = int(os.environ.get("NOUS_SWAP_CALLS", "3"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def call(name: str, **arguments: object) -> list[object]:
    return [{"tool_call": {"name": name, "arguments": arguments}}]


async def test_no_tool_of_a_daemon_follows_a_swapped_link(home: Home) -> None:
    outside = home.root / "outside"
    for top, text in ((home.workdir / "top", "needle inside\n"), (outside, "needle secret\n")):
        for number in range(20):
            (top / f"inner/{number:02}").mkdir(parents=True)
            (top / f"inner/{number:02}/file").write_text(text, encoding="utf-8")
            if top is outside:
                (top / f"inner/{number:02}/secret-name").touch()
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    calls = [
        call("grep", pattern="needle"),
        call("grep", pattern="needle", path="top/inner"),
        call("find", pattern="*"),
        call("ls", path="top/inner/05"),
        call("read", path="top/inner/05/file"),
        call("edit", path="top/inner/05/file", old_text="secret", new_text="taken"),
        call("edit", path="top/inner/06/file", old_text="needle ", new_text="needle  "),
        call("write", path="top/inner/07/file", content="needle written\n"),
    ] * CALLS
    script = [*calls, [{"text": "Done."}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        with swapping(home.workdir / "top", outside):
            run = await peer.run("look")
    ends = of_type(run, "tool_execution_end")
    assert len(ends) == len(calls)
    assert [end.payload["result"] for end in ends if "secret" in end.payload["result"]] == []
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before


async def test_an_abort_ends_the_process_of_a_heavy_edit(home: Home) -> None:
    file = home.workdir / "file"
    file.write_text("ab\r\n" * 900_000, encoding="utf-8")
    before = file.read_bytes()
    script = [call("edit", path="file", old_text="b", new_text="cc\n", replace_all=True), [{"text": "Next."}]]
    async with open_process(home, Setup(script=script), seconds=120) as (peer, spawned):
        daemon_pid = spawned.pid

        def editors() -> list[int]:
            return [pid for pid in children_of(daemon_pid) if b"edit_worker" in command_line(pid)]

        run_id = await peer.start("edit")
        await peer.events_until("tool_execution_start")
        await until(lambda: len(editors()) == 1)
        await peer.ok("ping")
        assert len(editors()) == 1
        await peer.ok("abort")
        run = await peer.run_events(run_id)
        assert run[-1].payload["status"] == "aborted"
        await until(lambda: not editors())
        assert file.read_bytes() == before
        assert (await peer.run("next"))[-1].payload["status"] == "completed"
    assert [path.name for path in home.workdir.iterdir()] == ["file"]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
