"""``nous auth check``: which providers have their keys.  Names of variables, never what they hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nous.cli.answer import succeed
from nous.cli.options import OptionParser, add_state_flags, load_settings, parse
from nous.cli.terminal import say
from nous.config.provider import resolve_key
from nous.config.settings import Settings
from nous.errors import NousError
from nous.providers.presets import PRESETS, Preset
from nous.providers.reach import section_of

_STATES: Final = {"set": "set", "unset": "not set", "none": "needs no key"}


def run(arguments: Sequence[str]) -> int:
    """Say which providers have their keys."""
    parser = OptionParser(prog="nous auth", description="Say which providers have their keys. No key is ever shown.")
    parser.add_argument("action", choices=("check",), help="look into the environment")
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    options = parse(parser, arguments)
    settings = load_settings(options).settings
    rows = [check(preset, settings, os.environ) for preset in PRESETS.values()]
    if options.json:
        return succeed(provider=settings.provider.name, keys=rows)
    width = max(len(row["provider"]) for row in rows)
    for row in rows:
        chosen = "*" if row["provider"] == settings.provider.name else " "
        state = _STATES.get(row["state"]) or f"not usable: {row['cause']}"
        say(f"{chosen} {row['provider']:<{width}}  {row['variable'] or '-':<20}  {state}")
    return 0


def check(preset: Preset, settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the state of a provider's key: set, unset, unusable (it cannot be sent), or none where it needs none.

    The configuration's ``api_key_env`` counts for the provider it is set for.  An empty variable is as good as unset.
    """
    section = section_of(settings, preset.name)
    variable = section.api_key_env or preset.key_variable
    row: dict[str, Any] = {"provider": preset.name, "variable": variable, "state": "none"}
    if variable is None:
        return row
    row["state"] = "set" if environ.get(variable) else "unset"
    if row["state"] == "set":
        try:
            resolve_key(section, environ)
        except NousError as error:
            row["state"] = "unusable"
            row["cause"] = error.cause
    return row
