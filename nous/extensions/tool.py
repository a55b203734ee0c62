"""A tool of an extension, behind the port every tool has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from nous.extensions.extension import Extension, ExtensionFailedError
from nous.extensions.pending import CallFailedError, Question
from nous.extensions.wire import ResultLine, ToolDeclaration
from nous.ports.tool import ToolContext, ToolResult
from nous.schemas.checker import CheckFailedError, SchemaChecker


class ExtensionTool:
    """One tool.  ``source`` is ``extension:<name>``.

    Arguments are checked against the published schema before the extension is asked.  What it answers is bounded by its
    ``max_output_bytes``; an error it answers is a result that the model reads, and so is a failure of the extension,
    of which ``on_failed`` is told too.
    """

    def __init__(
        self,
        extension: Extension,
        declaration: ToolDeclaration,
        schemas: SchemaChecker,
        on_failed: Callable[[str, str, ExtensionFailedError], None],
    ) -> None:
        self.name = declaration.name
        self.description = declaration.description
        self.schema = declaration.schema
        self.source = f"extension:{extension.name}"
        self._extension = extension
        self._schemas = schemas
        self._on_failed = on_failed

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Check the arguments against the schema, then have the extension carry out the call."""
        try:
            fault = await self._schemas.find_argument_fault(self.schema, arguments)
        except CheckFailedError as failed:
            return ToolResult(text=f"The tool was not run: the call {failed.reason}.", outcome="error")
        if fault is not None:
            return ToolResult(text=f"Invalid arguments: {fault}.", outcome="invalid_arguments")
        question = Question(
            kind="tool",
            name=self.name,
            given=arguments,
            context={"run_id": context.run_id, "tool_call_id": context.tool_call_id, "workdir": str(context.workdir)},
            timeout_ms=self._extension.policy.tool_timeout_ms,
            read=read_result,
            progress=context.progress,
        )
        try:
            return await self._extension.call(question)
        except ExtensionFailedError as failed:
            self._on_failed(self.name, context.tool_call_id, failed)
            return ToolResult(text=f"The tool failed: {failed.reason}.", outcome="error")


def read_result(result: ResultLine) -> ToolResult:
    """Return what a tool answered: ``{"text": ..., "is_error": ...}`` or an error.

    Raises:
        CallFailedError: it is neither.
    """
    if result.error is not None:
        return ToolResult(text=result.error, outcome="error")
    try:
        answer = msgspec.convert(result.value, ToolAnswer)
    except msgspec.ValidationError as error:
        raise CallFailedError("extension_error", f"its answer is no tool's: {error}") from None
    return ToolResult(text=answer.text, outcome="error" if answer.is_error else "ok")


class ToolAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """What a tool answers: the text the model reads."""

    text: str
    is_error: bool = False
