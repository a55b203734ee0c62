"""Follows one run to its end: shows its events, knows its exit code."""

from __future__ import annotations

from nous.cli.transcript import Writer
from nous.client import Event, EventStream
from nous.client.errors import CommandError, WireError
from nous.errors import EXIT_OK, EXIT_RUNTIME


async def follow_run(stream: EventStream, run_id: str, writer: Writer) -> int:
    """Show a run's events until ``agent_end`` and return the exit code.

    What came together is written together; events of other runs in the stream are passed over.
    """
    failure: int | None = None
    async for event in stream:
        current: Event | None = event
        while current is not None:
            if current.run_id == run_id:
                writer.show(current)
                if current.type == "error":
                    failure = exit_code_of_error(current)
                elif current.type == "agent_end":
                    writer.flush()
                    return exit_code_of_end(current, failure)
            current = stream.take_nowait()
        writer.flush()
    return EXIT_RUNTIME


def exit_code_of_error(event: Event) -> int:
    """Return the exit code an ``error`` event stands for: that of its code, or of its category if the code is new."""
    fields = {name: event.payload[name] for name in ("code", "message", "category") if name in event.payload}
    return CommandError(WireError(**fields), {}).exit_code


def exit_code_of_end(event: Event, failure: int | None) -> int:
    """Return 0 for a completed run, else what it failed with; an aborted run is a runtime failure."""
    status = event.payload.get("status")
    if status == "completed":
        return EXIT_OK
    return failure if status == "failed" and failure is not None else EXIT_RUNTIME
