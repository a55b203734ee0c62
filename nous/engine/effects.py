"""What a run wants done, in the imperative.  The shell performs them and comes back with inputs."""

from typing import Any

from msgspec import Struct

from nous.engine.inputs import TimerName
from nous.ports.extensions import HookName
from nous.ports.model import Purpose
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message


class CallModel(Struct, frozen=True):
    """Call the model with the path from the root to ``leaf_id``.

    ``digest`` covers everything the model is asked with: that path's messages, tools, system prompt.  With the purpose
    ``compaction`` the model is to summarise what stands before ``first_kept_entry_id``.  ``images_left_out`` names
    messages whose images are left out, in addition to those that answers on the path name.
    """

    call: int
    purpose: Purpose
    leaf_id: str
    tools: tuple[str, ...]
    digest: str
    first_kept_entry_id: str = ""
    instruction: str = ""
    images_left_out: tuple[str, ...] = ()


class StopModel(Struct, frozen=True):
    """Cancel the model call with this number."""

    call: int


class AskPolicy(Struct, frozen=True):
    """Decide whether a tool call may run; answered by ``PolicyAnswered``."""

    tool_call_id: str
    tool_name: str
    arguments: dict[str, Any]


class RunTool(Struct, frozen=True):
    """Run a tool call; answered by ``ToolProgressed`` and one ``ToolDone``."""

    tool_call_id: str
    tool_name: str
    arguments: dict[str, Any]


class StopTool(Struct, frozen=True):
    """Cancel the tool call with this id."""

    tool_call_id: str


class AppendEntry(Struct, frozen=True):
    """Append ``message`` to the session; it becomes the active leaf."""

    message: Message


class PlanCompaction(Struct, frozen=True):
    """Find out what of the path to ``leaf_id`` can be summarised; the compaction will be entry ``entry_id``."""

    entry_id: str
    leaf_id: str
    instruction: str


class AppendCompaction(Struct, frozen=True):
    """Append a compaction to the session.  The active leaf stays what it is."""

    entry: Compaction


class CheckOutput(Struct, frozen=True):
    """Find out whether ``text``, the answer in entry ``entry_id``, is JSON that fits the run's output schema."""

    entry_id: str
    text: str


class CallHook(Struct, frozen=True):
    """Ask the extensions of a hook; ``operation`` counts what a run asks of them, from 1."""

    operation: int
    hook: HookName
    payload: dict[str, Any]


class StopHook(Struct, frozen=True):
    """Cancel the hook with this number."""

    operation: int


class TellHook(Struct, frozen=True):
    """Tell the extensions of a hook something; no answer is waited for."""

    hook: HookName
    payload: dict[str, Any]


class StartTimer(Struct, frozen=True):
    """Answer with ``TimerFired`` after ``delay_ms``."""

    timer: TimerName
    after_ms: int


Effect = (
    CallModel
    | StopModel
    | AskPolicy
    | RunTool
    | StopTool
    | AppendEntry
    | PlanCompaction
    | AppendCompaction
    | CheckOutput
    | CallHook
    | StopHook
    | TellHook
    | StartTimer
)
