"""The kit for extensions in Python: a few decorated functions and one :func:`run`.

    from nous.extension import block, hook, run, tool

    @tool
    def count_words(text: str) -> str:
        "Count the words of a text."
        return str(len(text.split()))

    @hook("tool_call")
    def guard(call: dict) -> object:
        return block("no deletions") if "rm " in str(call["arguments"]) else None

    run("words", "1.0")

It needs the standard library only and starts in some milliseconds.  What it speaks is the host protocol
(docs/extensions.md).  Guarantees:

* calls run side by side, each in a thread of its own (``max_concurrency`` of the manifest bounds them);
* ``print`` cannot get in between: descriptor 1 becomes stderr, whose lines go to the daemon's log;
* whatever a function raises is an answer, with the traceback on stderr; nothing ends the process but the end of stdin.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "ToolError",
    "block",
    "cancel",
    "command",
    "context",
    "hook",
    "is_cancelled",
    "log",
    "progress",
    "run",
    "tool",
]

PROTOCOL: Final = "1"

Function = TypeVar("Function", bound=Callable[..., Any])
Level = Literal["debug", "info", "warning", "error"]


class ToolError(Exception):
    """Raise it in a tool or a command to answer with an error; its text is what the model, or the client, reads."""


class _Call:
    """A call under way: what the kit's functions mean by "this one"."""

    def __init__(self, line: dict[str, Any]) -> None:
        self.id: str = line["id"]
        self.kind: str = line["kind"]
        self.name: str = line["name"]
        self.input: Any = line.get("input")
        self.context: dict[str, Any] = line.get("context") or {}
        self.is_cancelled = threading.Event()


class _Extension:
    """What was declared, and the calls under way."""

    def __init__(self) -> None:
        self.tools: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
        self.commands: dict[str, tuple[Callable[..., Any], str]] = {}
        self.hooks: dict[str, Callable[..., Any]] = {}
        self.calls: dict[str, _Call] = {}
        self.lock = threading.Lock()
        self.wire = -1

    def send(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace") + b"\n"
        with self.lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self.wire, view) :]


_extension: Final = _Extension()
_current: Final = threading.local()


# -- what an extension declares


def tool(
    function: Function | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: dict[str, Any] | None = None,
) -> Any:
    """Declare a tool.  Its name, description and JSON Schema are the function's name, docstring and parameters,
    unless given.  It is called with the arguments by name and returns the text the model reads.
    """

    def declare(target: Function) -> Function:
        own = schema or schema_of(target)
        shown = description or inspect.getdoc(target) or ""
        _extension.tools[name or target.__name__] = (target, {"description": shown, "schema": own})
        return target

    return declare if function is None else declare(function)


def command(function: Function | None = None, *, name: str | None = None, description: str | None = None) -> Any:
    """Declare a command for ``extension_command``: it gets the payload, a dict, and returns a dict."""

    def declare(target: Function) -> Function:
        _extension.commands[name or target.__name__] = (target, description or inspect.getdoc(target) or "")
        return target

    return declare if function is None else declare(function)


def hook(name: str) -> Callable[[Function], Function]:
    """Declare a hook: the function gets its input, a dict, and returns what to change (``None``: nothing)."""

    def declare(target: Function) -> Function:
        _extension.hooks[name] = target
        return target

    return declare


def block(reason: str) -> dict[str, str]:
    """The answer of a ``tool_call`` hook that refuses the call; the model reads the reason."""
    return {"block": reason}


def cancel(reason: str) -> dict[str, str]:
    """The answer of a ``session_before_*`` hook that refuses the change."""
    return {"cancel": reason}


# -- what a function may use while it is called


def progress(text: str) -> None:
    """Stream text to the client; only within a tool."""
    _extension.send({"type": "progress", "id": _call().id, "text": text})


def is_cancelled() -> bool:
    """Whether nobody waits for this call any more: return soon, the answer will be dropped."""
    return _call().is_cancelled.is_set()


def context() -> dict[str, Any]:
    """Return what is known about this call: ``run_id``, ``session_id``, ``workdir``, as far as they apply."""
    return _call().context


def log(message: str, level: Level = "info") -> None:
    """Write a line into the daemon's log."""
    _extension.send({"type": "log", "level": level, "message": message})


def _call() -> _Call:
    call: _Call | None = getattr(_current, "call", None)
    if call is None:
        raise RuntimeError("this only works in the thread of a call")
    return call


# -- serving


def run(name: str, version: str) -> None:
    """Say hello and serve calls until stdin ends.  Never returns before that."""
    _extension.wire = os.dup(1)
    os.dup2(2, 1)
    _extension.send(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "name": name,
            "version": version,
            "tools": [{"name": tool_name, **shown} for tool_name, (_, shown) in _extension.tools.items()],
            "commands": [{"name": n, "description": text} for n, (_, text) in _extension.commands.items()],
            "hooks": list(_extension.hooks),
        }
    )
    workers = _Workers()
    for raw in iter(sys.stdin.buffer.readline, b""):
        line = json.loads(raw)
        if line["type"] == "call":
            call = _extension.calls[line["id"]] = _Call(line)
            workers.take(call)
        elif line["type"] == "cancel" and (known := _extension.calls.get(line["id"])):
            known.is_cancelled.set()
    # Calls that still run have nobody to answer to.
    os._exit(0)


class _Workers:
    """Threads that are kept: starting one costs more than a hook that does nothing."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[_Call] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def take(self, call: _Call) -> None:
        self._waiting.put(call)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            _answer(self._waiting.get())
            self._idle.release()


def _answer(call: _Call) -> None:
    _current.call = call
    answer: dict[str, Any] = {"type": "result", "id": call.id}
    try:
        answer["value"] = _perform(call)
        _extension.send(answer)
    except ToolError as error:
        _extension.send({"type": "result", "id": call.id, "error": str(error)})
    except BaseException as error:
        traceback.print_exc()
        _extension.send({"type": "result", "id": call.id, "error": f"{type(error).__name__}: {error}"})
    finally:
        _extension.calls.pop(call.id, None)


def _perform(call: _Call) -> Any:
    if call.kind == "tool":
        value = _finished(_extension.tools[call.name][0](**call.input))
        return value if isinstance(value, dict) else {"text": "" if value is None else str(value)}
    function = _extension.hooks[call.name] if call.kind == "hook" else _extension.commands[call.name][0]
    value = _finished(function(call.input))
    return {} if value is None else value


def _finished(value: Any) -> Any:
    """Return what an ``async def`` function comes to; any other value as it is."""
    if not inspect.iscoroutine(value):
        return value
    import asyncio

    return asyncio.run(value)


# -- schemas


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON Schema of a function's parameters, from their annotations and defaults.

    Raises:
        TypeError: a parameter has no annotation that a schema can say; give the schema to :func:`tool` instead.
    """
    hints = get_type_hints(function)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or name not in hints:
            raise TypeError(f"{function.__name__}: the parameter {name} needs an annotation, or give a schema")
        properties[name] = _schema_of_type(hints[name])
        if parameter.default is parameter.empty:
            required.append(name)
        elif parameter.default is not None:
            properties[name]["default"] = parameter.default
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_PLAIN: Final[dict[Any, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    types.NoneType: "null",
}


def _schema_of_type(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is Any:
        return {}
    if origin is Literal:
        return {"enum": list(arguments)}
    if hint is list or origin is list:
        return {"type": "array", "items": _schema_of_type(arguments[0])} if arguments else {"type": "array"}
    if hint is dict or origin is dict:
        return {"type": "object"}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema_of_type(argument) for argument in arguments]}
    raise TypeError(f"no JSON Schema for {hint!r}; give one to the decorator")
