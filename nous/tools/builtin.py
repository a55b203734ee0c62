"""What the built-in tools have in common: arguments in, a result out, whatever goes wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Final, Generic

from nous.ports.tool import ToolContext, ToolResult
from nous.tools.arguments import ArgumentsT, InvalidArgumentsError, decode_arguments, schema_of
from nous.tools.failure import ToolFailure


class BuiltinTool(ABC, Generic[ArgumentsT]):
    """A tool of nous's own behind :class:`nous.ports.tool.Tool`.

    A subclass names its arguments' struct and implements :meth:`execute`, which answers or raises
    :class:`ToolFailure`; anything else it raises is a bug.
    """

    tool_name: ClassVar[str]
    summary: ClassVar[str]
    shape: type[ArgumentsT]

    def __init__(self) -> None:
        self.name: str = self.tool_name
        self.description: str = self.summary
        self.source: str = "builtin"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Made when a model is first told of the tool: no start waits for it."""
        return schema_of(self.shape)

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Check the arguments, carry out the call, and say in words what went wrong."""
        try:
            decoded = decode_arguments(self.name, self.prepare(arguments), self.shape)
            return await self.execute(decoded, context)
        except InvalidArgumentsError as error:
            return ToolResult(text=str(error), outcome="invalid_arguments")
        except ToolFailure as failure:
            return ToolResult(text=str(failure), outcome="error")

    def prepare(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with aliases resolved that are more than another name.

        Raises:
            InvalidArgumentsError: an alias does not say what it should.
        """
        return arguments

    @abstractmethod
    async def execute(self, arguments: ArgumentsT, context: ToolContext) -> ToolResult:
        """Carry out a call whose arguments were checked."""


PATH_HELP: Final = "Relative paths start at the working directory; ~, $HOME and $PWD are expanded."
