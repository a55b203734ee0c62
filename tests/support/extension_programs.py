"""Extensions for tests: directories with a manifest and a small Python program that speaks the host protocol by hand.

The programs use no kit, so that they can break every rule: ``hello`` is written for them, and what follows is theirs.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from nous.extensions.clearance import Cleared
from nous.extensions.environment import extension_environment
from nous.extensions.extension import Extension, Launch
from nous.extensions.manifest import read_manifest
from nous.extensions.policy import Policy
from nous.extensions.wire import HelloLine
from nous.system.clock import SystemClock
from tests.support.home import ROOT, bounded

FIXTURES = ROOT / "fixtures" / "extensions"

PRELUDE = """
import json, os, signal, subprocess, sys, time

def send(**line):
    data = (json.dumps(line) + "\\n").encode()
    while data:
        data = data[os.write(1, data):]

def calls():
    for raw in iter(sys.stdin.buffer.readline, b""):
        line = json.loads(raw)
        if line["type"] == "call":
            yield line

def result(call, **value):
    send(type="result", id=call["id"], value=value)

send(type="hello", protocol="1", name=NAME, version="1.0", hooks=HOOKS, tools=[
    {"name": name, "description": "", "schema": {"type": "object"}} for name in TOOLS])
"""

ANSWERING = "for call in calls(): result(call)"
"""A program that lets everything pass."""


def write_extension(
    root: Path,
    name: str,
    body: str = ANSWERING,
    *,
    hooks: Sequence[str] = (),
    tools: Sequence[str] = (),
    **manifest: object,
) -> Path:
    """Write an extension whose program is ``body`` after a hello; return its directory, ``root/name``."""
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    given = {"name": name, "command": ["{python}", "main.py"], "hooks": list(hooks), **manifest}
    (directory / "extension.yaml").write_text(json.dumps(given), encoding="utf-8")
    head = f"NAME, HOOKS, TOOLS = {name!r}, {list(hooks)!r}, {list(tools)!r}\n"
    (directory / "main.py").write_text(f"{head}{PRELUDE}\n{body}\n", encoding="utf-8")
    return directory


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Extension]:
    """Give the extension of a directory, not started yet; at the end its process is ended in order."""

    async def on_hello(extension: Extension, hello: HelloLine) -> None:
        return None

    manifest = read_manifest(directory)
    policy = Policy(**{key: getattr(manifest, key) for key in Policy.__struct_fields__})
    environ = extension_environment(os.environ, manifest.env, (), directory)
    launch = Launch(environ, lambda: Cleared(directory, manifest))
    extension = Extension(manifest, policy, manifest.on_failure, launch, SystemClock(), on_hello)
    with bounded():
        async with anyio.create_task_group() as tasks:
            extension.bind(tasks)
            yield extension
            tasks.cancel_scope.cancel()
