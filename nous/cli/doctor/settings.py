"""Checks of the configuration: the layers, whose key goes where, and with ``--online`` whether the provider answers."""

from __future__ import annotations

import anyio

from nous.cli.doctor.check import Finding, Situation, enumerate_names, failed, passed, warned
from nous.config.checks import FAKE_PROVIDERS
from nous.config.provider import KEY_VARIABLES, resolve_key
from nous.config.settings import Settings
from nous.errors import NousError
from nous.providers.presets import PRESETS, Preset
from nous.providers.reach import reach, section_of
from nous.providers.registry import list_models


def check_configuration(situation: Situation) -> Finding:
    """All layers are valid and every key in them is known; a project's file that does not count is pointed out."""
    error = situation.config_error
    if error is not None:
        return failed(error.cause or str(error), error.hint or "nous config check")
    loaded = situation.loaded
    project = None if loaded is None else loaded.ignored_project
    if project is not None:
        return warned(f"{project.source.name} does not count: {project.reason}", f"nous trust {situation.workdir}")
    given = 0 if loaded is None else sum(source != "default" for source in loaded.sources.values())
    return passed(f"{given} settings given")


def check_key_sources(situation: Situation) -> Finding:
    """Whose key is sent is plain: one variable holds it, and no other vendor's key goes to this provider."""
    preset = _preset(situation.settings)
    named = situation.settings.provider.api_key_env
    if preset is None or named is None:
        return passed("the vendor's own variable, if any")
    others = sorted(name for name, variable in KEY_VARIABLES.items() if variable == named)
    if others and preset.name not in others:
        return failed(
            f"provider.api_key_env: the key of {enumerate_names(list(others))} would go to {preset.name}",
            f"Put the key of {preset.name} into a variable of its own.",
        )
    own = preset.key_variable
    held, vendors = situation.environ.get(named), situation.environ.get(own or "")
    if own is not None and own != named and held and vendors and held != vendors:
        return warned(f"{named} and {own} hold different keys; {named} is sent", f"unset {own}")
    return passed(named)


def check_provider_key(situation: Situation) -> Finding:
    """The provider has its key.  Which variable holds it is told, never what it holds."""
    preset = _preset(situation.settings)
    if preset is None:
        name = situation.settings.provider.name
        return passed(f"{name} needs none") if name else warned("no provider is named", "nous serve --provider NAME")
    section = section_of(situation.settings, preset.name)
    variable = section.api_key_env or preset.key_variable
    try:
        key = resolve_key(section, situation.environ)
    except NousError as error:
        return failed(error.cause or str(error), error.hint or f"export {variable}=...")
    return passed(f"{preset.name}: {'in ' + str(variable) if key else 'needs none'}")


def check_endpoint(situation: Situation) -> Finding:
    """The provider answers, and takes the key.  Only asked with ``--online``."""
    preset = _preset(situation.settings)
    if preset is None:
        return passed("there is nothing to reach")
    where = section_of(situation.settings, preset.name).api_base or preset.api_base
    try:
        models = anyio.run(list_models, preset.name, reach(situation.settings, preset.name, situation.environ))
    except NousError as error:
        if error.category == "network_permanent":
            return warned(f"{where} answers, but: {error}", error.hint or "Look at provider.api_base.")
        return failed(f"{where}: {error}", error.hint or "Look at provider.api_base and at the network.")
    return passed(f"{where} offers {len(models)} models")


def _preset(settings: Settings) -> Preset | None:
    """Return what is known of the configured provider, if a server stands behind it."""
    name = settings.provider.name
    return None if name is None or name in FAKE_PROVIDERS else PRESETS[name]
