"""What the daemon and its searching child say to each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nous.tools.search_request import (
    GrepQuery,
    SearchRequest,
    SearchSummary,
    decode_request,
    encode_request,
    encode_summary,
    split_output,
)

texts = st.text(st.characters())


@given(texts, texts, st.none() | texts, st.lists(texts), st.integers(0, 2**31), st.booleans())
def test_a_request_arrives_as_it_was(
    start: str, shown: str, file: str | None, closed: list[str], n: int, b: bool
) -> None:
    query = GrepQuery(pattern=start, ignore_case=b, literal=not b, context=n, ripgrep=file)
    request = SearchRequest(
        start=start,
        start_fd=n,
        shown_start=shown,
        file=file,
        top=start,
        closed=closed,
        glob=file,
        limit=n,
        grep=query if b else None,
    )
    assert decode_request(encode_request(request)) == request


@given(st.binary(), st.integers(0, 2**40), st.booleans(), st.integers(0, 2**40))
def test_a_summary_is_found_behind_any_output(output: bytes, found: int, has_more: bool, unreadable: int) -> None:
    summary = SearchSummary(found, has_more, unreadable)
    assert split_output(output + encode_summary(summary)) == (output, summary)


@given(st.binary(), st.integers(1, 5))
def test_an_output_that_was_cut_has_none(output: bytes, cut: int) -> None:
    whole = output + encode_summary(SearchSummary(1, True, 0))
    found, summary = split_output(whole[:-cut])
    assert summary is None
    assert found == whole[:-cut]
