"""What a run wants done, in the imperative.  The shell performs them and comes back with inputs."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from nous.ports.model import Purpose
from nous.protocol.messages import Message


class CallModel(Struct, frozen=True):
    """Call the model with the path from the root to ``leaf_id``.

    ``digest`` covers everything the model is asked with: that path's messages, tools, system prompt.
    """

    call: int
    purpose: Purpose
    leaf_id: str
    tools: tuple[str, ...]
    digest: str


class StopModel(Struct, frozen=True):
    call: int


class AskPolicy(Struct, frozen=True):
    tool_call_id: str
    tool_name: str
    arguments: dict[str, Any]


class RunTool(Struct, frozen=True):
    tool_call_id: str
    tool_name: str
    arguments: dict[str, Any]


class StopTool(Struct, frozen=True):
    tool_call_id: str


class AppendEntry(Struct, frozen=True):
    """Append ``message`` to the session; it becomes the active leaf."""

    message: Message


class StartTimer(Struct, frozen=True):
    timer: Literal["abort_grace"]
    after_ms: int


Effect = CallModel | StopModel | AskPolicy | RunTool | StopTool | AppendEntry | StartTimer
