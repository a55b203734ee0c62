"""Headings, anchors and links of Markdown pages, as the code host that renders them makes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.support.home import ROOT

PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "protocol").rglob("*.md"), *ROOT.glob(".github/*.md")]
)
"""Every page of the repository."""

_FENCED: Final = re.compile(r"^(```+).*?^\1$", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"(`+).+?\1", re.DOTALL)
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")


def headings(text: str) -> list[str]:
    """Return the headings of a page; lines of its code blocks that begin with ``#`` are none."""
    return _HEADING.findall(_FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings; a second heading of the same name gets ``-1``, and so on."""
    out: set[str] = set()
    for heading in headings(text):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in out:
            number += 1
        out.add(anchor)
    return out


def links(text: str) -> list[str]:
    """Return the targets of a page's links, those to other hosts left out."""
    found = _LINK.findall(_CODE.sub("", _FENCED.sub("", text)))
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links of a page whose file or anchor does not exist."""
    return [target for target in links(text) if not _exists(page, text, target)]


def _exists(page: Path, text: str, target: str) -> bool:
    path, _, anchor = target.partition("#")
    if not path:
        return anchor in anchors(text)
    file = page.parent / path
    if not anchor:
        return file.exists()
    return file.suffix == ".md" and file.is_file() and anchor in anchors(file.read_text(encoding="utf-8"))
