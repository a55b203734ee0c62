"""Sessions when things end badly: daemons killed at any moment, disks that fail, several daemons and many processes.

CHAOS_KILLS says how often a daemon is killed (20 in ``make test``, 2,000 in ``make test-chaos``), CHAOS_SEED when.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import anyio
import pytest

from nous.store.disk import Disk
from nous.store.faults import FAULTABLE, FaultyDisk
from nous.store.sessions import SessionStore
from nous.store.verify import verify_session
from nous.transport.memory import memory_pair
from tests.support.gates import Gate, chat, chat_setup
from tests.support.harness import Peer, make_server, open_peer, open_process
from tests.support.home import ROOT, Home, Setup, bounded
from tests.support.lines import Line
from tests.support.sse_server import serve, streams
from tests.support.wires import MemoryWire
from tests.support.witness import Victim, Witness, acknowledged_entry, daemon_process, leftovers
from tests.unit.store.helpers import verify_chain

pytestmark = pytest.mark.anyio

KILLS: Final = int(os.environ.get("CHAOS_KILLS", "20"))
SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
LONGEST_LIFE_SECONDS: Final = 0.25

TOOL_ROUND: Final = [[{"tool_call": {"name": "read", "arguments": {"path": "a.txt"}}}], [{"text": ["Read", " it."]}]]
VICTIM: Final = Setup(
    script=TOOL_ROUND * 20,
    # A lock that a dead daemon left behind would be an error at once; contexts are small enough to be compacted.
    environ={"NOUS_SESSION_LOCK_TIMEOUT_MS": "0"},
    config={"engine": {"compact_keep_tokens": 50, "compact_at_tokens": 2000}},
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    (home.workdir / "a.txt").write_text("what it says\n", encoding="utf-8")
    return home


# -- kill -9


def test_nothing_acknowledged_dies_with_its_daemon(home: Home) -> None:
    """Any number of times: kill it somewhere, look at the disk, start the next one on what is there."""
    witness, dice = Witness(home), random.Random(SEED)
    for life in range(KILLS):
        with daemon_process(home, VICTIM) as process:
            victim = Victim(process, witness, dice, f"life {life}")
            if dice.random() > 0.05:
                victim.wait_ready()
                victim.live(dice.uniform(0, LONGEST_LIFE_SECONDS), dice.choice([1, 5, 20, 1000, 1000]))
            process.send_signal(signal.SIGKILL)
            process.wait()
            victim.rest()
        witness.check_disk()
    assert sum(map(len, witness.entries.values())) > KILLS, "hardly anything was acknowledged: this proves nothing"
    # One that ends in order leaves nothing of what the killed ones left lying about.
    with daemon_process(home, VICTIM) as process:
        victim = Victim(process, witness, dice, "last")
        victim.wait_ready()
        assert process.stdin is not None
        process.stdin.close()
        victim.rest()
        assert process.wait() == 0
    assert leftovers(home.state) == []
    for path in (home.state / "sessions").glob("*.ndjson"):
        assert verify_session(path).ok


# -- a disk that fails, below a daemon


class Attempt:
    """A daemon whose sessions lie on a disk that fails once, and what it acknowledged."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.acknowledged: list[str] = []
        self.summaries: list[str] = []
        self.failures: list[str] = []
        self.failed_runs: set[str] = set()

    async def perform(self) -> None:
        """What a client does: whatever fails, it goes on."""
        session_id = await self._named("new_session", {})
        if not session_id:
            session_id = await self._named("new_session", {})
        await self._prompt("one", session_id)
        await self._prompt("two", session_id)
        await self._compact(session_id)
        if self.acknowledged:
            await self._named("set_leaf", {"session_id": session_id, "leaf_id": self.acknowledged[0]})
        await self._named("branch_session", {"session_id": session_id})
        await self._prompt("three", session_id)
        await self._prompt("four", session_id)

    async def _named(self, kind: str, payload: dict[str, object]) -> str:
        answer = await self.peer.command(kind, payload)
        self._note(answer)
        return str(answer.payload.get("session_id", ""))

    async def _compact(self, session_id: str) -> None:
        answer = await self.peer.command("compact_session", {"session_id": session_id})
        if answer.code != "command_rejected":
            self._note(answer)
        if not answer.code:
            self.summaries.append(answer.payload["summary"])
        elif "run_id" in answer.payload:
            self.failed_runs.add(answer.payload["run_id"])

    async def _prompt(self, text: str, session_id: str) -> None:
        answer = await self.peer.command("prompt", {"text": text, "wait": False, "session_id": session_id})
        self._note(answer)
        if answer.code:
            return
        for line in await self.peer.run_events(answer.payload["run_id"]):
            if line.type == "error":
                self.failures.append(line.payload["code"])
                self.failed_runs.add(answer.payload["run_id"])
            elif (message_id := acknowledged_entry(line.type, line.payload)) is not None:
                self.acknowledged.append(message_id)

    def _note(self, answer: Line) -> None:
        if answer.code:
            self.failures.append(answer.code)


async def attempt_on(home: Home, disk: FaultyDisk) -> Attempt:
    mine, theirs = memory_pair()
    setup = Setup(script=TOOL_ROUND, config={"engine": {"compact_keep_tokens": 1}})
    with bounded(), make_server(home, setup, theirs) as (daemon, server):
        daemon.sessions = SessionStore(home.state / "sessions", disk=disk)
        peer = Peer(MemoryWire(mine))
        attempt = Attempt(peer)

        async def serve_to_the_end() -> None:
            await server.serve()
            await theirs.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.pump)
            tasks.start_soon(serve_to_the_end)
            await attempt.perform()
            daemon.stop.request("signal", abort=True)
    return attempt


@pytest.mark.parametrize(
    "code",
    [pytest.param(errno.EIO, id="EIO"), pytest.param(errno.ENOSPC, id="ENOSPC", marks=pytest.mark.full)],
)
async def test_the_nth_call_to_the_disk_fails_below_a_daemon(tmp_path: Path, code: int) -> None:
    """What was acknowledged is there, the client was told io_failure, and whatever it asked for next went well."""
    for at in range(1, 1000):
        home = Home(Path(tempfile.mkdtemp(dir=tmp_path)))
        (home.workdir / "a.txt").write_text("what it says\n", encoding="utf-8")
        disk = FaultyDisk(at, code, FAULTABLE)
        attempt = await attempt_on(home, disk)
        if not disk.fired:
            assert attempt.failures == []
            assert len(attempt.acknowledged) == 10
            break
        assert set(attempt.failures) <= {"io_failure"}, (at, attempt.failures)
        check_attempt(home, attempt, at)
    assert at > 50


def check_attempt(home: Home, attempt: Attempt, at: int) -> None:
    """Check what is on disk: what was acknowledged, and of a run that failed perhaps what was durable just before."""
    directory = home.state / "sessions"
    found = {path.stem: verify_chain(path, may_be_torn=True) for path in directory.glob("*.ndjson")}
    originals = [entry for lines in found.values() if "parent_id" not in lines[0] for entry in lines[1:]]
    acknowledged = {*attempt.acknowledged, *attempt.summaries}
    for kind, key, expected in (
        ("message", "id", attempt.acknowledged),
        ("compaction", "summary", attempt.summaries),
    ):
        entries = [entry for entry in originals if entry["type"] == kind]
        assert [entry[key] for entry in entries if entry[key] in acknowledged] == expected, f"call {at}"
        others = {entry["id"].rpartition("-")[0] for entry in entries if entry[key] not in acknowledged}
        assert others <= attempt.failed_runs, f"call {at}"
    again = SessionStore(directory)
    for session_id in found:
        again.get(session_id)
        assert verify_session(directory / f"{session_id}.ndjson").ok
    assert leftovers(home.state) == []


# -- two daemons on one session


async def test_each_daemon_sees_what_the_other_appended(home: Home) -> None:
    async with serve(streams(*chat("first")), streams(*chat("second")), streams(*chat("third"))) as server:
        setup = chat_setup(server.url)
        async with open_process(home, setup) as (one, _), open_process(home, setup) as (two, _):
            session_id = (await one.ok("prompt", {"text": "to one", "wait": True}))["session_id"]
            await two.run("to two", session_id=session_id)
            await one.run("to one again", session_id=session_id)
            asked = [json.loads(exchange.body)["messages"] for exchange in server.exchanges]
            texts = [[message["content"] for message in messages if message["role"] != "system"] for messages in asked]
            assert texts[1] == ["to one", "first", "to two"]
            assert texts[2] == ["to one", "first", "to two", "second", "to one again"]
            seen = [(await peer.ok("get_messages", {"session_id": session_id}))["messages"] for peer in (one, two)]
            assert seen[0] == seen[1]
            assert [message["text"] for message in seen[0]] == [*texts[2], "third"]


async def test_a_run_stays_on_the_leaf_it_was_given(home: Home) -> None:
    """While it waits for a tool, another daemon moves the leaf, goes on elsewhere and compacts."""
    with Gate(home.workdir) as gate:
        waiting = Setup(script=[[{"text": "A"}], [gate.step()], [{"text": "End."}]])
        small = Setup(config={"engine": {"compact_keep_tokens": 1}})
        async with open_process(home, waiting) as (one, _):
            session_id = (await one.ok("prompt", {"text": "one", "wait": True}))["session_id"]
            first = (await one.ok("get_messages"))["messages"][0]["id"]
            run_id = await one.start("two")
            await one.events_until("tool_execution_update")
            async with open_process(beside(home), small) as (two, _):
                await two.ok("set_leaf", {"session_id": session_id, "leaf_id": first})
                await two.run("elsewhere", session_id=session_id)
                await two.ok("compact_session", {"session_id": session_id})
            gate.open()
            events = await one.run_events(run_id)
            assert events[-1].payload["status"] == "completed"
            leaf_id = events[-1].payload["leaf_id"]
            path = (await one.ok("get_messages", {"leaf_id": leaf_id}))["messages"]
    assert [message["text"].split("\n")[0] for message in path] == ["one", "A", "two", "", "before", "End."]
    assert verify_session(home.state / "sessions" / f"{session_id}.ndjson").ok


def beside(home: Home) -> Home:
    """A place of its own for another daemon on the same state."""
    place = home.root / "beside"
    place.mkdir()
    other = Home(place)
    other.state = home.state
    return other


async def test_two_daemons_prompting_at_once_lose_nothing(home: Home) -> None:
    setup = Setup(environ={"NOUS_SESSION_LOCK_PROFILE": "swarm"})
    async with open_process(home, setup) as (one, _), open_process(home, setup) as (two, _):
        session_id = (await one.ok("new_session"))["session_id"]
        ended: list[list[Line]] = []

        async def talk(peer: Peer, name: str) -> None:
            for number in range(10):
                ended.append(await peer.run(f"{name} {number}", session_id=session_id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk, one, "one")
            tasks.start_soon(talk, two, "two")
    assert all(events[-1].payload["status"] == "completed" for events in ended)
    announced = {line.payload["message_id"] for events in ended for line in events if line.type == "message_end"}
    entries = verify_chain(home.state / "sessions" / f"{session_id}.ndjson")[1:]
    assert len(announced) == 40
    assert {entry["id"] for entry in entries} == announced
    assert not list((home.state / "sessions").glob("*.torn-*"))


# -- what was pruned


async def test_a_daemon_goes_on_where_a_session_was_pruned(home: Home) -> None:
    """By somebody else, while the daemon has it in memory."""
    async with open_peer("stdio", home, Setup(config={"engine": {"compact_keep_tokens": 0}})) as peer:
        for text in ("one", "two"):
            await peer.run(text)
        session_id = (await peer.ok("get_state"))["session_id"]
        path = home.state / "sessions" / f"{session_id}.ndjson"
        await peer.ok("compact_session")
        leaf_id = (await peer.ok("get_state"))["session_id"] and (await peer.ok("get_tree"))["leaf_id"]
        last = verify_chain(path)[-1]["n"]
        session = SessionStore(home.state / "sessions").get(session_id)
        await session.checkpoint("p1", "2026-11-21T10:00:00.000Z")
        assert (await session.prune()).removed_messages == 4
        assert (await peer.ok("get_messages"))["messages"] == []
        assert (await peer.ok("get_tree"))["leaf_id"] == leaf_id
        run = await peer.run("three")
        assert run[-1].payload["status"] == "completed"
        entries = verify_chain(path)
        assert entries[0]["n"] == last + 2
        assert [entry["type"] for entry in entries] == ["session", "compaction", "checkpoint", "message", "message"]
        assert entries[3]["parent_id"] == leaf_id
        assert [message["text"] for message in (await peer.ok("get_messages"))["messages"]] == [
            "three",
            "mock response: three",
        ]


# -- many processes


def soak(*arguments: str) -> None:
    done = subprocess.run(
        ["bash", "scripts/test_session_soak.sh", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        check=False,
    )
    lines = done.stdout.decode().split("\n")[:-1]
    assert done.returncode == 0, done
    assert all(line.startswith("PASS ") for line in lines), lines
    assert len(lines) >= 5


def test_many_processes_on_one_session_and_on_many() -> None:
    """A small version of what ``make test-chaos`` does."""
    soak("--one", "8", "--many", "8", "--entries", "25")


@pytest.mark.full
def test_as_many_processes_as_promised() -> None:
    soak()


def test_the_faulty_disk_is_the_real_one_but_for_the_fault() -> None:
    """So that what is tested with it says something about the real one."""
    own = {name for name in vars(FaultyDisk) if not name.startswith("_")}
    assert own == FAULTABLE
    assert {name for name in vars(Disk) if not name.startswith("_")} - own == {"close", "read_at"}
