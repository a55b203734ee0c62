"""Whatever type a text stands in: a secret in any field of any input, effect, event or message does not survive."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast, get_args

import msgspec
import pytest
from msgspec import Struct, inspect

from nous.engine.effects import Effect
from nous.engine.inputs import Input, ModelProduced, ToolProgressed
from nous.errors import NousError
from nous.ports.model import ModelItem
from nous.protocol import events
from nous.protocol.entries import Compaction, ModelChange
from nous.protocol.messages import Block, Message
from nous.replay.recording import Header
from nous.replay.redact import Redactor
from nous.replay.redact_struct import BUILTIN_TOOLS, StructRedactor
from nous.replay.rewrite import InputRedactor
from nous.tools.registry import builtin_tools
from tests.support.engine import make_spec

PATTERN_SECRET = "sk-proj-Ab3dE5fG7hI9jK1lM3nO5pQ7"
HELD_SECRET = 'correct horse "battery" staple'
EVENTS = tuple(
    each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, Struct) and each.__module__ == events.__name__
)
TYPES: list[type[Struct]] = [
    *get_args(Input),
    *get_args(ModelItem),
    *get_args(Effect),
    *EVENTS,
    *get_args(Block),
    Message,
    Compaction,
    ModelChange,
    Header,
]


def sample(kind: inspect.Type) -> Any:
    """Return a value of a type with every optional part in it; each text is ``"?"``."""
    match kind:
        case inspect.Metadata():
            return sample(kind.type)
        case inspect.StructType():
            return {field.encode_name: sample(field.type) for field in kind.fields} | (
                {kind.tag_field: kind.tag} if kind.tag_field else {}
            )
        case inspect.UnionType():
            rich = [each for each in kind.types if not isinstance(each, inspect.NoneType | inspect.CustomType)]
            return sample(max(rich, key=lambda each: isinstance(each, inspect.StructType | inspect.DictType)))
        case inspect.VarTupleType() | inspect.ListType():
            return [sample(kind.item_type)]
        case inspect.DictType():
            return {sample(kind.key_type): sample(kind.value_type)}
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.StrType():
            return "?"
        case inspect.AnyType():
            return {"?": ["?", {"deep": "?"}]}
        case inspect.BoolType():
            return True
        case inspect.IntType() | inspect.FloatType():
            return 1
    raise AssertionError(kind)


def variants(kind: inspect.Type) -> Iterator[Any]:
    """Yield samples of a struct such that every member of a union stands in one of them."""
    plain = sample(kind)
    yield plain
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            inner = field.type.item_type if isinstance(field.type, inspect.VarTupleType | inspect.ListType) else None
            for each in inner.types if isinstance(inner, inspect.UnionType) else ():
                yield {**plain, field.encode_name: [sample(each)]}


def planted(value: Any, secret: str) -> Iterator[Any]:
    """Yield copies of plain data, each with the secret in the place of one of its texts, or around one of its keys."""

    def walk(at: Any, put: Any) -> Iterator[Any]:
        if at == "?":
            put(secret)
            yield copy.deepcopy(root[0])
            put("?")
        elif isinstance(at, dict):
            for key in list(at):
                yield from walk(at[key], lambda new, key=key: at.__setitem__(key, new))
                if key == "?":
                    kept = at.pop(key)
                    at[secret] = kept
                    yield copy.deepcopy(root[0])
                    del at[secret]
                    at[key] = kept
        elif isinstance(at, list):
            for index in range(len(at)):
                yield from walk(at[index], lambda new, index=index: at.__setitem__(index, new))

    root = [copy.deepcopy(value)]
    yield from walk(root[0], lambda new: root.__setitem__(0, new))


def instances(kind: type[Struct], secret: str) -> Iterator[Struct]:
    for plain in variants(inspect.type_info(kind)):
        for data in planted(plain, secret):
            yield msgspec.convert(data, kind)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from strings(list(pair))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize("secret", [PATTERN_SECRET, HELD_SECRET])
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_no_secret_survives_in_any_field(kind: type[Struct], secret: str) -> None:
    structs = StructRedactor(Redactor([HELD_SECRET]), "run-1")
    for item in instances(kind, secret):
        before = msgspec.json.encode(item)
        after = msgspec.json.encode(structs.struct(item))
        assert not [text for text in strings(msgspec.json.decode(after)) if secret in text], (item, after)
        assert len(after) == len(before), item


@pytest.mark.parametrize("secret", [PATTERN_SECRET, HELD_SECRET])
@pytest.mark.parametrize("kind", get_args(Input), ids=lambda kind: kind.__name__)
def test_no_secret_survives_in_an_input_of_a_run(kind: type[Struct], secret: str) -> None:
    redactor = InputRedactor(Redactor([HELD_SECRET]), make_spec())
    for item in instances(kind, secret):
        one = [cast(Input, item)]
        (after,) = redactor.redact(one.copy)
        assert type(after) is kind
        assert not [text for text in strings(msgspec.to_builtins(after)) if secret in text], item


def test_the_samples_hold_what_the_report_was_about() -> None:
    """Six copies survived: what hooks answered, and their warnings."""
    found = {path for item in instances(get_args(Input)[-2], PATTERN_SECRET) for path in paths(item, PATTERN_SECRET)}
    assert found >= {"outcome.block", "outcome.text", "outcome.arguments", "outcome.warnings.message"}
    kinds = {type(item).__name__ for item in instances(ModelProduced, PATTERN_SECRET)}
    assert kinds == {"ModelProduced"}
    assert [*instances(ToolProgressed, PATTERN_SECRET)]


def paths(item: Struct, secret: str) -> Iterator[str]:
    def walk(value: Any, path: list[str]) -> Iterator[str]:
        if isinstance(value, Struct):
            for name in value.__struct_fields__:
                yield from walk(getattr(value, name), [*path, name])
        elif isinstance(value, tuple):
            for each in value:
                yield from walk(each, path)
        elif any(secret in text for text in strings(value)):
            yield ".".join(path)

    return walk(item, [])


def test_a_type_that_is_not_known_is_refused() -> None:
    class New(Struct):
        text: str
        data: bytes

    with pytest.raises(NousError, match=r"New\.data: a bytes cannot be redacted") as caught:
        StructRedactor(Redactor()).struct(New("", b"x"))
    assert caught.value.code == "verification_failed"


def test_names_of_our_own_and_of_closed_lists_stay() -> None:
    structs = StructRedactor(Redactor(["provider", "result"]), "run-1")
    message = Message(
        id="run-1-m1",
        parent_id="ent-01m7xwn30000-b15hrmh7ftfg8v",
        role="user",
        text="",
        run_id="run-1",
        created_at="2026-01-01T00:00:00.000Z",
    )
    assert structs.struct(message) is message
    assert structs.text_id("run-1-m1-t0") == "run-1-m1-t0"
    assert structs.text_id(f"run-1-{PATTERN_SECRET}") != f"run-1-{PATTERN_SECRET}"


def test_the_built_in_tools_are_all_of_them() -> None:
    assert {tool.name for tool in builtin_tools()} == BUILTIN_TOOLS
