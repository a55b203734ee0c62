"""Checks of extensions: may each run, and does it start?  Those that may are started once, as ``nous serve`` does."""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from nous.cli.doctor.check import Finding, Situation, enumerate_names, failed, passed, warned
from nous.cli.serve import secret_variables
from nous.extensions.clearance import find_distrust
from nous.extensions.discovery import Installed, find_installed
from nous.extensions.extension import Extension
from nous.extensions.host import Surroundings, make_extension
from nous.extensions.lapsed import find_removed
from nous.extensions.manifest import Manifest
from nous.extensions.wire import HelloLine
from nous.system.clock import SystemClock
from nous.system.trust import TrustStore


def check_extensions(situation: Situation) -> Finding:
    """Every manifest is valid, everything that is installed may run, and what may run starts."""
    installed = list(_wanted(situation))
    invalid = [f"{one.directory}: {one.fault}" for one in installed if one.fault is not None]
    if invalid:
        return failed(f"not valid: {enumerate_names(invalid)}", "nous ext check")
    untrusted = _untrusted(situation, installed)
    silent = [said for one in installed if one.name not in untrusted and (said := _start(situation, one)) is not None]
    if silent:
        return failed(f"do not start: {enumerate_names(silent)}", "nous ext run DIR")
    if untrusted:
        return warned(f"may not run: {enumerate_names([*untrusted])}", _fix(untrusted))
    return passed(f"{len(installed)} start" if installed else "none")


def check_all_trusted(situation: Situation) -> Finding:
    """Nothing stands where extensions are looked for that may not run, or that somebody switched off by name."""
    installed = list(_wanted(situation))
    untrusted = _untrusted(situation, installed)
    untrusted |= {one.name: _trust(one) for one in installed if one.fault is not None}
    if untrusted:
        return failed(f"may not run: {enumerate_names([*untrusted])}", _fix(untrusted))
    skipped = list(situation.settings.extensions.skip)
    if skipped:
        return warned(f"switched off: {enumerate_names(skipped)}", "Remove them, and them from extensions.skip.")
    return passed(f"{len(installed)} trusted" if installed else "none")


def _wanted(situation: Situation) -> Iterator[Installed]:
    """Yield what a daemon would look at."""
    settings = situation.settings.extensions
    if settings.enabled:
        found = find_installed(situation.workdir, situation.environ)
        yield from (one for one in found if one.name not in settings.skip)


def _untrusted(situation: Situation, installed: list[Installed]) -> dict[str, str]:
    """Return what helps for each extension that may not run or was removed since it was trusted, by name."""
    store = TrustStore(situation.state.root)
    valid = (one for one in installed if one.fault is None)
    untrusted = {one.name: _trust(one) for one in valid if find_distrust(one, store) is not None}
    for lapsed in find_removed(situation.workdir, store, situation.settings.extensions, installed):
        untrusted.setdefault(f"{lapsed.name} (removed)", f"nous ext trust --forget {lapsed.directory}")
    return untrusted


def _trust(one: Installed) -> str:
    return f"nous ext trust {one.directory}"


def _fix(untrusted: dict[str, str]) -> str:
    return next(iter(untrusted.values()))


def _start(situation: Situation, one: Installed) -> str | None:
    """Start an extension and end it; return what is wrong, or None if it said hello."""
    if one.manifest is None:
        return None
    around = Surroundings(
        state_root=situation.state.root,
        workdir=situation.workdir,
        environ=situation.environ,
        closed_names=secret_variables(situation.settings),
        settings=situation.settings.extensions,
        clock=SystemClock(),
    )
    return anyio.run(_try_start, around, one, one.manifest)


async def _try_start(around: Surroundings, one: Installed, manifest: Manifest) -> str | None:
    extension = make_extension(around, one, manifest, _register_nothing)
    async with anyio.create_task_group() as tasks:
        extension.bind(tasks)
        await extension.start()
        tasks.cancel_scope.cancel()
    return None if extension.hello is not None else f"{one.name} ({extension.last_error})"


async def _register_nothing(extension: Extension, hello: HelloLine) -> None:
    """Only whether it starts is asked."""
