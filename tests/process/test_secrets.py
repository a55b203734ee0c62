"""What the daemon holds (a key, a header) stands nowhere afterwards: logs, traces, errors, sessions, any output.

Not even where the provider says it back, in every way a provider can: a refusal, an error within a stream, a header.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio.to_thread
import pytest

from nous.cli.main import COMMANDS
from tests.support.answers import Done
from tests.support.daemon import run_nous
from tests.support.gates import chat, chat_delta
from tests.support.harness import Peer, open_process
from tests.support.home import Home, Setup
from tests.support.sse_server import Reply, Server, answers, cuts, data_lines, sends, serve, streams

pytestmark = pytest.mark.anyio

KEY: Final = "sk-proj-3141592653.589793_ab"
HEADER: Final = "team-2718281828459045"
OTHER_HEADER: Final = "tenant-1414213562373095"
HELD: Final = (KEY, HEADER, OTHER_HEADER)
SAYS_KEY: Final = json.dumps(
    {"error": {"message": f"bad {KEY} of {HEADER}", "code": KEY, "type": HEADER, "status": OTHER_HEADER}}
).encode()
SAYS_HEADER: Final = json.dumps({"error": {"message": "", "code": OTHER_HEADER, "type": "refused"}}).encode()
READS_OURS: Final = "" if os.geteuid() == 0 else "; cat /proc/$PPID/environ 2>&1"  # nothing is closed to root
ASKS_ENV: Final = json.dumps({"command": f"env{READS_OURS}"})
CALLS_BASH: Final = {
    "choices": [
        {
            "index": 0,
            "delta": {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "bash", "arguments": ASKS_ENV}}]},
            "finish_reason": "tool_calls",
        }
    ]
}

REPLIES: Final[list[Reply]] = [
    streams(*chat("Whole.")),
    streams(data_lines(json.dumps(CALLS_BASH), "[DONE]")),
    streams(*chat("Your environment.")),
    answers(401, SAYS_KEY, headers={"x-echo": KEY}),
    answers(400, SAYS_KEY),
    answers(400, SAYS_HEADER),
    streams(chat_delta("Half"), data_lines(SAYS_KEY)),
    streams(data_lines("{" + KEY)),
    cuts(chat_delta("Half")),
    # What passes by itself is asked for once more, and the warning about that names the cause.
    *[answers(429, SAYS_KEY)] * 2,
    *[sends(f"HTTP/1.1 {KEY}\r\n\r\n".encode())] * 2,
]
PROMPTS: Final = len(REPLIES) - 3
"""One reply is to a tool's result, two are to retries."""


def forms(secret: str) -> Iterator[bytes]:
    """Yield what a secret may look like: as it is, encoded, and either half of it."""
    yield secret.encode()
    yield json.dumps(secret)[1:-1].encode()
    yield base64.b64encode(secret.encode())
    yield quote(secret, safe="").encode()
    yield secret[: len(secret) // 2].encode()
    yield secret[len(secret) // 2 :].encode()


def find_secrets(data: bytes) -> set[str]:
    return {secret for secret in HELD if any(form in data for form in forms(secret))}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def setup_of(server: Server) -> Setup:
    provider = {
        "name": "openai",
        "model": "m",
        "api_base": server.url,
        "api_key_env": "MY_CREDENTIAL",
        "headers": {"x-team": HEADER},
    }
    return Setup(
        provider="openai",
        config={
            "provider": provider,
            "providers": {"openai": {"headers": {"x-tenant": OTHER_HEADER}}},
            "retry": {"max_retries": 1, "first_delay_ms": 1},
        },
        flags=("--log-level", "debug"),
        environ={"MY_CREDENTIAL": KEY},
    )


async def shell(home: Home, *arguments: str) -> Done:
    where = ("--state-dir", str(home.state), "--config", str(home.root / "config.yaml"))
    run = partial(run_nous, home, *arguments, *where, environ={"MY_CREDENTIAL": KEY})
    return await anyio.to_thread.run_sync(run)


async def test_nothing_that_nous_holds_is_written_anywhere(home: Home) -> None:
    async with serve(*REPLIES) as server:
        run_ids = await run_everything(home, server)
        assert [e.headers["authorization"] for e in server.exchanges] == [f"Bearer {KEY}"] * len(REPLIES)
        sent = {(e.headers["x-team"], e.headers["x-tenant"]) for e in server.exchanges}
        assert sent == {(HEADER, OTHER_HEADER)}
    assert len(run_ids) == PROMPTS
    written = {
        path: path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path.name != "config.yaml"
    }
    assert len(written) > 2 * len(run_ids)
    assert {path: found for path, data in written.items() if (found := find_secrets(data))} == {}


async def run_everything(home: Home, server: Server) -> list[str]:
    """Make a run of each reply; return the runs' ids.  What the daemon says is looked at here, as are its logs."""
    async with open_process(home, setup_of(server)) as (peer, daemon):
        run_ids = [(await peer.run(f"prompt {n}"))[0].run_id for n in range(PROMPTS)]
        await peer.ok("get_state")
        await export_all(peer, run_ids)
        await peer.end()
        lines = await peer.rest()
        await daemon.wait()
        assert [line.raw for line in (*peer.lines, *lines) if find_secrets(line.raw)] == []
        assert find_secrets(daemon.stderr()) == set()
        assert b"run_failed" in daemon.stderr()
    return run_ids


async def export_all(peer: Peer, run_ids: list[str]) -> None:
    for run_id in run_ids:
        await peer.ok("export_trace", {"run_id": run_id})


async def test_no_command_shows_it(home: Home) -> None:
    async with serve(*REPLIES, *[answers(401, SAYS_KEY)] * 12) as server:
        run_ids = await run_everything(home, server)
        sessions = json.loads((await shell(home, "session", "list", "--json")).stdout)["sessions"]
        said = {
            arguments: await shell(home, *arguments)
            for arguments in command_lines(run_ids[-1], sessions[0]["session_id"])
        }
    assert {arguments[0] for arguments in said} >= set(COMMANDS) - {"init", "ctl", "serve", "schema", "replay"}
    assert all(done.stdout + done.stderr for done in said.values())
    found = {arguments: find_secrets(done.stdout + done.stderr) for arguments, done in said.items()}
    assert {arguments: secrets for arguments, secrets in found.items() if secrets} == {}


def command_lines(run_id: str, session_id: str) -> Iterator[tuple[str, ...]]:
    plain: list[tuple[str, ...]] = [
        ("config", "show"),
        ("config", "get", "provider"),
        ("config", "get", "provider.headers.x-team"),
        ("config", "get", "providers.openai"),
        ("config", "check"),
        ("auth", "check"),
        ("doctor", "--production-readiness"),
        ("doctor", "--online"),
        ("models", "--online", "--provider", "openai"),
        ("trace", "list"),
        ("trace", "show", run_id),
        ("trace", "validate", run_id),
        ("trace", "export", run_id, "-o", "-"),
        ("session", "list"),
        ("session", "show", session_id),
        ("session", "tree", session_id),
        ("session", "export", session_id, "-o", "-"),
        ("prompt", "hello"),
        ("ext", "list"),
        ("gc", "--dry-run"),
        ("trust", "absent"),
    ]
    for arguments in plain:
        yield arguments
        yield (*arguments, "--json")


async def test_a_wrong_configuration_never_repeats_what_stands_in_it(home: Home) -> None:
    wrong: list[dict[str, Any]] = [
        {"provider": {"api_key_env": KEY}},
        {"provider": {"headers": {"authorization": KEY}}},
        {"provider": {"api_key": KEY}},
        {"provider": {"name": KEY}},
        {"provider": {"name": "openai", "model": "m", "api_base": f"https://user:{KEY}@example.org/v1"}},
        {"provider": {"name": "openai", "model": "m", "headers": {"x-team": f"{KEY}\n"}}},
        {"tools": {"policy": {"bash": KEY}}},
    ]
    for config in wrong:
        path = home.root / "config.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        for command in ("serve", "config check", "config show", "doctor", "auth check"):
            extra = ("--bootstrap",) if command == "serve" else ()
            done = await shell(home, *command.split(), *extra, "--json")
            assert KEY.encode() not in done.stdout + done.stderr, (config, command)
