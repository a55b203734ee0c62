"""The figures, one function each.  Every function returns its figures by name, in the unit the name ends with."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.bench.extensions import hooks, hostile
from scripts.bench.parsers import parse_costs
from scripts.bench.programs import Program, Provider, floor, nous
from scripts.bench.tracing import tracing_ratio

Figures = dict[str, float]

PROMPT: Final = '{"id":"p%d","type":"prompt","payload":{"text":"hello","wait":false}}'
DELTAS: Final = 20_000


def prompt(program: Program, number: int) -> None:
    program.send(PROMPT % number)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def start(provider: Provider) -> Figures:
    """Spawn to first protocol reply (a ping sent at once), and to the first delta of the first prompt."""
    out: Figures = {}
    for name, make in (("nous", nous), ("floor", floor)):
        with make(provider.base, "burst-3-8") as program:
            program.send('{"id":"1","type":"ping"}')
            program.until(b"pong")
            out[f"{name} spawn to reply ms"] = (time.perf_counter() - program.spawned) * 1e3
        with make(provider.base, "burst-3-8") as program:
            prompt(program, 1)
            program.until(b'"message_update"')
            out[f"{name} spawn to first delta ms"] = (time.perf_counter() - program.spawned) * 1e3
    return out


def warm(provider: Provider) -> Figures:
    """A prompt to its first delta on a warm daemon, and the provider's last byte to ``agent_end``."""
    out: Figures = {}
    for name, make in (("nous", nous), ("floor", floor)):
        first: list[float] = []
        last: list[float] = []
        with make(provider.base, "late") as program:
            program.line()
            answered = answers(provider)
            for number in range(1, 31):
                begun = time.perf_counter()
                prompt(program, number)
                program.until(b'"message_update"')
                first.append((time.perf_counter() - begun) * 1e3)
                program.until(b'"agent_end"')
                ended = time.time_ns()
                last.append((ended - provider.last_byte_ns(answered + number)) / 1e6)
        out[f"{name} prompt to first delta ms"] = statistics.median(first[5:])
        out[f"{name} last byte to end ms"] = statistics.median(last[5:])
    disk = fsyncs(provider)["fsync p50 ms"]
    out["nous prompt to first delta less fsync ms"] = out["nous prompt to first delta ms"] - disk
    out["nous last byte to end less fsync ms"] = out["nous last byte to end ms"] - disk
    return out


def answers(provider: Provider) -> int:
    return len(Path(f"/proc/{provider.process.pid}/fd/2").read_bytes().split())


def paced(provider: Provider) -> Figures:
    """Added latency at 200 deltas a second: from the provider's send to the line read here."""
    out: Figures = {}
    for name, make in (("nous", nous), ("floor", floor)):
        added: list[float] = []
        with make(provider.base, "paced-400-200") as program:
            program.line()
            prompt(program, 1)
            for _ in range(400):
                line = program.until(b'"message_update"')
                now = time.time_ns()
                event = json.loads(line)
                sent = int(event.get("delta") or event["payload"]["delta"])
                added.append((now - sent) / 1e6)
        out[f"{name} paced p50 ms"] = statistics.median(added)
        out[f"{name} paced p99 ms"] = percentile(added, 0.99)
    return out


def first_delta(provider: Provider) -> Figures:
    """The provider's first byte to the client's first delta, on a warm daemon."""
    out: Figures = {}
    for name, make in (("nous", nous), ("floor", floor)):
        added: list[float] = []
        with make(provider.base, "stamped") as program:
            program.line()
            for number in range(1, 41):
                prompt(program, number)
                line = program.until(b'"message_update"')
                now = time.time_ns()
                event = json.loads(line)
                added.append((now - int(event.get("delta") or event["payload"]["delta"])) / 1e6)
                program.until(b'"agent_end"')
        out[f"{name} first byte to delta p50 ms"] = statistics.median(added[5:])
        out[f"{name} first byte to delta p95 ms"] = percentile(added[5:], 0.95)
    return out


def parsers(provider: Provider) -> Figures:
    """A delta in each vendor's parser, from bytes to items."""
    return {f"{vendor} parse us": cost for vendor, cost in parse_costs().items()}


def unpaced(provider: Provider) -> Figures:
    """20,000 deltas of 8 bytes as fast as they go: rate, CPU, memory."""
    out: Figures = {}
    for name, make in (("nous", nous), ("floor", floor)):
        with make(provider.base, f"burst-{DELTAS}-8") as program:
            program.line()
            program.send('{"id":"1","type":"ping"}')
            program.line()
            program.settle()
            out[f"{name} idle rss MB"] = program.rss_mb()
            cpu = program.cpu_s()
            rates = []
            for number in range(1, 4):
                begun = time.perf_counter()
                prompt(program, number)
                program.until(b'"agent_end"')
                rates.append(DELTAS / (time.perf_counter() - begun))
            out[f"{name} deltas per s"] = statistics.median(rates)
            out[f"{name} cpu per 10k deltas s"] = (program.cpu_s() - cpu) / (3 * DELTAS / 10_000)
            out[f"{name} peak rss MB"] = program.rss_mb("VmHWM")
    return out


def turns(provider: Provider) -> Figures:
    """CPU of a turn of 20 deltas, the n-th of one session: the mean of the turns that end with it."""
    out: Figures = {}
    with nous(provider.base, "burst-20-8") as program:
        program.line()
        program.settle()
        number = 0
        for upto, name, count in ((1, "1", 1), (50, "50", 20), (200, "200", 20), (1000, "1000", 20)):
            while number < upto - count:
                number += 1
                prompt(program, number)
                program.until(b'"agent_end"')
            cpu = program.cpu_s()
            begun = time.perf_counter()
            for _ in range(count):
                number += 1
                prompt(program, number)
                program.until(b'"agent_end"')
            out[f"nous turn {name} cpu ms"] = (program.cpu_s() - cpu) / count * 1e3
            out[f"nous turn {name} wall ms"] = (time.perf_counter() - begun) / count * 1e3
    out["nous turn 1000 over 50 ratio"] = out["nous turn 1000 cpu ms"] / out["nous turn 50 cpu ms"]
    return out


def commands(provider: Provider) -> Figures:
    """What a client waits for an answer, in a session of 100 turns; and what a turn writes to disk and wire."""
    out: Figures = {}
    with nous(provider.base, "burst-20-8") as program:
        program.line()
        written = program.written_bytes()
        for number in range(1, 101):
            prompt(program, number)
            program.until(b'"agent_end"')
        out["nous bytes written per turn kB"] = (program.written_bytes() - written) / 100 / 1000
        for name in ("ping", "get_state", "get_messages", "list_sessions"):
            times = []
            for number in range(200):
                begun = time.perf_counter()
                program.send(json.dumps({"id": f"{name}-{number}", "type": name}))
                program.until(b'"ok":true')
                times.append((time.perf_counter() - begun) * 1e3)
            for share in (50, 95, 99):
                out[f"nous {name} p{share} ms"] = percentile(times, share / 100)
    return out


def tool_round(provider: Provider) -> Figures:
    """What a tool call (reading a small file) and the model call after it add to a run."""
    walls: dict[str, list[float]] = {"tool": [], "burst-3-8": []}
    for model, times in walls.items():
        with nous(provider.base, model) as program:
            program.line()
            for number in range(1, 21):
                begun = time.perf_counter()
                prompt(program, number)
                program.until(b'"agent_end"')
                times.append((time.perf_counter() - begun) * 1e3)
    return {"nous tool round ms": statistics.median(walls["tool"][5:]) - statistics.median(walls["burst-3-8"][5:])}


def sessions(provider: Provider) -> Figures:
    """Eight sessions streaming at once against one: total rate, and the slowest session's share."""
    with nous(provider.base, f"burst-{DELTAS}-8") as program:
        program.line()
        alone = rate_of(program, ["s0"])[0]
        together, slowest = rate_of(program, [f"t{n}" for n in range(8)])
    return {
        "nous one session deltas per s": alone,
        "nous eight sessions ratio": together / alone,
        "nous slowest share": slowest,
    }


def rate_of(program: Program, names: list[str]) -> tuple[float, float]:
    ids = []
    for name in names:
        program.send(json.dumps({"id": f"new-{name}", "type": "new_session"}))
        ids.append(json.loads(program.until(b'"type":"session"'))["payload"]["session_id"])
    begun = time.perf_counter()
    for name, session_id in zip(names, ids, strict=True):
        command = {"id": name, "type": "prompt", "payload": {"text": "x", "wait": False, "session_id": session_id}}
        program.send(json.dumps(command))
    counts: dict[str, int] = {}
    first_end: dict[str, int] | None = None
    ended = 0
    while ended < len(names):
        line = program.line()
        run_id = line[14 : line.find(b".", 14)].decode()
        if b'"message_update"' in line[:120]:
            counts[run_id] = counts.get(run_id, 0) + 1
        elif b'"type":"agent_end"' in line[:120]:
            ended += 1
            first_end = first_end or dict(counts)
    wall = time.perf_counter() - begun
    assert first_end is not None
    fair = sum(first_end.values()) / len(names)
    return DELTAS * len(names) / wall, min(first_end.get(r, 0) for r in counts) / fair


def traces(provider: Provider) -> Figures:
    """Bytes of a 20,000-delta trace against its events', and how long its engine replay takes."""
    with tempfile.TemporaryDirectory() as temporary:
        state = Path(temporary) / "state"
        with nous(provider.base, f"burst-{DELTAS}-8", state=state) as program:
            program.line()
            prompt(program, 1)
            program.until(b'"agent_end"')
        trace = next((state / "traces").glob("*.ndjson"))
        lines = trace.read_bytes().split(b"\n")
        events = sum(len(line) + 1 for line in lines if line.startswith(b'{"v":'))
        begun = time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).with_name("nous")), "replay", str(trace)], check=True, stdout=subprocess.DEVNULL
        )
        whole = time.perf_counter() - begun
        return {"nous trace bytes ratio": trace.stat().st_size / events, "nous replay process ms": whole * 1e3}


def tracing(provider: Provider) -> Figures:
    """A traced run of 20,000 deltas against the same run whose trace goes nowhere, in one process."""
    return {"nous traced over untraced ratio": tracing_ratio()}


def fsyncs(provider: Provider) -> Figures:
    """The disk's own fsync, for what waits on it."""
    times = []
    with tempfile.NamedTemporaryFile(dir=Path.home(), buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 200)
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e3)
    return {"fsync p50 ms": statistics.median(times)}


def imports(provider: Provider) -> Figures:
    """Whole processes that only import."""
    out: Figures = {}
    for name, what in (
        ("nous.cli.serve", "nous serve"),
        ("anyio, msgspec, httpx", "floor"),
        ("anyio, msgspec", "bare"),
    ):
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            times.append((time.perf_counter() - begun) * 1e3)
        out[f"{what} import ms"] = statistics.median(times)
    return out


MEASURES: Final[dict[str, Callable[[Provider], Figures]]] = {
    "start": start,
    "warm": warm,
    "paced": paced,
    "first_delta": first_delta,
    "parsers": parsers,
    "unpaced": unpaced,
    "turns": turns,
    "commands": commands,
    "tool_round": tool_round,
    "sessions": sessions,
    "traces": traces,
    "tracing": tracing,
    "hooks": hooks,
    "hostile": hostile,
    "fsyncs": fsyncs,
    "imports": imports,
}
REPEATS: Final = {
    "start": 11,
    "warm": 3,
    "paced": 3,
    "unpaced": 5,
    "turns": 1,
    "sessions": 3,
    "traces": 3,
    "hostile": 1,
}
