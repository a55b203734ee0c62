"""``nous prompt``: one run from the shell.  It spawns a daemon and speaks the protocol like any other client."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

import anyio

from nous.cli.follow import follow_run
from nous.cli.options import Parser, add_daemon_flags, add_state_flags, daemon_arguments, load_settings, parse
from nous.cli.terminal import note, write_bytes, write_stderr
from nous.cli.transcript import standard_writer
from nous.client import Client, DaemonGoneError
from nous.client.beside import run_beside
from nous.errors import NousError

EXIT_KILLED = 130
"""What a shell calls a command that Ctrl-C ended: the second one kills, so there is no run's end to report."""


def run(arguments: Sequence[str]) -> int:
    options = parse(make_parser(), arguments)
    text = read_text(options.text)
    tell_ignored_project(options)
    try:
        return anyio.run(prompt, options, text)
    except DaemonGoneError as gone:
        return report_refusal(gone)


def tell_ignored_project(options: argparse.Namespace) -> None:
    """Say that the project has settings which do not count: the daemon says so in its log, which nobody sees here."""
    with suppress(NousError):  # the daemon reads the same configuration, and refuses it in its own words
        project = load_settings(options).ignored_project
        if project is not None:
            note(f"nous: {project.source.name} does not count: {project.reason} (nous trust DIR)")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nous prompt", description="Run the agent once and show what it does.")
    parser.add_argument("text", metavar="TEXT", help="what to ask; - reads it from stdin")
    parser.add_argument("--session", metavar="ID", help="go on with this session")
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


async def prompt(options: argparse.Namespace, text: str) -> int:
    session = {} if options.session is None else {"session_id": options.session}
    # Whoever asks for a level of logging wants to see the logs.
    on_stderr = write_stderr if options.log_level is not None else None
    async with Client.spawn(arguments=serve_arguments(options), on_stderr=on_stderr) as client:
        accepted = await client.call("prompt", text=text, wait=False, **session)
        run_id: str = accepted["run_id"]
        interrupts = Interrupts(client, run_id)
        async with run_beside(interrupts.obey):
            await interrupts.expected.wait()
            try:
                return await follow_run(client.events(run_id), run_id, standard_writer(as_json=options.json))
            except DaemonGoneError:
                if interrupts.have_killed:
                    return EXIT_KILLED
                raise


def serve_arguments(options: argparse.Namespace) -> list[str]:
    """Return what ``nous serve`` is started with: with ``--json`` it reports a refusal to start as an object too."""
    return [*daemon_arguments(options), *(["--json"] if options.json else [])]


class Interrupts:
    """Ctrl-C: the first aborts the run, which ends in order and soon; the second kills the daemon."""

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self.expected = anyio.Event()
        self.have_killed = False

    async def obey(self) -> None:
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


def report_refusal(gone: DaemonGoneError) -> int:
    """Pass on, word for word, why the daemon did not start; raise again what is no such thing."""
    has_reported = gone.last_words or gone.stderr.startswith(b"nous: ")
    if not has_reported or gone.returncode is None or gone.returncode <= 0:
        raise gone
    if gone.last_words:
        write_bytes(gone.last_words + b"\n")
    else:
        write_stderr(gone.stderr)
    return gone.returncode
