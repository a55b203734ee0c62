"""The extension host protocol, version 1: one JSON object per line over the child's stdin and stdout.

    child -> nous    hello, result, progress, log
    nous  -> child   call, cancel; the end of stdin means: exit

Reading is strict where it matters: a line that is not one of these, or not of its shape, is a
:class:`ProtocolError` (the child is ended: nothing it says can be relied on).  Unknown *fields* are ignored on both
sides, and children ignore unknown types: version 1 grows by adding.  Pure.

The machine-readable form is generated from these structs: protocol/v1/extension-host.schema.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from nous.errors import bound_text
from nous.ports.extensions import HookName

HOST_PROTOCOL: Final = "1"

CallKind = Literal["tool", "hook", "command"]
CancelReason = Literal["timeout", "aborted"]

ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
CommandName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}\Z")]
Description = Annotated[str, Meta(max_length=16 * 1024)]


class ToolDeclaration(Struct, frozen=True):
    """A tool: ``schema`` is the JSON Schema (draft 2020-12) of its arguments, an object."""

    name: ToolName
    description: Description
    schema: dict[str, Any]


class CommandDeclaration(Struct, frozen=True):
    """A command that ``extension_command`` can name."""

    name: CommandName
    description: Description = ""


class HelloLine(Struct, frozen=True, tag="hello"):
    """The child's first line.  ``name`` and ``hooks`` are those of its manifest."""

    protocol: Literal["1"]
    name: str
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    tools: Annotated[tuple[ToolDeclaration, ...], Meta(max_length=256)] = ()
    commands: Annotated[tuple[CommandDeclaration, ...], Meta(max_length=256)] = ()
    hooks: tuple[HookName, ...] = ()


class ResultLine(Struct, frozen=True, tag="result"):
    """The answer to a call, exactly one: ``value``, or ``error`` in its place."""

    id: str
    value: dict[str, Any] = {}
    error: str | None = None


class Progress(Struct, frozen=True, tag="progress"):
    """Text to stream to the client while a tool runs."""

    id: str
    text: str


class LogLine(Struct, frozen=True, tag="log"):
    """A line for the daemon's log."""

    message: str
    level: Literal["debug", "info", "warning", "error"] = "info"


ChildLine = HelloLine | ResultLine | Progress | LogLine


class CallLine(Struct, frozen=True, tag="call"):
    """Do this, within ``timeout_ms``, and answer with one ``result`` of the same ``id``."""

    id: str
    kind: CallKind
    name: str
    input: Any
    context: dict[str, str]
    timeout_ms: int


class Cancel(Struct, frozen=True, tag="cancel"):
    """Nobody waits for this call any more: stop it.  An answer that comes all the same is dropped."""

    id: str
    reason: CancelReason


HostLine = CallLine | Cancel


class ProtocolError(Exception):
    """What the child wrote is not a line of the host protocol; the text says why, never what it was."""


_child_lines: Final[msgspec.json.Decoder[ChildLine]] = msgspec.json.Decoder(ChildLine)
_encoder: Final = msgspec.json.Encoder()


def decode_child_line(line: bytes) -> ChildLine:
    """Decode one line without its LF.

    Raises:
        ProtocolError: it is not a line of the protocol.
    """
    try:
        return _child_lines.decode(line)
    except msgspec.ValidationError as error:
        raise ProtocolError(bound_text(str(error), 300)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolError("not JSON") from None


def encode_host_line(line: HostLine) -> bytes:
    """Return the bytes of a line, its LF included."""
    return _encoder.encode(line) + b"\n"
