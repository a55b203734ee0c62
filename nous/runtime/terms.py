"""On what terms a run is made: which model, thinking how much, with which images, for an output of what shape.

All of it is settled before anything is written: a prompt that cannot be carried out leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nous.errors import NousError
from nous.ports.model import Catalogue, ModelChoice, ModelFacts, Provider
from nous.protocol.commands import Image, Prompt
from nous.protocol.entries import ThinkingLevel
from nous.protocol.messages import ImageBlock
from nous.schemas.checker import CheckFailedError, SchemaChecker
from nous.store.session_path import PathView
from nous.store.sessions import Session
from nous.system.steps import complete_async
from nous.system.threads import run_in_thread

if TYPE_CHECKING:
    from nous.runtime.daemon import Daemon

STRUCTURED_OUTPUT_TOOLS: Final = "structured_output_tools"
"""The capability of runs with an output schema that may use tools all the same."""

FAULT_INJECTION: Final = "fault_injection"
"""The capability of runs that faults may have been injected into."""


class RunTerms(NamedTuple):
    """``provider`` answers for ``choice``, about whose model ``facts`` are known."""

    choice: ModelChoice
    provider: Provider
    facts: ModelFacts
    images: tuple[ImageBlock, ...] = ()
    output_schema: dict[str, Any] | None = None
    uses_tools: bool = True


async def settle_prompt(daemon: Daemon, session: Session | None, payload: Prompt) -> RunTerms:
    """Return the terms of a prompt on a session (None: one that is still to be made).

    Raises:
        NousError: ``invalid_payload``, ``provider_auth`` or ``capability_unavailable``; nothing was written.
    """
    leaf_id = payload.leaf_id if session is None or payload.leaf_id is not None else session.leaf_id
    terms = settle(daemon, session, leaf_id, payload.provider, payload.model, payload.thinking)
    path = None
    if session is not None:
        path = await complete_async(session.path_in_steps(session.leaf_id if leaf_id is None else leaf_id))
    images = await take_images(payload.images, terms, path)
    if payload.output_schema is None:
        return terms._replace(images=images)
    return terms._replace(
        images=images,
        output_schema=payload.output_schema,
        uses_tools=daemon.settings.engine.structured_output_tools,
    )


async def check_output_schema(checker: SchemaChecker, schema: dict[str, Any]) -> None:
    """Check that a prompt's output schema can be used.

    Raises:
        NousError: ``invalid_payload``.
    """
    try:
        fault = await checker.check_schema(schema)
    except CheckFailedError as failed:
        fault = f"it {failed.reason}"
    if fault is not None:
        raise NousError("invalid_payload", f"output_schema: {fault.removeprefix('$: ')}")


def settle(
    daemon: Daemon,
    session: Session | None,
    leaf_id: str | None,
    provider: str | None = None,
    model: str | None = None,
    thinking: ThinkingLevel | None = None,
) -> RunTerms:
    """Return the terms of a run that asks for no more than a model.  Raises as :func:`settle_prompt`."""
    in_force = choice_in_force(daemon.catalogue, session, leaf_id)
    choice = choose(daemon.catalogue, in_force, provider, model, thinking)
    return RunTerms(choice, daemon.provider_of(choice), daemon.catalogue.facts(choice.provider, choice.model))


def choice_in_force(catalogue: Catalogue, session: Session | None, leaf_id: str | None = None) -> ModelChoice:
    """Return what a run on a leaf (left out: the active one) uses that asks for nothing else."""
    change = None if session is None else session.model_at(session.leaf_id if leaf_id is None else leaf_id)
    return catalogue.default if change is None else ModelChoice(change.provider, change.model, change.thinking)


def choose(
    catalogue: Catalogue,
    in_force: ModelChoice,
    provider: str | None,
    model: str | None,
    thinking: ThinkingLevel | None,
) -> ModelChoice:
    """Return what is meant by naming some of the three and leaving the others out.

    Another provider needs its model named, unless it is the daemon's own.  How much to think goes with the model: a
    different one thinks as its vendor lets it, unless that is named too.

    Raises:
        NousError: ``invalid_payload``.
    """
    base = in_force
    if provider is not None and provider != in_force.provider:
        if provider == catalogue.default.provider:
            base = catalogue.default
        elif model is None:
            raise NousError("invalid_payload", "model: needed with another provider")
        else:
            base = ModelChoice(provider, model)
    if model is not None and model != base.model:
        base = ModelChoice(base.provider, model)
    return base if thinking is None else ModelChoice(base.provider, base.model, thinking)


async def take_images(images: Sequence[Image] | None, terms: RunTerms, path: PathView | None) -> tuple[ImageBlock, ...]:
    """Return a prompt's images, if the model can see them, and those that the conversation holds already.

    Raises:
        NousError: ``invalid_payload`` for data that is no such image, ``capability_unavailable``.
    """
    model = terms.choice.model
    hint = "Choose a model that does, or say in provider.models_file that this one does."
    if images and terms.facts.takes_images is False:
        raise NousError("capability_unavailable", f"images: the model {model} takes none", hint=hint)
    if terms.facts.takes_images is False and path is not None and path.has_images:
        cause = f"images: the conversation holds some, and the model {model} takes none"
        raise NousError("capability_unavailable", cause, hint=hint)
    if not images:
        return ()
    from nous.runtime.images import check_images

    return await run_in_thread(check_images, images)
