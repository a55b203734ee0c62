"""How inputs and effects are written into a trace, and read back.  Pure bytes; the file is the store's.

Source: docs/runtime-trace.md.
"""

import hashlib
from typing import Any, Final

import msgspec

from nous.engine.effects import (
    AppendCompaction,
    AppendEntry,
    AskPolicy,
    CallHook,
    CallModel,
    CheckOutput,
    Effect,
    PlanCompaction,
    RunTool,
    TellHook,
)
from nous.engine.inputs import Input, Stamp

_encode: Final = msgspec.json.Encoder().encode

_EFFECT_KINDS: Final = {
    "CallModel": "call_model",
    "StopModel": "stop_model",
    "AskPolicy": "ask_policy",
    "RunTool": "run_tool",
    "StopTool": "stop_tool",
    "AppendEntry": "append_entry",
    "PlanCompaction": "plan_compaction",
    "AppendCompaction": "append_compaction",
    "CheckOutput": "check_output",
    "CallHook": "call_hook",
    "StopHook": "stop_hook",
    "TellHook": "tell_hook",
    "StartTimer": "start_timer",
}


class InputRecord(msgspec.Struct, frozen=True, tag="trace.input"):
    """A ``trace.input`` line."""

    n: int
    after_seq: int
    ts: str
    mono_ns: int
    kind: str
    data: msgspec.Raw


_records: Final = msgspec.json.Decoder(InputRecord)
_inputs: Final = msgspec.json.Decoder(Input)


def input_line(n: int, after_seq: int, stamp: Stamp, item: Input) -> bytes:
    """Return the line of input ``n``, which came after event ``after_seq``."""
    encoded = _encode(item)
    kind = type(item).__struct_config__.tag
    # ``encoded`` begins with its tag; in a trace the tag stands outside as ``kind``.
    fields = encoded[len(b'{"type":""') + len(str(kind)) :].removeprefix(b",")
    return b'{"type":"trace.input","n":%d,"after_seq":%d,"ts":"%b","mono_ns":%d,"kind":"%b","data":{%b\n' % (
        n,
        after_seq,
        stamp.ts.encode(),
        stamp.mono_ns,
        str(kind).encode(),
        fields + b"}",
    )


def read_input(line: bytes) -> tuple[InputRecord, Stamp, Input]:
    """Read an input line back.  Raises ``msgspec.DecodeError`` (or its subclass) for anything else."""
    try:
        record = _records.decode(line)
        body = bytes(record.data)[1:]
        glue = b"" if body.strip() == b"}" else b","
        item = _inputs.decode(b'{"type":%b%b%b' % (_encode(record.kind), glue, body))
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return record, Stamp(record.ts, record.mono_ns), item


def effect_line(n: int, effect: Effect) -> bytes:
    """Return the line of effect ``n``: what it is and a digest of all that it asks for."""
    kind = _EFFECT_KINDS[type(effect).__name__]
    line: dict[str, Any] = {"type": "trace.effect", "n": n, "kind": kind, "digest": effect_digest(effect)}
    if isinstance(effect, CallModel):
        line["data"] = {"call": effect.call, "purpose": effect.purpose}
    elif isinstance(effect, AskPolicy | RunTool):
        line["data"] = {"tool_call_id": effect.tool_call_id, "tool_name": effect.tool_name}
    elif isinstance(effect, AppendEntry):
        line["data"] = {"entry_id": effect.message.id}
    elif isinstance(effect, PlanCompaction | CheckOutput):
        line["data"] = {"entry_id": effect.entry_id}
    elif isinstance(effect, AppendCompaction):
        line["data"] = {"entry_id": effect.entry.id}
    elif isinstance(effect, CallHook):
        line["data"] = {"operation": effect.operation, "hook": effect.hook}
    elif isinstance(effect, TellHook):
        line["data"] = {"hook": effect.hook}
    return _encode(line) + b"\n"


def effect_digest(effect: Effect) -> str:
    """Return a digest of what an effect asks for; a model call's covers its whole context by a chain."""
    if isinstance(effect, CallModel):
        return effect.digest
    if isinstance(effect, AppendEntry):
        return hashlib.sha256(_encode(effect.message)).hexdigest()
    if isinstance(effect, (RunTool, AskPolicy)):
        return hashlib.sha256(_encode([effect.tool_call_id, effect.tool_name, effect.arguments])).hexdigest()
    return hashlib.sha256(_encode(effect)).hexdigest()
