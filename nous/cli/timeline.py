"""A run's timeline for a terminal, and as JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nous.cli.terminal import Ink, Style
from nous.cli.transcript import complaint, short_arguments
from nous.replay.show import MessagePart, Notice, ShownTurn, Text, Timeline, ToolPart

SNIPPET_CHARACTERS: Final = 76
LABEL_WIDTH: Final = 9

STATUS_STYLES: Final[dict[str, Style]] = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "aborted": "yellow",
    "max_steps": "yellow",
    "interrupted": "yellow",
}


def write_timeline(ink: Ink, run: Timeline) -> None:
    """Write what happened in a run."""
    _write_head(ink, run)
    for part in run.parts:
        if isinstance(part, ShownTurn):
            ink.line(_time(part.at_ms), (f"turn {part.turn_id}", "bold"), f"  {part.kind}")
            for inner in part.parts:
                _write_part(ink, inner, "  ")
        else:
            _write_part(ink, part, "")
    for queued in run.discarded:
        text = f"{queued.get('kind', '')}: {queued.get('text', '')}"
        ink.line(_time(None), ("discarded", "yellow"), f"  {snippet(text)}")
    ink.line(_time(run.end_ms), (run.status or "no end", STATUS_STYLES.get(run.status, "yellow")), _details(_end(run)))
    ink.flush()


def _write_head(ink: Ink, run: Timeline) -> None:
    model = " ".join(filter(None, (run.provider, run.model)))
    ink.line((run.run_id or "a run without an id", "bold"), _details([model]))
    ink.line((", ".join(filter(None, (run.session_id, run.started_at, f"{run.events} events"))), "dim"))


def _write_part(ink: Ink, part: MessagePart | ToolPart | Notice, indent: str) -> None:
    time = _time(part.at_ms) + indent
    match part:
        case MessagePart():
            if part.thinking:
                ink.line(time, _label("thinking", "dim"), (snippet(part.thinking.beginning), "dim"))
            style: Style = "cyan" if part.role == "user" else "plain"
            ink.line(time, _label(part.role, style), snippet(part.text.beginning), _details(_message(part)))
        case ToolPart():
            style = "red" if part.is_error else "green"
            ink.line(time, _label(part.name, style), short_arguments(part.arguments), _details(_tool(part)))
            if part.is_error:
                ink.line(_time(None) + indent, _label("", "plain"), (snippet(part.result.beginning), "red"))
        case Notice():
            style = {"error": "red", "warning": "yellow"}.get(part.kind, "dim")  # type: ignore[assignment]
            ink.line(time, _label(part.kind, style), _said(part))


def _time(ms: int | None) -> str:
    return " " * 12 if ms is None else f"{ms / 1000:10.3f}  "


def _label(text: str, style: Style) -> tuple[str, Style]:
    return f"{text:<{LABEL_WIDTH}}  ", style


def _details(parts: list[str]) -> tuple[str, Style]:
    text = ", ".join(filter(None, parts))
    return (f"  {text}" if text else ""), "dim"


def _message(part: MessagePart) -> list[str]:
    took = None if part.end_ms is None or part.at_ms is None else part.end_ms - part.at_ms
    size = f"{part.text_bytes} bytes" if (part.text_bytes or 0) > SNIPPET_CHARACTERS else ""
    if part.role == "user":
        return [size]
    reason = "" if part.stop_reason in ("", "stop") else part.stop_reason
    return [tokens(part.usage), size, f"{part.deltas} deltas" if part.deltas > 1 else "", duration(took), reason]


def _tool(part: ToolPart) -> list[str]:
    if part.end_ms is None and part.duration_ms is None and part.is_error is None and not part.result:
        return ["no end"]
    size = f"{part.result_bytes} bytes{' (truncated)' if part.truncated else ''}"
    return ["error" if part.is_error else "ok", duration(part.duration_ms), size]


def _said(part: Notice) -> str:
    if part.kind == "status":
        return part.message
    return complaint({"code": part.code, "message": part.message, "cause": part.cause})


def _end(run: Timeline) -> list[str]:
    reason = "" if run.stop_reason in ("", "stop", run.status) else run.stop_reason
    return [reason, duration(run.duration_ms), tokens(run.usage)]


def tokens(usage: dict[str, int] | None) -> str:
    """Return token counts in few words: ``12 in (8 cached), 34 out (20 reasoning)``."""
    if not usage or not any(usage.values()):
        return ""
    cached, reasoning = usage.get("cached_tokens", 0), usage.get("reasoning_tokens", 0)
    inner = f"{usage.get('input_tokens', 0)} in" + (f" ({cached} cached)" if cached else "")
    return f"{inner}, {usage.get('output_tokens', 0)} out" + (f" ({reasoning} reasoning)" if reasoning else "")


def duration(ms: int | None) -> str:
    """Return a duration for people: nothing where none is known, or the clock was set back meanwhile."""
    if ms is None or ms < 0:
        return ""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def snippet(text: str, limit: int = SNIPPET_CHARACTERS) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "\u2026"


def timeline_json(run: Timeline) -> dict[str, Any]:
    """Return a timeline as plain data; long texts are cut, their sizes are not."""
    fields = {name: value for name, value in msgspec.structs.asdict(run).items() if name not in ("parts", "header")}
    return {**fields, "parts": [_part_json(part) for part in run.parts]}


def _part_json(part: ShownTurn | MessagePart | ToolPart | Notice) -> dict[str, Any]:
    kinds: dict[type, str] = {ShownTurn: "turn", MessagePart: "message", ToolPart: "tool"}
    fields = {name: _plain(value) for name, value in msgspec.structs.asdict(part).items()}
    if isinstance(part, ShownTurn):
        fields["parts"] = [_part_json(inner) for inner in part.parts]
    kind = fields.pop("kind", "") if isinstance(part, Notice) else kinds[type(part)]
    return {"type": kind, **fields}


def _plain(value: object) -> object:
    return value.beginning if isinstance(value, Text) else value
