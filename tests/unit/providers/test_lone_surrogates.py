"""Half a surrogate pair in any text of an answer: what leaves the parser can be written, whatever field it stood in."""

from __future__ import annotations

import re

import msgspec
import pytest

from tests.support.vendor_streams import ANSWERS, adapter_of, play, recording

STRING = re.compile(rb'":\s?"')


@pytest.mark.parametrize(("vendor", "name"), [(vendor, name) for vendor in ANSWERS for name in ANSWERS[vendor]])
def test_every_item_can_be_written(vendor: str, name: str) -> None:
    body = recording(vendor, name)
    for match in STRING.finditer(body):
        for half in (rb"\ud83d", rb"\udc00"):
            changed = body[: match.end()] + half + body[match.end() :]
            items, _ = play(adapter_of(vendor).parser(), [changed])
            assert msgspec.json.decode(msgspec.json.encode(items)) is not None
