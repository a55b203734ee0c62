"""Real daemons behind the real client, and the command ``nous`` run to its end.

async with spawned(home, Setup(script=[[{"text": "Hello"}]])) as client:
    ...
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from nous.client import Client
from nous.client.process import serve_command
from tests.support.home import SCALE, TEST_SECONDS, Home, Setup, bounded

NOUS: Final = [part for part in serve_command() if part != "serve"]
"""What the command ``nous`` is in this interpreter."""


@asynccontextmanager
async def spawned(home: Home, setup: Setup | None = None, **options: Any) -> AsyncIterator[Client]:
    """Start a daemon and give its client; ``options`` are those of :meth:`Client.spawn`."""
    setup = Setup() if setup is None else setup
    with bounded():
        async with Client.spawn(arguments=home.arguments(setup), env=home.environ(setup), **options) as client:
            yield client


@asynccontextmanager
async def serving_socket(home: Home, setup: Setup | None = None) -> AsyncIterator[Path]:
    """Start a daemon that serves a socket (and stdio, by which it is ended), and give the socket's path."""
    setup = Setup() if setup is None else setup
    path = home.root / "nous.sock"
    arguments = [*home.arguments(setup), "--socket", str(path), "--stdio"]
    with bounded():
        async with Client.spawn(arguments=arguments, env=home.environ(setup), keep_events=False):
            yield path


def run_nous(
    home: Home, *arguments: str | Path, stdin: bytes = b"", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command ``nous`` in the workdir, to its end."""
    return subprocess.run(
        [*NOUS, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=home.workdir,
        env={**home.environ(), **(environ or {})},
        timeout=TEST_SECONDS * SCALE,
        check=False,
    )


def python(program: str, *arguments: str) -> list[str]:
    """Return the command line of a small Python program: a peer that behaves as no daemon would."""
    return [sys.executable, "-c", program, *arguments]
