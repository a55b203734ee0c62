"""What two runs did differently: aligned by turn, message and tool call, not by line.

Ids, times and durations do not count, nor how a text came in pieces.  Turns and their parts are paired by what they
say; those that say something else in the same place are changed, the others added or removed.  What one of the two
files does not tell (an event list may lack much) is not compared.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from nous.replay.show import MessagePart, Notice, ShownTurn, Text, Timeline, ToolPart

Kind = Literal["added", "removed", "changed"]
Part = MessagePart | ToolPart | Notice
Fields = Mapping[str, Any]

CONTEXT_PARTS: Final = 3
CONTEXT_CHARACTERS: Final = 40
LABEL_CHARACTERS: Final = 60

_Item = TypeVar("_Item")
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class Difference(Struct, frozen=True, kw_only=True):
    """One difference.  ``where`` names its place: ``turn 1, tool 2 (read)``, counted in the run that has it.

    For a changed field, ``left`` and ``right`` are what stands around the first differing character, which is the
    ``at``-th (from 0) of the text, or of the value as JSON.  For a part that only one run has, ``left`` or ``right``
    is what it says, and ``field`` is "".
    """

    kind: Kind
    where: str
    field: str = ""
    left: str | None = None
    right: str | None = None
    at: int | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """What two runs come to, beside each other.  ``before`` are the last things both did before they first differ."""

    changes: tuple[Difference, ...]
    before: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether there is no difference."""
        return not self.changes

    def count(self, kind: Kind) -> int:
        """Return how many differences are of a kind."""
        return sum(change.kind == kind for change in self.changes)


def compare_runs(left: Timeline, right: Timeline) -> Comparison:
    """Compare two runs.  The changes come in the order of the runs."""
    return _Comparer(left, right).compare()


def align(
    left: Sequence[_Item], right: Sequence[_Item], *keys: Callable[[_Item], Hashable]
) -> Iterator[tuple[_Item | None, _Item | None]]:
    """Pair the items of two sequences in order: those with the same first key, then what is left between them by the
    next one.  An item without a partner is paired with None."""
    key, further = keys[0], keys[1:]
    matcher = SequenceMatcher(None, [key(item) for item in left], [key(item) for item in right], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(left[i1:i2], right[j1:j2], strict=True)
        elif tag == "replace" and further:
            yield from align(left[i1:i2], right[j1:j2], *further)
        else:
            yield from ((item, None) for item in left[i1:i2])
            yield from ((None, item) for item in right[j1:j2])


class _Comparer:
    def __init__(self, left: Timeline, right: Timeline) -> None:
        self._left = left
        self._right = right
        # Only traces hold what a model thought.
        self._compares_thinking = left.header is not None and right.header is not None
        self._changes: list[Difference] = []
        self._before: deque[str] = deque(maxlen=CONTEXT_PARTS)

    def compare(self) -> Comparison:
        left, right = self._left, self._right
        self._compare_fields("run", _start_of(left), _start_of(right))
        for one, other in align(left.parts, right.parts, _content, _kind):
            self._compare_parts("", one, other)
        self._compare_fields("run", _end_of(left), _end_of(right))
        return Comparison(changes=tuple(self._changes), before=tuple(self._before))

    def _compare_turns(self, where: str, left: ShownTurn, right: ShownTurn) -> None:
        places = {**_places(where, left), **_places(where, right)}
        for one, other in align(left.parts, right.parts, _content, _kind):
            self._compare_parts(places[id(other if one is None else one)], one, other)

    def _compare_parts(self, where: str, left: Part | ShownTurn | None, right: Part | ShownTurn | None) -> None:
        if left is None or right is None:
            self._add_one_sided(where, left, right)
        elif isinstance(left, ShownTurn) and isinstance(right, ShownTurn):
            self._compare_fields(_place(left), {"turn_kind": left.kind or None}, {"turn_kind": right.kind or None})
            self._compare_turns(_place(left), left, right)
        else:
            where = where or _place(left)
            self._compare_fields(where, self._fields_of(left), self._fields_of(right))
            if not self._changes:
                self._before.append(f"{where}: {_label(left)}")

    def _add_one_sided(self, where: str, left: Part | ShownTurn | None, right: Part | ShownTurn | None) -> None:
        if left is not None:
            self._changes.append(Difference(kind="removed", where=where or _place(left), left=_label(left)))
        elif right is not None:
            self._changes.append(Difference(kind="added", where=where or _place(right), right=_label(right)))

    def _compare_fields(self, where: str, left: Fields, right: Fields) -> None:
        for name, value in left.items():
            other = right[name]
            if value is not None and other is not None and value != other:
                self._changes.append(_changed(where, name, value, other))

    def _fields_of(self, part: Part | ShownTurn) -> Fields:
        names: tuple[str, ...] = ()
        match part:
            case MessagePart():
                thinking = part.thinking if self._compares_thinking else None
                stop_reason = part.stop_reason or None
                return {"thinking": thinking, "text": part.text, "stop_reason": stop_reason, "usage": part.usage}
            case ToolPart():
                names = ("arguments", "result", "is_error", "truncated")
            case Notice():
                names = ("code", "message", "cause")
        return {name: getattr(part, name) for name in names}


# -- what a part is, for pairing and for people


def _content(part: Part | ShownTurn) -> Hashable:
    """Return what a part says: the same in both runs, and it is the same part."""
    match part:
        case ShownTurn():
            return "turn", _asked(part).digest
        case MessagePart():
            return "message", part.role, part.text.digest
        case ToolPart():
            return "tool", part.name, _encode(part.arguments)
        case Notice():
            return part.kind, part.code, part.message


def _kind(part: Part | ShownTurn) -> Hashable:
    match part:
        case ShownTurn():
            return "turn"
        case MessagePart():
            return "message", part.role
        case ToolPart():
            return "tool", part.name
        case Notice():
            return part.kind


def _asked(turn: ShownTurn) -> Text:
    """Return what the user said at the beginning of a turn."""
    return next((p.text for p in turn.parts if isinstance(p, MessagePart) and p.role == "user"), Text())


def _places(turn: str, parts: ShownTurn) -> dict[int, str]:
    """Return the name of each part's place, by the identity of the part."""
    counts: Counter[str] = Counter()
    places: dict[int, str] = {}
    for part in parts.parts:
        word = _word(part)
        counts[word] += 1
        name = f" ({_name(part)})" if _name(part) else ""
        places[id(part)] = f"{turn}, {word} {counts[word]}{name}"
    return places


def _place(part: Part | ShownTurn) -> str:
    if isinstance(part, ShownTurn):
        return f"turn {part.turn_id}"
    return f"{_word(part)} {_name(part)}".rstrip()


def _word(part: Part) -> str:
    if isinstance(part, Notice):
        return part.kind
    return "message" if isinstance(part, MessagePart) else "tool"


def _name(part: Part) -> str:
    match part:
        case MessagePart():
            return part.role
        case ToolPart():
            return part.name
        case Notice():
            return part.code


def _label(part: Part | ShownTurn) -> str:
    """Return what a part says, in few words."""
    match part:
        case ShownTurn():
            return _cut(_asked(part).beginning)
        case MessagePart():
            return _cut(part.text.beginning)
        case ToolPart():
            return _cut("" if part.arguments is None else _as_text(part.arguments))
        case Notice():
            return _cut(part.message)


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_CHARACTERS else text[: LABEL_CHARACTERS - 1] + "\u2026"


def _start_of(run: Timeline) -> Fields:
    return {"provider": run.provider or None, "model": run.model or None}


def _end_of(run: Timeline) -> Fields:
    discarded = [{"kind": d.get("kind"), "text": d.get("text")} for d in run.discarded]
    return {"discarded": discarded, "status": run.status, "stop_reason": run.stop_reason or None}


# -- where two values differ


def _changed(where: str, name: str, left: object, right: object) -> Difference:
    one, other = _as_text(left), _as_text(right)
    at = _first_difference(one, other)
    if isinstance(left, Text) and isinstance(right, Text) and one == other:
        # They differ further on than is kept.
        one, other = f"{left.size_bytes} bytes", f"{right.size_bytes} bytes"
        return Difference(kind="changed", where=where, field=name, left=one, right=other, at=at)
    return Difference(kind="changed", where=where, field=name, left=_around(one, at), right=_around(other, at), at=at)


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (x, y) in pairs if x != y), min(len(one), len(other)))


def _as_text(value: object) -> str:
    if isinstance(value, Text):
        return value.beginning
    return value if isinstance(value, str) else _encode(value).decode()


def _around(text: str, at: int) -> str:
    start, end = max(0, at - CONTEXT_CHARACTERS), at + CONTEXT_CHARACTERS
    return ("\u2026" if start else "") + text[start:end] + ("\u2026" if end < len(text) else "")
