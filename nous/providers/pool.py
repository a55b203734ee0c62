"""All providers of a daemon: each built when it is first chosen, once, over one HTTP room a vendor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import msgspec

from nous.config.settings import ProviderName
from nous.errors import WIRE_CODES, NousError
from nous.ports.model import KnownModel, KnownProvider, ModelChoice, ModelFacts, Provider
from nous.providers.reach import KeyMissingError
from nous.providers.registry import PROVIDERS, build_provider, build_room
from nous.providers.settings import ProviderSettings

if TYPE_CHECKING:
    from nous.providers.http import HttpRoom
    from nous.providers.models import ModelInfo, ModelTable

MAX_BUILT: Final = 256
"""So many choices are kept built: what is behind them, connections, is kept by vendor."""

Reach = Callable[[ProviderName], ProviderSettings]
"""Returns what a provider is built with but for the model; raises :class:`KeyMissingError` without its key."""

MOCK: Final = "mock"


class KeyNotSetError(NousError):
    """``provider_auth`` for a provider that was not asked, because its key is missing."""

    @property
    def message(self) -> str:
        """The sentence that a client can show alone."""
        return "The provider's key is not set."


class ProviderPool:
    """See :class:`nous.ports.model.Catalogue` for what it promises."""

    def __init__(self, default: ModelChoice, reach: Reach, models_file: Path | None = None) -> None:
        self.default = default
        self._reach = reach
        self._models_file = models_file
        self._rooms: dict[str, HttpRoom] = {}
        self._built: dict[ModelChoice, Provider] = {}

    @property
    def builds(self) -> int:
        """How many HTTP clients were built."""
        return sum(room.builds for room in self._rooms.values())

    def find(self, choice: ModelChoice) -> Provider:
        """Return the provider for a choice; it is built when first chosen."""
        if choice.provider not in PROVIDERS:
            raise NousError("invalid_payload", f"provider: expected one of {', '.join(PROVIDERS)}")
        try:
            return self.build(choice)
        except KeyMissingError as error:
            raise KeyNotSetError("provider_auth", error.cause, hint=error.hint) from None
        except NousError as error:
            if error.code in WIRE_CODES:
                raise
            raise NousError("capability_unavailable", error.cause, hint=error.hint) from None

    def build(self, choice: ModelChoice) -> Provider:
        """Return what answers for ``choice``, with the errors of a command line.

        Raises:
            NousError: what :func:`build_provider` and the way to reach it raise.
        """
        if choice.provider == MOCK:
            # One script for all that it plays.
            choice = ModelChoice(MOCK, self.default.model if self.default.provider == MOCK else MOCK)
        found = self._built.get(choice)
        if found is None:
            found = self._built[choice] = self._make(choice)
            if len(self._built) > MAX_BUILT:
                del self._built[next(iter(self._built))]
        return found

    def _make(self, choice: ModelChoice) -> Provider:
        given = self._reach(cast(ProviderName, choice.provider))
        settings = msgspec.structs.replace(given, model=choice.model, thinking=choice.thinking)
        if choice.provider == MOCK:
            return build_provider(MOCK, settings)
        room = self._rooms.get(choice.provider)
        if room is None:
            room = self._rooms[choice.provider] = build_room(settings)
        return build_provider(choice.provider, settings, room, self._table)

    def facts(self, provider: str, model: str) -> ModelFacts:
        """Return what the table of models knows of a model."""
        info = None if provider == MOCK else self._table.find(provider, model)
        return ModelFacts() if info is None else _facts(info)

    def known(self) -> list[KnownProvider]:
        """Return all providers with the models that the table knows."""
        from nous.providers.presets import PRESETS

        rows = [
            KnownProvider(name, preset.title, self._is_ready(preset.name), self._models(name))
            for name, preset in PRESETS.items()
        ]
        if self.default.provider == MOCK:
            rows.insert(0, KnownProvider(MOCK, "Scripted answers, offline", True, self._models(MOCK)))
        return rows

    def _models(self, provider: str) -> tuple[KnownModel, ...]:
        rows = {} if provider == MOCK else self._table.rows(provider)
        models = {name: _facts(info) for name, info in rows.items()}
        if provider == self.default.provider:
            models.setdefault(self.default.model, self.facts(provider, self.default.model))
        return tuple(KnownModel(name, facts) for name, facts in models.items())

    def _is_ready(self, name: ProviderName) -> bool:
        try:
            self._reach(name)
        except NousError:
            return False
        return True

    @cached_property
    def _table(self) -> ModelTable:
        from nous.providers.models import load_models

        return load_models(self._models_file)

    async def aclose(self) -> None:
        """Close the connections of all providers."""
        for room in self._rooms.values():
            await room.aclose()


def _facts(info: ModelInfo) -> ModelFacts:
    return ModelFacts(
        context_tokens=info.context_tokens,
        max_output_tokens=info.max_output_tokens,
        takes_images=info.images,
        prices=info.prices,
    )
