"""Answers about models: which there are, and which one a session uses from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from nous.errors import NousError
from nous.ports.model import KnownProvider, ModelFacts
from nous.protocol import commands as c
from nous.protocol.responses import ModelRow, Models, ModelSet, ProviderRow
from nous.runtime.terms import settle

if TYPE_CHECKING:
    from nous.runtime.handlers import Call


async def list_models(call: Call, payload: c.ListModels) -> Models:
    """Return the providers and models that can be chosen."""
    catalogue = call.connection.daemon.catalogue
    rows = [row for row in catalogue.known() if payload.provider in (None, row.name)]
    if not rows:
        raise NousError("invalid_payload", "provider: no provider of that name")
    default = catalogue.default
    return Models(providers=list(map(_provider_row, rows)), provider=default.provider, model=default.model)


def _provider_row(known: KnownProvider) -> ProviderRow:
    models = [_model_row(model.name, model.facts) for model in known.models]
    return ProviderRow(name=known.name, title=known.title, ready=known.is_ready, models=models)


def _model_row(name: str, facts: ModelFacts) -> ModelRow:
    prices = facts.prices
    return ModelRow(
        id=name,
        context_tokens=facts.context_tokens,
        max_output_tokens=facts.max_output_tokens,
        images=facts.takes_images,
        input_usd_per_mtok=None if prices is None else prices.input_usd_per_mtok,
        cached_usd_per_mtok=None if prices is None else prices.cached_usd_per_mtok,
        output_usd_per_mtok=None if prices is None else prices.output_usd_per_mtok,
    )


async def set_model(call: Call, payload: c.SetModel) -> ModelSet:
    """Choose a session's model, which has to exist for this daemon: it is made here, and refused here."""
    daemon = call.connection.daemon
    session = await daemon.named_or_active_session(payload.session_id)
    terms = settle(daemon, session, None, payload.provider, payload.model, payload.thinking)
    if session is None:
        session = await daemon.session_for_prompt(None, None)
    daemon.check_free(session.id)
    await daemon.set_model(session, terms.choice)
    choice = terms.choice
    return ModelSet(
        session_id=session.id,
        provider=choice.provider,
        model=choice.model,
        thinking=choice.thinking or UNSET,
        leaf_id=session.leaf_id or UNSET,
    )
