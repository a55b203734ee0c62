"""A recorded run told again with other words: redacted inputs in, and what the engine then says.

No event is invented: next to the engine that gets the redacted inputs another one gets the recorded inputs, what that
one says must be what was recorded, byte for byte, and what the first one says must have the same head and length.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from nous.engine.inputs import Input, ModelProduced, ToolProgressed
from nous.engine.machine import RunMachine
from nous.engine.record import effect_line, input_line
from nous.engine.spec import RunSpec
from nous.errors import NousError
from nous.ports.model import ModelItem, TextDelta, ThinkingDelta, ToolCallDelta
from nous.protocol.messages import Message
from nous.replay.recording import Header, Recorded, Said, context_digest
from nous.replay.redact import Redactor
from nous.replay.redact_struct import StructRedactor
from nous.store.trace_lines import TraceCounts, event_head

_PAYLOAD: Final = b',"payload":'
_replace: Final = msgspec.structs.replace


class _Streams:
    """The texts of a run that come in pieces, each under a key: gathered first, redacted as one, then handed out."""

    def __init__(self, redactor: Redactor, *, has_output: bool) -> None:
        self._redactor = redactor
        self._has_output = has_output
        self._gathered: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
        self._redacted: dict[tuple[object, ...], Iterator[str]] = {}

    def gather(self, item: Input) -> None:
        for key, piece in _pieces(item):
            self._gathered[key].append(piece)

    def redact(self) -> None:
        for key, pieces in self._gathered.items():
            self._redacted[key] = iter(self._redact(key[0], pieces))
        self._gathered.clear()

    def _redact(self, kind: object, pieces: Sequence[str]) -> list[str]:
        if kind == "arguments":
            return self._redactor.argument_pieces(pieces)
        # The output of a run stands in its last event too: what was JSON has to stay JSON of the same shape.
        is_output = kind == "text" and self._has_output
        return self._redactor.output_pieces(pieces) if is_output else self._redactor.pieces(pieces)

    def next(self, *key: object) -> str:
        return next(self._redacted[key])


def _pieces(item: Input) -> Iterator[tuple[tuple[object, ...], str]]:
    if isinstance(item, ToolProgressed):
        yield ("progress", item.tool_call_id), item.text
    elif isinstance(item, ModelProduced):
        for piece in item.items:
            if isinstance(piece, TextDelta):
                yield ("text", item.call), piece.text
            elif isinstance(piece, ThinkingDelta):
                yield ("thinking", item.call), piece.text
            elif isinstance(piece, ToolCallDelta):
                yield ("arguments", item.call, piece.index), piece.arguments


class InputRedactor:
    """Redacts the inputs of one run: all of them are needed before the first can be given back."""

    def __init__(self, redactor: Redactor, spec: RunSpec) -> None:
        self._structs = StructRedactor(redactor, spec.run_id)
        self._streams = _Streams(redactor, has_output=spec.output_schema is not None)

    def redact(self, inputs: Callable[[], Iterable[Input]]) -> Iterator[Input]:
        """Redact the inputs that ``inputs`` reads, which is called twice: of the first reading only texts are held."""
        for item in inputs():
            self._streams.gather(item)
        self._streams.redact()
        return map(self._input, inputs())

    def _input(self, item: Input) -> Input:
        match item:
            case ModelProduced(call, items):
                return ModelProduced(call, [self._item(call, piece) for piece in items])
            case ToolProgressed(call_id, _):
                return ToolProgressed(self._structs.text_id(call_id), self._streams.next("progress", call_id))
            case _:
                return self._structs.struct(item)

    def _item(self, call: int, item: ModelItem) -> ModelItem:
        """Redact an item of a stream; the pieces of a text were redacted as one."""
        match item:
            case TextDelta():
                return _replace(item, text=self._streams.next("text", call))
            case ThinkingDelta():
                thought = self._structs.struct(_replace(item, text=""))
                return _replace(thought, text=self._streams.next("thinking", call))
            case ToolCallDelta():
                fragment = self._structs.struct(_replace(item, arguments=""))
                return _replace(fragment, arguments=self._streams.next("arguments", call, item.index))
            case _:
                return self._structs.struct(item)


class _Voice:
    """An engine and the lines it has said and that were not taken yet."""

    def __init__(self, spec: RunSpec) -> None:
        self._machine = RunMachine(spec)
        self._effects = 0
        self.said: deque[bytes] = deque()

    def hear(self, recorded: Recorded, item: Input) -> None:
        self._machine.receive(recorded.stamp, item)
        self.said.extend(event.line[:-1] for event in self._machine.take_events())
        for effect in self._machine.take_effects():
            self._effects += 1
            self.said.append(effect_line(self._effects, effect)[:-1])


class Retelling:
    """The lines of a trace between its two ends, made again from ``inputs``, which stand for the recorded ones.

    ``counts`` and ``last_ts`` say what was told so far.
    """

    def __init__(self, recorded: RunSpec, told: RunSpec) -> None:
        self._original = _Voice(recorded)
        self._other = _Voice(told)
        self._seq = 0
        self._inputs = 0
        self._effects = 0
        self.last_ts = ""

    @property
    def counts(self) -> TraceCounts:
        """How many inputs, events and effects were retold."""
        return TraceCounts(inputs=self._inputs, events=self._seq, effects=self._effects)

    def tell(self, lines: Iterable[Recorded | Said], inputs: Iterator[Input], *, is_cut: bool) -> Iterator[bytes]:
        """Yield the lines, LF included.

        Raises:
            NousError: ``verification_failed``, if the run as recorded does not replay.
        """
        for line in lines:
            if isinstance(line, Said):
                yield self._take(line) + b"\n"
            else:
                told = self._hear(line, next(inputs))
                if told is not None:
                    yield told
        if self._original.said and not is_cut:
            raise self._failure("it lacks its last lines")

    def _hear(self, recorded: Recorded, item: Input) -> bytes | None:
        if self._original.said:
            raise self._failure("it lacks lines there")
        self._original.hear(recorded, recorded.item)
        self._other.hear(recorded, item)
        self.last_ts = recorded.stamp.ts
        if recorded.line is None:
            return None
        self._inputs += 1
        return input_line(self._inputs, self._seq, recorded.stamp, item)

    def _take(self, recorded: Said) -> bytes:
        if not self._original.said or self._original.said.popleft() != recorded.line:
            raise self._failure("what was recorded there is not what the engine says")
        told = self._other.said.popleft() if self._other.said else b""
        if len(told) != len(recorded.line) or not _have_same_head(told, recorded):
            raise self._failure("it cannot be redacted there without changing what it did")
        head = event_head(told)
        if head is None:
            self._effects += 1
        else:
            self._seq = head.seq
        return told

    def _failure(self, reason: str) -> NousError:
        return NousError("verification_failed", f"the run does not replay: behind event {self._seq}, {reason}")


def _have_same_head(told: bytes, recorded: Said) -> bool:
    mark = _PAYLOAD if recorded.kind == "event" else b',"digest":'
    return told.partition(mark)[0] == recorded.line.partition(mark)[0]


def with_context(header: Header, messages: tuple[Message, ...] | None, **changes: Any) -> Header:
    """Return a header that carries its context, or says that it is missing."""
    capture = {**header.capture, "context": "missing" if messages is None else "recorded"}
    if messages is not None:
        digest = context_digest(messages)
        changes["context"] = _replace(header.context, digest=digest, messages=messages)
        changes["spec"] = _replace(header.spec, context_digest=digest)
    return _replace(header, capture=capture, **changes)
