"""Bytes in, commands or named errors out.

The decoder is fed whatever a read delivered and gives back whole lines' worth of results.  Guarantees:

* any bytes, cut anywhere, give the same results (property-tested);
* a line past the limit is dropped up to its LF in constant memory and reported once;
* no input raises: what is wrong with a line is a :class:`Refused` in its place.

Source: protocol v1, sections 1 and 7.
"""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from nous.errors import NousError
from nous.protocol.commands import COMMANDS, FIELDS, MAX_ID_CHARACTERS, Command, Payload, drop_empty_ids

DEFAULT_MAX_LINE_BYTES: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 64
FREE_LINE_BYTES: Final = 64 * 1024
"""An unfinished line of up to this length is not bounded together with others."""

_BOM: Final = b"\xef\xbb\xbf"
_WHITESPACE: Final = b" \t\r\n\x0b\x0c"
# Strings (with a colon behind them where they are keys), and what stands between them from the first bracket on.
# Possessive, so that a string of any length costs no backtracking state; the closing quote may be missing, or each
# escaped quote of a string that never ends would be tried as the start of another one.
_TOKEN: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+"?+)(\s*+:)?|[{}\[\]][^"]*+', re.DOTALL)
_STEP: Final = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKET: Final = bytes(set(range(256)) - _STEP.keys())
_FIELD_PATH: Final = re.compile(r" - at `(\$[^`]*)`$")
_MISSING: Final = re.compile(r"^Object missing required field `([^`]*)`")


class Refused(Struct, frozen=True):
    """A line that is not a command: the ``id`` to answer to (``""`` if it could not be read) and why."""

    id: str
    error: NousError


class TooLong(Struct, frozen=True):
    """Stands for a line whose bytes are gone: it was longer than the limit, or was given up while it was unfinished
    because unfinished lines took too much memory (``given_up``)."""

    given_up: bool = False


class UnfinishedLines:
    """Bounds what the unfinished lines of several decoders hold together.

    Past ``max_bytes`` the line that began first is given up, so that peers that never finish theirs do not keep others
    from sending long ones.  Lines of up to :data:`FREE_LINE_BYTES` do not count.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[LineDecoder, int] = {}
        self.held_bytes = 0

    def note(self, decoder: "LineDecoder", size: int) -> None:
        """Take note that a decoder holds ``size`` bytes of a line, and give up lines that are too much."""
        self.held_bytes -= self._sizes.get(decoder, 0)
        if size <= FREE_LINE_BYTES:
            self._sizes.pop(decoder, None)
            return
        self._sizes[decoder] = size
        self.held_bytes += size
        while self.held_bytes > self._max_bytes:
            oldest = next(iter(self._sizes))
            self.held_bytes -= self._sizes.pop(oldest)
            oldest.give_up()


class LineDecoder:
    """Cuts a byte stream into lines at LF, with a bound on what it holds.

    ``feed`` returns the lines completed by ``data`` (without LF and one trailing CR; empty and whitespace-only
    lines are left out), and a :class:`TooLong` where a line passed ``max_line_bytes`` or ``unfinished`` had
    no room for it.  ``finish`` returns the last line if the stream ended without an LF.
    """

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES, unfinished: UnfinishedLines | None = None) -> None:
        self._limit = max_line_bytes
        self._unfinished = unfinished
        self._held = bytearray()
        # What stands for the line that is coming in, once its bytes are gone.
        self._instead: TooLong | None = None

    @property
    def is_skipping(self) -> bool:
        """Whether the line that is coming in is dropped already; what stands for it comes with its LF."""
        return self._instead is not None

    def give_up(self) -> None:
        """Drop what is held of an unfinished line, and what still comes of it."""
        self._instead = self._instead or TooLong(given_up=True)
        self._held = bytearray()

    def close(self) -> None:
        """Let go of what is held: nothing more comes.  May be repeated."""
        self._held = bytearray()
        self._note()

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Take bytes; return the lines that they complete."""
        out: list[bytes | TooLong] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._complete(data[start:end], out)
            start = end + 1
        self._hold(data[start:])
        return out

    def finish(self) -> list[bytes | TooLong]:
        """Return what is left as a last line, if there is any."""
        out: list[bytes | TooLong] = []
        self._complete(b"", out)
        return out

    def _hold(self, piece: bytes) -> None:
        if self._instead is not None:
            return
        # One byte of grace: a CR before the LF does not count.
        if len(self._held) + len(piece) > self._limit + 1:
            self._instead = TooLong()
            self._held = bytearray()
        else:
            self._held += piece
        self._note()

    def _note(self) -> None:
        if self._unfinished is not None:
            self._unfinished.note(self, len(self._held))

    def _complete(self, rest: bytes, out: list[bytes | TooLong]) -> None:
        instead, line = self._instead, rest
        if self._held:
            line = b"".join((self._held, rest))
            self._held = bytearray()
            self._note()
        self._instead = None
        if line.endswith(b"\r"):
            line = line[:-1]
        if instead is not None:
            out.append(instead)
        elif len(line) > self._limit:
            out.append(TooLong())
        elif line.strip(_WHITESPACE):
            out.append(line)


class _Envelope(Struct, frozen=True):
    v: Raw = Raw(b'"1"')
    id: Raw = Raw(b"")
    type: Raw = Raw(b"")
    payload: Raw = Raw(b"{}")


_envelopes = msgspec.json.Decoder(_Envelope)
_any = msgspec.json.Decoder()
_payloads: Final[dict[str, msgspec.json.Decoder[Payload]]] = {
    name: msgspec.json.Decoder(cls) for name, cls in COMMANDS.items()
}


class CommandDecoder:
    """Turns the bytes of one connection into commands.

    A UTF-8 byte order mark at the very beginning is skipped; anywhere else it is part of its line.  ``strict`` (set by
    ``hello``) refuses unknown fields by name.
    """

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES, unfinished: UnfinishedLines | None = None) -> None:
        self._lines = LineDecoder(max_line_bytes, unfinished)
        self._start: bytes | None = b""
        """The first bytes, as long as they may be the beginning of a byte order mark; then ``None``."""
        self.strict = False

    def feed(self, data: bytes) -> Iterator[Command | Refused]:
        """Yield what ``data`` completed.  Lazily, so that a ``hello`` takes effect on the line after it."""
        if self._start is not None:
            data = self._after_mark(self._start + data)
        for line in self._lines.feed(data):
            yield self._decode(line)

    def close(self) -> None:
        """Let go of what is held: nothing more comes.  May be repeated."""
        self._lines.close()

    def finish(self) -> Iterator[Command | Refused]:
        """Yield the command of a last line that had no LF."""
        if self._start:
            self._lines.feed(self._start)
        self._start = None
        for line in self._lines.finish():
            yield self._decode(line)

    def _after_mark(self, start: bytes) -> bytes:
        """Return the beginning of the stream without a byte order mark, nothing until it is known to be one."""
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _decode(self, line: bytes | TooLong) -> Command | Refused:
        if isinstance(line, TooLong):
            return Refused("", _too_long(line))
        return decode_command(line, strict=self.strict)


def _too_long(line: TooLong) -> NousError:
    if not line.given_up:
        return NousError("line_too_long")
    hint = "Finish the lines that were begun on other connections, then send this one again."
    return NousError("overloaded", "unfinished lines take too much memory", hint=hint)


def decode_command(line: bytes, *, strict: bool = False) -> Command | Refused:
    """Decode one line.  Never raises."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return Refused("", NousError("invalid_command", "invalid_utf8"))
    structure = _scan(line)
    if structure.too_deep:
        return Refused(_string(Raw(structure.id)) or "", NousError("invalid_command", "too_deep"))
    try:
        envelope = _envelopes.decode(line)
    except msgspec.ValidationError:
        return Refused("", NousError("invalid_command", _non_object_cause(line)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Refused("", NousError("invalid_command", "invalid_json"))
    command_id = _string(envelope.id) or ""
    if structure.duplicate_key:
        return Refused(command_id, NousError("invalid_command", "duplicate_key"))
    try:
        return _decode_envelope(envelope, command_id, line, strict)
    except NousError as error:
        return Refused(command_id if len(command_id) <= MAX_ID_CHARACTERS else "", error)


def _decode_envelope(envelope: _Envelope, command_id: str, line: bytes, strict: bool) -> Command:
    if bytes(envelope.v) not in (b'"1"', b"1", b'""') and _string(envelope.v) != "1":
        raise NousError("invalid_command", "invalid_version")
    if not command_id:
        raise NousError("invalid_command", "missing_id")
    if len(command_id) > MAX_ID_CHARACTERS:
        raise NousError("invalid_payload", f"id: longer than {MAX_ID_CHARACTERS} characters")
    kind = _string(envelope.type)
    if not kind:
        raise NousError("invalid_command", "missing_type")
    decoder = _payloads.get(kind)
    if decoder is None:
        raise NousError("invalid_command", "unknown_command")
    raw = bytes(envelope.payload)
    if raw == b"null":
        raw = b"{}"
    if strict:
        _refuse_unknown(line, raw, kind)
    try:
        return Command(command_id, drop_empty_ids(decoder.decode(raw)), raw)
    except msgspec.ValidationError as error:
        raise NousError("invalid_payload", field_cause(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NousError("invalid_command", "invalid_json") from None


def field_cause(error: msgspec.ValidationError) -> str:
    """Return ``field: what is wrong`` for a struct that did not fit; never a value from the input."""
    text = str(error)
    path, problem = "", text
    if match := _FIELD_PATH.search(text):
        path, problem = match.group(1).removeprefix("$").removeprefix("."), text[: match.start()]
    if match := _MISSING.match(problem):
        path, problem = f"{path}.{match.group(1)}".removeprefix("."), "required"
    if problem.startswith("Invalid enum value"):
        problem = "not one of the allowed values"
    return f"{path or 'payload'}: {problem}"


def _string(raw: Raw) -> str | None:
    """Return the string a raw value holds, or None if it is something else."""
    data = bytes(raw)
    if not data.startswith(b'"'):
        return None
    try:
        value = _any.decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return value if isinstance(value, str) else None


def _non_object_cause(line: bytes) -> str:
    """Say what is wrong with a line that does not begin an object; safe, since it is not too deep."""
    try:
        _any.decode(line)
    except (msgspec.DecodeError, ValueError):
        return "invalid_json"
    return "not_an_object"


class _Structure(NamedTuple):
    """What must be known of a line before a JSON library may see it; ``id`` is a JSON string, or empty."""

    too_deep: bool
    duplicate_key: bool
    id: bytes


def _scan(line: bytes) -> _Structure:
    """Look at brackets and at the envelope's keys, in time linear in the line.  Needs no valid JSON to be safe."""
    depth = 0
    too_deep = duplicate = False
    keys: set[bytes] = set()
    key = command_id = b""
    for match in _TOKEN.finditer(line):
        string, colon = match.groups()
        if string is None:
            brackets = match.group().translate(None, _NO_BRACKET)
            # Only a run of brackets long enough to pass the limit is walked through.
            if depth + len(brackets) > MAX_DEPTH:
                too_deep = too_deep or max(accumulate(map(_STEP.__getitem__, brackets), initial=depth)) > MAX_DEPTH
            depth += 2 * (brackets.count(b"[") + brackets.count(b"{")) - len(brackets)
        elif depth == 1 and colon is not None:
            key = _plain_key(string)
            duplicate = duplicate or key in keys
            keys.add(key)
        elif depth == 1 and key == b"id":
            command_id = string
    return _Structure(too_deep, duplicate, command_id)


def nests_too_deep(data: bytes) -> bool:
    """Whether a JSON text nests deeper than :data:`MAX_DEPTH`; safe on any bytes."""
    return _scan(data).too_deep


def _plain_key(string: bytes) -> bytes:
    if b"\\" not in string:
        return string[1:-1]
    try:
        return str(_any.decode(string)).encode("utf-8", "replace")
    except (msgspec.DecodeError, ValueError):
        return string


_ENVELOPE_FIELDS: Final = frozenset({"v", "id", "type", "payload", "ts", "meta"})


def _refuse_unknown(line: bytes, raw_payload: bytes, kind: str) -> None:
    for name in msgspec.json.decode(line, type=dict[str, Raw]):
        if name not in _ENVELOPE_FIELDS:
            raise NousError("invalid_payload", f"{name}: unknown field of the envelope")
    if not raw_payload.startswith(b"{"):
        return
    for name in msgspec.json.decode(raw_payload, type=dict[str, Raw]):
        if name not in FIELDS[kind]:
            raise NousError("invalid_payload", f"{name}: unknown field")
