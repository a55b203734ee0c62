"""The kit: schemas from functions, and a program of it driven by hand over its pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import pytest

from nous.extension import schema_of
from tests.support.home import ROOT, SCALE


def test_a_schema_of_everything() -> None:
    def tool(
        text: str,
        count: int,
        share: float,
        loud: bool,
        mode: Literal["a", "b"],
        names: list[str],
        more: dict[str, Any],
        anything: Any,
        either: int | None = None,
        limit: int = 5,
    ) -> str:
        return ""

    assert schema_of(tool) == {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "share": {"type": "number"},
            "loud": {"type": "boolean"},
            "mode": {"enum": ["a", "b"]},
            "names": {"type": "array", "items": {"type": "string"}},
            "more": {"type": "object"},
            "anything": {},
            "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "limit": {"type": "integer", "default": 5},
        },
        "required": ["text", "count", "share", "loud", "mode", "names", "more", "anything"],
        "additionalProperties": False,
    }


def test_what_no_schema_can_say() -> None:
    def bare(text) -> str:  # type: ignore[no-untyped-def]
        return ""

    def rest(*texts: str) -> str:
        return ""

    def path(where: Path) -> str:
        return ""

    for function in (bare, rest, path):
        with pytest.raises(TypeError):
            schema_of(function)


PROGRAM = """
import os, sys, threading
from nous.extension import ToolError, block, cancel, command, context, hook, is_cancelled, log, progress, run, tool

print("said while loading")

@tool(name="renamed", description="Other words.", schema={"type": "object"})
def wait(**given):
    progress("waiting")
    while not is_cancelled():
        pass
    return "cancelled"

@tool
async def later(text: str) -> str:
    "Answers later."
    return text

@tool
def fails() -> None:
    raise ToolError("on purpose")

@tool
def breaks() -> None:
    os.write(1, b"not a line of the protocol\\n")
    print("nor this")
    1 / 0

@command
def where(payload):
    "Where it is."
    log("asked", "debug")
    return {"context": context(), "payload": payload}

@hook("tool_call")
def guard(call):
    return block("no") if call.get("bad") else None

@hook("session_before_fork")
def fork(asked):
    return cancel("stay")

run("kit", "2.0")
"""


class Driven:
    """A program of the kit, and the daemon's part by hand."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout

    def read(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._out.readline())
        return line

    def send(self, **line: Any) -> None:
        self._in.write(json.dumps(line).encode() + b"\n")
        self._in.flush()

    def call(self, call_id: str, kind: str, name: str, given: Any = None) -> None:
        self.send(
            type="call", id=call_id, kind=kind, name=name, input=given or {}, context={"run_id": "r"}, timeout_ms=9
        )

    def answer(self, kind: str, name: str, given: Any = None) -> dict[str, Any]:
        self.call("c", kind, name, given)
        return self.read()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Driven]:
    (tmp_path / "main.py").write_text(PROGRAM, encoding="utf-8")
    with driven(tmp_path / "main.py", tmp_path / "stderr") as kit:
        yield kit


@contextmanager
def driven(program: Path, stderr: Path) -> Iterator[Driven]:
    with stderr.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={"PYTHONPATH": str(ROOT)},
        )
    with process:
        yield Driven(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20 * SCALE) == 0


def test_hello(kit: Driven) -> None:
    hello = kit.read()
    tools = {tool["name"]: tool for tool in hello.pop("tools")}
    assert hello == {
        "type": "hello",
        "protocol": "1",
        "name": "kit",
        "version": "2.0",
        "commands": [{"name": "where", "description": "Where it is."}],
        "hooks": ["tool_call", "session_before_fork"],
    }
    assert tools["renamed"] == {"name": "renamed", "description": "Other words.", "schema": {"type": "object"}}
    assert tools["later"]["description"] == "Answers later."


def test_answers(kit: Driven, tmp_path: Path) -> None:
    kit.read()
    assert kit.answer("tool", "later", {"text": "é\u2028"}) == {
        "type": "result",
        "id": "c",
        "value": {"text": "é\u2028"},
    }
    assert kit.answer("tool", "fails") == {"type": "result", "id": "c", "error": "on purpose"}
    assert "ZeroDivisionError" in kit.answer("tool", "breaks")["error"]
    assert "KeyError" in kit.answer("tool", "unknown")["error"]
    assert "TypeError" in kit.answer("tool", "later", {"txt": ""})["error"]
    assert kit.answer("hook", "tool_call") == {"type": "result", "id": "c", "value": {}}
    assert kit.answer("hook", "tool_call", {"bad": True})["value"] == {"block": "no"}
    assert kit.answer("hook", "session_before_fork")["value"] == {"cancel": "stay"}
    assert kit.answer("command", "where", {"a": 1}) == {"type": "log", "level": "debug", "message": "asked"}
    assert kit.read()["value"] == {"context": {"run_id": "r"}, "payload": {"a": 1}}
    said = (tmp_path / "stderr").read_text(encoding="utf-8")
    assert "not a line of the protocol" in said
    assert "1 / 0" in said


def test_a_cancelled_call_and_one_beside_it(kit: Driven) -> None:
    kit.read()
    kit.call("1", "tool", "renamed")
    assert kit.read() == {"type": "progress", "id": "1", "text": "waiting"}
    kit.call("2", "hook", "tool_call")
    assert kit.read() == {"type": "result", "id": "2", "value": {}}
    kit.send(type="cancel", id="1", reason="timeout")
    kit.send(type="cancel", id="2", reason="timeout")
    assert kit.read() == {"type": "result", "id": "1", "value": {"text": "cancelled"}}
    kit.call("3", "tool", "renamed")
    assert kit.read()["type"] == "progress"  # and the end of stdin ends it, whatever it still does


def test_the_kit_is_light() -> None:
    program = "import sys; before = set(sys.modules); import nous.extension; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.decode().split())
    assert {name for name in loaded if name.startswith("nous")} == {"nous", "nous.extension"}
    assert not loaded & {"anyio", "msgspec", "asyncio", "socket", "subprocess"}
