"""Where the time of a warm prompt goes, from its line to its first delta: milestones, medians over many prompts.

    python -m scripts.bench.where [--prompts N]

The daemon is ``nous serve`` with a clock put around the functions below, which adds a few microseconds to each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Final

from nous.engine.emitter import EmittedEvent
from scripts.bench.measures import prompt
from scripts.bench.programs import Program, Provider, provider

MILESTONES: Final = (
    ("the command is read", "nous.transport.descriptors:DescriptorEndpoint.receive", "end"),
    ("it is decoded, and its turn has come", "nous.runtime.handlers:settle_prompt", "start"),
    ("its session is looked up", "nous.runtime.run:make_run", "start"),
    ("the trace is made, with its header", "nous.runtime.run:make_run", "end"),
    ("the message is stored; its syncs have begun", "nous.runtime.driver:RunDriver._begin", "end"),
    ("the request is built", "nous.providers.connection:HttpConnection.send", "start"),
    ("it is sent", "nous.providers.connection:HttpConnection.send", "end"),
    ("the answer's head is here", "nous.providers.connection:HttpConnection.receive_head", "end"),
    ("the message is durable", "nous.runtime.publisher:Publisher._take_note", "start"),
    ("the first delta is in the trace", "nous.runtime.recorder:Recorder.step", "delta"),
    ("the first delta is written", "nous.runtime.outbox:Outbox.put", "delta"),
)
"""What is reached, and where that shows: at a function's start, its end, or the end of its first call with a delta."""

_DELTA: Final = b'"type":"message_update"'


def watch(marks: list[tuple[float, int]]) -> None:
    """Put a clock around every function that is the place of a milestone."""
    for place in dict.fromkeys(place for _, place, _ in MILESTONES):
        module_name, _, path = place.partition(":")
        owner: Any = importlib.import_module(module_name)
        *names, name = path.split(".")
        for part in names:
            owner = getattr(owner, part)
        setattr(owner, name, _clocked(getattr(owner, name), place, marks))


def _clocked(function: Callable[..., Any], place: str, marks: list[tuple[float, int]]) -> Callable[..., Any]:
    at = {moment: n for n, (_, where, moment) in enumerate(MILESTONES) if where == place}

    def note(moment: str, arguments: Sequence[Any] = ()) -> None:
        if moment in at and (moment != "delta" or _holds_delta(arguments)):
            marks.append((time.perf_counter(), at[moment]))

    def plain(*arguments: Any, **named: Any) -> Any:
        note("start")
        result = function(*arguments, **named)
        note("end")
        note("delta", arguments)
        return result

    async def waiting(*arguments: Any, **named: Any) -> Any:
        note("start")
        result = await function(*arguments, **named)
        note("end")
        return result

    return waiting if iscoroutinefunction(function) else plain


def _holds_delta(arguments: Sequence[Any]) -> bool:
    """Whether a call is about a delta: it is given events, or the bytes of their lines."""
    for argument in arguments:
        given = argument if isinstance(argument, list) else [argument]
        if any(_DELTA in getattr(item, "line", item) for item in given if isinstance(item, bytes | EmittedEvent)):
            return True
    return False


def serve(report: Path, arguments: Sequence[str]) -> None:
    """Be a daemon with clocks; write at the end when each milestone was reached, prompt by prompt."""
    from nous.cli.main import main

    marks: list[tuple[float, int]] = []
    importlib.import_module("nous.cli.serve")
    watch(marks)
    try:
        main(["serve", *arguments])
    finally:
        report.write_text(json.dumps(marks), encoding="utf-8")


def read_report(report: Path) -> list[dict[int, float]]:
    """Return, for each prompt, the milliseconds from its line to the first time that each milestone was reached."""
    prompts: list[dict[int, float]] = []
    begun = 0.0
    for moment, milestone in json.loads(report.read_text(encoding="utf-8")):
        if milestone == 0:
            begun = moment
            prompts.append({0: 0.0})
        elif prompts:
            prompts[-1].setdefault(milestone, (moment - begun) * 1e3)
    return [prompt for prompt in prompts if len(prompt) == len(MILESTONES)]


def measure(source: Provider, count: int) -> list[dict[int, float]]:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "work").mkdir()
        arguments = ["--provider", "openai", "--api-base", source.base, "--model", "late", "--bootstrap"]
        arguments += ["--state-dir", str(root / "state"), "--workdir", str(root / "work")]
        program = Program(
            [sys.executable, "-m", "scripts.bench.where", "--serve", str(root / "report"), *arguments],
            env={k: v for k, v in os.environ.items() if not k.startswith("NOUS_")},
        )
        program.line()
        program.settle()
        for number in range(count):
            prompt(program, number)
            program.until(b'"agent_end"')
        program.close()
        # The first prompts load what they need.
        return read_report(root / "report")[min(5, count // 2) :]


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=200)
    with provider() as source:
        prompts = measure(source, parser.parse_args().prompts)
    for n, (milestone, _, _) in enumerate(MILESTONES):
        print(f"{statistics.median(prompt[n] for prompt in prompts):7.3f} ms  {milestone}")


if __name__ == "__main__":
    main()
