"""What stays in force of a trusted project file that has changed: prohibitions, and limits tighter than the user's.

The table names every setting that a project's file may give.  A setting with a rule forbids or limits something; one
with None only chooses, and does not count any more.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from nous.config.keys import find_key, flatten
from nous.config.settings import Settings

Rule: TypeAlias = Callable[[Any, Any], Any]
"""Returns the tighter of two values: what is in force without the project's file, and what that file said."""


def lower(below: int | None, kept: int | None) -> int | None:
    """Return the lower number.  None is no limit."""
    return min((value for value in (below, kept) if value is not None), default=None)


def common(below: tuple[str, ...] | None, kept: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the names that both lists have.  None is every name."""
    if below is None or kept is None:
        return kept if below is None else below
    return tuple(name for name in below if name in kept)


def first_of(*words: object) -> Rule:
    """Return the rule that prefers the word that stands first; the words are ordered from tight to loose."""
    return lambda below, kept: min(below, kept, key=words.index)


PROJECT_SETTINGS: Final[Mapping[str, Rule | None]] = {
    "provider.name": None,
    "provider.model": None,
    "provider.script": None,
    "provider.replay_from": None,
    "provider.replay_speed": None,
    "provider.replay_drive": None,
    "provider.thinking": None,
    "provider.max_output_tokens": lower,
    "provider.models_file": None,
    "provider.connect_timeout_ms": lower,
    "provider.stream_idle_timeout_ms": lower,
    "provider.stream_stall_timeout_ms": lower,
    "daemon.on_eof": first_of("abort", "finish"),
    "daemon.drain_timeout_ms": lower,
    "daemon.command_timeout_ms": lower,
    "daemon.max_line_bytes": lower,
    "daemon.max_event_bytes": lower,
    "daemon.max_message_bytes": lower,
    "daemon.max_runs": lower,
    "daemon.abort_grace_ms": lower,
    "daemon.subscriber_buffer_bytes": lower,
    "daemon.log_level": None,
    "engine.max_model_calls": lower,
    "engine.compact_at_tokens": None,
    "engine.structured_output_tools": first_of(False, True),
    "engine.compact_keep_tokens": None,
    "retry.max_retries": lower,
    "retry.first_delay_ms": None,
    "retry.max_delay_ms": None,
    "retry.total_ms": lower,
    "tools.active": common,
    "tools.bash_timeout_ms": lower,
    "tools.memory_limit_mb": lower,
    "tools.policy": first_of("deny", "allow"),
    "prompt.system": None,
    "prompt.system_file": None,
    "prompt.agents_md": first_of(False, True),
    "trace.fsync": first_of("message", "run", "off"),
    "session_lock.profile": None,
    "session_lock.timeout_ms": None,
    "session_lock.retry_ms": None,
    "session_lock.stale_after_ms": None,
}


def restrictions(below: Mapping[str, object], trusted: Mapping[str, object]) -> dict[str, object]:
    """Return what stays in force of a file that was trusted, by dotted path.

    ``below`` holds what the layers below the project's file give, ``trusted`` what the file gave when it was trusted.
    A value that is not tighter than the one below it is left out.
    """
    defaults = flatten(Settings())
    kept: dict[str, object] = {}
    for path, value in trusted.items():
        key = find_key(path)
        rule = None if key is None else PROJECT_SETTINGS[key.path]
        if rule is None:
            continue
        missing = "allow" if path.startswith("tools.policy.") else defaults.get(path)
        without = below.get(path, missing)
        tighter = rule(without, value)
        if tighter != without:
            kept[path] = tighter
    return kept
