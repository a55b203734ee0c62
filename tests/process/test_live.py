"""A real answer of every vendor: what no recording can prove.  Costs a few tokens each.

    LIVE_SMOKE=1 make test          every vendor whose key is set; local servers whose address is given
    LIVE_SMOKE_MODEL_OPENAI=NAME    another model than the cheapest known one (vendor in capitals, - as _)

Without the flag all are skipped.  With it, one is skipped only for want of a key or a model, and says so loudly.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Final

import pytest

from nous.providers.presets import PRESETS, Preset
from tests.support.harness import open_process
from tests.support.home import Home, Setup
from tests.support.lines import Line

pytestmark = pytest.mark.anyio

FLAG: Final = "LIVE_SMOKE"
SECONDS: Final = 120.0
MODELS: Final = {
    "openai": "gpt-5-nano",
    "openai-responses": "gpt-5-nano",
    "anthropic": "claude-haiku-4-5",
    "gemini": "gemini-2.5-flash-lite",
    "kimi": "kimi-k2.5",
    "deepseek": "deepseek-flash",
    "openrouter": "openai/gpt-5-nano",
}
"""The cheapest that does all that is asked for.  Local servers serve what they serve: name it."""

SUM: Final = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}


class LiveTestSkipped(UserWarning):
    """A live test was asked for and could not be made."""


def find_model(preset: Preset) -> str:
    """Return the model to ask; skip, loudly, where there is no key or no model."""
    if os.environ.get(FLAG) != "1":
        pytest.skip(f"{FLAG}=1 asks the real vendors")
    wanted = f"{FLAG}_MODEL_{preset.name.upper().replace('-', '_')}"
    model = os.environ.get(wanted) or MODELS.get(preset.name)
    missing = preset.key_variable if preset.key_variable and not os.environ.get(preset.key_variable) else None
    if model is None or missing is not None:
        lack = f"{preset.name}: {missing or wanted} is not set"
        warnings.warn(LiveTestSkipped(lack), stacklevel=2)
        pytest.skip(lack)
    return model


def text_of(events: list[Line]) -> str:
    return "".join(line.payload["delta"] for line in events if line.type == "message_update")


@pytest.mark.filterwarnings("default::tests.process.test_live.LiveTestSkipped")
@pytest.mark.parametrize("vendor", sorted(PRESETS))
async def test_a_conversation_with_a_tool_and_a_structured_answer(vendor: str, tmp_path: Path) -> None:
    preset = PRESETS[vendor]
    model = find_model(preset)
    home = Home(tmp_path)
    (home.workdir / "password.txt").write_text("The word of the day is heliotrope.\n", encoding="utf-8")
    keys = {} if preset.key_variable is None else {preset.key_variable: os.environ[preset.key_variable]}
    setup = Setup(provider=vendor, flags=("--model", model, "--tools", "read"), environ=keys)
    async with open_process(home, setup, SECONDS) as (peer, _):
        read = await peer.run("Read the file password.txt with your tool and tell me the word of the day.")
        assert read[-1].payload["status"] == "completed", read[-1]
        assert "tool_execution_end" in [line.type for line in read]
        assert "heliotrope" in text_of(read).lower()
        assert read[-1].payload["usage"]["output_tokens"] > 0
        again = await peer.run("Say that word once more, nothing else.")
        assert "heliotrope" in text_of(again).lower()
        summed = await peer.run("What is 20 + 22?", output_schema=SUM)
        assert summed[-1].payload.get("output") == {"sum": 42}, summed[-2:]
