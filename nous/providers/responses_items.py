"""What the events of a streamed response have brought so far, and what a later event has beyond it.  Pure.

The vendor says everything several times: in deltas, in the ``done`` events of a text, a part and an item, and in
``response.completed``.  Compatible servers leave out any of these, and the indexes and ids.  Each thing is given once:
by the first event that has it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.providers.decoding import encode_text, read_id, read_index
from nous.providers.faults import malformed
from nous.providers.text import TextChannel

PARAGRAPH: Final = "\n\n"


class Item(Struct, gc=False):
    """An output item: a message, a tool call, reasoning."""

    type: str | None = None
    id: Any = None
    call_id: Any = None
    name: str | None = None
    arguments: Any = None
    summary: Any = None
    content: Any = None
    encrypted_content: str | None = None


class SaidText:
    """The text of an answer.  ``pieces`` takes its deltas; they stand for the texts that no event has closed yet."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._closed: list[str] = []
        self._repeated: dict[str, set[int]] = {}

    def close(self, whole: str, level: str) -> str:
        """Return what a whole text has beyond its deltas.

        ``level`` names the kind of event: each kind says a text at most once, so that two equal texts stay two.

        Raises:
            NousError: ``provider_error``: the text is another one than that of the deltas.
        """
        if not whole.strip() or self._is_repetition(whole, level):
            return ""
        said = "".join(self.pieces)
        if whole.startswith(said):
            rest, left = whole[len(said) :], ""
        elif (trimmed := whole.strip()) in said:
            rest, left = "", said.replace(trimmed, "", 1)
        elif _without_space(whole) == _without_space(said):
            rest, left = "", ""
        else:
            raise malformed("a text differs from its deltas")
        self.pieces[:] = [left] if left.strip() else []
        self._repeated.setdefault(level, set()).add(len(self._closed))
        self._closed.append(whole)
        return rest

    def _is_repetition(self, whole: str, level: str) -> bool:
        known = self._repeated.setdefault(level, set())
        for position, text in enumerate(self._closed):
            if position not in known and text.strip() == whole.strip():
                known.add(position)
                return True
        return False


class OpenCall:
    """A tool call of the answer."""

    __slots__ = ("call_id", "channel", "given", "index", "is_closed", "name", "pieces")

    def __init__(self, index: int, item: Item) -> None:
        self.index = index
        self.call_id = read_id(item.call_id)
        self.name = item.name or ""
        self.given = arguments_text(item.arguments)
        self.pieces: list[str] = []
        self.channel = TextChannel()
        self.is_closed = False

    def missing(self, whole: str) -> str:
        """Return what the whole arguments have beyond those that have come.

        Raises:
            NousError: ``provider_error``: they are others than those of the deltas.
        """
        said = "".join(self.pieces)
        if not whole.strip():
            return ""
        if whole.startswith(said):
            return whole[len(said) :]
        if _same_json(whole, said):
            return ""
        raise malformed("the arguments of a tool call differ from their deltas")


class Calls:
    """Finds the tool call that an event is about.

    By the item's id or the call's, else by ``output_index``, else it is the last one, if that is not closed.
    """

    def __init__(self) -> None:
        self.all: list[OpenCall] = []
        self._by_id: dict[str, OpenCall] = {}
        self._by_output: dict[int, OpenCall] = {}

    def find(self, item_id: object, call_id: object, output_index: object) -> OpenCall | None:
        """Return the call that an event means by its ids or its index, if there is one."""
        output = read_index(output_index, "output_index")
        ids = [known for known in (read_id(item_id), read_id(call_id)) if known]
        for one in ids:
            if found := self._by_id.get(one):
                return found
        if output is not None:
            found = self._by_output.get(output)
            is_other = found is not None and call_id and found.call_id and read_id(call_id) != found.call_id
            return None if is_other else found
        last = self.all[-1] if self.all and not ids else None
        return last if last is not None and not last.is_closed else None

    def find_item(self, item: Item, output_index: object) -> OpenCall | None:
        """Find the call of an item that is whole; one without its ids has the same name and arguments."""
        if found := self.find(item.id, item.call_id, output_index):
            return None if found.name and item.name and found.name != item.name else found
        if read_id(item.call_id):
            return None
        whole = arguments_text(item.arguments)
        return next((c for c in self.all if c.name == item.name and _same_json(whole, "".join(c.pieces))), None)

    def open(self, item: Item, output_index: object) -> OpenCall:
        """Add a call that an event opens."""
        call = OpenCall(len(self.all), item)
        self.all.append(call)
        for known in (read_id(item.id), read_id(item.call_id)):
            if known:
                self._by_id[known] = call
        if (output := read_index(output_index, "output_index")) is not None:
            self._by_output[output] = call
        return call


def arguments_text(found: object) -> str:
    """Return arguments as text; a server that sends an object sends it whole."""
    if found is None or isinstance(found, str):
        return found or ""
    if isinstance(found, dict):
        return encode_text(found)
    raise malformed("the arguments of a tool call are not text")


def texts_of(item: Item) -> list[tuple[str, bool]]:
    """Return the texts of a message, each with whether it is a refusal."""
    texts: list[tuple[str, bool]] = []
    if isinstance(item.content, str):
        return [(item.content, False)]
    for part in item.content if isinstance(item.content, list) else ():
        if isinstance(part, dict) and (found := text_of(part)) is not None:
            texts.append(found)
    return texts


def text_of(part: dict[str, Any]) -> tuple[str, bool] | None:
    """Return the text of a part of a message, with whether it is a refusal; None for any other part."""
    if part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
        return part["refusal"], True
    if part.get("type") in ("output_text", "text") and isinstance(part.get("text"), str):
        return part["text"], False
    return None


def thoughts_of(item: Item) -> str:
    """Return the text of an item of reasoning: its summary, else its content."""
    for found in (item.summary, item.content):
        parts = found if isinstance(found, list) else []
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        if any(texts):
            return PARAGRAPH.join(text for text in texts if isinstance(text, str))
    return ""


def _without_space(text: str) -> str:
    return "".join(text.split())


def _same_json(one: str, other: str) -> bool:
    try:
        return bool(msgspec.json.decode(one or "{}") == msgspec.json.decode(other or "{}"))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
