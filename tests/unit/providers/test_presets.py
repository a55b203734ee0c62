"""The table of vendors and presets: complete, and fit to be used."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from nous.config.provider import KEY_VARIABLES
from nous.config.settings import ProviderName
from nous.providers.presets import PRESETS, Preset
from nous.providers.settings import check_api_base, is_loopback_url

ROWS = [*PRESETS.values()]


def test_every_name_of_the_settings_is_a_row_and_every_row_a_name() -> None:
    assert set(PRESETS) == set(get_args(ProviderName)) - {"mock", "replay"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_addresses(row: Preset) -> None:
    assert check_api_base(row.api_base) == row.api_base
    assert is_loopback_url(row.api_base) == (row.key_variable is None)


def test_no_two_local_servers_share_an_address() -> None:
    local = [row.api_base for row in ROWS if row.key_variable is None]
    assert len(set(local)) == len(local) == 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_call_ids_that_nous_makes_itself_fit_everywhere(row: Preset) -> None:
    assert re.fullmatch(row.call_id, "call_" + 24 * "a")


def test_the_variables_are_those_the_vendors_document() -> None:
    assert KEY_VARIABLES == {
        "openai": "OPENAI_API_KEY",
        "openai-responses": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "gemini": "GEMINI_API_KEY",
        "kimi": "MOONSHOT_API_KEY",
        "deepseek": "DEEPSEEK_API_KEY",
        "openrouter": "OPENROUTER_API_KEY",
    }
    assert {row.name: row.key_variable for row in ROWS if row.key_variable} == KEY_VARIABLES
