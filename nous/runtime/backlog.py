"""Bounds the commands that the daemon holds until they are answered, in number and in bytes, over all connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nous.errors import NousError

MAX_COMMANDS: Final = 4096
"""Commands that may wait at once, over all connections."""

LONGEST_COMMANDS: Final = 8
"""The bytes that waiting commands may take together, in longest lines (``daemon.max_line_bytes``)."""


class Backlog:
    """Counts commands that belong to the daemon: they outlive the connection that sent them.

    ``max_bytes`` bounds their payloads together.  A connection that is read has a bound of its own; this one also holds
    for those of connections that are gone.
    """

    def __init__(self, max_bytes: int, max_commands: int = MAX_COMMANDS) -> None:
        self._max_bytes = max_bytes
        self._max_commands = max_commands
        self._bytes = 0
        self._commands = 0

    @property
    def is_empty(self) -> bool:
        """Whether no command is held."""
        return self._commands == 0 and self._bytes == 0

    def enter(self, size: int) -> Callable[[], None]:
        """Take the place of a command whose payload has ``size`` bytes; return what gives it back, once.

        A single command is taken whatever its size.  Raises ``overloaded``.
        """
        if self._commands and (self._commands >= self._max_commands or self._bytes + size > self._max_bytes):
            hint = "Send the command again when earlier ones have been answered."
            raise NousError("overloaded", f"{self._commands} commands wait for their turn", hint=hint)
        self._commands += 1
        self._bytes += size
        held = [size]

        def leave() -> None:
            if held:
                self._bytes -= held.pop()
                self._commands -= 1

        return leave
