"""``nous ctl``: sends one command to a daemon's socket and prints the answer; ``--follow`` streams the run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from nous.cli.follow import follow_run
from nous.cli.options import OptionParser, add_state_flags, parse
from nous.cli.terminal import write_bytes
from nous.cli.transcript import EventLines
from nous.client import Client, Response
from nous.errors import EXIT_OK, NousError


def run(arguments: Sequence[str]) -> int:
    """Send one command to a daemon."""
    options = parse(make_parser(), arguments)
    payload = read_payload(options.payload)
    if options.follow and payload.get("wait"):
        raise NousError("invalid_usage", "wait:true and --follow: the answer would come when there is nothing left")
    return anyio.run(control, options, payload)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``nous ctl``."""
    parser = OptionParser(
        prog="nous ctl", description="Send one command to a daemon and print its answer, one JSON line."
    )
    parser.add_argument("type", metavar="TYPE", help="the command: ping, get_state, prompt ...")
    parser.add_argument("payload", metavar="JSON", nargs="?", default="{}", help="its payload, an object; - for stdin")
    parser.add_argument("--socket", metavar="PATH", type=Path, required=True, help="where nous serve --socket listens")
    parser.add_argument("--follow", action="store_true", help="then print the run's events until it ends")
    parser.add_argument("--json", action="store_true", help="report failures of nous ctl itself as an object too")
    add_state_flags(parser)
    return parser


def read_payload(given: str) -> dict[str, Any]:
    """Return the payload.

    Raises:
        NousError: ``invalid_usage`` if it is not a JSON object.
    """
    try:
        data = sys.stdin.buffer.read() if given == "-" else given.encode()
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.ValidationError:
        raise NousError("invalid_usage", "JSON: the payload is not an object") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise NousError("invalid_usage", f"JSON: {error}", hint="""For example: '{"text":"Hello"}'""") from None


async def control(options: argparse.Namespace, payload: dict[str, Any]) -> int:
    """Send the command and print its answer, with ``--follow`` also the events of its run."""
    async with Client.connect(options.socket, keep_events=options.follow) as client:
        if options.follow:
            # On one connection the answer comes before the run's first event, and nothing can be missed in between.
            await client.call("hello", features=["events"], prompt_wait=False)
        response = await client.send(options.type, **payload)
        print_line(response)
        if response.error is not None:
            return response.error.exit_code
        if not options.follow:
            return EXIT_OK
        return await follow_run(client.events(), run_of(response), EventLines())


def run_of(response: Response) -> str:
    """Return the run that a response names.  Raises ``invalid_usage``."""
    run_id = response.payload.get("run_id")
    if not isinstance(run_id, str) or not run_id:
        raise NousError("invalid_usage", f"--follow: the answer of type {response.type} names no run")
    return run_id


def print_line(response: Response) -> None:
    """Print a response as it came."""
    write_bytes(response.line + b"\n")
