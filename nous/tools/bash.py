"""``bash``: a command, its output streamed and bounded, everything it started gone when it ends."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from nous.ports.tool import ToolContext, ToolResult
from nous.system.files import anonymous_file
from nous.system.process import Child, find_program, signal_name, spawn
from nous.system.supervise import MAX_PROCESSES, Ending, supervise
from nous.tools.arguments import InvalidArgumentsError
from nous.tools.builtin import BuiltinTool
from nous.tools.environment import open_environment
from nous.tools.failure import ToolFailure
from nous.tools.output import Spool
from nous.tools.text import encode

DEFAULT_TIMEOUT_MS: Final = 120_000
MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000
DEFAULT_MEMORY_LIMIT_MB: Final = 4096

MAX_STREAMED_BYTES: Final = 4 * 1024 * 1024
"""More than anybody watches; the rest of the output is in the result and its file only."""

MAX_ARGUMENT_BYTES: Final = 100_000
"""A longer command is handed to the shell in a file: Linux takes no argument of 128 KiB."""

_SIGNAL_EXIT_BASE: Final = 128


class BashArguments(Struct, frozen=True, forbid_unknown_fields=True):
    command: Annotated[str, Meta(min_length=1, description="The command line, for bash -c, in the working directory.")]
    timeout_ms: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=MAX_TIMEOUT_MS,
                description="Milliseconds after which the command and all it started are ended.",
            ),
        ]
        | UnsetType
    ) = UNSET


class BashTool(BuiltinTool[BashArguments]):
    """Runs commands.  ``closed_names``: variables that hold secrets by configuration, kept from every command."""

    tool_name = "bash"
    summary: ClassVar[str] = (
        "Run a command in the working directory. The result is its output (stdout and stderr in order; of a long one "
        "the tail) and how it ended. Its input is empty. What still runs in the background at its end is ended too."
    )
    shape = BashArguments

    def __init__(
        self,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        memory_limit_mb: int = DEFAULT_MEMORY_LIMIT_MB,
        closed_names: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.schema["properties"]["timeout_ms"]["default"] = timeout_ms
        self._timeout_ms = timeout_ms
        self._memory_limit_mb = memory_limit_mb
        self._closed_names = frozenset(closed_names)

    def prepare(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``timeout`` means seconds, as many models know it."""
        if "timeout" not in arguments or "timeout_ms" in arguments:
            return arguments
        prepared = dict(arguments)
        seconds = prepared.pop("timeout")
        if seconds is None:
            return prepared
        try:
            return {**prepared, "timeout_ms": math.ceil(float(seconds) * 1000)}
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgumentsError("Invalid arguments: `timeout` is a number of seconds.") from None

    async def execute(self, arguments: BashArguments, context: ToolContext) -> ToolResult:
        """Run the command line; its output is streamed and kept."""
        timeout_ms = self._timeout_ms if arguments.timeout_ms is UNSET else arguments.timeout_ms
        command = encode(arguments.command, "command")
        if b"\0" in command:
            raise ToolFailure("`command` has a NUL character in it, which no command line can hold.")
        output = _Output(context)
        child = self._spawn(command, context.workdir)
        ending = await supervise(
            child,
            output.receive,
            timeout_ms=timeout_ms,
            memory_limit_bytes=self._memory_limit_mb * 1024 * 1024,
        )
        text, cut_note = await output.finish()
        status = self._describe(ending, timeout_ms)
        notes = [note for note in (cut_note, status) if note is not None]
        if not text and not notes:
            notes = ["[No output]"]
        separator = "\n" if text and notes and not text.endswith("\n") else ""
        return ToolResult(
            text=text + separator + "\n".join(notes),
            outcome="ok" if status is None else "error",
            truncated=cut_note is not None,
        )

    def _spawn(self, command: bytes, workdir: Path) -> Child:
        environment = {**open_environment(os.environ, self._closed_names), "PWD": str(workdir)}
        shell = find_program("bash", environment) or "/bin/sh"
        try:
            if len(command) <= MAX_ARGUMENT_BYTES:
                return spawn([shell, "-c", os.fsdecode(command)], cwd=workdir, env=environment)
            with anonymous_file(command) as fd:
                return spawn([shell, "-c", _read_from(fd, shell)], cwd=workdir, env=environment, pass_fds=[fd])
        except OSError as error:
            raise ToolFailure(f"The command could not be started: {error.strerror}.") from None

    def _describe(self, ending: Ending, timeout_ms: int) -> str | None:
        """Return how it ended, or ``None`` for an exit with 0."""
        gone = "the command and all it started were ended"
        if ending.stopped == "timeout":
            return f"[Timed out after {timeout_ms} ms: {gone}]"
        if ending.stopped == "memory":
            return f"[More than {self._memory_limit_mb} MiB of memory: {gone}]"
        if ending.stopped == "processes":
            return f"[More than {MAX_PROCESSES} processes: {gone}]"
        if ending.returncode < 0:
            return f"[Killed by {signal_name(-ending.returncode)}]"
        if ending.returncode > _SIGNAL_EXIT_BASE:
            name = signal_name(ending.returncode - _SIGNAL_EXIT_BASE)
            return f"[Exit code {ending.returncode}, which the shell gives for {name}]"
        return f"[Exit code {ending.returncode}]" if ending.returncode else None


def _read_from(fd: int, shell: str) -> str:
    """Return the command line that reads a command from a descriptor and runs it, its input and ``$0`` untouched.

    The command does not see the descriptor where the shell is bash; others cannot name one above 9 to close it.
    """
    close = f" {fd}<&-" if shell.endswith("/bash") else ""
    return f'eval "$(cat /dev/fd/{fd})"{close}'


class _Output:
    """Takes a command's output: all of it for the result, the beginning as a stream for whoever watches."""

    def __init__(self, context: ToolContext) -> None:
        self._spool = Spool(context)
        self._progress = context.progress
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._streamable_bytes = MAX_STREAMED_BYTES

    async def receive(self, data: bytes) -> None:
        await self._spool.feed(data)
        if self._streamable_bytes <= 0:
            return
        self._streamable_bytes -= len(data)
        text = self._decoder.decode(data)
        if self._streamable_bytes <= 0:
            text += "\n[The rest of the output is not streamed]\n"
        if text:
            await self._progress(text)

    async def finish(self) -> tuple[str, str | None]:
        """Return what the result shows of the output, and what it says if that is not all."""
        if self._streamable_bytes > 0 and (rest := self._decoder.decode(b"", final=True)):
            await self._progress(rest)
        return await self._spool.finish()
