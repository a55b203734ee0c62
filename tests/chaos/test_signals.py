"""Signals at random moments of a daemon's life: the documented ending each time, and no process left.

SIGNAL_RUNS says how many lives (10 in ``make test``, 500 in ``make test-chaos``), SIGNAL_SEED which.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from nous.system.state_dir import list_epochs
from tests.support.harness import command_line
from tests.support.home import Home, Setup, Spawned
from tests.support.raw import RawWire, open_raw, until
from tests.support.workers import workers_in

pytestmark = pytest.mark.anyio

RUNS: Final = int(os.environ.get("SIGNAL_RUNS", "10"))
SEED: Final = int(os.environ.get("SIGNAL_SEED", "1"))
LONGEST_LIFE_S: Final = 0.6
LONGEST_STOP_S: Final = 0.4
GUARD_S: Final = 30.0

SLEEPERS: Final = "(setsid sleep 300 &); trap '' TERM; sleep 300 & echo up; wait; wait"
KINDS: Final[list[Any]] = [
    [{"text_repeat": {"text": "abcdefgh" * 8, "count": 1_000_000}}],
    [{"tool_call": {"name": "bash", "arguments": {"command": SLEEPERS}}}],
    [{"tool_call": {"name": "bash", "arguments": {"command": "while :; do echo line; done"}}}],
    [{"text": "Hello"}, {"hang": True}],
    [{"text": "All is well."}],
]


class Life:
    """One daemon: what it was sent, and what it may answer."""

    def __init__(self, wire: RawWire, spawned: Spawned, dice: random.Random) -> None:
        self.wire = wire
        self.spawned = spawned
        self.dice = dice
        self.has_output = True

    async def pause(self, longest_s: float) -> None:
        await anyio.sleep(self.dice.uniform(0, longest_s))  # the moment is what is drawn

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.spawned.signal(number)

    async def stop_for_a_while(self) -> None:
        self.send(signal.SIGSTOP)
        await self.pause(LONGEST_STOP_S)
        self.send(signal.SIGCONT)

    # -- endings

    async def term(self) -> None:
        self.send(signal.SIGTERM)

    async def hup(self) -> None:
        self.send(signal.SIGHUP)

    async def term_and_hup(self) -> None:
        for number in self.dice.sample([signal.SIGTERM, signal.SIGHUP, signal.SIGHUP], 3):
            self.send(number)

    async def eof_and_term(self) -> None:
        self.wire.end()
        await self.pause(0.2)
        self.send(signal.SIGTERM)

    async def gone_and_term(self) -> None:
        self.has_output = False
        self.wire.close_output()
        await self.pause(0.2)
        self.send(signal.SIGTERM)

    async def eof(self) -> None:
        self.wire.end()


ENDINGS: Final[list[Callable[[Life], Any]]] = [
    Life.term,
    Life.hup,
    Life.term_and_hup,
    Life.eof_and_term,
    Life.gone_and_term,
    Life.eof,
]


async def test_signals_at_any_moment_end_a_daemon_in_order(tmp_path: Path) -> None:
    home = Home(tmp_path)
    dice = random.Random(SEED)
    for number in range(RUNS):
        await live(home, dice, f"life {number} of seed {SEED}")


async def live(home: Home, dice: random.Random, name: str) -> None:
    flags = ("--drain-timeout", "200ms", "--on-eof", dice.choice(["finish", "abort"]))
    setup = Setup(script=[dice.choice(KINDS) for _ in range(2)], flags=flags)
    async with open_raw(home, setup, 3 * GUARD_S) as (wire, spawned):
        life = Life(wire, spawned, dice)
        line = await wire.line()
        assert b'"ready"' in line, name
        lines: list[bytes] = []
        async with anyio.create_task_group() as tasks:
            if dice.random() < 0.9:
                for command in range(2):
                    # Two sessions, so two runs at once.
                    await wire.send(command_line("new_session", {}, f"n{command}") + b"\n")
                    await wire.send(command_line("prompt", {"text": "go", "wait": False}, f"p{command}") + b"\n")
            ending = dice.choice(ENDINGS)
            if ending is not Life.gone_and_term:
                tasks.start_soon(read_all, wire, lines)
            await life.pause(LONGEST_LIFE_S)
            if dice.random() < 0.3:
                await life.stop_for_a_while()
            await ending(life)
            if dice.random() < 0.3:
                await life.stop_for_a_while()
            status = await spawned.wait(GUARD_S)
        assert status == 0, (name, ending, status, spawned.stderr())
        await until(lambda: not workers_in(home.workdir))
        check_ending(home, [json.loads(line) for line in lines], has_output=life.has_output, name=name)


async def read_all(wire: RawWire, lines: list[bytes]) -> None:
    lines += (await wire.rest()).splitlines()


def check_ending(home: Home, lines: list[dict[str, Any]], *, has_output: bool, name: str) -> None:
    """Check what a client saw, and that every trace has its end and the daemon's lock is gone."""
    if has_output:
        assert lines[-1]["payload"]["message"] == "bye", name
        started = [line["payload"]["run_id"] for line in lines if line["type"] == "agent_start"]
        ended = [line["payload"]["run_id"] for line in lines if line["type"] == "agent_end"]
        accepted = [line["payload"]["run_id"] for line in lines if line.get("ok") and "run_id" in line["payload"]]
        assert sorted(started) == sorted(ended) == sorted(accepted), name
    for path in (home.state / "traces").glob("*.ndjson"):
        assert path.read_bytes().splitlines()[-1].startswith(b'{"type":"trace.end"'), (name, path)
    assert list_epochs(home.state / "daemons") == [], name
