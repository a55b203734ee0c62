"""Puts the tool calls of a streamed chat completion together from their fragments.  Pure.

OpenAI numbers the calls of an answer: a call's first fragment has its index, id and name, the others the index alone.
Compatible servers number them wrongly or not at all, and repeat or leave out ids.  The rules, in this order:

1. A fragment with nothing in it is passed over.
2. A fragment with a name begins a call, unless it repeats the beginning of one: the same id and name; or no id, but the
   name of the call with its index, whose arguments are not complete.  A call without a name yet takes the name.
3. A fragment with the id of one call belongs to that call, whatever its index.  If several calls have the id, the one
   with its index is meant.
4. A fragment with the index of a call belongs to the last call that had this index, also if its id is new.
5. A fragment with an index that no call has belongs to the last call if that has no arguments yet; with an id, it
   begins a call whose name is still to come.
6. A fragment without an index and a known id belongs to the last call.
7. Any other fragment fails the answer, and so does a call that is left without a name.

Arguments that are exactly ``{}`` are held back: some servers send them before the real ones, which replace them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.ports.model import ModelItem, ToolCallDelta
from nous.providers.decoding import encode_text, read_id, read_index
from nous.providers.faults import malformed
from nous.providers.text import TextChannel, clean

PLACEHOLDER: Final = "{}"


class Function(Struct, gc=False):
    """What a fragment says of its call."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class Fragment(Struct, gc=False):
    """A piece of a tool call as it stands in a delta."""

    index: Any = None
    id: Any = None
    function: Function | list[Any] | None = None


class ToolCalls:
    """Tells the tool calls of one answer apart and gives each the next index.

    ``names`` gives the tools' own names for those that they have on the wire.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}

    def feed(self, fragment: Fragment, items: list[ModelItem]) -> bool:
        """Append what a fragment adds to its call; return whether it adds anything.

        Raises:
            NousError: ``provider_error``: the fragment fits no call.
        """
        function = fragment.function if isinstance(fragment.function, Function) else Function()
        index, call_id = read_index(fragment.index, "tool_calls.index"), read_id(fragment.id)
        name, arguments = function.name or "", _arguments(function)
        if not (call_id or name or arguments):
            return False
        call = self._find(index, call_id, name, arguments)
        if index is not None:
            self._by_index[index] = call
        name = "" if call.name else name
        if name or not call.is_opened:
            call.name = name
            opened_id = None if call.is_opened else call.id or None
            items.append(ToolCallDelta(call.index, opened_id, self._names.get(name, clean(name)) or None))
            call.is_opened = True
        items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.add(arguments))
        return True

    def flush(self, items: list[ModelItem]) -> None:
        """Append what was held back.

        Raises:
            NousError: ``provider_error``: a call has no name.
        """
        for call in self._calls:
            if not call.name:
                raise malformed("a tool call has no name")
            items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.flush())

    def _find(self, index: int | None, call_id: str, name: str, arguments: str) -> _OpenCall:
        at_index = None if index is None else self._by_index.get(index)
        known = self._with_id(call_id, at_index) if call_id else None
        if name:
            again = known if call_id else at_index if index is not None else self._last
            if again is not None and again.is_begun_by(index, call_id, name, arguments):
                return again
            waiting = again or at_index
            takes_name = waiting is not None and not waiting.name and call_id in ("", waiting.id)
            return waiting if waiting is not None and takes_name else self._begin(index, call_id)
        if found := known or at_index:
            return found
        last = self._last
        if index is None and last is not None:
            return last
        if call_id:
            return self._begin(index, call_id)
        if last is not None and not last.has_arguments:
            return last
        raise malformed("a fragment of a tool call that belongs to none")

    @property
    def _last(self) -> _OpenCall | None:
        return self._calls[-1] if self._calls else None

    def _with_id(self, call_id: str, at_index: _OpenCall | None) -> _OpenCall | None:
        if at_index is not None and at_index.id == call_id:
            return at_index
        return next((call for call in reversed(self._calls) if call.id == call_id), None)

    def _begin(self, index: int | None, call_id: str) -> _OpenCall:
        call = _OpenCall(len(self._calls), index, call_id)
        self._calls.append(call)
        return call


class _OpenCall:
    __slots__ = ("_channel", "_is_held", "_pieces", "id", "index", "is_opened", "name", "wire_index")

    def __init__(self, index: int, wire_index: int | None, call_id: str) -> None:
        self.index = index
        self.wire_index = wire_index
        self.id = call_id
        self.name = ""
        self.is_opened = False
        self._is_held = False
        self._pieces: list[str] = []
        self._channel = TextChannel()

    @property
    def has_arguments(self) -> bool:
        return bool(self._pieces)

    def add(self, arguments: str) -> list[str]:
        """Take a piece of the arguments; return what can be handed on."""
        if not arguments:
            return []
        if self._is_held:
            if not arguments.strip():
                return []
            self._is_held = False
            self._pieces.clear()
        elif arguments.strip() == PLACEHOLDER and not self._pieces:
            self._is_held = True
            self._pieces.append(PLACEHOLDER)
            return []
        self._pieces.append(arguments)
        return self._channel.feed(arguments)

    def flush(self) -> list[str]:
        held = self._channel.feed(PLACEHOLDER) if self._is_held else []
        self._is_held = False
        return held + self._channel.flush()

    def is_begun_by(self, index: int | None, call_id: str, name: str, arguments: str) -> bool:
        """Whether a fragment with a name only repeats the beginning of this call."""
        if name != self.name or (index is not None and index != self.wire_index):
            return False
        return bool(call_id) or not arguments or not self._is_complete()

    def _is_complete(self) -> bool:
        try:
            msgspec.json.decode("".join(self._pieces))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False
        return True


def _arguments(function: Function) -> str:
    """Return the fragment's text; a server that sends an object sends it whole."""
    found = function.arguments
    return encode_text(found) if isinstance(found, dict) else found or ""
