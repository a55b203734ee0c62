"""What an extension may take, how long it may take, and what its failure means.  Pure.

The manifest sets it, the configuration (``extensions.<key>.<name>``) overrides it.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from nous.config.settings import (
    Count,
    ExtensionsSettings,
    MemoryMb,
    OnFailure,
    Seconds,
    SizeBytes,
    TimeoutMs,
)
from nous.ports.extensions import HookName


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one extension.  Each field is a key of the manifest and of the configuration.

    ``memory_mb`` and ``max_processes`` bound its whole process tree (resident memory, looked at ten times a second
    during calls); ``cpu_seconds`` is the tree's CPU time while one call is under way; ``max_output_bytes`` bounds what
    one call answers, progress included, and each line.
    """

    hook_timeout_ms: TimeoutMs = 5_000
    tool_timeout_ms: TimeoutMs = 60_000
    start_timeout_ms: TimeoutMs = 10_000
    max_output_bytes: SizeBytes = 1 << 20
    memory_mb: MemoryMb = 512
    max_processes: Count = 64
    cpu_seconds: Seconds = 60
    max_concurrency: Count = 8
    cooldown_ms: TimeoutMs = 30_000


KEYS: Final = Policy.__struct_fields__


def policy_in_force(name: str, declared: Policy, settings: ExtensionsSettings) -> Policy:
    """Return the limits of the extension ``name``: what the configuration says of it, else what its manifest does."""
    return Policy(**{key: getattr(settings, key).get(name, getattr(declared, key)) for key in KEYS})


def default_on_failure(hook: HookName) -> OnFailure:
    """Return what a hook's failure means if nobody says: who guards tool calls fails closed."""
    return "block" if hook == "tool_call" else "warn"
