"""Conversations of all kinds, for property tests: any vendor's answers, calls with and without results, images."""

from __future__ import annotations

from hypothesis import strategies as st

from nous.ports.model import ContextMessage
from nous.protocol.messages import Block, TextBlock, ThinkingBlock
from nous.providers.presets import PRESETS
from tests.support.vendor_requests import PNG, calls, result, results, said, user

WRITERS = [(name, model) for name in PRESETS for model in ("m", "other")] + [("", "")]
TEXTS = st.sampled_from(["", " ", "yes", "\U0001f600 \u2028"])
IDS = st.sampled_from(["toolu_1", "call_2", "functions.read:0", "read:0", "x" * 128, "run-1-m2-t0", "\xfc \n"])
NAMES = st.sampled_from(["read", "ls", "no such tool!", "n" * 90, ""])
ARGUMENTS = st.sampled_from(["", "{}", '{"path": "a"}', '{"pa', "[1]", "null"])
THINKING = st.builds(ThinkingBlock, TEXTS, st.sampled_from([None, "c2ln", "redacted:ZGF0YQ==", '{"type":"reasoning"}']))


@st.composite
def rounds(draw: st.DrawFn, number: int) -> list[ContextMessage]:
    """An answer of anybody's, with the results of its calls: some, all, or none of them, and some of nobody's."""
    ids = draw(st.lists(IDS, max_size=3, unique=True))
    blocks: list[Block] = [*draw(st.lists(THINKING, max_size=2)), TextBlock(draw(TEXTS))]
    blocks += [calls(call_id, draw(NAMES), draw(ARGUMENTS)) for call_id in ids]
    answered = [call_id for call_id in ids if draw(st.booleans())] + draw(st.lists(IDS, max_size=1))
    messages = [said(*draw(st.permutations(blocks)), by=draw(st.sampled_from(WRITERS)), message_id=f"a{number}")]
    for call_id in answered:
        images = [PNG] if draw(st.booleans()) else []
        messages.append(results(result(call_id, draw(TEXTS), is_error=draw(st.booleans())), *images))
    if draw(st.booleans()):
        messages.append(user(draw(TEXTS)))
    return messages


HISTORIES = st.integers(0, 5).flatmap(
    lambda count: st.tuples(*[rounds(number) for number in range(count)]).map(
        lambda parts: [user("begin"), *(message for part in parts for message in part)]
    )
)
