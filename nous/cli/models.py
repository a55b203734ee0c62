"""``nous models``: every provider and preset, and what is known of their models; with ``--online`` what they list."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
from msgspec import structs

from nous.cli.answer import succeed
from nous.cli.options import OptionParser, add_state_flags, load_settings, parse
from nous.cli.terminal import say
from nous.config.settings import Settings
from nous.errors import NousError
from nous.providers.listing import ListedModel
from nous.providers.models import ModelInfo, ModelTable, load_models
from nous.providers.presets import PRESETS, Preset
from nous.providers.reach import reach, section_of
from nous.providers.registry import list_models

_UNKNOWN: Final = "-"


def run(arguments: Sequence[str]) -> int:
    """List providers and models."""
    options = parse(make_parser(), arguments)
    settings = load_settings(options).settings
    file = settings.provider.models_file
    table = load_models(None if file is None else Path(file))
    presets = chosen(options.only)
    rows = [describe(preset, settings, table) for preset in presets]
    if options.online:
        anyio.run(ask_all, presets, settings, table, rows, options.only is not None)
    if options.json:
        return succeed(providers=rows)
    for row in rows:
        print_provider(row)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``nous models``."""
    parser = OptionParser(prog="nous models", description="List providers, and the models nous knows something about.")
    add_state_flags(parser)
    # Not the setting of that name: an address that was set for one provider must not become another's.
    parser.add_argument("--provider", dest="only", metavar="NAME", help="only this one")
    parser.add_argument("--online", action="store_true", help="ask the providers themselves what models they have")
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


def chosen(name: str | None) -> list[Preset]:
    """Return the providers that were asked for.  Raises ``invalid_usage``."""
    if name is None:
        return [*PRESETS.values()]
    if name not in PRESETS:
        raise NousError("invalid_usage", f"--provider: expected one of {', '.join(PRESETS)}")
    return [PRESETS[name]]


def describe(preset: Preset, settings: Settings, table: ModelTable) -> dict[str, Any]:
    """Return what is known about a provider without asking it."""
    return {
        "name": preset.name,
        "title": preset.title,
        "dialect": preset.dialect,
        "api_base": section_of(settings, preset.name).api_base or preset.api_base,
        "key_variable": preset.key_variable,
        "models": [describe_model(name, info) for name, info in table.rows(preset.name).items()],
    }


def describe_model(name: str, info: ModelInfo) -> dict[str, Any]:
    """Return what is known of a model as ``--json`` shows it."""
    known = {field: value for field, value in structs.asdict(info).items() if value is not None}
    return {"id": name, **known}


async def ask_all(
    presets: Sequence[Preset], settings: Settings, table: ModelTable, rows: Sequence[dict[str, Any]], is_only: bool
) -> None:
    """Put each provider's own list into its row; what goes wrong stands there too, unless it is the only one asked."""

    async def ask(preset: Preset, row: dict[str, Any]) -> None:
        try:
            listed = await list_models(preset.name, reach(settings, preset.name, os.environ))
        except NousError as error:
            if is_only:
                raise
            row["error"] = {"code": error.code, "cause": error.cause}
        else:
            row["models"] = [merge(model, table.find(preset.name, model.id)) for model in listed]

    if is_only:
        await ask(presets[0], rows[0])
        return
    async with anyio.create_task_group() as tasks:
        for preset, row in zip(presets, rows, strict=True):
            tasks.start_soon(ask, preset, row)


def merge(listed: ListedModel, info: ModelInfo | None) -> dict[str, Any]:
    """Return a listed model with what the table knows beyond the vendor's own words."""
    said = {name: value for name, value in structs.asdict(listed).items() if value is not None}
    return (describe_model(listed.id, info) if info is not None else {}) | said


def print_provider(row: dict[str, Any]) -> None:
    """Print a provider with its models."""
    key = row["key_variable"] or "no key"
    say(f"{row['name']}  {row['title']}  {row['api_base']}  ({key})")
    if "error" in row:
        say(f"  {row['error']['code']}: {row['error']['cause']}")
        return
    width = max((len(model["id"]) for model in row["models"]), default=0)
    for model in row["models"]:
        say(f"  {model['id']:<{width}}  {size(model.get('context_tokens')):>6}  {prices(model)}".rstrip())


def size(tokens: int | None) -> str:
    """Return a number of tokens in short."""
    if tokens is None:
        return _UNKNOWN
    return f"{tokens // 1_000_000}M" if tokens >= 1_000_000 else f"{tokens // 1000}K"


def prices(model: dict[str, Any]) -> str:
    """Return a model's prices in words; nothing if they are not known."""
    read, written = model.get("input_usd_per_mtok"), model.get("output_usd_per_mtok")
    return "" if read is None or written is None else f"${read:g} in, ${written:g} out per million tokens"
