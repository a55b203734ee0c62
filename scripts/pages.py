"""Pages of docs/ with a part that is generated: it stands between two marks, the rest is written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def fill_page(path: Path, script: str, content: str) -> bytes:
    """Return a page (relative to the root) with ``content`` between the marks of ``script``."""
    begin, end = (f"<!-- written by scripts/{script}: {place} -->" for place in ("begin", "end"))
    page = (ROOT / path).read_text(encoding="utf-8")
    before, first, rest = page.partition(begin)
    _, second, after = rest.partition(end)
    if not first or not second:
        raise SystemExit(f"{path} has lost its marks")
    return f"{before}{begin}\n{content}\n{end}{after}".encode()


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
