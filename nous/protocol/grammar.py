"""The grammar of a run's events: what may follow what, checked one event at a time.

    run      agent_start  turn*  agent_end        and nothing after it
    turn     turn_start  (message | tool)*  turn_end
    message  message_start  (message_update | feature event)*  message_end
    tool     tool_execution_start  tool_execution_update*  tool_execution_end
    anywhere in a run: status, warning, error

Memory does not depend on the length of a run or of a message: texts are compared by size and SHA-256.  Nothing that
is fed raises.  Source: protocol v1, sections 2, 3 and 5.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from nous.errors import bound_text
from nous.protocol.events import EVENTS, FEATURE_EVENTS

RULES: Final[dict[str, str]] = {
    "event.malformed": "An event is a JSON object with a type and a payload.",
    "event.unknown": "Its type is one of protocol v1.",
    "event.envelope": "It begins with v, id, type; the id is made of run_id and seq; ts is RFC 3339 in UTC.",
    "event.payload": "The payload has the fields of its type.",
    "event.run_id": "All events are of one run.",
    "event.seq": "seq counts frozen events from 1 without a hole.",
    "event.feature_order": "A feature event names the frozen event before it, and its own number behind that.",
    "run.start_missing": "A run begins with agent_start.",
    "run.start_repeated": "It has one agent_start.",
    "run.end_missing": "It ends with agent_end.",
    "run.after_end": "Nothing follows agent_end.",
    "turn.already_open": "A turn starts when none is open.",
    "turn.not_open": "Messages and tools stand in a turn, and only an open one ends.",
    "turn.not_closed": "A turn ends before its run.",
    "turn.id": "turn_id is a decimal number, greater than the last turn's, the same within the turn.",
    "message.already_open": "A message starts when none is open.",
    "message.not_open": "Updates and the end of a message come while it is open.",
    "message.not_closed": "A message ends before its turn, and before a tool starts.",
    "message.id": "message_id (and the role) is the one of the message's start.",
    "message.text": "The joined deltas are the message's text, byte for byte.",
    "tool.already_open": "A tool starts when none runs.",
    "tool.not_open": "Updates and the end of a tool come while it runs.",
    "tool.not_closed": "A tool ends before its turn, and before a message starts.",
    "tool.id": "tool_call_id and tool_name are the ones of the tool's start.",
}
"""Every rule by its name, which is stable."""

_DECIMAL: Final = re.compile(r"[0-9]{1,18}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_ENVELOPE_BEGIN: Final = ["v", "id", "type"]
_UNTRACED: Final = frozenset({"error", "agent_end"})

Json = Mapping[str, Any]


class Violation(NamedTuple):
    """Which rule does not hold, at which line, and what stands there instead."""

    line: int
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.rule}: {self.detail}"


class _Message:
    """An open message: who it is, and a measure of the deltas so far."""

    __slots__ = ("digest", "id", "role", "size")

    def __init__(self, message_id: object, role: object) -> None:
        self.id = message_id
        self.role = role
        self.size = 0
        self.digest = hashlib.sha256()

    def add(self, delta: str) -> None:
        data = delta.encode("utf-8", "surrogatepass")
        self.size += len(data)
        self.digest.update(data)

    def differs_from(self, payload: Json) -> str | None:
        """Say how ``message_end`` differs from the deltas; a message of the user needs none of them."""
        text, size = payload.get("text"), payload.get("text_bytes")
        if isinstance(text, str):
            data = text.encode("utf-8", "surrogatepass")
            size, same = len(data), hashlib.sha256(data).digest() == self.digest.digest()
        else:
            same = size is None or size == self.size
        if same or (self.role != "assistant" and not self.size):
            return None
        return f"the deltas are {self.size} bytes, the text is {'another' if size == self.size else size}"


class _Tool(NamedTuple):
    id: object
    name: object


class EventGrammar:
    """Checks the events of one run, fed in order, as lines or as decoded objects.

    ``lenient`` is for runs that another implementation of v1 wrote: what may be missing there (``v``, ids, ``seq``,
    ``ts``, ``turn_id``, fields that v1 did not always have) is checked only if it is present, unknown types are passed
    over, and a tool may run inside an open message.  ``filtered`` is for a stream to a connection that did not ask for
    every feature: the numbers of feature events may have holes.  Lenient events may also be flat, without ``payload``.

    After a violation the checker goes on from what the event says, so that one fault is not reported many times.
    ``untraced`` ends (a run whose trace could not be written) take no ``seq`` and close whatever is open.
    """

    def __init__(self, *, lenient: bool = False, filtered: bool = False) -> None:
        self._lenient = lenient
        self._filtered = filtered
        self._line = 0
        self._found: list[Violation] = []
        self._started = False
        self._ended = False
        self._run_id: object = None
        self._seq = 0
        self._feature_number = 0
        self._turn_id: object = None
        self._in_turn = False
        self._last_turn = 0
        self._message: _Message | None = None
        self._tool: _Tool | None = None
        self._handlers: dict[str, Callable[[Json], None]] = {
            "agent_start": self._on_agent_start,
            "agent_end": self._on_agent_end,
            "turn_start": self._on_turn_start,
            "turn_end": self._on_turn_end,
            "message_start": self._on_message_start,
            "message_update": self._on_message_update,
            "message_end": self._on_message_end,
            "tool_execution_start": self._on_tool_start,
            "tool_execution_update": self._on_tool_update,
            "tool_execution_end": self._on_tool_end,
            **dict.fromkeys(("status", "warning", "error"), self._check_turn_id),
            **dict.fromkeys(FEATURE_EVENTS, self._on_feature),
        }

    def feed(self, event: bytes | Json, line: int | None = None) -> Violation | None:
        """Take the next event; return the first rule it breaks, if any.

        ``line`` is where it stands, for the report; left out, events are counted from 1.
        """
        self._line = self._line + 1 if line is None else line
        self._found = []
        decoded = _decode(event) if isinstance(event, bytes) else event
        if isinstance(decoded, Mapping):
            self._check(decoded)
        else:
            self._note("event.malformed", "not a JSON object")
        return self._found[0] if self._found else None

    def finish(self) -> list[Violation]:
        """Return what the run lacks, now that no event follows.  Not to be asked of a run that was cut."""
        self._found = []
        if not self._started:
            self._note("run.start_missing", "there is no event")
        if not self._ended:
            self._note_unclosed()
            self._note("run.end_missing", "the last event is not agent_end")
        return self._found

    def _note(self, rule: str, detail: str) -> None:
        self._found.append(Violation(self._line, rule, detail))

    # -- every event

    def _check(self, event: Json) -> None:
        kind, payload = event.get("type"), event.get("payload", event if self._lenient else None)
        if not isinstance(kind, str) or not isinstance(payload, Mapping):
            self._note("event.malformed", "no type or no payload")
            return
        if self._ended:
            self._note("run.after_end", _shown(kind))
            return
        if not self._started and kind != "agent_start":
            self._note("run.start_missing", f"the first event is {_shown(kind)}")
            self._started = True
        handler = self._handlers.get(kind)
        if handler is None:
            if not self._lenient:
                self._note("event.unknown", _shown(kind))
            return
        self._check_run_id(payload)
        self._check_number(kind, event, payload)
        if not self._lenient:
            self._check_envelope(event)
        self._check_payload(kind, payload)
        handler(payload)

    def _check_run_id(self, payload: Json) -> None:
        run_id = payload.get("run_id")
        if self._run_id is None:
            self._run_id = run_id
        if run_id != self._run_id and not self._may_miss(run_id):
            self._note("event.run_id", f"{_shown(run_id)} instead of {_shown(self._run_id)}")

    def _check_number(self, kind: str, event: Json, payload: Json) -> None:
        """Check seq, or after_seq and the feature event's own number, and the id made of them."""
        if kind in FEATURE_EVENTS:
            self._check_feature_number(event)
        elif kind not in _UNTRACED or not self._is_untraced(event):
            seq = event.get("seq")
            if self._may_miss(seq):
                return
            if type(seq) is not int or seq != self._seq + 1:
                self._note("event.seq", f"{_shown(seq)} follows {self._seq}")
            self._seq = seq if type(seq) is int else self._seq + 1
            self._feature_number = 0
            self._check_id(event, f"{self._run_id}.{self._seq}")

    def _check_feature_number(self, event: Json) -> None:
        after = event.get("after_seq")
        if self._may_miss(after):
            return
        if after != self._seq:
            self._note("event.feature_order", f"after_seq {_shown(after)} stands behind event {self._seq}")
        number = _last_number(event.get("id"))
        expected = self._feature_number + 1
        if number != expected and not (self._filtered and number > expected) and not self._lenient:
            self._note("event.feature_order", f"number {number} instead of {expected}")
        self._feature_number = max(number, self._feature_number)
        self._check_id(event, f"{self._run_id}.{after}.{number}")

    def _is_untraced(self, event: Json) -> bool:
        event_id = event.get("id")
        return isinstance(event_id, str) and event_id == f"{self._run_id}.untraced.{_last_number(event_id)}"

    def _check_id(self, event: Json, expected: str) -> None:
        if not self._lenient and event.get("id") != expected:
            self._note("event.envelope", f"id {_shown(event.get('id'))} instead of {_shown(expected)}")

    def _check_envelope(self, event: Json) -> None:
        time = event.get("ts")
        if event.get("v") != "1" or [*event][:3] != _ENVELOPE_BEGIN:
            self._note("event.envelope", 'it does not begin with v "1", id, type')
        if not isinstance(time, str) or _TIME.fullmatch(time) is None:
            self._note("event.envelope", f"ts {_shown(time)}")

    def _check_payload(self, kind: str, payload: Json) -> None:
        if self._lenient:
            if not isinstance(payload.get("delta", ""), str):
                self._note("event.payload", "delta is not a string")
            return
        struct = EVENTS.get(kind) or FEATURE_EVENTS[kind][1]
        try:
            msgspec.convert(payload, struct)
        except msgspec.ValidationError as error:
            self._note("event.payload", bound_text(str(error), 256))

    def _may_miss(self, value: object) -> bool:
        return value is None and self._lenient

    # -- the run and its turns

    def _on_agent_start(self, payload: Json) -> None:
        if self._started:
            self._note("run.start_repeated", "agent_start")
        self._started = True

    def _on_agent_end(self, payload: Json) -> None:
        if payload.get("untraced") is not True:
            self._note_unclosed()
        self._ended = True

    def _on_turn_start(self, payload: Json) -> None:
        if self._in_turn:
            self._note("turn.already_open", f"turn {_shown(self._turn_id)}")
        turn_id = self._turn_id = payload.get("turn_id")
        self._in_turn = True
        if self._may_miss(turn_id):
            return
        number = int(turn_id) if isinstance(turn_id, str) and _DECIMAL.fullmatch(turn_id) else -1
        if number <= self._last_turn and not (self._lenient and number >= 0):
            self._note("turn.id", f"{_shown(turn_id)} follows {self._last_turn}")
        self._last_turn = max(number, self._last_turn)

    def _on_turn_end(self, payload: Json) -> None:
        self._check_in_turn(payload)
        self._note_open_parts()
        self._in_turn = False
        self._turn_id = self._message = self._tool = None

    def _check_in_turn(self, payload: Json) -> None:
        if not self._in_turn:
            self._note("turn.not_open", f"turn_id {_shown(payload.get('turn_id'))}")
        else:
            self._check_turn_id(payload)

    def _check_turn_id(self, payload: Json) -> None:
        turn_id = payload.get("turn_id")
        if turn_id is not None and turn_id != self._turn_id and not self._may_miss(self._turn_id):
            self._note("turn.id", f"{_shown(turn_id)} instead of {_shown(self._turn_id)}")

    def _note_unclosed(self) -> None:
        self._note_open_parts()
        if self._in_turn:
            self._note("turn.not_closed", f"turn {_shown(self._turn_id)}")

    def _note_open_parts(self) -> None:
        if self._tool is not None:
            self._note("tool.not_closed", _shown(self._tool.id))
        if self._message is not None:
            self._note("message.not_closed", _shown(self._message.id))

    # -- messages

    def _on_message_start(self, payload: Json) -> None:
        self._check_in_turn(payload)
        if self._message is not None:
            self._note("message.already_open", _shown(self._message.id))
        if self._tool is not None:
            self._note("tool.not_closed", _shown(self._tool.id))
        self._message = _Message(payload.get("message_id"), payload.get("role", "assistant"))

    def _on_message_update(self, payload: Json) -> None:
        message, delta = self._same_message(payload), payload.get("delta")
        if message is not None and isinstance(delta, str):
            message.add(delta)

    def _on_feature(self, payload: Json) -> None:
        self._same_message(payload)

    def _on_message_end(self, payload: Json) -> None:
        message, self._message = self._same_message(payload), None
        if message is None:
            return
        role = payload.get("role", message.role)
        if role != message.role:
            self._note("message.id", f"role {_shown(role)} instead of {_shown(message.role)}")
        if self._tool is not None and self._lenient:
            self._note("tool.not_closed", _shown(self._tool.id))
        if not self._lenient and "text" not in payload and "text_bytes" not in payload:
            self._note("event.payload", "neither text nor text_bytes")
        difference = message.differs_from(payload)
        if difference is not None:
            self._note("message.text", difference)

    def _same_message(self, payload: Json) -> _Message | None:
        """Return the open message, having checked that the event is about it."""
        self._check_in_turn(payload)
        message, message_id = self._message, payload.get("message_id")
        if message is None:
            self._note("message.not_open", _shown(message_id))
        elif message_id != message.id and not self._may_miss(message_id) and not self._may_miss(message.id):
            self._note("message.id", f"{_shown(message_id)} instead of {_shown(message.id)}")
        return message

    # -- tools

    def _on_tool_start(self, payload: Json) -> None:
        self._check_in_turn(payload)
        if self._tool is not None:
            self._note("tool.already_open", _shown(self._tool.id))
        if self._message is not None and not self._lenient:
            self._note("message.not_closed", _shown(self._message.id))
        self._tool = _Tool(payload.get("tool_call_id"), payload.get("tool_name"))

    def _on_tool_update(self, payload: Json) -> None:
        self._check_in_turn(payload)
        tool = self._tool
        if tool is None:
            self._note("tool.not_open", _shown(payload.get("tool_call_id")))
            return
        for got, expected in ((payload.get("tool_call_id"), tool.id), (payload.get("tool_name"), tool.name)):
            if got != expected and not self._may_miss(got) and not self._may_miss(expected):
                self._note("tool.id", f"{_shown(got)} instead of {_shown(expected)}")

    def _on_tool_end(self, payload: Json) -> None:
        self._on_tool_update(payload)
        self._tool = None


def _decode(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None


def _last_number(event_id: object) -> int:
    """Return the number at the end of a feature event's id, 0 if there is none."""
    number = event_id.rpartition(".")[2] if isinstance(event_id, str) else ""
    return int(number) if _DECIMAL.fullmatch(number) else 0


def _shown(value: object) -> str:
    return bound_text(str(value), 128)
