"""``nous doctor`` as a shell sees it: one object, exit codes, repairs, and with ``--online`` a provider."""

from __future__ import annotations

import json
import shlex
import socket
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import pytest

from nous.cli.doctor.command import CHECKS, PRODUCTION_CHECKS
from tests.support.answers import Done, answer
from tests.support.daemon import run_nous
from tests.support.harness import open_process
from tests.support.home import ROOT, Home, Setup
from tests.support.pages import read_blocks
from tests.support.sse_server import Reply, answers, serve

pytestmark = pytest.mark.anyio

KEY = "sk-fedcba9876543210"
MODELS = b'{"object":"list","data":[{"id":"m-1","object":"model"}]}'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def doctor(home: Home, *arguments: str | Path, **environ: str) -> Done:
    return run_nous(home, "doctor", "--state-dir", home.state, *arguments, environ=environ)


def statuses(found: dict[str, Any]) -> dict[str, str]:
    rows = found["checks"]
    assert all(set(row) == {"name", "status", "message", "fix"} for row in rows)
    return {row["name"]: row["status"] for row in rows}


def test_a_machine_without_anything_is_in_order(home: Home) -> None:
    done = doctor(home, "--json")
    found = answer(done)
    assert list(statuses(found)) == [check.name for check in CHECKS]
    assert "fail" not in statuses(found).values()
    assert not home.state.exists()


def test_a_failure_is_an_answer_with_all_checks(home: Home) -> None:
    done = doctor(home, "--json", "--provider", "openai", "--model", "m")
    found = answer(done)
    assert (done.returncode, found["error_code"]) == (2, "verification_failed")
    assert "provider_key" in found["error"]
    assert statuses(found)["provider_key"] == "fail"
    assert "OPENAI_API_KEY" in found["hint"]


def test_a_broken_configuration_is_a_finding_among_others(home: Home) -> None:
    given = home.root / "given.yaml"
    given.write_text("daemon: {max_rums: 1}", encoding="utf-8")
    found = answer(doctor(home, "--json", "--config", given))
    assert [name for name, status in statuses(found).items() if status == "fail"] == ["configuration"]
    assert f"{given}:1: daemon.max_rums" in json.dumps(found)


def test_for_people_it_says_what_to_do(home: Home) -> None:
    done = doctor(home, "--provider", "openai", "--model", "m")
    assert done.returncode == 2
    lines = done.stdout.decode().split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith("fail  provider_key"))
    assert "fix: " in lines[at + 1]


def test_repairs_are_told_and_hold(home: Home) -> None:
    assert run_nous(home, "init", "--state-dir", home.state).returncode == 0
    (home.state / "sessions").chmod(0o755)
    (home.state / "sessions" / "ses-1.ndjson").write_bytes(b"no session\n")
    assert statuses(answer(doctor(home, "--json")))["sessions"] == "fail"
    found = answer(doctor(home, "--json", "--repair"))
    assert (statuses(found)["sessions"], statuses(found)["state_directory"]) == ("pass", "pass")
    assert len(found["repairs"]) == 3, "the directory, the file in it, and the session"
    assert (home.state / "quarantine" / "ses-1.ndjson.1").read_bytes() == b"no session\n"
    assert answer(doctor(home, "--json", "--repair"))["repairs"] == []


def test_there_is_nothing_to_repair_where_there_is_no_state_directory(home: Home) -> None:
    assert answer(doctor(home, "--json", "--repair"))["repairs"] == []
    assert not home.state.exists()


def test_production_readiness_names_all_that_is_missing(home: Home) -> None:
    done = doctor(home, "--json", "--production-readiness", "--provider", "mock", NOUS_ALLOW_BOOTSTRAP="1")
    found = answer(done)
    assert done.returncode == 2
    failed = {name for name, status in statuses(found).items() if status == "fail"}
    assert failed >= {f"production.{name}" for name in ("profile", "provider", "consent", "retention")}
    assert list(statuses(found))[-len(PRODUCTION_CHECKS) :] == [check.name for check in PRODUCTION_CHECKS]


def write_production(home: Home, **daemon: object) -> None:
    path = home.root / ".config" / "nous" / "config.yaml"
    path.parent.mkdir(parents=True)
    settings = {
        "provider": {"name": "openai", "model": "m-1"},
        "daemon": {"profile": "production", **daemon},
        "retention": {"max_session_days": 365, "max_trace_days": 30, "max_output_days": 30},
    }
    path.write_text(json.dumps(settings), encoding="utf-8")
    path.chmod(0o600)


def test_what_is_ready_passes(home: Home) -> None:
    assert run_nous(home, "init", "--state-dir", home.state).returncode == 0
    write_production(home)
    done = doctor(home, "--json", "--production-readiness", OPENAI_API_KEY=KEY)
    found = answer(done)
    assert done.returncode == 0, found
    assert all(status == "pass" for name, status in statuses(found).items() if name.startswith("production."))
    assert KEY.encode() not in done.stdout + done.stderr


# -- the endpoint


async def ask(home: Home, url: str) -> dict[str, Any]:
    arguments = ("--json", "--online", "--provider", "openai", "--model", "m-1", "--api-base", url)
    done = await anyio.to_thread.run_sync(partial(doctor, home, *arguments, OPENAI_API_KEY=KEY))
    assert KEY.encode() not in done.stdout + done.stderr
    row: dict[str, Any] = next(row for row in answer(done)["checks"] if row["name"] == "endpoint")
    return row


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (answers(200, MODELS), "pass"),
        (answers(401, b'{"error":{"message":"no"}}'), "warn"),
        (answers(404, b"{}"), "warn"),
        (answers(503, b"{}"), "fail"),
    ],
)
async def test_with_online_the_provider_is_asked(home: Home, reply: Reply, status: str) -> None:
    async with serve(reply, reply) as server:  # what is not there is looked for below /v1 too
        row = await ask(home, server.url)
    assert row["status"] == status, row
    assert server.url in row["message"]


async def test_an_endpoint_where_nobody_listens(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    row = await ask(home, f"http://127.0.0.1:{port}/v1")
    assert row["status"] == "fail"


async def test_without_online_nobody_is_asked(home: Home) -> None:
    async with serve() as server:
        arguments = ("--json", "--provider", "openai", "--model", "m-1", "--api-base", server.url)
        done = await anyio.to_thread.run_sync(partial(doctor, home, *arguments, OPENAI_API_KEY=KEY))
        assert server.connections == 0
    assert "endpoint" not in statuses(answer(done))


def test_the_page_names_every_check() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    for name in [check.name for check in (*CHECKS, *PRODUCTION_CHECKS)] + ["endpoint"]:
        assert f"`{name}`" in page, name


def test_the_commands_of_the_page_run(home: Home) -> None:
    (block,) = read_blocks((ROOT / "docs" / "doctor.md").read_text(encoding="utf-8"))
    commands = [shlex.split(line, comments=True) for line in block.text.split("\n")[:-1]]
    assert len(commands) >= 5
    for command in commands:
        assert command[0] == "nous"
        done = run_nous(home, *command[1:])
        assert done.returncode == (2 if "--production-readiness" in command else 0), done


# -- beside daemons


HANGS: Final = [{"text": "Half"}, {"hang": True}]


async def test_beside_a_daemon_at_work_there_is_nothing_to_repair(home: Home) -> None:
    script = [[{"text": "Whole."}], HANGS, *[[{"text": f"Answer {n}."}] for n in range(3)]]
    async with open_process(home, Setup(script=script)) as (peer, daemon):
        await peer.run("one")
        hanging = await peer.start("two")
        await peer.events_until("message_update", run_id=hanging)
        for n in range(3):
            await peer.ok("new_session")
            run = await peer.start(f"more {n}")
            found = answer(await anyio.to_thread.run_sync(partial(doctor, home, "--json", "--repair")))
            assert found["repairs"] == []
            assert f"pid {daemon.pid}" in message_of(found, "locks")
            await peer.run_events(run)
        await peer.ok("abort", {"run_id": hanging})
        await peer.run_events(hanging)
        await peer.end()
        await peer.rest()
        await daemon.wait()
    found = answer(doctor(home, "--json", "--repair"))
    assert (found["repairs"], message_of(found, "sessions"), message_of(found, "traces")) == (
        [],
        "4 sessions",
        "5 traces",
    )


async def test_what_a_killed_daemon_left_is_told_and_put_right(home: Home) -> None:
    async with open_process(home, Setup(script=[HANGS])) as (peer, daemon):
        run_id = await peer.start("one")
        await peer.events_until("message_update")
        daemon.process.kill()
        await daemon.wait()
    found = answer(doctor(home, "--json"))
    assert (statuses(found)["locks"], statuses(found)["traces"]) == ("warn", "warn")
    assert run_id in message_of(found, "traces")
    found = answer(doctor(home, "--json", "--repair"))
    assert len(found["repairs"]) == 2, "the lock and the trace"
    assert (statuses(found)["locks"], statuses(found)["traces"]) == ("pass", "pass")
    done = run_nous(home, "trace", "validate", run_id, "--state-dir", home.state, "--json")
    assert answer(done)["files"][0]["status"] == "interrupted"


def message_of(found: dict[str, Any], name: str) -> str:
    return next(str(row["message"]) for row in found["checks"] if row["name"] == name)
