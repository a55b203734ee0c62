"""The tool port: what a tool is told, what it may report, what it answers."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from msgspec import Struct

from nous.protocol.messages import ImageBlock

Outcome = Literal["ok", "error", "not_found", "not_active", "invalid_arguments", "blocked", "crashed"]


class ToolContext(Struct, frozen=True, kw_only=True):
    """What one call may use.

    ``workdir`` is where relative paths start and, with ``outputs_root``, the only place tools may touch.
    ``outputs_dir`` (not made yet) is where this run's long outputs go: ``<state>/outputs/<run_id>``.
    ``state_dir`` is closed to tools but for ``outputs_root``.  ``progress`` streams text to the client; awaiting
    it is the back-pressure: a tool reads no further from its child until it returns.  ``takes_images``: the model that
    reads the result can see images.
    """

    run_id: str
    tool_call_id: str
    workdir: Path
    state_dir: Path
    outputs_root: Path
    outputs_dir: Path
    allow_outside_workdir: bool
    takes_images: bool
    progress: Callable[[str], Awaitable[None]]


class ToolResult(Struct, frozen=True, kw_only=True):
    """What the model (and the client) reads.  ``truncated``: ``text`` is a part; it names where the whole is.

    ``images`` are for the model only; a tool gives them where :attr:`ToolContext.takes_images` lets it.
    """

    text: str
    outcome: Outcome = "ok"
    truncated: bool = False
    images: tuple[ImageBlock, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether the outcome is other than ``ok``."""
        return self.outcome != "ok"


class Tool(Protocol):
    """One tool.  ``schema`` is the published JSON Schema of its arguments.

    ``run`` gets arguments that are a JSON object, validates them itself against ``schema``, and answers a
    :class:`ToolResult` also for a bad call: a bad call is something the model can read, not a failed run.
    Cancelling it must end every process it started; it never raises but for cancellation and bugs.
    """

    name: str
    description: str

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""

    source: str

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Carry out a call.  ``arguments`` fit the schema."""
