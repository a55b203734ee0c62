"""``nous session``: lists the sessions of a state directory, shows, checks, compacts and exports them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from nous.cli.answer import fail, succeed
from nous.cli.conversation import (
    Conversation,
    conversation_json,
    read_conversation,
    write_conversation,
    write_sessions,
    write_tree,
    write_verdict,
)
from nous.cli.options import OptionParser, add_state_flags, load_settings, parse, state_root
from nous.cli.terminal import Ink, note, say, say_text, say_value, write_bytes
from nous.cli.timeline import snippet
from nous.cli.trace import held_secrets
from nous.config.settings import Settings
from nous.engine.summary import choose_cut, summarise
from nous.errors import EXIT_OK, NousError
from nous.protocol.entries import Compaction
from nous.replay.redact import Redactor
from nous.replay.redact_struct import StructRedactor
from nous.store.locks import LockProfile
from nous.store.rewrite import PruneReport
from nous.store.session import Session
from nous.store.session_index import MAX_PAGE
from nous.store.sessions import SessionStore
from nous.store.verify import verify_session
from nous.system.atomic import replace_file
from nous.system.clock import SystemClock
from nous.system.ids import RandomIds, is_safe_id
from nous.system.state_dir import StateDir, state_paths

DEFAULT_SESSIONS: Final = 50

EPILOG: Final = """\
commands:
  list      the sessions of the state directory, the last changed first
  show      the conversation up to a leaf, and what a model sees of it
  tree      all messages with their branches and compactions
  verify    whether the files are what was written
  compact   summarise the older part, without a model; --prune also removes it
  export    the conversation up to a leaf in one file, without secrets
"""


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand of ``nous session``."""
    if arguments and arguments[0] in ("-h", "--help"):
        say_text(f"usage: nous session COMMAND [OPTIONS]\n\n{EPILOG}\nEach command has --help.")
        return EXIT_OK
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        cause = f"there is no command {arguments[0]!r}" if arguments else "which command?"
        raise NousError("invalid_usage", cause, hint="Type: nous session --help")
    return command(arguments[1:])


def make_parser(name: str, description: str) -> OptionParser:
    """Return the parser of a subcommand with the flags that all of them take."""
    parser = OptionParser(prog=f"nous session {name}", description=description)
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


def make_session_parser(name: str, description: str) -> OptionParser:
    """Return the parser of a subcommand that takes a session."""
    parser = make_parser(name, description)
    parser.add_argument("session_id", metavar="SESSION", help="its id, as nous session list shows it")
    return parser


def store_of(options: argparse.Namespace) -> SessionStore:
    """Return the store of the state directory that the options name."""
    return SessionStore(state_paths(state_root(options)).sessions)


# -- list


def list_sessions(arguments: Sequence[str]) -> int:
    """List sessions, the last changed first."""
    parser = make_parser("list", "List sessions, the last changed first.")
    parser.add_argument("--limit", metavar="N", type=int, default=DEFAULT_SESSIONS, help="at most so many (default 50)")
    parser.add_argument("--cursor", metavar="CURSOR", help="go on where an earlier list ended")
    options = parse(parser, arguments)
    if not 1 <= options.limit <= MAX_PAGE:
        raise NousError("invalid_usage", f"--limit: expected 1 to {MAX_PAGE}")
    page = store_of(options).list_sessions(options.limit, options.cursor)
    if options.json:
        return succeed(sessions=page.sessions, next_cursor=page.next_cursor)
    write_sessions(Ink(), page, state_root(options))
    return EXIT_OK


# -- show, tree


def show(arguments: Sequence[str]) -> int:
    """Show a conversation."""
    parser = make_session_parser("show", "Show the conversation up to a leaf, and what a model sees of it.")
    parser.add_argument("--leaf", metavar="ID", help="up to this message (default: the active leaf)")
    options = parse(parser, arguments)
    found = read_conversation(store_of(options).get(options.session_id), options.leaf)
    if options.json:
        return succeed(**conversation_json(found))
    write_conversation(Ink(), found)
    return EXIT_OK


def tree(arguments: Sequence[str]) -> int:
    """Show all messages of a session with their branches."""
    options = parse(make_session_parser("tree", "Show all messages with their branches and compactions."), arguments)
    session = store_of(options).get(options.session_id)
    if options.json:
        return succeed(**tree_json(session))
    write_tree(Ink(), session)
    return EXIT_OK


def tree_json(session: Session) -> dict[str, Any]:
    """Return a session's tree as ``--json`` shows it."""
    nodes = [
        {
            "id": known.message.id,
            "parent_id": known.message.parent_id,
            "role": known.message.role,
            "snippet": snippet(known.message.text),
        }
        for known in session.messages.values()
    ]
    return {
        "session_id": session.id,
        "leaf_id": session.leaf_id,
        "nodes": nodes,
        "compactions": [_compaction_json(made) for made in session.compactions.values()],
    }


def _compaction_json(made: Compaction) -> dict[str, Any]:
    return {
        "id": made.id,
        "parent_id": made.parent_id,
        "first_kept_entry_id": made.first_kept_entry_id,
        "tokens_before": made.tokens_before,
        "trigger": made.trigger,
        "by": made.by,
        "created_at": made.created_at,
    }


# -- verify


def verify(arguments: Sequence[str]) -> int:
    """Check whether sessions are what was written."""
    parser = make_parser(
        "verify",
        "Check whether sessions are what was written: every line, and that it stands where it was written. Exit code "
        "2 if one is not. Repairs nothing.",
    )
    parser.add_argument("sources", metavar="SESSION|FILE", nargs="*", help="which ones; all if left out")
    options = parse(parser, arguments)
    state = state_paths(state_root(options))
    files = [file_of(state, source) for source in options.sources] or all_files(state)
    reports = [verify_session(path) for path in files]
    bad = [report for report in reports if not report.ok]
    error = NousError("verification_failed", f"{len(bad)} of {len(reports)} sessions") if bad else None
    if options.json:
        if error is not None:
            return fail(error, as_json=True, sessions=reports)
        return succeed(sessions=reports)
    ink = Ink()
    for report in reports:
        write_verdict(ink, report)
    ink.flush()
    return EXIT_OK if error is None else error.exit_code


def file_of(state: StateDir, source: str) -> Path:
    """Return the file of a session, named by its id or by its path.  Raises ``session_not_found``."""
    named = state.sessions / f"{source}.ndjson"
    if is_safe_id(source) and named.is_file():
        return named
    path = Path(source)
    if path.is_file():
        return path
    raise NousError("session_not_found", source, hint="Type: nous session list (or give the path of a session's file).")


def all_files(state: StateDir) -> list[Path]:
    """Return the files of all sessions."""
    return sorted(path for path in state.sessions.glob("*.ndjson") if is_safe_id(path.stem))


# -- compact


def compact(arguments: Sequence[str]) -> int:
    """Put a summary in the place of the older part of a session."""
    parser = make_session_parser(
        "compact",
        "Put a summary in the place of the older part of a session. Nothing is asked of a model: the summary lists "
        "who said and did what. Without --prune nothing is removed.",
    )
    parser.add_argument("--instruction", metavar="TEXT", default="", help="what matters: stands in the summary")
    parser.add_argument(
        "--keep-tokens", metavar="N", type=int, help="how much of the end stays (default: as configured)"
    )
    parser.add_argument("--prune", action="store_true", help="remove what no leaf's context needs any more, for good")
    parser.add_argument("--retain", metavar="N", type=int, default=0, help="with --prune: the newest N messages stay")
    options = parse(parser, arguments)
    if options.retain < 0 or (options.keep_tokens or 0) < 0:
        raise NousError("invalid_usage", "--keep-tokens, --retain: expected 0 or more")
    return anyio.run(_compact, options, load_settings(options).settings)


async def _compact(options: argparse.Namespace, settings: Settings) -> int:
    store = SessionStore(state_paths(state_root(options)).sessions, profile=_lock_profile(settings))
    session = store.get(options.session_id)
    if options.prune and store.leases.is_in_use(session.id, ("run",)):
        raise NousError("command_rejected", "run_in_progress", hint="Prune once the session's runs have ended.")
    keep_tokens = settings.engine.compact_keep_tokens if options.keep_tokens is None else options.keep_tokens
    made = plan_compaction(session, keep_tokens, options.instruction)
    if made is None and not options.prune:
        is_kept = bool(choose_cut(session.path(), 0))
        hint = "Keep less: --keep-tokens N." if is_kept else "No message was added since the last summary."
        raise NousError("command_rejected", "nothing_to_compact", hint=hint)
    if made is not None:
        await session.append(made)
    pruned = await _prune(session, options.retain) if options.prune else None
    session.sync()
    for torn in session.take_recovered():
        note(f"nous: a line that was cut off was kept aside: {torn.path}")
    if options.json:
        return succeed(session_id=session.id, compaction=made, context_tokens=_tokens(session), pruned=pruned)
    _say_compacted(session, made, pruned)
    return EXIT_OK


def plan_compaction(session: Session, keep_tokens: int, instruction: str) -> Compaction | None:
    """Return the compaction of the active leaf, or None if there is nothing to compact."""
    path = session.path()
    cut = choose_cut(path, keep_tokens)
    if not cut:
        return None
    return Compaction(
        id=RandomIds().entry_id(),
        parent_id=session.leaf_id,
        summary=summarise((known.message for known in path[:cut]), instruction),
        first_kept_entry_id=path[cut].message.id if cut < len(path) else "",
        tokens_before=path.estimated_tokens,
        trigger="manual",
        by="deterministic",
        instruction=instruction,
        created_at=SystemClock().now(),
    )


async def _prune(session: Session, retain: int) -> PruneReport:
    await session.checkpoint(RandomIds().entry_id(), SystemClock().now())
    session.sync()
    return await session.prune(retain)


def _tokens(session: Session) -> int:
    return session.path().estimated_tokens


def _say_compacted(session: Session, made: Compaction | None, pruned: PruneReport | None) -> None:
    if made is not None:
        say(f"compacted: about {made.tokens_before} tokens before, {_tokens(session)} now")
    if pruned is not None:
        say(f"pruned: {pruned.removed_messages} messages, {pruned.bytes_before - pruned.bytes_after} bytes")


def _lock_profile(settings: Settings) -> LockProfile:
    timeout_ms, retry_ms = settings.session_lock.timing_ms()
    return LockProfile(timeout_ms=timeout_ms, retry_ms=retry_ms, stale_after_ms=settings.session_lock.stale_after_ms)


# -- export


def export(arguments: Sequence[str]) -> int:
    """Write a conversation to one file."""
    parser = make_session_parser("export", "Write the conversation up to a leaf to one file that can be handed on.")
    parser.add_argument("--leaf", metavar="ID", help="up to this message (default: the active leaf)")
    parser.add_argument("-o", "--out", metavar="FILE", help="where to; - for standard output (default: exports/)")
    parser.add_argument("--redact", choices=("default", "none"), default="default", help="none: leave secrets in")
    options = parse(parser, arguments)
    held = held_secrets(load_settings(options).settings, os.environ) if options.redact == "default" else ()
    found = read_conversation(store_of(options).get(options.session_id), options.leaf)
    redactor = Redactor(held)
    data = b"".join(
        msgspec.json.encode(line) + b"\n"
        for line in export_lines(found, None if options.redact == "none" else redactor)
    )
    if options.out == "-":
        write_bytes(data)
        return EXIT_OK
    path = _export_path(options)
    replace_file(path, data, tag="export")
    if options.json:
        return succeed(
            session_id=found.session_id, path=str(path), messages=len(found.messages), secrets=redactor.count
        )
    say_value(str(path))
    return EXIT_OK


def _export_path(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out).absolute()
    exports = state_paths(state_root(options)).exports
    exports.mkdir(mode=0o700, exist_ok=True)
    return exports / f"{options.session_id}.session.ndjson"


def export_lines(found: Conversation, redactor: Redactor | None) -> list[object]:
    """Return the lines of an export: what it is, then the messages, each as the protocol shows it."""
    structs = None if redactor is None else StructRedactor(redactor)
    compaction = found.compaction
    head = {
        "type": "session.export",
        "session_id": found.session_id,
        "parent_id": found.parent_id,
        "created_at": found.created_at,
        "leaf_id": found.leaf_id,
        "compaction": compaction if structs is None or compaction is None else structs.struct(compaction),
        "messages": len(found.messages),
        "redaction": "none" if redactor is None else "default",
    }
    return [head, *(found.messages if structs is None else map(structs.struct, found.messages))]


COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "list": list_sessions,
    "show": show,
    "tree": tree,
    "verify": verify,
    "compact": compact,
    "export": export,
}
