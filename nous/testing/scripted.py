"""The scripted provider, for Python."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from nous.providers.mock import DEFAULT_MODEL, MockProvider
from nous.providers.settings import ProviderSettings


def scripted_provider(*calls: object, model: str = DEFAULT_MODEL) -> MockProvider:
    """Return a provider whose first model call yields the first of ``calls``, and so on; then it echoes.

    Each is what one entry of a script of ``nous serve --script`` is (see :mod:`nous.providers.script`), a list of steps
    mostly: ``scripted_provider([{"text": "Hello"}])``.

    Raises:
        NousError: ``invalid_config``, naming the call that cannot be understood and what is wrong there.
    """
    with tempfile.TemporaryDirectory(prefix="nous-") as directory:
        path = Path(directory) / "script.ndjson"
        path.write_bytes(b"".join(msgspec.json.encode(call) + b"\n" for call in calls))
        return MockProvider(ProviderSettings(model=model, script=path))
