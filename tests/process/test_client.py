"""The client against real daemons, and against processes that behave as no daemon should."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from nous.client import (
    Client,
    ClientClosedError,
    CommandError,
    DaemonGoneError,
    Event,
    NotTheProtocolError,
    StartRefusedError,
)
from nous.client import client as client_module
from nous.errors import CODES, NousError
from tests.support.daemon import python, run_nous, serving_socket, spawned
from tests.support.home import ROOT, Home, Setup, bounded

pytestmark = pytest.mark.anyio

SLOW = Setup(script=[[{"text": "begin"}, {"delay_ms": 300}, {"text": " end"}]])
HANGING = Setup(script=[[{"text": "begin"}, {"hang": True}]])

# What a peer of the tests says first; the rest of each program is what it does wrong.
READY = """
import os, signal, sys, time
def say(line): sys.stdout.write(line + "\\n"); sys.stdout.flush()
say('{"v":"1","id":"evt-1","type":"status","payload":{"message":"ready","max_line_bytes":100}}')
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def collect(client: Client, run_id: str | None = None) -> list[Event]:
    return [event async for event in client.events(run_id)]


def text_of(events: list[Event]) -> str:
    return "".join(event.payload["delta"] for event in events if event.type == "message_update")


# -- a daemon that works


async def test_a_spawned_daemon_says_what_it_is_and_answers(home: Home) -> None:
    async with spawned(home) as client:
        assert (client.ready.server, client.ready.protocol, client.ready.provider) == ("nous", "1", "mock")
        assert client.ready.pid == client.pid
        response = await client.send("ping")
        assert (response.ok, response.type, response.payload) == (True, "pong", {"message": "pong"})
        assert client.returncode is None
    assert client.returncode == 0


async def test_a_run_is_followed_to_its_end(home: Home) -> None:
    async with spawned(home) as client:
        run = await client.call("prompt", text="hello", wait=False)
        events = await collect(client, run["run_id"])
        assert (events[0].type, events[-1].type) == ("agent_start", "agent_end")
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert text_of(events) == "mock response: hello"
        assert await collect(client, run["run_id"]) == []


async def test_runs_side_by_side_are_told_apart(home: Home) -> None:
    async with spawned(home) as client:
        sessions = [(await client.call("new_session"))["session_id"] for _ in range(3)]
        runs = [await client.call("prompt", text=s, session_id=s, wait=False) for s in sessions]
        # The last one first: what belongs to the others waits for them.
        for run, session in reversed(list(zip(runs, sessions, strict=True))):
            assert text_of(await collect(client, run["run_id"])) == f"mock response: {session}"


async def test_all_events_are_the_whole_stream_from_ready_to_bye(home: Home) -> None:
    async with spawned(home) as client:
        client.start("prompt", {"text": "hello", "wait": False})
        client.end_input()
        events = await collect(client)
        assert events[0].payload["message"] == "ready"
        assert events[-1].payload["message"] == "bye"
        assert [event.type for event in events if event.run_id][-1] == "agent_end"
        with pytest.raises(ClientClosedError):
            client.start("ping")


async def test_a_refusal_is_an_answer_or_raised(home: Home) -> None:
    async with spawned(home) as client:
        response = await client.send("switch_session", session_id="nowhere")
        assert not response.ok
        assert response.error is not None
        assert response.error.code == "session_not_found"
        with pytest.raises(CommandError) as raised:
            await client.call("abort")
        assert (raised.value.code, raised.value.category) == ("command_rejected", "invalid_input")


async def test_a_prompt_that_waits_keeps_nothing_else_waiting(home: Home) -> None:
    async with spawned(home, HANGING) as client:
        prompt = client.start("prompt", {"text": "hello", "wait": True})
        assert (await client.send("ping")).ok
        assert not prompt.is_answered
        await client.call("abort")
        assert (await prompt.answer()).type == "result"


async def test_raw_lines_are_answered_too(home: Home) -> None:
    async with spawned(home) as client:
        client.send_line(b"not json\n")
        response = await client.unmatched()
        assert response.error is not None
        assert response.error.cause == "invalid_json"


async def test_a_line_the_daemon_would_not_read_is_not_sent(home: Home) -> None:
    async with spawned(home, Setup(flags=("--max-line-bytes", "2000"))) as client:
        with pytest.raises(NousError) as raised:
            client.start("prompt", {"text": "x" * 2000})
        assert raised.value.code == "line_too_long"
        assert (await client.send("ping")).ok


async def test_what_a_block_raises_leaves_it_as_it_is(home: Home) -> None:
    with pytest.raises(ZeroDivisionError):
        async with spawned(home):
            raise ZeroDivisionError


async def test_a_cancelled_block_ends_the_daemon_in_order(home: Home) -> None:
    with bounded():
        with anyio.CancelScope() as scope:
            async with Client.spawn(arguments=home.arguments(HANGING), env=home.environ()) as client:
                await client.call("prompt", text="hello", wait=False)
                scope.cancel()
                await anyio.sleep_forever()
    assert client.returncode == 0


async def test_a_client_that_is_cancelled_before_the_daemon_is_ready_ends_it(home: Home) -> None:
    marker = home.root / "ended"
    program = f"import sys; sys.stdin.read(); open({str(marker)!r}, 'w').close()"
    with bounded():
        async with anyio.create_task_group() as tasks:

            async def start() -> None:
                async with Client.spawn(python(program)):
                    pytest.fail("it started")

            tasks.start_soon(start)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert marker.exists()


async def test_the_daemon_has_a_session_of_its_own(home: Home) -> None:
    """Ctrl-C in a terminal reaches the client's group; what it means for the daemon is the client's decision."""
    async with spawned(home) as client:
        assert client.pid is not None
        assert os.getsid(client.pid) == client.pid != os.getsid(0)


async def test_modules_in_the_working_directory_are_not_the_daemons(home: Home) -> None:
    for name in ("anyio", "msgspec", "json", "nous"):
        (home.workdir / f"{name}.py").write_text("raise SystemExit(99)", encoding="utf-8")
    async with spawned(home, cwd=home.workdir) as client:
        assert (await client.send("ping")).ok


# -- ending


async def test_leaving_waits_for_runs_if_asked_to(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "EXIT_SECONDS", 0.0)
    async with spawned(home, SLOW, drain=20) as client:
        await client.call("prompt", text="hello", wait=False)
    assert client.returncode == 0
    assert b"begin end" in home.session_lines()[-1]


async def test_leaving_aborts_runs_otherwise(home: Home) -> None:
    async with spawned(home, HANGING) as client:
        run = await client.call("prompt", text="hello", wait=False)
        assert (await anext(client.events(run["run_id"]))).type == "agent_start"
    assert client.returncode == 0
    trace = (home.state / "traces" / f"{run['run_id']}.ndjson").read_bytes()
    assert b'"status":"aborted"' in trace


async def test_a_run_that_nobody_waits_for_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "EXIT_SECONDS", 600.0)
    program = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
say('{"v":"1","id":"r.1","type":"agent_start","seq":1,"payload":{"run_id":"r"}}')
sys.stdin.read()
time.sleep(20)
"""
    with bounded():
        async with Client.spawn(python(READY + program)) as client:
            await anext(client.events("r"))
    assert client.returncode == 4


async def test_leaving_amid_a_flood_of_events_is_orderly_too(home: Home) -> None:
    async with spawned(home, Setup(script=[[{"text_repeat": {"text": "abcdefgh", "count": 10_000_000}}]])) as client:
        await client.call("prompt", text="go", wait=False)
        await client.call("get_state")
    assert client.returncode == 0


async def test_iterators_and_commands_are_told_that_the_client_is_closed(home: Home) -> None:
    async with spawned(home, HANGING) as client:
        prompt = client.start("prompt", {"text": "hello", "wait": True})
        async for event in client.events():
            if event.type == "agent_start":
                break
        await client.close()
        await client.close()
        with pytest.raises(ClientClosedError):
            await anext(client.events())
        # Aborted in order, the run was answered before the end.
        assert (await prompt.answer()).type == "result"
        with pytest.raises(ClientClosedError):
            client.start("ping")


@pytest.mark.parametrize(
    ("program", "returncode"),
    [
        ("sys.stdin.read()", 0),
        ("sys.stdin.read(); sys.exit(3)", 3),
        ('signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); say(\'{"id":"1","type":"on"}\'); time.sleep(600)', 4),
        ('signal.signal(signal.SIGTERM, signal.SIG_IGN); say(\'{"id":"1","type":"on"}\'); time.sleep(600)', -9),
    ],
    ids=["ends by itself", "with an error", "on SIGTERM", "on SIGKILL"],
)
async def test_the_end_comes_step_by_step(
    program: str, returncode: int, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    monkeypatch.setattr(client_module, "EXIT_SECONDS", 0.5 if returncode not in (0, 3) else 30)
    monkeypatch.setattr(client_module, "TERMINATE_SECONDS", 0.5 if returncode == -9 else 30)
    with bounded():
        async with Client.spawn(python(READY + program)) as client:
            if returncode in (4, -9):
                await anext(client.events())
                await anext(client.events())
    assert client.returncode == returncode


async def test_a_client_that_is_killed_leaves_no_daemon_behind(home: Home) -> None:
    program = f"""
import anyio, sys
from nous.client import Client
async def main():
    async with Client.spawn(arguments={home.arguments(HANGING)!r}) as client:
        run = await client.call("prompt", text="hello", wait=False)
        await anext(client.events(run["run_id"]))
        print(client.ready.epoch, client.pid, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    with bounded():
        async with await anyio.open_process(
            [sys.executable, "-c", program], stderr=None, env=home.environ(), cwd=home.workdir
        ) as client:
            assert client.stdout is not None
            epoch, pid = (await client.stdout.receive()).split()
            lock = os.open(home.state / "daemons" / f"{epoch.decode()}.lock", os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            client.kill()
            await wait_unlocked(lock, int(pid))
            os.close(lock)


async def wait_unlocked(lock: int, pid: int) -> None:
    """Wait for the lock that the daemon holds for as long as it lives."""
    try:
        await anyio.to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX, abandon_on_cancel=True)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


# -- a daemon that dies, or is none


REFUSED_STARTS = (
    (("--provider", "nobody"), "invalid_usage"),
    (("--workdir", "missing"), "invalid_usage"),
    (("--unknown",), "invalid_usage"),
    (("--config", "missing.yaml"), "invalid_config"),
    (("--state-dir", "."), "unsafe_operation"),
)


@pytest.mark.parametrize(("flags", "code"), REFUSED_STARTS, ids=[" ".join(flags) for flags, _ in REFUSED_STARTS])
async def test_a_refused_start_is_the_daemons_own_error(home: Home, flags: tuple[str, ...], code: str) -> None:
    (home.workdir / "file").touch()
    arguments = ("--provider", "mock", "--bootstrap", "--state-dir", str(home.state), *flags)
    served = await anyio.to_thread.run_sync(partial(run_nous, home, "serve", *arguments))
    with pytest.raises(StartRefusedError) as raised:
        async with Client.spawn(arguments=arguments, cwd=home.workdir, env=home.environ()):
            pytest.fail("it started")
    refused = raised.value
    assert (refused.code, refused.returncode, refused.exit_code) == (code, served.returncode, served.returncode)
    assert (refused.category, refused.message) == (CODES[code].category, CODES[code].message)
    lines = [f"nous: {refused}", *([f"  {refused.hint}"] if refused.hint else [])]
    assert served.stderr.decode().splitlines() == lines, "the same words as on a terminal"


async def test_a_refusal_of_a_later_version_keeps_its_code_and_sentence() -> None:
    refusal = {"ok": False, "error": "The moon is full. (again)", "error_code": "moon", "error_category": "io_failure"}
    with pytest.raises(StartRefusedError, match=r"^The moon is full\. \(again\)$") as raised:
        async with Client.spawn(python(f"import sys; print({json.dumps(refusal)!r}); sys.exit(1)")):
            pytest.fail("it started")
    assert (raised.value.code, raised.value.category, raised.value.exit_code) == ("moon", "io_failure", 1)


async def test_a_daemon_that_crashes_before_it_is_ready_shows_its_last_words() -> None:
    with pytest.raises(DaemonGoneError, match="exit code 3: out of luck") as raised:
        async with Client.spawn(python("import sys; print('out of luck', file=sys.stderr); sys.exit(3)")):
            pytest.fail("it started")
    assert not isinstance(raised.value, StartRefusedError)


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(NousError, match="no/such/program: No such file") as raised:
        async with Client.spawn(["no/such/program"]):
            pytest.fail("it started")
    assert raised.value.code == "io_failure"


async def test_a_daemon_that_is_never_ready_is_given_up_and_ended() -> None:
    with bounded(), pytest.raises(DaemonGoneError, match=r"was not ready within 0\.5 s"):
        async with Client.spawn(python("import sys; sys.stdin.read()"), ready_timeout=0.5):
            pytest.fail("it started")


async def test_a_killed_daemon_fails_what_waits(home: Home) -> None:
    async with spawned(home, HANGING) as client:
        prompt = client.start("prompt", {"text": "hello", "wait": True})
        stream = client.events()
        await anext(stream)
        client.kill()
        with pytest.raises(DaemonGoneError, match="killed by SIGKILL") as raised:
            await prompt.answer()
        assert raised.value.returncode == -signal.SIGKILL
        with pytest.raises(DaemonGoneError, match="SIGKILL"):
            await client.send("ping")
        with pytest.raises(DaemonGoneError, match="SIGKILL"):
            async for _ in stream:
                pass


async def test_events_before_a_death_are_given_out_and_a_torn_line_is_not() -> None:
    program = """
say('{"v":"1","id":"r.1","type":"agent_start","seq":1,"payload":{"run_id":"r"}}')
sys.stdout.write('{"v":"1","id":"r.2","type":"agent_end","seq":2,"payload":{"run_id":"r"}}')
sys.stdout.flush()
sys.stderr.write("out of luck\\n")
sys.exit(3)
"""
    with bounded():
        async with Client.spawn(python(READY + program)) as client:
            stream = client.events("r")
            assert (await anext(stream)).type == "agent_start"
            with pytest.raises(DaemonGoneError, match="exit code 3: out of luck") as raised:
                await anext(stream)
            assert raised.value.returncode == 3
            assert raised.value.stderr == b"out of luck\n"


async def test_last_words_may_come_a_little_later_than_the_end() -> None:
    program = """
if os.fork() == 0:
    os.close(1)
    time.sleep(0.2)
    os.write(2, b"late")
    os._exit(0)
os._exit(3)
"""
    with bounded():
        async with Client.spawn(python(READY + program)) as client:
            with pytest.raises(DaemonGoneError, match="exit code 3: late"):
                await client.send("ping")


async def test_a_peer_that_closes_its_output_and_lives_on_is_gone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "EXIT_SECONDS", 0.2)
    with bounded():
        async with Client.spawn(python(READY + "os.close(1); sys.stdin.read()")) as client:
            with pytest.raises(DaemonGoneError, match="lives on"):
                await client.send("ping")
    assert client.returncode is not None


@pytest.mark.parametrize("when", ["", READY])
async def test_a_program_that_is_no_daemon_is_told_from_one(when: str) -> None:
    with bounded(), pytest.raises((NotTheProtocolError, DaemonGoneError)) as raised:
        async with Client.spawn(python(when + "import sys; print('Welcome!', flush=True); sys.stdin.read()")) as client:
            await client.send("ping")
    assert isinstance(raised.value, NotTheProtocolError)
    assert raised.value.line == b"Welcome!"


async def test_stderr_is_drained_bounded_and_handed_on() -> None:
    heard: list[bytes] = []
    program = """
for n in range(40_000): sys.stderr.write('%060d\\n' % n)
sys.stderr.flush()
say('{"id":"1","type":"on"}')
sys.stdin.read()
"""
    with bounded():
        async with Client.spawn(python(READY + program), on_stderr=heard.append) as client:
            stream = client.events()
            await anext(stream)
            await anext(stream)
    assert b"".join(heard) == b"".join(b"%060d\n" % n for n in range(40_000))
    assert client.stderr_tail == b"".join(heard)[-64 * 1024 :]


async def test_back_pressure_reaches_the_daemon_and_nothing_is_lost(home: Home) -> None:
    """200,000 deltas for a client that takes none: the daemon waits with them, and then every one arrives."""
    count = 200_000
    setup = Setup(script=[[{"text_repeat": {"text": "abcdefgh", "count": count}}]])
    async with spawned(home, setup) as client:
        run = await client.call("prompt", text="go", wait=False)
        stream = client.events(run["run_id"])
        await anext(stream)
        # The daemon answers beside a run that it holds back, and reading the answers takes no more than their share.
        for _ in range(20):
            state = await client.call("get_state")
        assert state["run_state"] == "running"
        deltas = [event.payload["delta"] async for event in stream if event.type == "message_update"]
        assert deltas == ["abcdefgh"] * count


# -- over a socket


async def test_a_socket_takes_commands_and_streams_events(home: Home) -> None:
    async with serving_socket(home) as path, Client.connect(path, events=True) as client:
        run = await client.call("prompt", text="hello", wait=False)
        assert text_of(await collect(client, run["run_id"])) == "mock response: hello"
        with pytest.raises(AttributeError):
            _ = client.ready
        assert (client.pid, client.returncode, client.stderr_tail) == (None, None, b"")
        client.kill()


async def test_a_late_subscriber_gets_a_run_from_its_beginning(home: Home) -> None:
    async with serving_socket(home, SLOW) as path, Client.connect(path) as asking:
        run = await asking.call("prompt", text="hello", wait=False)
        async with Client.connect(path, events=True) as late:
            events = await collect(late, run["run_id"])
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_hello_puts_events_on_the_command_connection(home: Home) -> None:
    async with serving_socket(home) as path, Client.connect(path) as client:
        await client.call("hello", features=["events"], prompt_wait=False)
        run = await client.call("prompt", text="hello")
        assert text_of(await collect(client, run["run_id"])) == "mock response: hello"


async def test_a_line_too_long_for_the_socket_is_answered(home: Home) -> None:
    setup = Setup(flags=("--max-line-bytes", "2000"))
    async with serving_socket(home, setup) as path, Client.connect(path) as client:
        response = await client.send("prompt", text="x" * 3000)
        assert response.error is not None
        assert response.error.code == "line_too_long"


async def test_the_end_of_the_daemon_fails_what_waits_on_a_socket(home: Home) -> None:
    async with serving_socket(home, HANGING) as path, Client.connect(path) as client:
        prompt = client.start("prompt", {"text": "hello", "wait": True})
        await client.call("get_state")
        os.kill((await daemon_pid(home)), signal.SIGKILL)
        with pytest.raises(DaemonGoneError, match="closed the connection"):
            await prompt.answer()


async def daemon_pid(home: Home) -> int:
    """Return the pid that the one lock of a living daemon names."""
    import json

    (lock,) = (home.state / "daemons").glob("*.lock")
    return int(json.loads(lock.read_bytes())["pid"])


async def test_a_closed_socket_client_leaves_the_run_alone(home: Home) -> None:
    async with serving_socket(home, SLOW) as path:
        async with Client.connect(path) as first:
            run = await first.call("prompt", text="hello", wait=False)
        async with Client.connect(path, events=True) as second:
            assert (await collect(second, run["run_id"]))[-1].payload["status"] == "completed"


async def test_no_socket_nobody_there_and_no_socket_file_are_told_apart(home: Home) -> None:
    async def fail(path: Path) -> NousError:
        with pytest.raises(NousError) as raised:
            async with Client.connect(path):
                pytest.fail("somebody answered")
        return raised.value

    missing = await fail(home.root / "missing")
    assert (missing.code, missing.cause) == ("io_failure", f"there is no socket at {home.root / 'missing'}")
    assert missing.hint is not None
    (home.root / "file").write_bytes(b"")
    assert (await fail(home.root / "file")).code == "invalid_usage"
    import socket

    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(home.root / "deaf"))
    assert (await fail(home.root / "deaf")).cause == f"nobody answers at {home.root / 'deaf'}"
    assert (await fail(home.root / ("x" * 200))).code in ("io_failure", "invalid_usage")


def test_the_client_imports_none_of_the_daemons_rooms() -> None:
    program = "import sys, nous.client; print(*sorted(m for m in sys.modules if m.startswith('nous.')))"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT, text=True, encoding="utf-8"
    ).stdout
    rooms = {name.split(".")[1] for name in out.split()}
    assert rooms <= {"client", "errors", "protocol", "system"}
