"""What must hold before others depend on a daemon (``nous doctor --production-readiness``)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from nous.cli.doctor.check import Finding, Situation, enumerate_names, failed, passed, warned
from nous.cli.trace import held_secrets
from nous.config.checks import FAKE_PROVIDERS
from nous.replay.redact import Redactor
from nous.telemetry.log import MIN_SECRET_CHARACTERS

COMMON_LINE_BYTES: Final = 8 << 20
LARGEST_LINE_BYTES: Final = 32 << 20
"""A line is held in memory once per client: more than this lets one client exhaust a small machine."""

_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def check_profile(situation: Situation) -> Finding:
    """Look whether the profile is that of production, and who may change it."""
    if situation.settings.daemon.profile != "production":
        return failed("daemon.profile is standard", "Set daemon: {profile: production} in the user's configuration.")
    source = "" if situation.loaded is None else situation.loaded.sources["daemon.profile"]
    file = Path(source.rpartition(":")[0])
    if file.is_file() and stat.S_IMODE(file.stat().st_mode) & _OTHERS_WRITE:
        return warned(f"production, by {source}, which others may change", f"chmod go-w {file}")
    return passed(f"production, by {source}")


def check_provider(situation: Situation) -> Finding:
    """A model answers, and the configuration says so: not a flag that the next start may lack."""
    name = situation.settings.provider.name
    if name is None or name in FAKE_PROVIDERS:
        return failed(
            f"provider.name is {name or 'not set'}: no model answers", "Set provider.name and provider.model."
        )
    if situation.settings.provider.model is None:
        return failed(f"no model is named for {name}", "Set provider.model.")
    if situation.settings.provider.allow_insecure:
        return warned("provider.allow_insecure: what is said may cross a network in the clear", "Use https.")
    return passed(f"{name}, {situation.settings.provider.model}")


def check_consent(situation: Situation) -> Finding:
    """Nobody who starts a daemon here makes a state directory along the way."""
    given = situation.environ.get("NOUS_ALLOW_BOOTSTRAP")
    if given == "1":
        return failed("NOUS_ALLOW_BOOTSTRAP permits to make a state directory", "unset NOUS_ALLOW_BOOTSTRAP")
    if given is not None:
        return warned("NOUS_ALLOW_BOOTSTRAP is set, and permits nothing", "unset NOUS_ALLOW_BOOTSTRAP")
    return passed("no permission to make a state directory")


def check_line_size(situation: Situation) -> Finding:
    """Look whether one client may exhaust the memory."""
    size = situation.settings.daemon.max_line_bytes
    shown = f"daemon.max_line_bytes is {size}"
    fix = f"Set it to {COMMON_LINE_BYTES}, the default."
    if size > LARGEST_LINE_BYTES:
        return failed(f"{shown}: one client can exhaust the memory", fix)
    return warned(f"{shown}: a lot per client", fix) if size > COMMON_LINE_BYTES else passed(shown)


def check_retention(situation: Situation) -> Finding:
    """Nothing grows for ever: ``nous gc`` bounds each kind of record, by age or by count."""
    kept = situation.settings.retention
    bounds = {
        "sessions": (kept.max_session_days, kept.max_sessions),
        "traces": (kept.max_trace_days, kept.max_traces),
        "outputs": (kept.max_output_days, kept.max_outputs),
    }
    unbounded = [kind for kind, limits in bounds.items() if limits == (None, None)]
    fix = "Set retention in the user's configuration, and run nous gc every day."
    if len(unbounded) == len(bounds):
        return failed("retention is not set: everything stays for ever", fix)
    if unbounded:
        return warned(f"kept for ever: {enumerate_names(unbounded)}", fix)
    return passed("sessions, traces and outputs are bounded")


def check_sockets(situation: Situation) -> Finding:
    """The sockets named with ``--socket`` are ours, and closed to others, as is where they lie."""
    if not situation.sockets:
        return passed("none named (--socket PATH)")
    found = [path for named in situation.sockets for path in _socket_paths(named)]
    absent = [str(path) for path in situation.sockets if not path.exists()]
    if absent:
        return warned(f"nobody listens: {enumerate_names(absent)}", "nous serve --socket PATH")
    open_to_others = [str(path) for path in found if not _is_private(path)]
    if open_to_others:
        return failed(
            f"open to other users: {enumerate_names(open_to_others)}", "Put sockets into a directory of 0700."
        )
    return passed(enumerate_names([str(path) for path in found]))


def _socket_paths(named: Path) -> Iterator[Path]:
    for path in (named, named.with_name(f"{named.name}.events")):
        if path.exists():
            yield path


def _is_private(path: Path) -> bool:
    """Whether only we can connect: the socket itself is closed to others, or its directory is."""
    info, above = path.stat(), path.parent.stat()
    is_ours = info.st_uid == os.geteuid() == above.st_uid
    return is_ours and not (stat.S_IMODE(info.st_mode) & stat.S_IMODE(above.st_mode) & _OTHERS)


def check_redaction(situation: Situation) -> Finding:
    """Exports leave secrets out: none was written with ``--redact none``, and each key is long enough to be found."""
    exports = situation.state.exports
    raw = [path.name for path in sorted(exports.glob("*.ndjson")) if _is_unredacted(path)]
    if raw:
        return failed(f"exported with their secrets: {enumerate_names(raw)}", f"Remove them from {exports}.")
    secrets = held_secrets(situation.settings, situation.environ)
    left = Redactor(secrets).text(" ".join(secrets))
    if any(secret in left for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS):
        return failed("a secret that nous holds is not left out of exports", "Please report it.")
    if any(len(secret) < MIN_SECRET_CHARACTERS for secret in secrets):
        return warned("a secret is too short to be told from ordinary words", "Use a longer key.")
    return passed("exports leave secrets out")


def _is_unredacted(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        head: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return head.get("redaction") == "none"
