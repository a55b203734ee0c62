"""A catalogue of one: for daemons that are given their only provider."""

from __future__ import annotations

from nous.ports.model import KnownModel, KnownProvider, ModelChoice, ModelFacts, Provider


class OneProvider:
    """See :class:`nous.ports.model.Catalogue`.  Whatever is chosen, this one answers."""

    def __init__(self, provider: Provider) -> None:
        self.default = ModelChoice(provider.name, provider.model)
        self._provider = provider

    @property
    def builds(self) -> int:
        """How often the provider's client was built."""
        return self._provider.builds

    def find(self, choice: ModelChoice) -> Provider:
        """Return the provider, whatever is chosen."""
        return self._provider

    def facts(self, provider: str, model: str) -> ModelFacts:
        """Return that nothing is known of the model."""
        return ModelFacts()

    def known(self) -> list[KnownProvider]:
        """Return the one provider with its one model."""
        models = (KnownModel(self._provider.model, ModelFacts()),)
        return [KnownProvider(self._provider.name, self._provider.name, True, models)]

    async def aclose(self) -> None:
        """Close the provider."""
        await self._provider.aclose()
