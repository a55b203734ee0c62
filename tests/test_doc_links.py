"""Every link, anchor, page and heading that a page or the code names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.home import ROOT
from tests.support.markdown import PAGES, anchors, broken_links, headings

SOURCES: Final = sorted([*(ROOT / "nous").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
PROTOCOL: Final = headings((ROOT / "docs" / "protocol.md").read_text(encoding="utf-8"))
SECTIONS: Final = {heading.partition(".")[0] for heading in PROTOCOL if heading[0].isdigit()}

_PATH: Final = re.compile(r"(?<![\w/.])(docs/[\w./-]*|(?:README|SECURITY|CONTRIBUTING|CHANGELOG)\.md)")
_HEADING: Final = re.compile(r'((?:docs/[\w/-]+|README|SECURITY|CONTRIBUTING)\.md), "([^"]+)"')
_PLACE: Final = re.compile(r"docs/[\w./-]* ?\([\w]|docs/[\w/-]+: ")
_SECTIONS: Final = re.compile(r"(?:protocol v1, |\()sections? (\d+(?:(?:, | and )\d+)*)")


def wrong_citations(text: str) -> list[str]:
    """Return the citations of a source file that lead nowhere.

    A citation is ``docs/PAGE.md``, ``docs/PAGE.md, "Heading"`` or ``protocol v1, section N``.
    """
    flat = re.sub(r"\s+(?:# )?", " ", text).replace('\\"', '"')
    wrong = [place.group() for place in _PLACE.finditer(flat)]
    for path in _PATH.findall(flat):
        name = path.rstrip(".")
        if name == "docs/":
            continue
        if not name.endswith(".md") or not (ROOT / name).is_file():
            wrong.append(path)
    for name, heading in _HEADING.findall(flat):
        if (ROOT / name).is_file() and heading not in headings((ROOT / name).read_text(encoding="utf-8")):
            wrong.append(f'{name}, "{heading}"')
    cited = [number for numbers in _SECTIONS.findall(flat) for number in re.findall(r"\d+", numbers)]
    return wrong + [f"protocol v1, section {number}" for number in cited if number not in SECTIONS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_begins_with_what_it_is_for(page: Path) -> None:
    title, opening = page.read_text(encoding="utf-8").split("\n\n")[:2]
    assert title.startswith("# ")
    assert opening.startswith("This page ")


def test_every_page_and_heading_that_the_code_cites_exists() -> None:
    wrong = {str(path.relative_to(ROOT)): wrong_citations(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_a_broken_link_is_found() -> None:
    page = ROOT / "docs" / "page.md"
    text = "# A page\n\n```sh\n# no heading\n```\n\n[a](protocol.md#1-lines) [b](#a-page) `[c](code.md)`\n"
    assert broken_links(page, text) == []
    broken = "[a](nowhere.md) [b](protocol.md#nowhere) [c](#no-heading)"
    assert broken_links(page, text + broken) == ["nowhere.md", "protocol.md#nowhere", "#no-heading"]
    assert anchors("# Same\n## Same\n## `code`: a, b\n") == {"same", "same-1", "code-a-b"}


@pytest.mark.parametrize(
    "text",
    [
        "Source: docs/hardening (persistence).",
        "Source: docs/runtime-trace (the file).",
        "docs/hardening: exit codes",
        "Source: docs/nowhere.md.",
        'Source: docs/protocol.md,\n    "Nowhere".',
        "Source: protocol v1, section 8.",
        "Source: protocol v1, sections 1, 2 and 8.",
    ],
)
def test_a_wrong_citation_is_found(text: str) -> None:
    assert wrong_citations(text) != []


@pytest.mark.parametrize(
    "text",
    [
        'Source: docs/protocol.md,\n# "2. Order".',
        "See docs/errors.md.",
        "RFC 9112, section 6.3",
        "protocol v1, section 7",
    ],
)
def test_a_right_citation_is_not_found(text: str) -> None:
    assert wrong_citations(text) == []
