"""``nous prompt``: one run from the shell.  It spawns a daemon and speaks the protocol like any other client."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, get_args

import anyio

from nous.cli.attachments import read_image, read_schema
from nous.cli.follow import follow_run
from nous.cli.options import OptionParser, add_daemon_flags, add_state_flags, daemon_arguments, load_settings, parse
from nous.cli.terminal import note, write_stderr
from nous.cli.transcript import EventLines, OutputValue, Transcript, Writer
from nous.client import Client, DaemonGoneError
from nous.client.beside import run_beside
from nous.errors import NousError
from nous.protocol.entries import ThinkingLevel

EXIT_KILLED = 130
"""What a shell calls a command that Ctrl-C ended: the second one kills, so there is no run's end to report."""


def run(arguments: Sequence[str]) -> int:
    """Do one run."""
    options = parse(make_parser(), arguments)
    payload = make_payload(options)
    tell_ignored_project(options)
    return anyio.run(prompt, options, payload)


def tell_ignored_project(options: argparse.Namespace) -> None:
    """Say that the project has settings which do not count: the daemon says so in its log, which nobody sees here."""
    with suppress(NousError):  # the daemon reads the same configuration, and refuses it in its own words
        project = load_settings(options).ignored_project
        if project is not None:
            note(f"nous: {project.source.name} does not count: {project.reason} (nous trust DIR)")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``nous prompt``."""
    parser = OptionParser(prog="nous prompt", description="Run the agent once and show what it does.")
    parser.add_argument("text", metavar="TEXT", help="what to ask; - reads it from stdin")
    parser.add_argument("--session", metavar="ID", help="go on with this session")
    parser.add_argument("--thinking", choices=get_args(ThinkingLevel), help="how much the model is to think")
    parser.add_argument("--image", metavar="FILE", action="append", help="send an image too; may be repeated")
    parser.add_argument(
        "--schema", metavar="FILE", help="a JSON Schema: the answer has to fit it, and only the value is printed"
    )
    parser.add_argument("--json", action="store_true", help="print the event lines")
    add_state_flags(parser)
    add_daemon_flags(parser)
    return parser


def read_text(given: str) -> str:
    """Return the prompt's text.

    Raises:
        NousError: ``invalid_usage`` if it is empty or not UTF-8.
    """
    try:
        text = sys.stdin.buffer.read().decode() if given == "-" else given
        text.encode()
    except UnicodeError:
        raise NousError("invalid_usage", "the text is not UTF-8") from None
    if not text.strip():
        raise NousError("invalid_usage", "the text is empty")
    return text


def make_payload(options: argparse.Namespace) -> dict[str, Any]:
    """Return the payload of the command ``prompt``.

    Raises:
        NousError: ``invalid_usage`` for a text or a file that cannot be sent.
    """
    payload: dict[str, Any] = {"text": read_text(options.text), "wait": False}
    if options.session is not None:
        payload["session_id"] = options.session
    if options.thinking is not None:
        payload["thinking"] = options.thinking
    if options.image is not None:
        payload["images"] = [read_image(path) for path in options.image]
    if options.schema is not None:
        payload["output_schema"] = read_schema(options.schema)
    return payload


async def prompt(options: argparse.Namespace, payload: dict[str, Any]) -> int:
    """Have a daemon run the prompt and show it; return the exit code."""
    # Whoever asks for a level of logging wants to see the logs.
    on_stderr = write_stderr if options.log_level is not None else None
    async with Client.spawn(arguments=daemon_arguments(options), on_stderr=on_stderr) as client:
        accepted = await client.call("prompt", **payload)
        run_id: str = accepted["run_id"]
        interrupts = Interrupts(client, run_id)
        async with run_beside(interrupts.obey):
            await interrupts.expected.wait()
            try:
                return await follow_run(client.events(run_id), run_id, make_writer(options))
            except DaemonGoneError:
                if interrupts.have_killed:
                    return EXIT_KILLED
                raise


def make_writer(options: argparse.Namespace) -> Writer:
    """Return what shows the run: a transcript, the events, or the output value alone."""
    if options.json:
        return EventLines()
    return Transcript() if options.schema is None else OutputValue()


class Interrupts:
    """Ctrl-C: the first aborts the run, which ends in order and soon; the second kills the daemon."""

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self.expected = anyio.Event()
        self.have_killed = False

    async def obey(self) -> None:
        """Abort the run at the first interrupt; the second one kills the daemon."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Started in the background by a shell, or under nohup.
            self.expected.set()
            return
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            self.expected.set()
            await anext(signals)
            write_stderr(b"aborting (once more kills)\n")
            self._client.start("abort", {"run_id": self._run_id})
            await anext(signals)
            self.have_killed = True
            self._client.kill()
            await anyio.sleep_forever()
