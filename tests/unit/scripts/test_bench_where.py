"""The milestones of a prompt: every one is reached, and in the order that a delta cannot change."""

from __future__ import annotations

import sys

import pytest

from scripts.bench.programs import provider
from scripts.bench.where import MILESTONES, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark's clock is Linux's")


def test_every_milestone_is_reached_by_every_prompt() -> None:
    with provider() as source:
        prompts = measure(source, 8)
    assert len(prompts) == 4
    names = [name for name, _, _ in MILESTONES]
    durable = names.index("the message is durable")
    for prompt in prompts:
        assert set(prompt) == set(range(len(MILESTONES)))
        # The disk and the model's server race; what is done here is done one after the other.
        ours = [prompt[n] for n in range(len(MILESTONES)) if n != durable]
        assert ours == sorted(ours)
        assert prompt[names.index("the request is built")] > 0
        assert prompt[durable] <= prompt[names.index("the first delta is written")]
