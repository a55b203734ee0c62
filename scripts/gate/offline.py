"""C1: the gate is offline; one flag, and only that, makes it live."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from scripts.gate.checks import Place, Table, UnmetError, expect

LIVE_VARIABLE: Final = "M4_GATE_LIVE_SMOKE"

KEYS: Final = {
    "openai": ("OPENAI_API_KEY", "gpt-4o-mini"),
    "anthropic": ("ANTHROPIC_API_KEY", "claude-3-5-haiku-latest"),
    "gemini": ("GEMINI_API_KEY", "gemini-2.0-flash"),
    "kimi": ("MOONSHOT_API_KEY", "kimi-latest"),
}
"""Whom a live smoke asks: the first whose key is set."""


def live_is_on() -> bool:
    return os.environ.get(LIVE_VARIABLE) == "1"


async def flag_needs_a_key(place: Place) -> str:
    """With the flag and without a key the gate fails: it never passes a smoke that did not happen."""
    done = place.run([sys.executable, "-m", "scripts.gate", "--only", "L.1"], **{LIVE_VARIABLE: "1"})
    expect(
        done.returncode == 1 and b"FAIL L.1" in done.stdout, f"exit {done.returncode}: {done.stdout.decode()[-300:]}"
    )
    return f"{LIVE_VARIABLE}=1 without a key fails"


async def a_socket_is_noticed(place: Place) -> str:
    """The watch itself works: a lookup of a name outside is noted."""
    noted = Path(place.environ()["HOME"]) / "noted"
    program = "import socket\ntry: socket.getaddrinfo('outside.invalid', 443)\nexcept OSError: pass"
    place.run([sys.executable, "-c", program], GATE_AUDIT_FILE=str(noted))
    expect(noted.is_file() and "outside.invalid" in noted.read_text(encoding="utf-8"), "it was not noted")
    return "a name outside was noted"


async def live_smoke(place: Place) -> str:
    """One prompt to a real provider."""
    found = next(((name, *pair) for name, pair in KEYS.items() if os.environ.get(pair[0])), None)
    if found is None:
        raise UnmetError(f"no key: set one of {', '.join(variable for variable, _ in KEYS.values())}")
    name, variable, model = found
    arguments = ["--provider", name, "--model", model, "--state-dir", str(place.state), "--bootstrap"]
    argv = [sys.executable, "-P", "-m", "nous", "prompt", "Say: hello", *arguments]
    done = place.run(argv, **{variable: os.environ[variable]})
    expect(done.returncode == 0 and bool(done.stdout.strip()), f"{name}: exit {done.returncode}")
    return f"{name} answered"


CHECKS: Table = {
    "C1.1": ("the watch over sockets works", a_socket_is_noticed),
    "C1.2": ("the live flag without a key fails", flag_needs_a_key),
}

LIVE: Table = {"L.1": ("a live provider answers", live_smoke)}
