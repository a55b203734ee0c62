"""What extensions cost: a hook that does nothing, and a daemon's answers while hooks do their worst."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scripts.bench.programs import Program, Provider

RUNS: Final = 150
WARM_UP: Final = 10
LIMITS: Final = {"hook_timeout_ms": 2000, "cpu_seconds": 1, "memory_mb": 256, "max_processes": 32}

NOTHING: Final = """
from nous.extension import hook, run

@hook("tool_call")
def pass_it(call):
    return None

run("bench", "1")
"""

HELLO: Final = """
import json, os, signal, subprocess, sys, time
hello = {"type": "hello", "protocol": "1", "name": "bench", "version": "1", "hooks": ["tool_call"]}
os.write(1, json.dumps(hello).encode() + b"\\n")
sys.stdin.readline()
"""

WORST: Final = {
    "sleeping": "time.sleep(1000)",
    "spinning": "while True: pass",
    "forking": "while True: subprocess.Popen(['sleep', '1000'])",
    "allocating": "kept = []\nwhile True: kept.append(b'x' * (1 << 20))",
    "printing": "for _ in range(1 << 14): os.write(1, b'x' * 65536)",
    "garbage": "while True: os.write(1, os.urandom(4096) + b'\\n')",
    "logging": "while True: os.write(2, b'all work and no play\\n' * 3000)",
    "deaf": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1000)",
}


@contextmanager
def nous_with(base: str, program: str | None, **manifest: object) -> Iterator[Program]:
    """A daemon whose model calls one tool per run, with one extension or none.  Nothing waits for a disk."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "work").mkdir()
        (root / "work" / "small.txt").write_text("a small file\n" * 20, encoding="utf-8")
        (root / "config.yaml").write_text('trace: {fsync: "off"}\n', encoding="utf-8")
        if program is not None:
            directory = root / "home" / "nous" / "extensions" / "bench"
            directory.mkdir(parents=True)
            given = {"name": "bench", "command": ["{python}", "main.py"], "hooks": ["tool_call"], **manifest}
            (directory / "extension.yaml").write_text(json.dumps(given), encoding="utf-8")
            (directory / "main.py").write_text(program, encoding="utf-8")
        daemon = Program(
            [
                *(sys.executable, "-m", "nous", "serve", "--provider", "openai", "--api-base", base, "--model", "tool"),
                *("--state-dir", str(root / "state"), "--bootstrap", "--workdir", str(root / "work")),
                *("--config", str(root / "config.yaml")),
            ],
            env={**os.environ, "XDG_CONFIG_HOME": str(root / "home")},
        )
        try:
            daemon.line()
            yield daemon
        finally:
            daemon.close()


def hooks(provider: Provider) -> dict[str, float]:
    """What one hook that does nothing adds to a run with one tool call: two daemons, turn and turn about."""
    without: list[float] = []
    with_hook: list[float] = []
    with nous_with(provider.base, None) as plain, nous_with(provider.base, NOTHING) as hooked:
        for number in range(RUNS):
            without.append(run_ms(plain, number))
            with_hook.append(run_ms(hooked, number))
    usual = statistics.median(without[WARM_UP:])
    return {
        "nous run without a hook ms": usual,
        "nous no-op hook adds ms": statistics.median(with_hook[WARM_UP:]) - usual,
    }


def run_ms(daemon: Program, number: int) -> float:
    daemon.send(json.dumps({"id": f"n{number}", "type": "new_session"}))
    daemon.until(b'"type":"session"')
    begun = time.perf_counter()
    daemon.send(json.dumps({"id": f"p{number}", "type": "prompt", "payload": {"text": "x", "wait": False}}))
    daemon.until(b'"agent_end"')
    return (time.perf_counter() - begun) * 1e3


def hostile(provider: Provider) -> dict[str, float]:
    """How long a ping takes while a hook sleeps, spins, forks, allocates, floods: one run each."""
    out: dict[str, float] = {}
    for name, body in WORST.items():
        with nous_with(provider.base, HELLO + body, **LIMITS) as daemon:
            daemon.send('{"id":"c","type":"extension_command","payload":{"name":"none"}}')
            daemon.until(b'"ok":false')
            pings = ping_through(daemon)
        pings.sort()
        out[f"ping beside {name} p99 ms"] = pings[min(len(pings) - 1, int(len(pings) * 0.99))]
    return out


def ping_through(daemon: Program) -> list[float]:
    """Ping one after the other from a prompt to the end of its run, and for a second after it."""
    daemon.send('{"id":"p","type":"prompt","payload":{"text":"x","wait":false}}')
    times: list[float] = []
    until = float("inf")
    while time.monotonic() < until:
        begun = time.perf_counter()
        daemon.send(json.dumps({"id": f"ping-{len(times)}", "type": "ping"}))
        while b'"pong"' not in (line := daemon.line()):
            if b'"agent_end"' in line:
                until = time.monotonic() + 1
        times.append((time.perf_counter() - begun) * 1e3)
        time.sleep(0.002)
    return times
