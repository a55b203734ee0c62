"""docs/glossary.md defines each of the project's words, once."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import pytest

from tests.support.home import ROOT
from tests.support.markdown import links

WORDS: Final = (
    "run, turn, message, delta, tool call, session, entry, leaf, branch, compaction, trace, fixture, replay, "
    "divergence, provider, dialect, model call, extension, hook, policy, intent, verdict, decision, approval, request, "
    "subscriber, epoch, seq"
)

PAGE: Final = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def test_each_word_is_defined_once() -> None:
    assert Counter(re.findall(r"^- \*\*([^*]+)\*\*: [A-Z]", PAGE, re.MULTILINE)) == Counter(WORDS.split(", "))


def test_a_definition_is_short() -> None:
    for line in re.findall(r"^- .*$", PAGE, re.MULTILINE):
        assert len(line.split()) <= 45, line


@pytest.mark.parametrize(("page", "target"), [("README.md", "docs/glossary.md"), ("docs/protocol.md", "glossary.md")])
def test_the_pages_that_people_read_first_link_to_it(page: str, target: str) -> None:
    assert target in links((ROOT / page).read_text(encoding="utf-8"))
