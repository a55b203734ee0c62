"""Scripts for the mock provider: a strict decoder from YAML or NDJSON to typed steps.

A script is a list of model calls; in NDJSON (``.ndjson``, ``.jsonl``) each line is one.  YAML is read as in a
configuration file (see :mod:`nous.config.yaml_parser`), at most 1 MiB of it; NDJSON may have 64 MiB.  A call is a list
of steps, or a mapping with ``steps`` and ``match``.  A step is a mapping with exactly one of these keys:

    text: "Hello"                  or a list of deltas: ["Hel", "lo"]
    text_repeat: {text: "x", count: 200000, chunk: 64}     made while it is read; ``chunk`` deltas at a time
    thinking: "hm"                 or {text: ["h", "m"], signature: "s"}
    tool_call: {name: read, arguments: {path: a.txt}, id: c1, fragments: 3}     arguments may be raw text
    usage: {input_tokens: 1, output_tokens: 2, cached_tokens: 0, reasoning_tokens: 0}
    delay_ms: 50
    finish: stop                   stop, length, tool_use, refusal; left out: tool_use if there was a call, else stop
    finish: {other: pause_turn}    a reason that nous does not know
    error: {status: 429, retry_after_ms: 10}               or {code: provider_error}; with either: cause, and
                                   image_refused: true (the provider refuses an image)
    cut: true                      the stream breaks off
    hang: true                     nothing more comes

Only ``usage`` may stand behind ``finish``, and nothing behind ``error``, ``cut`` and ``hang``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from nous.config.yaml_file import parse_yaml
from nous.config.yaml_nodes import SourceFile
from nous.errors import NousError
from nous.ports.model import Finish, Purpose
from nous.protocol.messages import Usage
from nous.system.regular_file import read_regular_file

MAX_YAML_BYTES: Final = 1024 * 1024
"""Reading this much YAML takes some seconds."""

MAX_NDJSON_BYTES: Final = 64 * 1024 * 1024

_NDJSON_SUFFIXES: Final = (".ndjson", ".jsonl")
_PROVIDER_CODES: Final = frozenset(
    {"provider_unavailable", "provider_error", "provider_auth", "context_overflow", "content_refused"}
)
_ENDS: Final = ("finish", "error", "cut", "hang")

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping in which an unknown key is an error."""


class TextRepeat(Strict, frozen=True):
    """A text, many times."""

    text: str
    count: Positive
    chunk: Positive = 64


class Thinking(Strict, frozen=True):
    """Thinking, with the vendor's signature."""

    text: str | list[str]
    signature: str | None = None


class ScriptedToolCall(Strict, frozen=True):
    """A tool call of the model."""

    name: str
    arguments: str | dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    fragments: Positive = 1


class ScriptedUsage(Strict, frozen=True):
    """The tokens that a call reports."""

    input_tokens: Natural = 0
    output_tokens: Natural = 0
    cached_tokens: Natural = 0
    reasoning_tokens: Natural = 0

    def as_usage(self) -> Usage:
        """Return them as the engine knows them."""
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )


class ScriptedOther(Strict, frozen=True):
    """A finish for a reason that nous does not know; ``other`` is the vendor's word for it."""

    other: Annotated[str, Meta(pattern=r"^[ -~]{1,64}$")]


class ScriptedError(Strict, frozen=True):
    """A failure, by its code or by the HTTP status it comes with."""

    code: str | None = None
    status: Annotated[int, Meta(ge=300, le=599)] | None = None
    cause: str | None = None
    retry_after_ms: Natural | None = None
    image_refused: bool = False

    def __post_init__(self) -> None:
        if (self.code is None) == (self.status is None):
            raise ValueError("an error has either a code or a status")
        if self.code is not None and self.code not in _PROVIDER_CODES:
            raise ValueError(f"code is one of {', '.join(sorted(_PROVIDER_CODES))}")


class Step(Strict, frozen=True):
    """One thing the model does; exactly one field is set."""

    text: str | list[str] | None = None
    text_repeat: TextRepeat | None = None
    thinking: str | Thinking | None = None
    tool_call: ScriptedToolCall | None = None
    usage: ScriptedUsage | None = None
    delay_ms: Natural | None = None
    finish: Literal["stop", "length", "tool_use", "refusal"] | ScriptedOther | None = None
    error: ScriptedError | None = None
    cut: bool = False
    hang: bool = False

    def __post_init__(self) -> None:
        if sum(map(self._holds, self.__struct_fields__)) != 1:
            raise ValueError(f"a step holds exactly one of {', '.join(self.__struct_fields__)}")

    @property
    def ends(self) -> bool:
        """Whether the call ends with this step."""
        return any(map(self._holds, _ENDS))

    @property
    def finish_item(self) -> Finish | None:
        """Return how the step finishes the answer, if it does."""
        finish = self.finish
        return Finish("other", finish.other) if isinstance(finish, ScriptedOther) else finish and Finish(finish)

    def _holds(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False


class Match(Strict, frozen=True):
    """Which requests a call answers: ``text`` must be part of the user's last text."""

    text: str | None = None
    session_id: str | None = None
    purpose: Purpose | None = None


class ScriptedCall(Strict, frozen=True):
    """One model call: its steps, and which request it answers."""

    steps: list[Step]
    match: Match = field(default_factory=Match)

    def __post_init__(self) -> None:
        ended: Step | None = None
        for step in self.steps:
            if ended is not None and (ended.finish is None or step.usage is None):
                raise ValueError("nothing can follow the end of a call, only usage a finish")
            ended = ended or (step if step.ends else None)


_CallForm = list[Step] | ScriptedCall


def load_script(path: Path) -> list[ScriptedCall]:
    """Read a script.

    Raises:
        NousError: ``invalid_config`` naming the file, the place in it and what is wrong there.
    """
    is_ndjson = path.suffix in _NDJSON_SUFFIXES
    try:
        data = read_regular_file(path, MAX_NDJSON_BYTES if is_ndjson else MAX_YAML_BYTES)
    except OSError as error:
        hint = "A script is a regular file; write what a pipe would give to one."
        raise NousError("invalid_config", f"script {path}: {error.strerror}", hint=hint) from None
    if is_ndjson:
        return [_convert_call(value, f"script {path}: line {number}") for number, value in _json_lines(path, data)]
    # A model may say anything, so a script may too: NUL characters and halves of surrogate pairs.
    value = parse_yaml(SourceFile(f"script {path}", data), any_text=True).plain()
    if not isinstance(value, list):
        raise NousError("invalid_config", f"script {path}: not a list of model calls")
    return [_convert_call(item, f"script {path}: call {number}") for number, item in enumerate(value, 1)]


def _convert_call(value: object, where: str) -> ScriptedCall:
    try:
        found: list[Step] | ScriptedCall = msgspec.convert(value, _CallForm)
        return found if isinstance(found, ScriptedCall) else ScriptedCall(found)
    except (msgspec.ValidationError, ValueError) as error:
        raise NousError("invalid_config", f"{where}: {error}") from None


def _json_lines(path: Path, data: bytes) -> Iterator[tuple[int, object]]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NousError("invalid_config", f"script {path}: not UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise NousError("invalid_config", f"script {path}: line {number}: {error}") from None


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands there twice")
    return out
