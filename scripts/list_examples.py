"""The example programs, as they stand in docs/front-end.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scripts.pages import ROOT

PAGE: Final = Path("docs/front-end.md")

PROGRAMS: Final = (("Python", "python", "front_end.py"), ("Node", "javascript", "front_end.mjs"))


def reference() -> str:
    """Return a section for each program, with its whole text."""
    return "\n\n".join(_section(*program) for program in PROGRAMS)


def _section(title: str, language: str, name: str) -> str:
    text = (ROOT / "docs" / "examples" / name).read_text(encoding="utf-8")
    return f"## The program in {title}\n\n[{name}](examples/{name})\n\n```{language}\n{text}```"
