"""What goes wrong around a real daemon: providers, disks, locks.  The run ends in order, and the next one works."""

from __future__ import annotations

import fcntl
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.abc import SocketAttribute

from nous.store.session_format import EntryLink, encode_line
from tests.support.gates import CHAT_END, Gate, chat, chat_delta, chat_setup
from tests.support.harness import Peer, check_replays, open_peer, open_process
from tests.support.home import ONE_TRY, Home, Setup
from tests.support.lines import Line, of_type, types
from tests.support.sse_server import (
    Reply,
    Wire,
    answers,
    cuts,
    data_lines,
    hangs,
    resets,
    sends,
    serve,
    streams,
)

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]
HALF = chat_delta("Half an ans")
IDLE_MS = 150


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def says_nothing(wire: Wire) -> None:
    """Close without a word."""
    await wire.close()


def refusal(status: int, code: str) -> Reply:
    return answers(status, json.dumps({"error": {"message": "no " * 2000, "code": code}}).encode())


FAULTS: list[tuple[str, Reply, str, str]] = [
    ("401", answers(401, b'{"error":{"code":"invalid_api_key"}}'), "provider_auth", "HTTP 401"),
    ("403", answers(403), "provider_auth", "HTTP 403"),
    ("429", answers(429, headers={"retry-after": "7"}), "provider_unavailable", "HTTP 429"),
    ("400", answers(400, b"<html>"), "provider_error", "HTTP 400"),
    ("404", refusal(404, "model_not_found"), "provider_error", "HTTP 404"),
    ("408", answers(408), "provider_unavailable", "HTTP 408"),
    ("500", answers(500), "provider_unavailable", "HTTP 500"),
    ("529", answers(529), "provider_unavailable", "HTTP 529"),
    ("redirect", answers(302, headers={"location": "http://127.0.0.1:1/"}), "provider_error", "redirects"),
    ("overflow", refusal(400, "context_length_exceeded"), "context_overflow", "context_length_exceeded"),
    ("content", refusal(400, "content_filter"), "content_refused", "content_filter"),
    ("cut", cuts(HALF), "provider_unavailable", "cut"),
    ("cut by length", cuts(HALF, framing="length"), "provider_unavailable", "cut"),
    ("no end", streams(HALF), "provider_unavailable", "cut"),
    ("reset", resets(HALF), "provider_unavailable", "cut"),
    ("idle", hangs(HALF), "provider_unavailable", "idle"),
    ("idle before a word", hangs(head=False), "provider_unavailable", "idle"),
    ("nothing", says_nothing, "provider_unavailable", "cut"),
    ("not HTTP", sends(b"\x00\xff\xfe garbage\r\n\r\n"), "provider_unavailable", "not HTTP"),
    ("not JSON", streams(HALF, data_lines("{nonsense")), "provider_error", "malformed"),
    ("another shape", streams(HALF, data_lines('{"choices":7}')), "provider_error", "malformed"),
    ("a page", streams(b"<html>Sign in</html>", content_type="text/html"), "provider_error", "text/html"),
    (
        "error in the stream",
        streams(HALF, data_lines('{"error":{"code":"server_error"}}')),
        "provider_unavailable",
        "server_error",
    ),
    (
        "refused",
        streams(HALF, data_lines('{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}')),
        "content_refused",
        "",
    ),
]


@pytest.mark.behaviour("P8.9", "P8.10", "P8.11", "P8.12", "P8.13", "P3.11", "P5.11", "P5.15")
async def test_every_fault_of_a_provider_fails_its_run_alone(home: Home) -> None:
    config = {**ONE_TRY, "provider": {"stream_idle_timeout_ms": IDLE_MS}}
    replies = [fault_or_whole] * 4 * len(FAULTS)
    async with (
        serve(*replies) as server,
        open_peer("stdio", home, replace(chat_setup(server.url), config=config)) as peer,
    ):
        for name, _, code, cause in FAULTS:
            run = await peer.run(f"fault: {name}")
            check_failed(name, run, code, cause)
            await check_nothing_half(peer, home, run)
            assert (await peer.run("once more"))[-1].payload["status"] == "completed", name
        state = await peer.ok("get_state")
        assert (state["run_state"], state["runs"], state["provider_builds"]) == ("idle", [], 1)


async def fault_or_whole(wire: Wire) -> None:
    """Answer with the fault that the prompt names, however often it is asked for; otherwise with a whole answer.

    Twice asked for is what is not there (below /v1 too), and what a kept connection was closed upon.
    """
    asked = json.loads(wire.exchange.body)["messages"][-1]["content"]
    faults = {f"fault: {name}": fault for name, fault, _, _ in FAULTS}
    await faults.get(asked, streams(*chat("Whole.")))(wire)


def check_failed(name: str, run: list[Line], code: str, cause: str) -> None:
    half = "Half an ans" in [line.payload.get("delta") for line in run]
    expected = ["error", "turn_end", "agent_end"]
    assert types(run)[-3:] == expected, name
    assert types(run)[4:-3] == (["message_start", "message_update", "message_end"] if half else []), name
    error, end = of_type(run, "error")[0].payload, run[-1].payload
    assert error["code"] == code, (name, error)
    assert cause in error.get("cause", ""), (name, error)
    assert len(error.get("cause", "")) < 600
    assert error["retryable"] is (code == "provider_unavailable")
    assert (end["status"], end["stop_reason"]) == ("failed", "error"), name


async def check_nothing_half(peer: Peer, home: Home, run: list[Line]) -> None:
    messages = (await peer.ok("get_messages"))["messages"]
    assert messages[-1]["role"] == "user"
    assert run[-1].payload["leaf_id"] == messages[-1]["id"]
    assert not any(b"Half an ans" in line for line in home.session_lines())


@pytest.mark.behaviour("P1.5")
async def test_bytes_of_a_provider_that_are_no_utf8_become_the_replacement_character(home: Home) -> None:
    broken = data_lines(b'{"choices":[{"index":0,"delta":{"content":"a\xffb\\ud83d"}}]}')
    async with serve(streams(broken, CHAT_END)) as server, open_peer("stdio", home, chat_setup(server.url)) as peer:
        assert (await peer.ok("prompt", {"text": "hello"}))["output"] == "a\ufffdb\ufffd"


@pytest.mark.behaviour("P8.9")
async def test_a_provider_that_is_not_there(home: Home) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    async with open_peer("stdio", home, chat_setup(f"http://127.0.0.1:{port}")) as peer:
        answer = await peer.command("prompt", {"text": "hello"})
        assert (answer.code, answer.cause) == ("provider_unavailable", "connect: the provider cannot be reached")
        assert answer.data["error"]["retryable"] is True


@pytest.mark.behaviour("P8.9", "P3.11")
async def test_a_stream_is_closed_at_once_when_its_run_is_aborted(home: Home) -> None:
    closed = anyio.Event()

    async def watched(wire: Wire) -> None:
        await wire.head()
        await wire.part(HALF)
        await wire.wait_closed()
        closed.set()

    async with serve(watched) as server, open_peer("stdio", home, chat_setup(server.url)) as peer:
        run_id = await peer.start("hello")
        await peer.events_until("message_update")
        await peer.ok("abort")
        assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"
        await closed.wait()


async def test_a_key_is_nowhere(home: Home) -> None:
    key = "sk-test-3141592653589793"
    async with serve(answers(401, key.encode()), streams(*chat("Whole."))) as server:
        setup = replace(chat_setup(server.url, "--log-level", "debug"), environ={"OPENAI_API_KEY": key})
        async with open_process(home, setup) as (peer, spawned):
            await peer.run("hello")
            await peer.run("hello")
            assert [e.headers["authorization"] for e in server.exchanges] == [f"Bearer {key}"] * 2
            await peer.end()
            assert not any(key.encode() in line.raw for line in await peer.rest())
            await spawned.wait()
            assert key.encode() not in spawned.stderr()
        written = [path.read_bytes() for path in home.state.rglob("*") if path.is_file()]
        assert len(written) > 2
        assert not any(key.encode() in data for data in written)


# -- the disk


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.behaviour("P8.18")
async def test_a_trace_that_cannot_be_made_refuses_the_prompt(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        await peer.run("hello")
        shutil.move(home.state / "traces", home.state / "elsewhere")
        answer = await peer.command("prompt", {"text": "lost"})
        assert (answer.code, answer.data["error"]["category"]) == ("io_failure", "io_failure")
        assert (await peer.ok("get_state"))["runs"] == []
        shutil.move(home.state / "elsewhere", home.state / "traces")
        assert (await peer.ok("prompt", {"text": "found"}))["output"] == "mock response: found"
        assert not any(b"lost" in line for line in home.session_lines())


@pytest.mark.behaviour("P8.18", "P5.2")
async def test_a_trace_that_grows_no_more_ends_its_run_on_the_wire(home: Home) -> None:
    script = [[{"text_repeat": {"text": "0123456789" * 10, "count": 100_000}}]]
    async with open_process(home, Setup(script=script)) as (peer, spawned):
        limit = 2 << 20
        resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE, (limit, limit))
        run = await peer.run("hello")
        error, end = run[-2:]
        assert (error.type, error.payload["code"]) == ("error", "io_failure")
        assert (end.payload["status"], end.payload["untraced"]) == ("failed", True)
        assert "seq" not in error.data
        assert "seq" not in end.data
        # Cut, and with every event that a client has seen.
        trace = (home.state / "traces" / f"{end.run_id}.ndjson").read_bytes()
        last = json.loads(trace[:-1].split(b"\n")[-1])
        assert (last["type"], last["status"], last["untraced_end"]) == ("trace.end", "failed", True)
        assert all(line.raw in trace for line in run[-20:-2])
        assert (await peer.run("short"))[-1].payload["status"] == "completed"
        assert (await peer.ok("get_state"))["runs"] == []


@pytest.mark.behaviour("P8.18")
async def test_prompts_that_a_full_disk_refuses_leave_nothing(home: Home) -> None:
    async with open_process(home) as (peer, spawned):
        await peer.run("first")
        before = names(home.state / "traces")
        open_before = len(names(Path(f"/proc/{spawned.pid}/fd")))
        limits = resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        for _ in range(10):
            assert (await peer.command("prompt", {"text": "lost"})).code == "io_failure"
        assert (await peer.ok("get_state"))["runs"] == []
        assert names(home.state / "traces") == before
        assert len(names(Path(f"/proc/{spawned.pid}/fd"))) <= open_before
        resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE, limits)
        assert (await peer.run("found"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P8.18", "P5.2")
@pytest.mark.parametrize("spare_bytes", [0, 4096], ids=["no end", "an end"])
async def test_a_run_that_a_full_disk_broke_has_failed_for_everybody(home: Home, spare_bytes: int) -> None:
    """``spare_bytes``: what fits the disk behind the events; an end line does, or does not."""
    with Gate(home.workdir) as gate:
        long = {"text": "0123456789" * 2000}
        async with open_process(home, Setup(script=[[gate.step()], [long], [{"text": "Again."}]])) as (peer, spawned):
            run_id = await peer.start("hello")
            await peer.events_until("tool_execution_update")
            trace = home.state / "traces" / f"{run_id}.ndjson"
            limits = resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE)
            limit = trace.stat().st_size + spare_bytes
            resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE, (limit, limits[1]))
            gate.open()
            end = (await peer.run_events(run_id))[-1].payload
            assert (end["status"], end["untraced"]) == ("failed", True)
            state = await peer.ok("get_state")
            assert (state["run_state"], state["runs"]) == ("idle", [])
            assert (await peer.ok("get_events", {"run_id": run_id}))["done"] is True
            assert [run["status"] for run in (await peer.ok("list_runs"))["runs"]] == ["failed"]
            assert (b'"type":"trace.end"' in trace.read_bytes()) is (spare_bytes > 0)
            resource.prlimit(spawned.pid, resource.RLIMIT_FSIZE, limits)
            await peer.ok("export_trace", {"run_id": run_id})
            assert [run["status"] for run in (await peer.ok("list_runs"))["runs"]] == ["failed"]
            assert (await peer.run("again"))[-1].payload["status"] == "completed"
        check_replays(home)


@pytest.mark.behaviour("P8.17")
async def test_a_session_that_somebody_else_is_writing(home: Home) -> None:
    setup = Setup(environ={"NOUS_SESSION_LOCK_TIMEOUT_MS": "40"})
    async with open_peer("stdio", home, setup) as peer:
        session = (await peer.ok("prompt", {"text": "one"}))["session_id"]
        with (home.state / "sessions" / f"{session}.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            answer = await peer.command("prompt", {"text": "two"})
            assert (answer.code, answer.data["error"]["retryable"]) == ("state_contention", True)
            assert "waited_ms=4" in answer.cause
        assert (await peer.ok("prompt", {"text": "three"}))["output"] == "mock response: three"
        texts = [m["text"] for m in (await peer.ok("get_messages"))["messages"] if m["role"] == "user"]
        assert texts == ["one", "three"]


@pytest.mark.behaviour("P8.7")
async def test_a_session_that_is_no_file(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        await peer.ok("ping")
        (home.state / "sessions" / "folder.ndjson").mkdir()
        answer = await peer.command("switch_session", {"session_id": "folder"})
        assert answer.code == "io_failure"
        await peer.ok("prompt", {"text": "hello"})


@pytest.mark.behaviour("P8.25")
async def test_causes_are_bounded(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        name = "n" * 100_000
        await peer.ok("new_session")
        await peer.ok("hello", {"strict": True})
        for kind, payload in (
            ("set_active_tools", {"tools": [name]}),
            ("switch_session", {"session_id": name}),
            ("ping", {name: 1}),
            ("get_messages", {"leaf_id": name}),
        ):
            answer = await peer.command(kind, payload)
            assert answer.code
            assert len(answer.cause.encode()) <= 2048


class Hologram(msgspec.Struct, tag="hologram", frozen=True):
    """An entry that only a later version of nous knows."""

    id: str


@pytest.mark.behaviour("P8.7")
async def test_a_session_that_a_newer_version_wrote(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        session = (await peer.ok("prompt", {"text": "one"}))["session_id"]
        path = home.state / "sessions" / f"{session}.ndjson"
        last = json.loads(path.read_bytes()[:-1].split(b"\n")[-1])
        line, _ = encode_line(Hologram("h"), EntryLink(last["n"], last["digest"].encode()))  # type: ignore[arg-type]
        with path.open("ab") as file:
            file.write(line)
        for kind in ("get_messages", "switch_session", "branch_session"):
            answer = await peer.command(kind, {"session_id": session})
            assert answer.code == "session_error"
            assert path.name in answer.cause
        assert (await peer.command("prompt", {"text": "two"})).code == "session_error"
        await peer.ok("new_session")
        assert (await peer.ok("prompt", {"text": "three"}))["output"] == "mock response: three"
