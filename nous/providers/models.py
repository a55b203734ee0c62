"""What nous knows about models: sizes, prices, what they take.  One table, which a user's file can correct.

Prices are the vendors' list prices in US dollars per million tokens, without batch, priority or off-peak rates, as of
November 2026.  They are for orientation: the bill is the vendor's.  A model that is not here works all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from nous.ports.model import Prices
from nous.providers.presets import PRESETS, ThinkingForm

_Tokens = Annotated[int, Meta(ge=1, le=1_000_000_000)]
_Usd = Annotated[float, Meta(ge=0, le=1_000_000)]

_VERSION: Final = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|\d{3}|latest)")
"""What vendors put behind a model's name to say which build of it."""


class ModelInfo(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One model.  None: not known.

    ``efforts`` are the words the model takes for how much to think, least first.  ``always_thinks``: it cannot be
    switched off.  The ``long_`` prices are for calls whose prompt is longer than ``long_prompt_tokens``, all tokens
    of them.  Cached tokens are those read from the vendor's cache; some vendors also charge for those written into it.
    """

    context_tokens: _Tokens | None = None
    max_output_tokens: _Tokens | None = None
    images: bool | None = None
    thinking: ThinkingForm | None = None
    efforts: tuple[str, ...] | None = None
    always_thinks: bool | None = None
    input_usd_per_mtok: _Usd | None = None
    cached_usd_per_mtok: _Usd | None = None
    cache_write_usd_per_mtok: _Usd | None = None
    output_usd_per_mtok: _Usd | None = None
    long_prompt_tokens: _Tokens | None = None
    long_input_usd_per_mtok: _Usd | None = None
    long_cached_usd_per_mtok: _Usd | None = None
    long_cache_write_usd_per_mtok: _Usd | None = None
    long_output_usd_per_mtok: _Usd | None = None

    @property
    def prices(self) -> Prices | None:
        """What it costs; None if that is not known."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        return Prices(
            input_usd_per_mtok=self.input_usd_per_mtok,
            output_usd_per_mtok=self.output_usd_per_mtok,
            cached_usd_per_mtok=self.cached_usd_per_mtok,
            cache_write_usd_per_mtok=self.cache_write_usd_per_mtok,
            long_prompt_tokens=self.long_prompt_tokens,
            long_input_usd_per_mtok=self.long_input_usd_per_mtok,
            long_cached_usd_per_mtok=self.long_cached_usd_per_mtok,
            long_cache_write_usd_per_mtok=self.long_cache_write_usd_per_mtok,
            long_output_usd_per_mtok=self.long_output_usd_per_mtok,
        )

    def corrected(self, by: ModelInfo) -> ModelInfo:
        """Return this row with all that ``by`` knows in place of what stood here."""
        known = {name: value for name in by.__struct_fields__ if (value := getattr(by, name)) is not None}
        return msgspec.structs.replace(self, **known)


Rows = Mapping[str, Mapping[str, ModelInfo]]
"""Rows by vendor and model."""


class ModelTable:
    """Finds what is known about a provider's models.  ``corrections`` win, field by field."""

    def __init__(self, corrections: Rows | None = None) -> None:
        self._corrections = corrections or {}

    def rows(self, provider: str) -> dict[str, ModelInfo]:
        """Return every known model of ``provider``, in the order of the tables."""
        preset = PRESETS.get(provider)
        vendor = preset.models if preset is not None else ""
        rows = dict(_TABLE.get(vendor, {}))
        for section in dict.fromkeys((vendor, provider)):
            for model, row in self._corrections.get(section, {}).items():
                rows[model] = rows.get(model, _NOTHING).corrected(row)
        return rows

    def find(self, provider: str, model: str) -> ModelInfo | None:
        """Return what is known about ``model``, also if its name says which build of it is meant."""
        rows = self.rows(provider)
        name = model.removeprefix("models/")
        if name in rows:
            return rows[name]
        fitting = (known for known in rows if name.startswith(known) and _VERSION.fullmatch(name, len(known)))
        longest = max(fitting, key=len, default=None)
        return None if longest is None else rows[longest]


def load_models(path: Path | None) -> ModelTable:
    """Return the table, corrected by the YAML file at ``path``: providers, their models, fields of :class:`ModelInfo`.

    Raises:
        NousError: ``invalid_config``, its cause ``FILE:LINE: provider.model: what``.
    """
    return ModelTable() if path is None else ModelTable(_read_corrections(path))


def _read_corrections(path: Path) -> dict[str, dict[str, ModelInfo]]:
    from nous.config.yaml_file import parse_yaml, read_source
    from nous.config.yaml_nodes import Node, refuse, show_key
    from nous.errors import NousError

    try:
        source = read_source(path)
    except FileNotFoundError:
        raise NousError("invalid_config", f"provider.models_file: {path}: no such file") from None

    def children(node: Node, place: str) -> dict[str, Node]:
        if not isinstance(node.value, dict):
            refuse(source.name, node.line, place, "expected a mapping")
        return node.value

    root = parse_yaml(source)
    corrections: dict[str, dict[str, ModelInfo]] = {}
    for provider, section in {} if root.value is None else children(root, "").items():
        if provider not in PRESETS:
            refuse(source.name, section.line, show_key(provider), f"expected one of {', '.join(PRESETS)}")
        models = corrections[provider] = {}
        for model, row in children(section, provider).items():
            try:
                models[model] = msgspec.convert(row.plain(), ModelInfo)
            except msgspec.ValidationError as error:
                refuse(source.name, row.line, f"{provider}.{show_key(model)}", str(error))
    return corrections


_NOTHING: Final = ModelInfo()


def _row(
    context: int,
    output: int,
    dollars: tuple[float, float, float],
    long: tuple[int, float, float, float] | None = None,
    *,
    thinking: ThinkingForm = "effort",
    efforts: str = "",
    always: bool = False,
    images: bool = True,
    cache_write: float | None = None,
) -> ModelInfo:
    """Build a row; ``dollars`` are the prices of input, cached input and output, ``long`` from which length others.

    ``cache_write``: what writing into the cache costs, as a multiple of the price of input.
    """
    read, cached, written = dollars
    length, long_read, long_cached, long_written = long or (None, None, None, None)
    return ModelInfo(
        context_tokens=context,
        max_output_tokens=output,
        images=images,
        thinking=thinking,
        efforts=tuple(efforts.split()) or None,
        always_thinks=always,
        input_usd_per_mtok=read,
        cached_usd_per_mtok=cached,
        cache_write_usd_per_mtok=None if cache_write is None else read * cache_write,
        output_usd_per_mtok=written,
        long_prompt_tokens=length,
        long_input_usd_per_mtok=long_read,
        long_cached_usd_per_mtok=long_cached,
        long_cache_write_usd_per_mtok=None if cache_write is None or long_read is None else long_read * cache_write,
        long_output_usd_per_mtok=long_written,
    )


_K: Final = 1_000
_M: Final = 1_000_000
_CLAUDE: Final = "low medium high xhigh max"
_GPT: Final = "none low medium high xhigh"

_CACHE_WRITE: Final = 1.25
"""What Anthropic charges for writing into its cache for five minutes, as a multiple of the price of input."""

_claude: Final = partial(_row, cache_write=_CACHE_WRITE)

_TABLE: Final[Rows] = {
    "anthropic": {
        "claude-fable-5-1": _claude(_M, 128 * _K, (10, 0.25, 50), efforts=_CLAUDE, always=True),
        "claude-fable-5": _claude(_M, 128 * _K, (10, 1, 50), efforts=_CLAUDE, always=True),
        "claude-opus-5-5": _claude(_M, 128 * _K, (4, 0.2, 20), efforts=_CLAUDE, always=True),
        "claude-opus-5": _claude(_M, 128 * _K, (5, 0.5, 25), efforts=_CLAUDE),
        "claude-opus-4-8": _claude(_M, 128 * _K, (5, 0.5, 25), efforts=_CLAUDE),
        "claude-opus-4-7": _claude(_M, 128 * _K, (5, 0.5, 25), efforts=_CLAUDE),
        "claude-opus-4-6": _claude(_M, 128 * _K, (5, 0.5, 25), efforts="low medium high max"),
        "claude-opus-4-5": _claude(200 * _K, 64 * _K, (5, 0.5, 25), thinking="budget"),
        "claude-sonnet-5-5": _claude(_M, 128 * _K, (2, 0.1, 10), efforts=_CLAUDE, always=True),
        "claude-sonnet-5": _claude(_M, 128 * _K, (2, 0.2, 10), efforts="low medium high max"),
        "claude-sonnet-4-6": _claude(_M, 64 * _K, (3, 0.3, 15), efforts="low medium high"),
        "claude-sonnet-4-5": _claude(200 * _K, 64 * _K, (3, 0.3, 15), thinking="budget"),
        "claude-haiku-5-5": _claude(
            _M, 128 * _K, (0.1, 0.01, 0.5), (100 * _K, 0.5, 0.05, 2.5), efforts="low medium high"
        ),
        "claude-haiku-4-5": _claude(200 * _K, 64 * _K, (1, 0.1, 5), thinking="budget"),
    },
    "openai": {
        "gpt-6-astra": _row(
            1_050_000, 128 * _K, (10, 1, 50), (272 * _K, 20, 2, 75), efforts="low medium high xhigh max", always=True
        ),
        "gpt-5.6": _row(1_050_000, 128 * _K, (2, 0.2, 10), (272 * _K, 4, 0.4, 15), efforts=f"{_GPT} max"),
        "gpt-5.5": _row(1_050_000, 128 * _K, (5, 0.5, 30), (272 * _K, 10, 1, 45), efforts=_GPT),
        "gpt-5.4": _row(1_050_000, 128 * _K, (2.5, 0.25, 15), efforts=_GPT),
        "gpt-5.2": _row(400 * _K, 128 * _K, (1.75, 0.175, 14), efforts=_GPT),
        "gpt-5.1": _row(400 * _K, 128 * _K, (1.25, 0.125, 10), efforts="none low medium high"),
        "gpt-5": _row(400 * _K, 128 * _K, (1.25, 0.125, 10), efforts="minimal low medium high", always=True),
        "gpt-5-mini": _row(400 * _K, 128 * _K, (0.25, 0.025, 2), efforts="minimal low medium high", always=True),
        "gpt-5-nano": _row(400 * _K, 128 * _K, (0.05, 0.005, 0.4), efforts="minimal low medium high", always=True),
        "o3": _row(200 * _K, 100 * _K, (2, 0.5, 8), efforts="low medium high", always=True),
        "o4-mini": _row(200 * _K, 100 * _K, (1.1, 0.275, 4.4), efforts="low medium high", always=True),
        "gpt-4.1": _row(1_047_576, 32_768, (2, 0.5, 8), thinking="none"),
        "gpt-4.1-mini": _row(1_047_576, 32_768, (0.4, 0.1, 1.6), thinking="none"),
        "gpt-4.1-nano": _row(1_047_576, 32_768, (0.1, 0.025, 0.4), thinking="none"),
        "gpt-4o": _row(128 * _K, 16_384, (2.5, 1.25, 10), thinking="none"),
        "gpt-4o-mini": _row(128 * _K, 16_384, (0.15, 0.075, 0.6), thinking="none"),
    },
    "gemini": {
        # The price until the end of 2026; it doubles then.
        "gemini-3.8-flash": _row(1_048_576, 65_536, (0.75, 0.075, 3.75), efforts="low medium high", always=True),
        "gemini-3.5-flash": _row(1_048_576, 65_536, (1.5, 0.15, 9), efforts="minimal low medium high", always=True),
        "gemini-3.1-pro-preview": _row(
            1_048_576, 65_536, (2, 0.2, 12), (200 * _K, 4, 0.4, 18), efforts="low medium high", always=True
        ),
        "gemini-3.1-flash-lite": _row(
            1_048_576, 65_536, (0.25, 0.025, 1.5), efforts="minimal low medium high", always=True
        ),
        "gemini-2.5-pro": _row(
            1_048_576, 65_536, (1.25, 0.125, 10), (200 * _K, 2.5, 0.25, 15), thinking="budget", always=True
        ),
        "gemini-2.5-flash": _row(1_048_576, 65_536, (0.3, 0.03, 2.5), thinking="budget"),
        "gemini-2.5-flash-lite": _row(1_048_576, 65_536, (0.1, 0.01, 0.4), thinking="budget"),
    },
    "kimi": {
        "kimi-k3": _row(1_048_576, 1_048_576, (3, 0.3, 15), efforts="low high max", always=True),
        "kimi-k2.6": _row(262_144, 262_144, (0.95, 0.16, 4), thinking="toggle"),
        "kimi-k2.5": _row(262_144, 262_144, (0.6, 0.1, 3), thinking="toggle"),
    },
    "deepseek": {
        "deepseek-v4-pro": _row(
            _M, 384 * _K, (1.32, 0.044, 3.96), thinking="toggle_effort", efforts="high max", images=False
        ),
        "deepseek-flash": _row(_M, 393_216, (0.3, 0.006, 1.2), thinking="toggle_effort", efforts="low high max"),
    },
}
