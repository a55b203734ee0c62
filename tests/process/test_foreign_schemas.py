"""Schemas that others wrote, in a real daemon: a heavy one costs its own call, and nobody waits for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.extension_programs import write_extension
from tests.support.harness import command_line, connect, open_peer, serve_socket
from tests.support.home import Home, Setup
from tests.support.lines import of_type

pytestmark = pytest.mark.anyio

PATTERN: Final[dict[str, Any]] = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
HOSTILE: Final = "a" * 60 + "!"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def write_tool(home: Home, schema: dict[str, Any]) -> None:
    """Write an extension of the user's own whose tool ``check`` has a schema."""
    directory = write_extension(home.root / ".config" / "nous" / "extensions", "one", tools=["check"])
    main = directory / "main.py"
    text = main.read_text("utf-8").replace('{"type": "object"}', f"json.loads({json.dumps(schema)!r})")
    main.write_text(text, encoding="utf-8")


async def test_a_tool_with_a_hostile_pattern_can_be_aborted_and_holds_nobody_up(home: Home) -> None:
    write_tool(home, PATTERN)
    script = [[{"tool_call": {"name": "check", "arguments": {"a": HOSTILE}, "id": "c1"}}], [{"text": "Done."}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        run_id = await peer.start("go")
        await peer.events_until("tool_execution_start")
        for _ in range(10):
            await peer.ok("ping")
        await peer.ok("abort")
        events = await peer.run_events(run_id)
        assert events[-1].payload["status"] == "aborted"


async def test_an_extension_whose_schema_cannot_be_used_is_down_and_says_why(home: Home) -> None:
    write_tool(home, {"type": "object", "$schema": "https://example.org/mine"})
    async with open_peer("stdio", home, Setup()) as peer:
        await peer.run("hello")
        [info] = (await peer.ok("get_state"))["extensions"]
        assert info["state"] == "down"
        assert info["last_error"] == (
            "its hello does not do: the schema of a tool cannot be used: "
            "the tool check: $schema: a dialect that is not known"
        )


@pytest.mark.parametrize(
    ("schema", "cause"),
    [
        ({"multipleOf": "HUGE"}, "invalid_payload: output_schema[...]: Number out of range"),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "type": [7]}, "invalid_payload: output_schema: $.type"),
        ({"description": "a" * (1 << 20)}, "invalid_payload: output_schema: the schema is longer than 1048576 bytes"),
    ],
)
async def test_an_odd_output_schema_is_refused_by_name(home: Home, schema: dict[str, Any], cause: str) -> None:
    async with open_peer("stdio", home, Setup()) as peer:
        # 1e400 is a number that no double holds.
        line = command_line("prompt", {"text": "x", "output_schema": schema}, "odd").replace(b'"HUGE"', b"1e400")
        line = line.replace(b'"LONG"', b"1" + b"0" * 400)
        await peer.send_line(line)
        answer = await peer.answer("odd")
        assert f"{answer.code}: {answer.cause}".startswith(cause)


@pytest.mark.full
async def test_a_heavy_output_schema_is_refused_within_its_time(home: Home) -> None:
    schema = {"uniqueItems": True}
    objects = json.dumps([{"a": number} for number in range(20_000)])
    async with open_peer("stdio", home, Setup(script=[[{"text": objects}]])) as peer:
        events = await peer.run("go", output_schema=schema)
        [error] = of_type(events, "error")
        assert error.payload["cause"] == "$: it took longer than 10000 ms to check"


async def test_a_heavy_schema_of_one_client_holds_no_command_of_another(home: Home) -> None:
    references = {"$defs": {"a": {}}, "allOf": [{"$ref": "#/$defs/a"} for _ in range(40_000)]}
    async with serve_socket(home) as (path, _), connect(path) as one, connect(path) as other:
        await one.ok("hello")  # or its answers come in the order of its commands
        heavy = await one.ask("prompt", {"text": "x", "output_schema": references, "wait": False})
        mine = await one.ask("new_session")
        await one.ok("ping")
        for _ in range(3):
            assert (await other.ok("new_session"))["active"]
        await other.ok("prompt", {"text": "hello"})
        assert not [line for line in one.lines if line.id in (heavy, mine)]
