"""Extensions of a project that were trusted once and may not run now: changed, invalid or removed since.

They count as failed.  What they hooked with ``block``, by the manifest that was trusted, is blocked until they are
trusted again or forgotten: a guard must not be switched off by changing its files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from nous.config.settings import ExtensionsSettings, OnFailure
from nous.config.yaml_nodes import SourceFile
from nous.errors import NousError
from nous.extensions.discovery import Installed
from nous.extensions.manifest import MANIFEST_NAME, Manifest, parse_manifest
from nous.extensions.places import is_of_project
from nous.extensions.policy import default_on_failure
from nous.ports.extensions import TOLD_HOOKS, HookCall, HookName, HookOutcome, HookWarning
from nous.system.trust import TrustRecord, TrustStore

MESSAGE: Final = "An extension that was trusted may not run as it is now."


class Lapsed(Struct, frozen=True, kw_only=True):
    """One such extension.

    ``directory`` is where it was trusted, links resolved.  ``is_missing``: nothing is installed there any more.
    ``reason`` says why it may not run and what to do.
    """

    name: str
    directory: Path
    is_missing: bool
    reason: str
    on_failure: Mapping[HookName, OnFailure]

    def fail(self, call: HookCall) -> HookOutcome | None:
        """Return what a hook comes to, or None if the extension has no such hook."""
        meaning = self.on_failure.get(call.hook)
        if meaning is None:
            return None
        warning = HookWarning(
            code="extension_error",
            message=MESSAGE,
            extension=self.name,
            hook=call.hook,
            operation_id=call.operation_id,
            reason=self.reason,
        )
        block = f"the extension {self.name} could not be asked: {self.reason}" if meaning == "block" else None
        return HookOutcome(block=block, warnings=(warning,))


def find_lapsed(
    workdir: Path,
    store: TrustStore,
    settings: ExtensionsSettings,
    started: Collection[Path],
    faults: Mapping[Path, NousError],
) -> list[Lapsed]:
    """Return the lapsed extensions of a project.  Reads the trust records.

    ``started`` and the keys of ``faults`` are directories, links resolved: what runs, and what was found and does not.
    """
    found = []
    for record in store.records():
        directory = Path(record.path)
        if directory in started or not (directory in faults or is_of_project(record, workdir)):
            continue
        manifest = _trusted_manifest(record)
        name = directory.name if manifest is None else manifest.name
        if name in settings.skip:
            continue
        fault = faults.get(directory)
        places = " or ".join(record.installed_at or (record.path,))
        cause = f"{places} was removed since it was trusted" if fault is None else str(fault.cause or fault)
        reason = f"{cause} (nous ext trust {directory}, or nous ext trust --forget {directory})"
        on_failure = _on_failure(manifest, settings.on_failure.get(name))
        found.append(
            Lapsed(name=name, directory=directory, is_missing=fault is None, reason=reason, on_failure=on_failure)
        )
    return found


def find_removed(
    workdir: Path, store: TrustStore, settings: ExtensionsSettings, installed: Collection[Installed]
) -> list[Lapsed]:
    """Return the trusted extensions of a project that are not installed any more.  Reads the trust records."""
    if not settings.enabled:
        return []
    present = {one.directory.resolve() for one in installed}
    return find_lapsed(workdir, store, settings, present, {})


def _on_failure(manifest: Manifest | None, override: OnFailure | None) -> dict[HookName, OnFailure]:
    """Return what the failure of each hook means; what nobody waits for cannot fail."""
    if manifest is None:
        # Trusted by a version that kept no manifest: it may have been a guard.
        return {"tool_call": "block"}
    hooks = (hook for hook in manifest.hooks if hook not in TOLD_HOOKS)
    return {hook: override or manifest.on_failure.get(hook, default_on_failure(hook)) for hook in hooks}


def _trusted_manifest(record: TrustRecord) -> Manifest | None:
    if record.content is None:
        return None
    try:
        return parse_manifest(SourceFile(str(Path(record.path) / MANIFEST_NAME), record.content.encode()))
    except NousError:
        return None
