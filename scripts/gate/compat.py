"""Compatibility: each row of docs/compatibility.md, seen by a client of the original v1 implementation."""

from __future__ import annotations

import stat
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec
from anyio.abc import ByteReceiveStream

from nous.store.sessions import SessionStore
from scripts.gate.checks import Place, Table, expect
from scripts.gate.original import Original, command

HANGS: list[object] = [{"text": "Hello"}, {"hang": True}]


@asynccontextmanager
async def served(place: Place, calls: Sequence[object] = (), *flags: str) -> AsyncIterator[Original]:
    """Serve a daemon on a socket and give an original client of it."""
    path = place.state.with_name("s")
    async with place.daemon(calls, "--stdio", "--socket", str(path), *flags):
        yield Original(path)


DEMO = """
name: demo
command: ["{python}", demo.py]
"""

DEMO_PROGRAM = """
from nous.extension import command, run, tool

@tool(name="demo.echo")
def echo(text: str) -> str:
    "Say a text again."
    return text

@command(name="demo.where")
def where(payload):
    return {"place": "here", "asked": payload}

@command(name="demo.result")
def result(payload):
    return {"result": 7, "duplicate": "mine"}

run("demo", "1.0")
"""


def install_demo(place: Place) -> None:
    """Install and trust an extension with the tool ``demo.echo`` and two commands."""
    directory = place.workdir / ".nous" / "extensions" / "demo"
    directory.mkdir(parents=True)
    (directory / "extension.yaml").write_text(DEMO, encoding="utf-8")
    (directory / "demo.py").write_text(DEMO_PROGRAM, encoding="utf-8")
    for arguments in (("init",), ("ext", "trust", directory)):
        done = place.nous(*arguments, "--state-dir", place.state)
        expect(done.returncode == 0, done.stdout.decode() + done.stderr.decode())


async def extension_results(place: Place) -> str:
    """Row 1: the object that an extension returned is the payload."""
    install_demo(place)
    async with served(place) as client:
        payload = await client.ok("extension_command", {"name": "demo.where", "payload": {"a": 1}})
        own = {"place": "here", "asked": {"a": 1}}
        expect({key: payload.get(key) for key in own} == own and payload["result"] == own, payload)
        async with client.connect() as lines:
            line = command("extension_command", {"name": "demo.result"})
            await lines.send(line, line)
            for _ in range(2):
                answer = await lines.next()
                expect(answer["payload"] == {"result": 7, "duplicate": "mine"}, answer)
    return "its fields at the top, result beside them; a result of its own stays"


FIRST_RUN = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    print("connected", flush=True)
    for line in sock.makefile():
        run_id = json.loads(line)["payload"].get("run_id")
        if run_id:
            print(run_id, flush=True)
            break
"""


async def said(stdout: ByteReceiveStream) -> str:
    """Return the next line that a process printed."""
    line = b""
    while not line.endswith(b"\n"):
        line += await stdout.receive(1)
    return line.decode().rstrip()


async def ended_runs(place: Place) -> str:
    """Row 2: nobody is shown an ended run, but the process that asked for it and has not seen its end."""
    async with served(place, [[{"text": "one"}], [{"text": "two"}], HANGS]) as client:
        waited = (await client.ok("prompt", {"text": "a"}))["run_id"]
        ended = (await client.ok("prompt", {"text": "b", "wait": False}))["run_id"]
        await client.until_runs(0)
        async with client.another_process(FIRST_RUN) as stranger, client.another_process(FIRST_RUN) as another:
            for stdout in (stranger, another):
                expect(await said(stdout) == "connected", "the subscriber did not start")
            async with client.subscribe() as lines:
                mine = await lines.until("agent_end")
                expect({line["payload"]["run_id"] for line in mine} == {ended}, f"{ended}, {waited}: {mine[0]}")
            async with client.subscribe() as again:
                active = (await client.ok("prompt", {"text": "c", "wait": False}))["run_id"]
                first = await again.next()
                expect(first["payload"]["run_id"] == active, f"{active} is active: {first}")
                for stdout in (stranger, another):
                    expect(await said(stdout) == active, "a stranger saw another run first")
                async with client.subscribe() as late:
                    seen = await late.until("message_update")
                    expect([line["seq"] for line in seen] == list(range(1, len(seen) + 1)), seen)
                    expect({line["payload"]["run_id"] for line in seen} == {active}, seen[0])
    return "strangers follow the active run; the own run is shown once"


async def unnamed_runs(place: Place) -> str:
    """Row 3: commands that name no run reach the daemon's only one."""
    async with served(place, [HANGS, HANGS]) as client:
        run_id = (await client.ok("prompt", {"text": "a", "wait": False}))["run_id"]
        await client.ok("new_session")
        state = await client.ok("get_state")
        expect((state["run_state"], state["run_id"]) == ("running", run_id), state)
        for kind in ("steer", "follow_up"):
            answer = await client.ok(kind, {"text": "x"})
            expect(answer["run_id"] == run_id, answer)
        counts = (await client.ok("get_state"))["pending_counts"]
        expect(counts == {"steer": 1, "follow_up": 1}, counts)
        own = (await client.ok("new_session"))["session_id"]
        other = (await client.ok("prompt", {"text": "b", "wait": False, "session_id": own}))["run_id"]
        expect((await client.ok("get_state"))["run_id"] == other, "the active session's run comes first")
        await client.ok("new_session")
        code, message = await client.refused("abort")
        expect(code == "command_rejected" and "no_active_run" in message, f"of two: {code} {message}")
        await client.ok("abort", {"run_id": other})
        await client.until_runs(1)
        answer = await client.ok("abort")
        expect(answer["run_id"] == run_id, answer)
        await client.until_runs(0)
        code, message = await client.refused("abort")
        expect(code == "command_rejected" and "no_active_run" in message, f"{code} {message}")
    return "steer, follow_up, get_state and abort found it, and took neither of two"


async def second_prompts(place: Place) -> str:
    """Row 4: a second prompt is refused while a run is on, unless it names a session."""
    async with served(place, [HANGS, [{"text": "two"}], [{"text": "three"}]]) as client:
        await client.ok("prompt", {"text": "a", "wait": False})
        session = (await client.ok("new_session"))["session_id"]
        for payload in ({"text": "b"}, {"text": "b", "wait": False, "session_id": ""}):
            code, message = await client.refused("prompt", payload)
            expect(code == "command_rejected" and "run_in_progress" in message, f"{code} {message}")
        await client.ok("prompt", {"text": "b", "session_id": session})
        async with client.connect() as lines:
            await lines.send(command("hello", {}, "h"), command("prompt", {"text": "c"}, "p"))
            kinds = [(await lines.next())["type"] for _ in range(3)]
            expect(kinds == ["hello", "status", "result"], kinds)
        await client.ok("abort")
    return "refused; accepted with a session_id, and after hello"


async def tool_output(place: Place) -> str:
    """Row 5: the output of every tool call is in an update before its end."""
    (place.workdir / "a.txt").write_text("hello\n" * 3, encoding="utf-8")
    calls = [
        {"tool_call": {"name": "read", "arguments": {"path": "a.txt"}}},
        {"tool_call": {"name": "bash", "arguments": {"command": "echo streamed"}}},
        {"tool_call": {"name": "ls", "arguments": {}}},
        {"tool_call": {"name": "fly", "arguments": {}}},
    ]
    async with served(place, [calls, [{"text": "Done."}]]) as client, client.subscribe() as lines:
        await client.ok("prompt", {"text": "a"})
        events = await lines.until("agent_end")
    shown: dict[str, str] = {}
    for event in events:
        payload = event["payload"]
        if event["type"] == "tool_execution_update":
            shown[payload["tool_call_id"]] = shown.get(payload["tool_call_id"], "") + payload["delta"]
        if event["type"] == "tool_execution_end":
            text = shown.get(payload["tool_call_id"], "")
            expect(bool(text) and (text in payload["result"] or payload["result"] in text), f"{payload}: {text!r}")
    expect(len(shown) == 4, shown)
    done = place.nous("replay", place.trace(events[0]["payload"]["run_id"]))
    expect(done.returncode == 0, done.stdout.decode()[-300:])
    return "four calls, each with its output; the trace replays"


async def session_ids(place: Place) -> str:
    """Row 6: new session ids begin with ``sess-``; older ones open."""
    async with served(place) as client:
        session = (await client.ok("new_session"))["session_id"]
        expect(session.startswith("sess-"), session)
        run_session = (await client.ok("prompt", {"text": "a"}))["session_id"]
        expect(run_session == session, run_session)
    old = SessionStore(place.state / "sessions").create("ses-01m7xwn30000-b15hrmh7ftfg8v", "2026-01-02T03:04:05Z").id
    async with served(place) as client:
        await client.ok("switch_session", {"session_id": old})
        await client.ok("prompt", {"text": "a"})
        messages = await client.ok("get_messages")
        expect(messages["session_id"] == old and len(messages["messages"]) == 2, messages)
    return "sess-; a session with an id that begins with ses- opens"


async def error_messages(place: Place) -> str:
    """Row 7: ``error.message`` alone says why."""
    secret = "sk-" + "a1B2" * 10
    fails = [{"error": {"status": 401, "cause": "the key has expired"}}]
    async with served(place, [fails, fails]) as client, client.subscribe() as lines:
        answer = await client.ask("prompt", {"text": "a"})
        error = next(line for line in await lines.until("agent_end") if line["type"] == "error")["payload"]
        for told in (answer["error"], error):
            expect(told["message"].startswith("The provider refused the key."), told)
            expect("the key has expired" in told["message"] and "the key has expired" in told["cause"], told)
        code, message = await client.refused("prompt", {"text": "a", "wait": secret})
        expect(code == "invalid_payload" and "wait" in message and secret not in message, f"{code} {message}")
        code, message = await client.refused("switch_session", {"session_id": "x" * 5000})
        expect(len(message) < 3000, f"a message of {len(message)} characters")
    return "the sentence and the reason, bounded, in answers and events"


async def answers_in_order(place: Place) -> str:
    """Row 8: the answers of one connection come in the order of its commands; an abort acts at once."""
    async with served(place, [HANGS, HANGS]) as client, client.subscribe() as events, client.connect() as lines:
        kinds = ("prompt", "get_state", "ping", "steer", "nonsense", "list_tools", "abort", "get_messages")
        payload = {"text": "a", "wait": True}
        await lines.send(command(kinds[0], payload, "0"))
        await events.until("message_update")
        await lines.send(*(command(kind, {"text": "x"}, str(n)) for n, kind in enumerate(kinds) if n))
        ended = (await events.until("agent_end"))[-1]["payload"]["status"]
        answers = [await lines.next() for _ in kinds]
        expect([answer["id"] for answer in answers] == [str(n) for n in range(len(kinds))], answers)
        expect(ended == "aborted", f"the run ended {ended}")
        await lines.send(command("hello", {}, "h"))
        await lines.until("status")
        await lines.send(command("prompt", payload, "p"), command("ping", {}, "q"))
        expect((await lines.next())["id"] == "q", "after hello a ping waits for a prompt")
        await client.ok("abort")
    return f"{len(kinds)} answers in order; after hello the ping came first"


async def frozen_codes(place: Place) -> str:
    """Row 9: the codes are the original's."""
    wanted: list[tuple[str, str, dict[str, Any], str]] = [
        ("command_rejected", "extension_command", {"name": "nobody"}, "nobody"),
        ("command_rejected", "set_active_tools", {"tools": ["read", "teleport"]}, "teleport"),
        ("command_rejected", "set_leaf", {"leaf_id": "nowhere"}, "leaf_id"),
        ("command_rejected", "prompt", {"text": "x", "leaf_id": "nowhere"}, "leaf_id"),
        ("command_rejected", "get_messages", {"leaf_id": "nowhere"}, "leaf_id"),
        ("invalid_payload", "switch_session", {}, "session_id"),
        ("invalid_payload", "switch_session", {"session_id": ""}, "session_id"),
        ("invalid_payload", "branch_session", {}, "session_id"),
        ("invalid_payload", "branch_session", {"session_id": ""}, "session_id"),
        ("session_not_found", "switch_session", {"session_id": "nowhere"}, ""),
    ]
    async with served(place) as client:
        for when in ("before a session", "in a session"):
            for code, kind, payload, word in wanted:
                if when == "before a session" and kind == "get_messages":
                    continue
                found, message = await client.refused(kind, payload)
                expect(found == code and word in message, f"{when}: {kind} {payload}: {found} {message}")
            await client.ok("prompt", {"text": "a"})
    return f"{len(wanted)} refusals, each with its code"


async def empty_ids(place: Place) -> str:
    """Row 10: an empty string counts as absent for optional ids."""
    async with served(place, [[{"text": "one"}], [{"text": "two"}], HANGS]) as client:
        first = await client.ok("prompt", {"text": "a", "session_id": "", "leaf_id": ""})
        second = await client.ok("prompt", {"text": "b", "session_id": "", "leaf_id": ""})
        expect(first["session_id"] == second["session_id"], second)
        messages = (await client.ok("get_messages", {"session_id": "", "leaf_id": ""}))["messages"]
        expect(len(messages) == 4, f"{len(messages)} messages")
        expect((await client.ok("get_state", {"session_id": ""}))["session_id"] == first["session_id"], "get_state")
        branch = await client.ok("branch_session", {"session_id": "", "parent_id": first["session_id"], "leaf_id": ""})
        expect(branch["parent_id"] == first["session_id"], branch)
        expect(len((await client.ok("get_messages"))["messages"]) == 4, "the branch is not whole")
        run_id = (await client.ok("prompt", {"text": "c", "wait": False}))["run_id"]
        expect((await client.ok("abort", {"run_id": ""}))["run_id"] == run_id, "abort")
    return "session_id, parent_id, leaf_id and run_id"


async def dotted_tools(place: Place) -> str:
    """Row 11: tool names may contain dots."""
    install_demo(place)
    call = [{"tool_call": {"name": "demo.echo", "arguments": {"text": "again"}}}]
    async with served(place, [call, [{"text": "Done."}]]) as client, client.subscribe() as lines:
        await client.refused("extension_command", {"name": "nobody"})
        await client.ok("set_active_tools", {"tools": ["demo.echo", "read"]})
        await client.ok("prompt", {"text": "a"})
        events = await lines.until("agent_end")
    (end,) = [event["payload"] for event in events if event["type"] == "tool_execution_end"]
    expect((end["tool_name"], end["result"], end["is_error"]) == ("demo.echo", "again", False), end)
    return "demo.echo was offered, called and ran"


async def bounded_trace_lines(place: Place) -> str:
    """Row 12: an export can leave out long texts; the export is all that stdout holds."""
    text = [{"text_repeat": {"text": "0123456789" * 100, "count": 100}}]
    async with served(place, [text]) as client:
        run_id = (await client.ok("prompt", {"text": "a", "wait": True}))["run_id"]
    export = ("trace", "export", run_id, "--format", "events", "--state-dir", place.state)
    for limit, longest in ((1 << 20, 100_000), (1 << 16, 0)):
        done = place.nous(*export, "--max-text-bytes", str(limit))
        expect(done.returncode == 0 and not done.stderr, done.stderr.decode())
        lines = [msgspec.json.decode(line) for line in done.stdout.split(b"\n") if line]
        ends = [line["payload"] for line in lines if line.get("type") == "message_end"]
        found = max(len(end.get("text", "")) for end in ends if end["role"] == "assistant")
        expect(found == longest, f"a limit of {limit} bytes leaves a text of {found}")
    saved = place.nous("trace", "export", run_id, "--save", "--state-dir", place.state)
    expect(saved.returncode == 0 and b"exports/" in saved.stdout, saved.stdout.decode() + saved.stderr.decode())
    return "texts past --max-text-bytes are left out; stdout holds the export alone"


async def absent_values(place: Place) -> str:
    """Row 13: ``payload: null`` and ``v: ""`` count as absent."""
    async with served(place) as client, client.connect() as lines:
        await lines.send(
            b'{"v":"","id":"1","type":"ping","payload":null}',
            b'{"v":"","id":"2","type":"get_state","payload":null}',
            b'{"v":"2","id":"3","type":"ping"}',
            b'{"v":"1","id":"4","type":"prompt","payload":null}',
        )
        answers = [await lines.next() for _ in range(4)]
    kinds = [answer["error"]["code"] if "error" in answer else answer["type"] for answer in answers]
    expect(kinds == ["pong", "state", "invalid_command", "invalid_payload"], kinds)
    return "accepted; another version and a missing text are not"


class Server(BaseHTTPRequestHandler):
    """A compatible server whose API begins at ``/v1``."""

    paths: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.paths.append(self.path)
        if not self.path.startswith("/v1/"):
            self.send_error(404)
            return
        chunk = {"choices": [{"index": 0, "delta": {"content": "Hello."}, "finish_reason": "stop"}]}
        body = b"data: %b\n\ndata: [DONE]\n\n" % msgspec.json.encode(chunk)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


async def addresses(place: Place) -> str:
    """Row 14: an address without ``/v1`` works, and the socket's directory is made."""
    paths = Server.paths = []
    path = place.state.with_name("made") / "s"
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = ("--provider", "openai", "--model", "m", "--api-base", f"http://127.0.0.1:{server.server_port}")
        async with place.daemon((), *given, "--stdio", "--socket", str(path)):
            client = Original(path)
            for _ in range(2):
                expect((await client.ok("prompt", {"text": "a"}))["output"] == "Hello.", "the answer is another one")
            mode = stat.S_IMODE(path.parent.stat().st_mode)
        server.shutdown()
    expect(paths == ["/chat/completions", *["/v1/chat/completions"] * 2], paths)
    expect(mode == 0o700, oct(mode))
    return "as given, then with /v1, which is kept; the directory is 0700"


async def contexts(place: Place) -> str:
    """Row 15: after a compaction ``get_messages`` has all messages, and with ``view`` what the model sees."""
    long = [{"text_repeat": {"text": "word ", "count": 2000}}]
    summary = {"match": {"purpose": "compaction"}, "steps": [{"text": "They spoke of words."}]}
    config = place.state.with_name("config.yaml")
    config.write_text("engine: {compact_keep_tokens: 10}\n", encoding="utf-8")
    async with served(place, [long, [{"text": "b"}], summary], "--config", str(config)) as client:
        await client.ok("prompt", {"text": "first"})
        await client.ok("prompt", {"text": "second"})
        before = (await client.ok("get_messages"))["messages"]
        await client.ok("compact_session")
        expect((await client.ok("get_messages"))["messages"] == before, "the history has changed")
        expect((await client.ok("get_messages", {"view": "history"}))["messages"] == before, "the history has changed")
        seen = (await client.ok("get_messages", {"view": "context"}))["messages"]
        expect(len(seen) < len(before) + 1 and "They spoke of words." in seen[0]["text"], seen)
        expect(seen[1:] == before[len(before) - len(seen) + 1 :], seen)
    return "all messages as before; the context begins with the summary"


CHECKS: Table = {
    "compat.01": ("an extension's result is the payload", extension_results),
    "compat.02": ("an ended run is shown to nobody else", ended_runs),
    "compat.03": ("commands without a run reach the only one", unnamed_runs),
    "compat.04": ("a second prompt is refused", second_prompts),
    "compat.05": ("a tool's output is in an update", tool_output),
    "compat.06": ("session ids begin with sess-", session_ids),
    "compat.07": ("an error's message says why", error_messages),
    "compat.08": ("answers come in order, effects do not wait", answers_in_order),
    "compat.09": ("the codes are the original's", frozen_codes),
    "compat.10": ("an empty id counts as absent", empty_ids),
    "compat.11": ("tool names may contain dots", dotted_tools),
    "compat.12": ("exports can leave out long texts", bounded_trace_lines),
    "compat.13": ("null payloads and empty versions count as absent", absent_values),
    "compat.14": ("an address without /v1 works, a socket's directory is made", addresses),
    "compat.15": ("the context after a compaction can be read", contexts),
}
