"""The part of YAML that reads the same to everybody.

Mappings with text keys, lists, and scalars that mean what they mean in JSON (``null``, ``true``, ``false``, decimal
numbers); every other plain word is text.  So ``off`` is the word off, not false, and ``012`` is no number.

Refused, always with file and line: duplicate keys, keys that are not text, anchors, aliases and merge keys (nothing is
ever expanded, so no file grows in memory), tags, several documents, NaN and infinities, numbers of more than 18
digits, nesting past 32 levels, NUL characters and halves of surrogate pairs (unless the caller permits them), and the
three characters (U+0085, U+2028, U+2029) that end a line for some readers of YAML and for others do not: they can be
written as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml
from yaml.events import Event

from nous.config.yaml_nodes import Node, Scalar, SourceFile, refuse, show_key

MAX_DEPTH: Final = 32

_WORDS: Final[dict[str, Scalar]] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE | re.ASCII)
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
_HALF_BREAK: Final = re.compile("[\x85\u2028\u2029]")
_MAX_DIGITS: Final = 18


class YamlParser:
    """Builds nodes from PyYAML's events.

    Events, not PyYAML's own trees: they come one at a time, so that depth and aliases are refused before anything
    is built, and its reading of scalars (where ``off`` is false and ``1:30`` is 90) is not involved.
    """

    def __init__(self, source: SourceFile, *, any_text: bool = False) -> None:
        self._any_text = any_text
        self._file = source.name
        self._text = self._decode(source.data)
        half_break = _HALF_BREAK.search(self._text)
        if half_break:
            what = f"the character U+{ord(half_break[0]):04X}; write it as an escape in double quotes"
            refuse(self._file, self._line_at(half_break.start()), "", what)
        self._events = self._read_events()

    def parse(self) -> Node:
        """Return the root; an empty document is null."""
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Node(None, 1)
        root = self._build(next(self._events), "", 1)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            refuse(self._file, _line(after), "", "a second document")
        return root

    def _decode(self, data: bytes) -> str:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            refuse(self._file, data.count(b"\n", 0, error.start) + 1, "", "not UTF-8")

    def _read_events(self) -> Iterator[Event]:
        line = 1
        try:
            loader = yaml.SafeLoader(self._text)
            while loader.check_event():
                line = loader.line + 1
                yield loader.get_event()  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else line
            refuse(self._file, line, "", f"not YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            refuse(self._file, self._line_at(error.position), "", "a character that YAML does not allow")
        except (ValueError, OverflowError):  # PyYAML's own, for "\\U99999999" and %YAML with absurd numbers
            refuse(self._file, line, "", "not YAML: a number out of range")

    def _line_at(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1

    def _build(self, event: Event, path: str, depth: int) -> Node:
        self._refuse_indirection(event, path)
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._scalar(event, path), line)
        if depth > MAX_DEPTH:
            refuse(self._file, line, path, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(self._build_list(path, depth), line)
        return Node(self._build_mapping(path, depth), line)

    def _build_list(self, path: str, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._build(event, f"{path}[{len(items)}]", depth + 1))
        return items

    def _build_mapping(self, path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, line = self._key(event, path), _line(event)
            below = f"{path}.{show_key(key)}" if path else show_key(key)
            if key in entries:
                refuse(self._file, line, below, f"duplicate key (first on line {entries[key].line})")
            value = self._build(next(self._events), below, depth + 1)
            entries[key] = value._replace(line=line)
        return entries

    def _key(self, event: Event, path: str) -> str:
        self._refuse_indirection(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            refuse(self._file, _line(event), path, "keys must be text")
        if event.value == "<<" and event.style is None:
            refuse(self._file, _line(event), path, "merge keys are not allowed")
        return self._encodable(event, path)

    def _refuse_indirection(self, event: Event, path: str) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            refuse(self._file, _line(event), path, "anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            refuse(self._file, _line(event), path, "tags are not allowed")

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> Scalar:
        text = self._encodable(event, path)
        if event.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _NOT_FINITE.fullmatch(text):
            refuse(self._file, _line(event), path, "not a finite number")
        return self._number(event, path) if _NUMBER.fullmatch(text) else text

    def _number(self, event: yaml.ScalarEvent, path: str) -> int | float:
        text: str = event.value
        if len(text) > _MAX_DIGITS:
            refuse(self._file, _line(event), path, f"a number of more than {_MAX_DIGITS} digits")
        number = int(text) if _INTEGER.fullmatch(text) else float(text)
        if number in (float("inf"), float("-inf")):
            refuse(self._file, _line(event), path, "not a finite number")
        return number

    def _encodable(self, event: yaml.ScalarEvent, path: str) -> str:
        text: str = event.value
        if not self._any_text and _NO_TEXT.search(text):
            refuse(self._file, _line(event), path, "text with a NUL character or half a surrogate pair")
        return text


def _line(event: Event) -> int:
    mark = event.start_mark
    return 1 if mark is None else mark.line + 1
