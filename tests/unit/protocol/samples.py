"""Instances of every struct of the protocol, made from the structs themselves: none can be forgotten."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, inspect


def sample(cls: type[Struct], *, full: bool) -> Any:
    """Return an instance with every field set (``full``), or only with those that have no default."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return _struct(info, full)


def _struct(info: inspect.StructType, full: bool) -> Any:
    return info.cls(**{field.name: _value(field.type, full) for field in info.fields if full or field.required})


def _value(kind: inspect.Type, full: bool) -> Any:
    match kind:
        case inspect.Metadata(type=inner):
            return _value(inner, full)
        case inspect.StructType():
            return _struct(kind, full)
        case inspect.UnionType(types=types):
            return _value(next(t for t in types if not isinstance(t, inspect.NoneType)), full)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            values = [_value(t, full) for t in (item.types if isinstance(item, inspect.UnionType) else [item])]
            return values if isinstance(kind, inspect.ListType) else tuple(values)
        case inspect.LiteralType(values=values_allowed):
            return values_allowed[0]
        case _:
            return _PLAIN[type(kind)]


_PLAIN: dict[type[inspect.Type], Any] = {
    inspect.StrType: "some text",
    inspect.IntType: 7,
    inspect.FloatType: 0.25,
    inspect.BoolType: True,
    inspect.DictType: {"key": ["value"]},
    inspect.AnyType: {"any": [1, None, "x"]},
    inspect.RawType: Raw(b'{"raw":true}'),
}


def as_json(value: Any) -> Any:
    """Return what a reader of ``value``'s JSON gets."""
    return msgspec.json.decode(msgspec.json.encode(value))
